//! All partitions of one consumer: the pure heart of `consume`.
//!
//! Facts come in through methods, each with `now_ms`; what the shell must do comes out of
//! [`Pipeline::poll_output`], to be drained before the next fact. The shell only carries: it finds
//! the facts of a start, seeks, sends batches and updates, commits, publishes, and reports back what
//! became of each. Every decision is made here, so a simulation can drive it through any order of
//! answers, losses and rebalances.
//!
//! A partition's life:
//!
//! | state | begins with | ends with |
//! |---|---|---|
//! | starting | [`Pipeline::assigned`], or its log changed | [`Pipeline::located`] says where |
//! | running | [`Output::Begin`] | [`Pipeline::revoked`], loss, or another topic id |
//! | draining | [`Pipeline::revoked`] | all durable, or the deadline: [`Output::Released`] |
//!
//! Invariants: only [`Worker::durable`] is offered for commit (INV-1, INV-6), and a worker's offsets are contiguous but
//! for confirmed gaps (`intake`); answers that name an earlier
//! assignment change nothing (INV-3); an assignment ends with all of its state (INV-4); records dropped
//! with it are counted as given up (INV-7).

mod commit;
mod intake;
mod output;
mod start;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::batch::{Batch, BatchOutcome, PutQueue};
use crate::ledger::Ledger;
use crate::pace::{Concurrency, backoff_ms};
use crate::plan::{Put, PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::restart::{Boundary, Progress};
use crate::stall::StallDetector;
use crate::table_identity::TableIdentity;
use crate::worker::{Tally, Worker, Write};

use intake::Intake;
pub use output::{CommitPart, Halt, Options, Output, Publish, Report, Tables};

/// Least time between two commits, in milliseconds.
pub const COMMIT_INTERVAL_MS: i64 = 1_000;
/// Time until a start that could not be decided is tried again, in milliseconds.
pub const LOCATE_AGAIN_MS: i64 = 1_000;

#[derive(Clone, Debug)]
struct Running {
    worker: Worker,
    topic_id: String,
    tables_id: String,
    /// What the group has committed; nothing at first where the start came from the tables.
    committed: Option<Boundary>,
    progress: Progress,
    /// Set by a revoke: when to give up waiting.
    deadline_ms: Option<i64>,
    intake: Intake,
}

#[derive(Clone, Debug)]
enum State {
    Starting { loss_told: bool },
    Running(Box<Running>),
}

#[derive(Clone, Debug)]
struct Slot {
    assignment: u64,
    state: State,
}

/// All partitions of one consumer.
#[derive(Clone, Debug)]
pub struct Pipeline {
    options: Options,
    slots: BTreeMap<i32, Slot>,
    next_assignment: u64,
    raw: PutQueue,
    alerts: PutQueue,
    updates: Concurrency,
    outputs: VecDeque<Output>,
    writes: Vec<Write>,
    identity: TableIdentity,
    /// Nothing is written to the tables now.
    held: bool,
    /// Nothing is written to the tables any more.
    halted: bool,
    /// Progress items to move, unless the tables turn out not to be trusted.
    publishes: Vec<Publish>,
    /// Progress items that are missing, and since when that is known.
    missing: Vec<(i64, Publish)>,
    stalls: StallDetector,
    /// The last write that ended failed.
    writes_fail: bool,
    /// Boundaries whose commit waits for the topic check, or is under way.
    commit: Option<Vec<CommitPart>>,
    last_commit_ms: i64,
    /// Whose rows are updated, and since when.
    turn: (i32, i64),
    ledger: Ledger,
    tally: Tally,
}

impl Pipeline {
    /// Returns a pipeline without partitions.
    pub fn new(options: Options) -> Pipeline {
        let concurrency = || Concurrency::new(options.requests_max.min(8), options.requests_max);
        Pipeline {
            raw: PutQueue::new(PutTable::Raw, concurrency()),
            alerts: PutQueue::new(PutTable::Alerts, concurrency()),
            updates: concurrency(),
            stalls: StallDetector::new(options.stall_ms),
            options,
            slots: BTreeMap::new(),
            next_assignment: 1,
            outputs: VecDeque::new(),
            writes: Vec::new(),
            identity: TableIdentity::default(),
            held: false,
            halted: false,
            publishes: Vec::new(),
            missing: Vec::new(),
            writes_fail: false,
            commit: None,
            last_commit_ms: i64::MIN,
            turn: (0, i64::MIN),
            ledger: Ledger::default(),
            tally: Tally::default(),
        }
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells whether a partition is still had by this assignment.
    pub fn has(&self, partition: i32, assignment: u64) -> bool {
        let slot = self.slots.get(&partition);
        slot.is_some_and(|slot| slot.assignment == assignment)
    }

    /// Moves what the workers want written to where it is sent from.
    fn send_writes(&mut self, now_ms: i64) {
        for write in self.writes.drain(..) {
            match write {
                Write::Put(PutTable::Raw, put) => self.raw.push(now_ms, put),
                Write::Put(PutTable::Alerts, put) => self.alerts.push(now_ms, put),
                Write::Reject(ticket, rejected) => {
                    self.outputs.push_back(Output::Reject(ticket, rejected));
                }
            }
        }
    }

    fn running(&mut self, partition: i32, assignment: u64) -> Option<&mut Running> {
        let slot = self.slots.get_mut(&partition)?;
        if slot.assignment != assignment {
            return None;
        }
        match &mut slot.state {
            State::Running(running) => Some(running),
            State::Starting { .. } => None,
        }
    }

    /// Takes partitions away: they drain for at most `drain_ms_max`, unless they are `lost` already.
    /// Each ends with [`Output::Released`].
    pub fn revoked(&mut self, now_ms: i64, partitions: &[i32], lost: bool, drain_ms_max: i64) {
        for &partition in partitions {
            match self.slots.get_mut(&partition).map(|slot| &mut slot.state) {
                Some(State::Running(running)) if !lost && !self.halted => {
                    // A later request to hand over makes no earlier one longer.
                    let deadline_ms = now_ms.saturating_add(drain_ms_max);
                    let earlier = running.deadline_ms.unwrap_or(i64::MAX);
                    running.deadline_ms = Some(deadline_ms.min(earlier));
                    running.worker.drain(now_ms);
                    self.tally.bytes_freed += running.close_intake();
                }
                _ => self.give_up(partition),
            }
        }
    }

    /// Releases a partition with nothing to commit.
    fn give_up(&mut self, partition: i32) {
        self.drop_slot(partition);
        self.outputs.push_back(Output::Released {
            partition,
            commit: None,
            publish: None,
        });
    }

    /// Ends an assignment with all of its state.
    fn drop_slot(&mut self, partition: i32) {
        self.collect(partition);
        let Some(slot) = self.slots.remove(&partition) else {
            return;
        };
        self.stalls.revoked(partition);
        if let State::Running(mut running) = slot.state {
            self.tally.bytes_freed += running.close_intake();
            self.ledger.given_up += running.worker.in_flight() as u64;
            self.tally.bytes_freed += running.worker.bytes();
            let live = |put: &Put| put.ticket.partition != partition;
            self.raw.retain(live);
            self.alerts.retain(live);
        }
    }

    fn is_draining(&self, partition: i32) -> bool {
        matches!(
            self.slots.get(&partition).map(|s| &s.state),
            Some(State::Running(r)) if r.deadline_ms.is_some()
        )
    }

    /// Takes the answer to a batch.
    pub fn batch_answered(
        &mut self,
        now_ms: i64,
        batch: Batch,
        outcome: &BatchOutcome,
        chance: u32,
    ) {
        self.writes_fail = !matches!(outcome, BatchOutcome::Stored { .. } | BatchOutcome::Invalid);
        let table = batch.table;
        let queue = match table {
            PutTable::Raw => &mut self.raw,
            PutTable::Alerts => &mut self.alerts,
        };
        let slots = &self.slots;
        // Of an assignment that has ended nothing is sent again.
        let live = |put: &Put| {
            let slot = slots.get(&put.ticket.partition);
            slot.is_some_and(|slot| slot.assignment == put.ticket.assignment)
        };
        let settled = queue.answered(now_ms, batch, outcome, chance, live);
        for put in settled.stored {
            self.put_done(table, put.ticket);
        }
        if let Some(put) = settled.refused {
            self.outputs.push_back(Output::Refused(table, put));
        }
    }

    fn put_done(&mut self, table: PutTable, ticket: Ticket) {
        if let Some(running) = self.running(ticket.partition, ticket.assignment) {
            running.worker.put_done(table, ticket.seq);
        }
    }

    /// Takes the outcome of a row update.
    pub fn update_answered(
        &mut self,
        now_ms: i64,
        update: &RowUpdate,
        outcome: UpdateOutcome,
        chance: u32,
    ) {
        self.writes_fail = matches!(outcome, UpdateOutcome::Unknown | UpdateOutcome::Refused);
        self.updates.answered(outcome == UpdateOutcome::Refused);
        if let Some(running) = self.running(update.partition, update.assignment) {
            let wait_ms = |attempts| backoff_ms(attempts, chance);
            running
                .worker
                .update_done(now_ms, update.row_id, outcome, wait_ms);
        }
    }

    /// Notes that the dead-letter topic acknowledged a record.
    pub fn reject_done(&mut self, ticket: Ticket) {
        if let Some(running) = self.running(ticket.partition, ticket.assignment) {
            running.worker.reject_done(ticket.seq);
        }
    }

    /// Notes that the dead-letter topic acknowledged a record whose item the table refused. The
    /// record stays counted.
    pub fn refused_done(&mut self, table: PutTable, ticket: Ticket) {
        self.put_done(table, ticket);
    }

    /// Lets time pass: fills the outputs with what is due and has room. `boot_ms` is the time of a clock that goes on
    /// while the host sleeps.
    pub fn pump(&mut self, now_ms: i64, boot_ms: i64) {
        self.watch_tables(boot_ms);
        if !self.held {
            while let Some(batch) = self.raw.next_batch(now_ms) {
                self.outputs.push_back(Output::Put(batch));
            }
            while let Some(batch) = self.alerts.next_batch(now_ms) {
                self.outputs.push_back(Output::Put(batch));
            }
            self.pump_updates(now_ms);
        }
        self.pump_ends(now_ms);
        self.pump_commit(now_ms);
        self.pump_idle(now_ms);
        self.pump_publishes();
    }

    /// Row updates, a partition at a time: its turn ends with the last row that was due when it began, so
    /// that none starves. Where rows are many, a turn settles all that a partition had gathered; rows of
    /// all partitions in the order in which they are due would leave twice as much in memory for as
    /// many events in an update. Whoever is leaving comes first.
    fn pump_updates(&mut self, now_ms: i64) {
        for slot in self.slots.values_mut() {
            let State::Running(running) = &mut slot.state else {
                continue;
            };
            while running.deadline_ms.is_some() && self.updates.has_room() {
                let Some(update) = running.worker.next_update(now_ms, now_ms) else {
                    break;
                };
                self.updates.sent();
                self.outputs.push_back(Output::Update(update));
            }
        }
        let mut passed = 0;
        // Once more than there are partitions: the first one's turn may have begun long ago.
        while self.updates.has_room() && passed <= self.slots.len() {
            let (turn, began_ms) = self.turn;
            let update = match self.slots.get_mut(&turn).map(|slot| &mut slot.state) {
                Some(State::Running(running)) => running.worker.next_update(now_ms, began_ms),
                _ => None,
            };
            if let Some(update) = update {
                passed = 0;
                self.updates.sent();
                self.outputs.push_back(Output::Update(update));
                continue;
            }
            passed += 1;
            let mut after = self.slots.range((Excluded(turn), Unbounded));
            let next = after.next().or_else(|| self.slots.first_key_value());
            self.turn = (next.map_or(turn, |(partition, _)| *partition), now_ms);
        }
    }

    /// Ends drains that are done or over time, and starts over what was out of range.
    fn pump_ends(&mut self, now_ms: i64) {
        let mut done = Vec::new();
        let mut again = Vec::new();
        for (&partition, slot) in &self.slots {
            let State::Running(running) = &slot.state else {
                continue;
            };
            let empty = running.worker.in_flight() == 0;
            if running
                .deadline_ms
                .is_some_and(|deadline| empty || deadline <= now_ms)
            {
                done.push(partition);
            } else if running.is_closed() && empty && running.uncommitted().is_none() {
                again.push(partition);
            }
        }
        for partition in done {
            let (mut commit, mut publish) = (None, None);
            if let Some(slot) = self.slots.get(&partition)
                && let State::Running(running) = &slot.state
            {
                commit = running.commit_part(partition, slot.assignment);
                let durable = running.worker.durable();
                publish = running
                    .publish(durable, true, now_ms)
                    .filter(|_| !self.held);
            }
            self.drop_slot(partition);
            self.outputs.push_back(Output::Released {
                partition,
                commit,
                publish,
            });
        }
        for partition in again {
            self.restart(now_ms, partition);
        }
    }

    /// Returns when [`Pipeline::pump`] should be called next, if time alone changes anything.
    pub fn next_ms(&self) -> Option<i64> {
        let puts = [self.raw.next_ms(), self.alerts.next_ms()].into_iter();
        let mut next = puts.flatten().min().filter(|_| !self.held);
        let mut at = |ms: i64| next = Some(next.map_or(ms, |n: i64| n.min(ms)));
        for slot in self.slots.values() {
            let State::Running(running) = &slot.state else {
                continue;
            };
            if !self.held
                && self.updates.has_room()
                && let Some(ms) = running.worker.next_ms()
            {
                at(ms);
            }
            if let Some(ms) = running.idle_ms() {
                at(ms);
            }
            if let Some(ms) = running.deadline_ms {
                at(ms);
            }
            if self.commit.is_none() && running.uncommitted().is_some() {
                at(self.next_commit_ms());
            }
        }
        next
    }

    fn collect(&mut self, partition: i32) {
        let Some(State::Running(running)) = self.slots.get_mut(&partition).map(|s| &mut s.state)
        else {
            return;
        };
        let tally = running.worker.take_tally();
        let l = &mut self.ledger;
        l.consumed += tally.ledger.consumed;
        l.counted += tally.ledger.counted;
        l.late += tally.ledger.late;
        l.already_counted += tally.ledger.already_counted;
        l.heartbeats += tally.ledger.heartbeats;
        for (mine, new) in l.rejected.iter_mut().zip(tally.ledger.rejected) {
            *mine += new;
        }
        let t = &mut self.tally;
        t.future += tally.future;
        t.alerts[0] += tally.alerts[0];
        t.alerts[1] += tally.alerts[1];
        t.fence_conflicts += tally.fence_conflicts;
        t.gaps_real += tally.gaps_real;
        t.gaps_skipped += tally.gaps_skipped;
        t.durable_ms.extend(tally.durable_ms);
        t.bytes_taken += tally.bytes_taken;
        t.bytes_freed += tally.bytes_freed;
    }

    /// Returns what happened since the last report; the ledger balances (INV-7).
    pub fn report(&mut self) -> Report {
        let all: Vec<i32> = self.slots.keys().copied().collect();
        for partition in all {
            self.collect(partition);
        }
        self.ledger.in_flight = self.in_flight() as u64;
        debug_assert!(self.ledger.balances(), "INV-7: {:?}", self.ledger);
        Report {
            ledger: self.ledger.clone(),
            tally: std::mem::take(&mut self.tally),
        }
    }

    /// Makes room where memory is short: rows that only wait for their interval to be over are given up, and
    /// written again sooner than it says if more comes for them. Else a long interval could stop the reading
    /// for as long as it is.
    pub fn make_room(&mut self) {
        for slot in self.slots.values_mut() {
            if let State::Running(running) = &mut slot.state {
                running.worker.free_idle_rows();
            }
        }
    }

    /// Returns the number of records that are not yet durable.
    pub fn in_flight(&self) -> usize {
        self.workers().map(Worker::in_flight).sum()
    }

    /// Returns the workers of all running partitions.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.values().filter_map(|slot| match &slot.state {
            State::Running(running) => Some(&running.worker),
            State::Starting { .. } => None,
        })
    }

    /// Returns every partition it has, starting ones included.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.slots.keys().copied()
    }
}

#[cfg(test)]
mod tests;
