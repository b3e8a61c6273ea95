//! Starts and restarts partitions. The start rule decides where a partition begins, and each start creates a new
//! assignment.

use std::sync::Arc;

use super::{
    Halt, Intake, LOCATE_AGAIN_MS, Output, Pipeline, Publish, Running, Slot, SlotState, Tables,
};
use crate::clock::SteadyMs;
use crate::event::Offset;
use crate::keys;
use crate::publication::Progress;
use crate::restart::{Boundary, Start, StartFacts, start};
use crate::worker::{Place, Worker};

impl Pipeline {
    /// Starts the partitions that were newly assigned to the consumer.
    pub fn assigned(&mut self, now_ms: SteadyMs, partitions: &[i32]) {
        for &partition in partitions {
            if self.is_draining(partition) {
                // The shell may still wait for the drain of the former assignment, so the pipeline must output
                // [`Output::Released`].
                self.give_up(partition);
            } else {
                self.drop_slot(partition);
            }
            self.begin(now_ms, partition);
        }
    }

    fn begin(&mut self, now_ms: SteadyMs, partition: i32) {
        let assignment = self.next_assignment;
        self.next_assignment += 1;
        let state = SlotState::Starting { loss_told: false };
        self.slots.insert(partition, Slot { assignment, state });
        self.outputs.push_back(Output::Locate {
            partition,
            assignment,
            not_before_ms: now_ms,
        });
    }

    /// Applies the start rule to the facts about a partition, and starts the partition if the rule allows it.
    pub fn located(
        &mut self,
        now_ms: SteadyMs,
        partition: i32,
        assignment: u64,
        facts: &StartFacts,
        tables: &Tables,
    ) {
        let continue_on_loss = self.options.continue_on_loss;
        self.tables_read(&facts.tables_id, facts.tables_read_ms);
        let Some(loss_told) = self.starting(partition, assignment) else {
            return;
        };
        if !self.identity.is(&facts.tables_id) {
            // A newer read has returned another id of the tables, so these facts are outdated.
            return self.not_located(now_ms, partition, assignment);
        }
        let log_key: Arc<str> = keys::log_key(&facts.topic_id, partition).into();
        let start = start(facts);
        if !continue_on_loss && let Some(halt) = halt_on_loss(partition, start) {
            return self.halt(halt);
        }
        match start {
            Start::At(at) => {
                // After a truncation of the log, the sums are unknown, because the tables may count some of the removed
                // records.
                let sums = at.sums.filter(|_| !loss_told);
                let at = Boundary { sums, ..at };
                self.run(now_ms, partition, facts, tables, log_key, at);
            }
            Start::Create(boundary) => {
                self.outputs.push_back(Output::CreateProgress(Publish {
                    partition,
                    assignment,
                    log_key,
                    tables_id: facts.tables_id.clone(),
                    boundary,
                    watermark_ms: None,
                }));
            }
            Start::Unreadable(next) => self.halt(Halt::Unreadable {
                partition,
                next,
                progress: facts.progress,
            }),
            Start::Expired { from, to } => {
                self.lost(partition, from.next, to);
                // The sums are unknown, because the tables may count some of the lost records.
                let (next, sums) = (to, None);
                let at = Boundary { next, sums, ..from };
                self.run(now_ms, partition, facts, tables, log_key, at);
            }
            Start::Truncated { from, end } => {
                if !loss_told {
                    self.lost(partition, end, from.next);
                }
                self.wait_for_log(now_ms, partition, assignment);
            }
            Start::Replaced { from, since } => {
                if !loss_told {
                    self.lost(partition, since, from.next);
                }
                // The sums are unknown, because the tables count the replaced records and not the new records.
                let at = Boundary { sums: None, ..from };
                self.run(now_ms, partition, facts, tables, log_key, at);
            }
        }
    }

    fn lost(&mut self, partition: i32, from: Offset, to: Offset) {
        self.outputs.push_back(Output::Lost {
            partition,
            from,
            to,
        });
    }

