//! Passes records to the worker of their partition. After a gap in the offsets, records wait until a second read
//! confirms that the gap is real.
//!
//! If the worker took a record after an unconfirmed gap, its row update would move the row's fence past the gap. If the
//! Kafka client had skipped records in the gap, the fence would reject these records when they are read again. The
//! record would also move the watermark too early. Therefore, records after a gap wait in memory for the result of the
//! second read, and count toward the memory budget. Dropping the records and reading them again would cost an
//! additional fetch for each transaction in the log.

use std::collections::VecDeque;

use super::{LOCATE_AGAIN_MS, Output, Pipeline, Running, SlotState};
use crate::clock::SteadyMs;
use crate::event::Offset;
use crate::gap::{Gap, SecondRead, Verdict};
use crate::worker::{Record, Write};

/// A report of the Kafka client: a record, or the end of the log. Reports after a gap wait until the gap is confirmed.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Record(Record),
    /// The client has reached the end of the log at this offset.
    End(Offset),
}

/// Decides whether new records of a partition go to the worker, wait in memory, or are dropped.
#[derive(Clone, Debug)]
pub(super) enum Intake {
    /// The offsets have no gap, so the worker takes new records immediately.
    Contiguous,
    /// Records wait until a second read confirms that the log has no records from the worker's position up to `to`.
    Gap {
        to: Offset,
        /// The Kafka client's reports after the gap, in log order.
        held: VecDeque<Held>,
    },
    /// The pipeline drops new records of the partition, because the partition drains or because reading cannot continue
    /// at its position. If reading cannot continue, the partition restarts once all of its records are durable and
    /// committed.
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
    /// Returns true if the pipeline drops new records of the partition.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.intake, Intake::Closed)
    }

    /// Makes the pipeline drop all new records of the partition, and drops the records that wait after a gap. Returns
    /// the size of the dropped records in bytes.
    pub(super) fn close_intake(&mut self) -> u64 {
        let bytes = self.intake.bytes();
        self.intake = Intake::Closed;
        bytes
    }

    /// Passes a report of the Kafka client to the worker, or keeps the report while a gap before it is unconfirmed.
    /// Returns the new gap if the report reveals one.
    fn take_in(&mut self, now_ms: SteadyMs, held: Held, writes: &mut Vec<Write>) -> Option<Gap> {
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
    /// Processes records of one partition. Drops records that the shell read for an earlier assignment.
    pub fn records(
        &mut self,
        now_ms: SteadyMs,
        partition: i32,
        assignment: u64,
        records: Vec<Record>,
    ) {
        let current = self.slots.get_mut(&partition);
        let running = match current.filter(|slot| slot.assignment == assignment) {
            Some(slot) => match &mut slot.state {
                SlotState::Running(running) if !running.is_closed() => Some(running),
                SlotState::Running(_) | SlotState::Starting { .. } => None,
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

    /// Notes that the Kafka client has read up to `end`, the current end of the log.
    pub fn reached_end(&mut self, now_ms: SteadyMs, partition: i32, assignment: u64, end: Offset) {
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

    /// Processes the result of the second read that [`Output::CheckGap`] requests.
    pub fn gap_checked(
        &mut self,
        now_ms: SteadyMs,
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

    /// Passes the records that wait after a confirmed gap to the worker, up to the next gap.
    fn pass_gap(&mut self, now_ms: SteadyMs, partition: i32, assignment: u64, to: Offset) {
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

    /// Notes that the log has no record at the partition's position. Once all records below the position are durable
    /// and committed, the start rule decides where the partition restarts.
    pub fn out_of_range(&mut self, partition: i32, assignment: u64) {
        if let Some(running) = self.running(partition, assignment) {
            let freed = running.close_intake();
            self.tally.bytes_freed += freed;
        }
    }

    fn check_gap(&mut self, partition: i32, assignment: u64, gap: Gap, not_before_ms: SteadyMs) {
        self.outputs.push_back(Output::CheckGap {
            partition,
            assignment,
            gap,
            not_before_ms,
        });
    }
}
