//! How records reach a partition's worker: contiguous offsets only, and gaps once they are confirmed.
//!
//! A record after an unconfirmed gap must not reach the worker. Its row update would move the row's fence past
//! the records in the gap, and the fence would then refuse them when they are read again. It must not move
//! the watermark either. So such records wait here, counted by the memory budget, until a second read has
//! answered. The alternative, to drop them and seek, would cost a fetch for each transaction in the log.

use std::collections::VecDeque;

use super::{LOCATE_AGAIN_MS, Output, Pipeline, Running, State};
use crate::event::Offset;
use crate::gap::{Gap, SecondRead, Verdict};
use crate::worker::{Record, Write};

/// What the client handed on after a gap.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Record(Record),
    /// The log ended here.
    End(Offset),
}

/// Whether records may reach the worker.
#[derive(Clone, Debug)]
pub(super) enum Intake {
    /// Each record follows the one before it.
    Contiguous,
    /// A second read must confirm that the log holds nothing between the worker's position and `to`.
    Gap {
        to: Offset,
        /// What came after the gap, in log order.
        held: VecDeque<Held>,
    },
    /// Reading cannot continue from here. The partition starts over, by the start rule, once everything
    /// before this point is durable and committed.
    Closed,
}

impl Intake {
    fn bytes(&self) -> u64 {
        let Intake::Gap { held, .. } = self else {
            return 0;
        };
        let bytes = |held: &Held| match held {
            Held::Record(record) => u64::from(record.bytes),
            Held::End(_) => 0,
        };
        held.iter().map(bytes).sum()
    }
}

impl Running {
    /// Returns whether records that arrive now are dropped.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.intake, Intake::Closed)
    }

    /// Stops taking records; those that waited behind a gap are dropped. Returns the bytes of them.
    pub(super) fn close_intake(&mut self) -> u64 {
        let bytes = self.intake.bytes();
        self.intake = Intake::Closed;
        bytes
    }

    /// Hands on what may be handed on. Returns the gap before the first thing that may not.
    fn take_in(&mut self, now_ms: i64, held: Held, writes: &mut Vec<Write>) -> Option<Gap> {
        if let Intake::Gap { held: behind, .. } = &mut self.intake {
            behind.push_back(held);
            return None;
        }
        let from = self.worker.position();
        let to = match &held {
            Held::Record(record) => record.offset,
            Held::End(end) => *end,
        };
        if to > from {
            self.intake = Intake::Gap {
                to,
                held: VecDeque::from([held]),
            };
            return Some(Gap { from, to });
        }
        match held {
            Held::Record(record) => self.worker.take(now_ms, record, writes),
            Held::End(end) => self.worker.skip_gap(end),
        }
        None
    }
}

impl Pipeline {
    /// Takes records of one partition; those of an earlier assignment are dropped.
    pub fn records(&mut self, now_ms: i64, partition: i32, assignment: u64, records: Vec<Record>) {
        let current = self.slots.get_mut(&partition);
        let running = match current.filter(|slot| slot.assignment == assignment) {
            Some(slot) => match &mut slot.state {
                State::Running(running) if !running.is_closed() => Some(running),
                State::Running(_) | State::Starting { .. } => None,
            },
            None => None,
        };
        let Some(running) = running else {
            self.tally.bytes_freed += records.iter().map(|r| u64::from(r.bytes)).sum::<u64>();
            return;
        };
        let mut gap = None;
        for record in records {
            gap = gap.or(running.take_in(now_ms, Held::Record(record), &mut self.writes));
        }
        self.send_writes(now_ms);
        if let Some(gap) = gap {
            self.check_gap(partition, assignment, gap, now_ms);
        }
    }

    /// Notes that the client has handed on everything below `end`, where the log ends now.
    pub fn reached_end(&mut self, now_ms: i64, partition: i32, assignment: u64, end: Offset) {
        let mut writes = std::mem::take(&mut self.writes);
        let gap = match self.running(partition, assignment) {
            Some(running) if !running.is_closed() => {
                running.take_in(now_ms, Held::End(end), &mut writes)
            }
            _ => None,
        };
        self.writes = writes;
        if let Some(gap) = gap {
            self.check_gap(partition, assignment, gap, now_ms);
        }
    }

    /// Takes the answer to [`Output::CheckGap`].
    pub fn gap_checked(
        &mut self,
        now_ms: i64,
        partition: i32,
        assignment: u64,
        gap: Gap,
        second: SecondRead,
    ) {
        let Some(running) = self.running(partition, assignment) else {
            return;
        };
        let Intake::Gap { to, .. } = running.intake else {
            return;
        };
        if (Gap {
            from: running.worker.position(),
            to,
        }) != gap
        {
            return;
        }
        match gap.verdict(second) {
            Verdict::Real => {
                self.tally.gaps_real += 1;
                self.pass_gap(now_ms, partition, assignment, to);
            }
            Verdict::Skipped { found } => {
                self.tally.gaps_skipped += 1;
                self.outputs.push_back(Output::Skipped {
                    partition,
                    gap,
                    found,
                });
                self.out_of_range(partition, assignment);
            }
            Verdict::OutOfRange => self.out_of_range(partition, assignment),
            Verdict::Unknown => {
                self.check_gap(partition, assignment, gap, now_ms + LOCATE_AGAIN_MS);
            }
        }
    }

    /// Continues after a confirmed gap, up to the next one.
    fn pass_gap(&mut self, now_ms: i64, partition: i32, assignment: u64, to: Offset) {
        let mut writes = std::mem::take(&mut self.writes);
        let Some(running) = self.running(partition, assignment) else {
            return;
        };
        running.worker.skip_gap(to);
        let gap = match std::mem::replace(&mut running.intake, Intake::Contiguous) {
            Intake::Gap { held, .. } => {
                let mut gap = None;
                for held in held {
                    gap = gap.or(running.take_in(now_ms, held, &mut writes));
                }
                gap
            }
            Intake::Contiguous | Intake::Closed => None,
        };
        self.writes = writes;
        self.send_writes(now_ms);
        if let Some(gap) = gap {
            self.check_gap(partition, assignment, gap, now_ms);
        }
    }

    /// Notes that Kafka cannot continue from a partition's position. Once everything before it is durable and
    /// committed, the start rule judges by the log's ends.
    pub fn out_of_range(&mut self, partition: i32, assignment: u64) {
        if let Some(running) = self.running(partition, assignment) {
            let freed = running.close_intake();
            self.tally.bytes_freed += freed;
        }
    }

    fn check_gap(&mut self, partition: i32, assignment: u64, gap: Gap, not_before_ms: i64) {
        self.outputs.push_back(Output::CheckGap {
            partition,
            assignment,
            gap,
            not_before_ms,
        });
    }
}