    /// Waits until a truncated log has grown to the restart point again. New records below the restart point have the
    /// offsets of lost records that the tables count, so the fences would reject the new records.
    fn wait_for_log(&mut self, now_ms: SteadyMs, partition: i32, assignment: u64) {
        let slot = self.slots.get_mut(&partition).expect("starting");
        slot.state = SlotState::Starting { loss_told: true };
        self.not_located(now_ms, partition, assignment);
    }

    /// Notes that the shell could not look up the facts that decide where a partition starts. The pipeline requests the
    /// facts again after a wait.
    pub fn not_located(&mut self, now_ms: SteadyMs, partition: i32, assignment: u64) {
        if self.starting(partition, assignment).is_some() {
            self.outputs.push_back(Output::Locate {
                partition,
                assignment,
                not_before_ms: now_ms + LOCATE_AGAIN_MS,
            });
        }
    }

    fn starting(&self, partition: i32, assignment: u64) -> Option<bool> {
        match self.slots.get(&partition)? {
            Slot {
                assignment: a,
                state: SlotState::Starting { loss_told },
            } if *a == assignment => Some(*loss_told),
            _ => None,
        }
    }

    pub(super) fn halt(&mut self, halt: Halt) {
        self.outputs.push_back(Output::Halt(halt));
    }

    fn run(
        &mut self,
        now_ms: SteadyMs,
        partition: i32,
        facts: &StartFacts,
        tables: &Tables,
        log_key: Arc<str>,
        at: Boundary,
    ) {
        let slot = self.slots.get_mut(&partition).expect("starting");
        let place = Place {
            topic: Arc::clone(&self.options.topic),
            partition,
            assignment: slot.assignment,
            log_key,
            rules: tables.rules,
            keep: tables.keep,
            row_interval_ms: self.options.row_interval_ms,
        };
        let progress = Progress::new(facts.progress.unwrap_or(at), now_ms);
        slot.state = SlotState::Running(Box::new(Running {
            worker: Worker::new(place, at),
            topic_id: facts.topic_id.clone(),
            tables_id: facts.tables_id.clone(),
            committed: facts.own_commit(),
            progress,
            deadline_ms: None,
            intake: Intake::Contiguous,
        }));
        self.outputs.push_back(Output::Begin {
            partition,
            assignment: slot.assignment,
            next: at.next,
        });
    }

    /// Restarts a partition with a new assignment. The start rule decides where the partition begins.
    pub(super) fn restart(&mut self, now_ms: SteadyMs, partition: i32) {
        self.drop_slot(partition);
        self.outputs.push_back(Output::Hold { partition });
        self.begin(now_ms, partition);
    }

    /// Processes the topic's current id. The pipeline restarts each running partition that reads the log of another
    /// topic id.
    ///
    /// The pipeline releases a draining partition of another topic id without a commit, because its log no longer
    /// exists.
    pub fn topic_seen(&mut self, now_ms: SteadyMs, topic_id: &str) {
        let concerned = |(partition, slot): (&i32, &Slot)| match &slot.state {
            SlotState::Running(running) => (running.topic_id != topic_id).then_some(*partition),
            SlotState::Starting { .. } => None,
        };
        let concerned: Vec<i32> = self.slots.iter().filter_map(concerned).collect();
        for partition in &concerned {
            if self.is_draining(*partition) {
                self.give_up(*partition);
            } else {
                self.restart(now_ms, *partition);
            }
        }
    }
}

/// Returns the reason why the consumer must stop if the start rule has found a loss of records.
fn halt_on_loss(partition: i32, start: Start) -> Option<Halt> {
    match start {
        Start::Expired { from, to } => Some(Halt::Expired {
            partition,
            from: from.next,
            to,
        }),
        Start::Truncated { from, end } => Some(Halt::Truncated {
            partition,
            from: from.next,
            end,
        }),
        Start::Replaced { from, since } => Some(Halt::Replaced {
            partition,
            from: from.next,
            since,
        }),
        Start::At(_) | Start::Create(_) | Start::Unreadable(_) => None,
    }
}
