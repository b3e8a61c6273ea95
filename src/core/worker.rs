//! The state machine of one assignment of one partition: records in, writes out.
//!
//! It decides each record's row and lateness in offset order (INV-4), gathers the records of a row into
//! stretches, and tracks what is not yet durable. A row has at most one update under way; the next
//! stretch gathers meanwhile and leaves when the outcome is known and the row's interval is over.
//! An update whose outcome is unknown is sent again as it was. The boundary offered for commit is
//! the end of the contiguous prefix of durable records (INV-1, INV-6), never more.
//!
//! It must not: read a clock, wait, share state with another assignment. All of its state goes with
//! the assignment; the next one begins by the start rule.

mod rows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::event::{Event, Offset, Severity};
use crate::keys;
use crate::ledger::Ledger;
use crate::parse::{Body, Reason};
use crate::plan::{Keep, Put, PutTable, StoredEvent, Ticket};
use crate::restart::Boundary;
use crate::stretch::{Entry, Sum};
use crate::watermark::MaxTime;
use crate::window::Rules;
use rows::{Row, SeriesRows};

/// What a worker needs to know about its place in the world.
#[derive(Clone, Debug)]
pub struct Place {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Which assignment of it.
    pub assignment: u64,
    /// `<topic id>#<partition>`.
    pub log_key: Arc<str>,
    /// The tables' fixed rules.
    pub rules: Rules,
    /// Which events get a raw row.
    pub keep: Keep,
    /// Least time between two updates of one row.
    pub row_interval_ms: i64,
}

/// A record as it comes from the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stands.
    pub offset: Offset,
    /// The record's own timestamp, if it has one.
    pub timestamp_ms: Option<i64>,
    /// What it takes of the memory budget.
    pub bytes: u32,
    /// What it is.
    pub content: Content,
}

/// What a record is, after parsing.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event or a heartbeat.
    Valid(Body),
    /// Neither; its original goes to the dead-letter topic.
    Rejected(Box<Rejected>),
}

/// A rejected record with its original, as the dead-letter topic gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// What exactly, for people.
    pub detail: String,
    /// The record's key as it was.
    pub key: Option<Vec<u8>>,
    /// The record's value as it was.
    pub value: Option<Vec<u8>>,
    /// The record's headers as they were.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where it stood.
    pub partition: i32,
    /// Where it stood.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp_ms: Option<i64>,
}

/// A write that a record causes at once.
#[derive(Clone, Debug)]
pub enum Write {
    /// A raw item or an alert.
    Put(PutTable, Put),
    /// A dead letter.
    Reject(Ticket, Box<Rejected>),
}

/// What a record still waits for.
mod pending {
    pub(super) const RAW: u8 = 1;
    pub(super) const ALERT: u8 = 2;
    pub(super) const DLQ: u8 = 4;
    pub(super) const WINDOW: u8 = 8;
    pub(super) const TOTALS: u8 = 16;
    /// What needs the event itself.
    pub(super) const WHOLE: u8 = RAW | ALERT | DLQ;
}

/// What a record takes that waits for its rows alone: its place here and an entry in two stretches, 32 and
/// twice 16 bytes, in lists that are half full at worst.
const COUNTED_BYTES: u32 = 128;
const _: () = assert!(size_of::<Tracked>() == 32 && size_of::<Entry>() == 16);
/// Room for so many records in flight, or rows, is never given back.
const ROOM_KEPT: usize = 4_096;

#[derive(Clone, Copy, Debug)]
enum Class {
    Event {
        severity: Severity,
        late: bool,
        /// A fence says that it was counted before.
        already: bool,
    },
    Heartbeat,
    Rejected(Reason),
}

impl Class {
    /// Returns the class of an event that was not counted before, as far as is known.
    fn event(severity: Severity, late: bool) -> Class {
        Class::Event {
            severity,
            late,
            already: false,
        }
    }
}

#[derive(Clone, Debug)]
struct Tracked {
    /// The offset after this record.
    next: Offset,
    /// The largest event time below `next`.
    max: MaxTime,
    /// Negative where the record has none.
    timestamp_ms: i64,
    bytes: u32,
    pending: u8,
    class: Class,
}

impl Tracked {
    /// Returns `sums` with this record. An event counts whichever consumer counted it, because the sums describe the log.
    fn added_to(&self, sums: Option<Sum>) -> Option<Sum> {
        let mut sums = sums?;
        if let Class::Event { severity, late, .. } = self.class {
            sums.add_event(severity, late);
        }
        Some(sums)
    }
}

/// One assignment of one partition.
#[derive(Clone, Debug)]
pub struct Worker {
    place: Place,
    position: Offset,
    max: MaxTime,
    durable: Boundary,
    tracked: VecDeque<Tracked>,
    first_seq: u64,
    /// By [`keys::series_hash`]: comparing names for each event costs more than hashing them once.
    series: BTreeMap<u32, Vec<SeriesRows>>,
    rows: Vec<Option<Row>>,
    free_rows: Vec<u32>,
    due: BTreeSet<(i64, u32)>,
    draining: bool,
    bytes: u64,
    tally: Tally,
}

/// What happened since the last [`Worker::take_tally`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Changes of the ledger, `in_flight` excepted.
    pub ledger: Ledger,
    /// Events ahead of their record.
    pub future: u64,
    /// Alerts raised: high, critical.
    pub alerts: [u64; 2],
    /// Updates that a fence refused.
    pub fence_conflicts: u64,
    /// Gaps in the offsets that a second read confirmed.
    pub gaps_real: u64,
    /// Gaps in which the client had skipped records.
    pub gaps_skipped: u64,
    /// Timestamps of the records that became durable, for their latency.
    pub durable_ms: Vec<i64>,
    /// Bytes of rows, which no record brought along.
    pub bytes_taken: u64,
    /// Bytes given back to the budget.
    pub bytes_freed: u64,
}

impl Worker {
    /// Begins at `start`.
    pub fn new(place: Place, start: Boundary) -> Worker {
        Worker {
            place,
            position: start.next,
            max: start.max,
            durable: start,
            tracked: VecDeque::new(),
            first_seq: 0,
            series: BTreeMap::new(),
            rows: Vec::new(),
            free_rows: Vec::new(),
            due: BTreeSet::new(),
            draining: false,
            bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Takes the next record and appends the writes it causes at once.
    ///
    /// Records below the position are dropped: they were taken already.
    pub fn take(&mut self, now_ms: i64, record: Record, writes: &mut Vec<Write>) {
        if record.offset < self.position {
            self.tally.bytes_freed += u64::from(record.bytes);
            return;
        }
        self.position = record.offset.next();
        self.tally.ledger.consumed += 1;
        self.bytes += u64::from(record.bytes);
        let seq = self.first_seq + self.tracked.len() as u64;
        let ticket = self.ticket(seq);
        let timestamp_ms = record.timestamp_ms;
        let (pending, class) = match record.content {
            Content::Rejected(rejected) => {
                let reason = rejected.reason;
                writes.push(Write::Reject(ticket, rejected));
                (pending::DLQ, Class::Rejected(reason))
            }
            Content::Valid(Body::Heartbeat(time_ms)) => {
                if !self.place.rules.is_future(time_ms, timestamp_ms) {
                    self.max.observe(time_ms);
                }
                (0, Class::Heartbeat)
            }
            Content::Valid(Body::Event(event)) => {
                self.take_event(now_ms, event, &record.offset, timestamp_ms, ticket, writes)
            }
        };
        self.tracked.push_back(Tracked {
            next: self.position,
            max: self.max,
            timestamp_ms: timestamp_ms.unwrap_or(-1),
            bytes: record.bytes,
            pending,
            class,
        });
        self.lighten(self.tracked.len() - 1);
        if pending == 0 {
            self.settle();
        }
    }

    fn take_event(
        &mut self,
        now_ms: i64,
        event: Event,
        offset: &Offset,
        timestamp_ms: Option<i64>,
        ticket: Ticket,
        writes: &mut Vec<Write>,
    ) -> (u8, Class) {
        let rules = self.place.rules;
        // Lateness is judged by the watermark as it stood before this event.
        let late = self.max.is_late(event.time_ms, &rules);
        let future = rules.is_future(event.time_ms, timestamp_ms);
        if future {
            self.tally.future += 1;
        } else {
            self.max.observe(event.time_ms);
        }
        let entry = Entry {
            offset: *offset,
            seq: low(ticket.seq),
            severity: event.severity,
            late,
        };
        let mut pending = pending::TOTALS;
        let hash = keys::series_hash(&event.city, &event.event_type);
        self.gather(now_ms, hash, &event, None, entry);
        if !late {
            pending |= pending::WINDOW;
            let start_ms = rules.window_start(event.time_ms);
            self.gather(now_ms, hash, &event, Some(start_ms), entry);
        }
        let severity = event.severity;
        let (raw, alert) = (
            self.place.keep.raw(severity),
            self.place.keep.alert(severity),
        );
        if raw || alert {
            let (topic, partition) = (Arc::clone(&self.place.topic), self.place.partition);
            let event = Arc::new(StoredEvent::new(
                event, topic, partition, *offset, late, future,
            ));
            if alert {
                pending |= pending::ALERT;
                self.tally.alerts[severity.index() - 2] += 1;
                let event = Arc::clone(&event);
                writes.push(Write::Put(PutTable::Alerts, Put { ticket, event }));
            }
            if raw {
                pending |= pending::RAW;
                writes.push(Write::Put(PutTable::Raw, Put { ticket, event }));
            }
        }
        (pending, Class::event(severity, late))
    }

    /// Notes that a raw item or an alert is stored.
    pub fn put_done(&mut self, table: PutTable, seq: u64) {
        let bit = match table {
            PutTable::Raw => pending::RAW,
            PutTable::Alerts => pending::ALERT,
        };
        self.mark([low(seq)].into_iter(), bit, false);
        self.settle();
    }

    /// Notes that the dead-letter topic acknowledged a record.
    pub fn reject_done(&mut self, seq: u64) {
        self.mark([low(seq)].into_iter(), pending::DLQ, false);
        self.settle();
    }

    fn mark(&mut self, seqs: impl Iterator<Item = u32>, bit: u8, already: bool) {
        for seq in seqs {
            let at = seq.wrapping_sub(low(self.first_seq)) as usize;
            let tracked = &mut self.tracked[at];
            assert!(tracked.pending & bit != 0, "INV-1: a record settles once");
            tracked.pending &= !bit;
            // Each valid event has one totals row, so that row says whether it was counted before.
            if bit == pending::TOTALS
                && let Class::Event { already: is, .. } = &mut tracked.class
            {
                *is = already;
            }
            if bit & pending::WHOLE != 0 {
                self.lighten(at);
            }
        }
    }

    /// Gives back what a record no longer takes once nothing needs its event: rows are updated much later
    /// than items are put, and would hold up the reading for memory that is free.
    fn lighten(&mut self, at: usize) {
        let tracked = &mut self.tracked[at];
        if tracked.pending & pending::WHOLE == 0 {
            let freed = tracked.bytes.saturating_sub(COUNTED_BYTES);
            tracked.bytes -= freed;
            self.bytes -= u64::from(freed);
            self.tally.bytes_freed += u64::from(freed);
        }
    }

    /// Moves the durable boundary over the completed prefix, and over nothing else (INV-6).
    fn settle(&mut self) {
        while let Some(front) = self.tracked.front() {
            if front.pending != 0 {
                break;
            }
            self.durable = Boundary {
                next: front.next,
                max: front.max,
                sums: front.added_to(self.durable.sums),
            };
            self.bytes -= u64::from(front.bytes);
            self.tally.bytes_freed += u64::from(front.bytes);
            let ledger = &mut self.tally.ledger;
            match front.class {
                Class::Event { already: true, .. } => ledger.already_counted += 1,
                Class::Event { late: true, .. } => ledger.late += 1,
                Class::Event { .. } => ledger.counted += 1,
                Class::Heartbeat => ledger.heartbeats += 1,
                Class::Rejected(reason) => {
                    let at = Reason::ALL.iter().position(|r| *r == reason);
                    ledger.rejected[at.expect("the list is complete")] += 1;
                }
            }
            if front.timestamp_ms >= 0 {
                self.tally.durable_ms.push(front.timestamp_ms);
            }
            self.tracked.pop_front();
            self.first_seq += 1;
        }
        // Each partition would keep the room of its own largest backlog for good, here and for its rows.
        let len = self.tracked.len().max(ROOM_KEPT);
        if self.tracked.capacity() / 4 > len {
            self.tracked.shrink_to(len * 2);
        }
    }

    /// Moves the position over a range in which the log holds no record to count.
    pub fn skip_gap(&mut self, end: Offset) {
        if end <= self.position {
            return;
        }
        self.position = end;
        match self.tracked.back_mut() {
            Some(last) => last.next = end,
            None => self.durable.next = end,
        }
    }

    /// Returns the end of the contiguous durable prefix: what may be committed.
    pub fn durable(&self) -> Boundary {
        self.durable
    }

    /// Returns the offset of the next record it expects.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Returns the watermark at the position.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.max.watermark_ms(&self.place.rules)
    }

    /// Returns the number of records that are not yet durable.
    pub fn in_flight(&self) -> usize {
        self.tracked.len()
    }

    /// Returns what the records in flight take of the memory budget.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns its place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns what happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn ticket(&self, seq: u64) -> Ticket {
        Ticket {
            partition: self.place.partition,
            assignment: self.place.assignment,
            seq,
        }
    }
}

/// Returns the lower half of a record's number.
#[allow(clippy::cast_possible_truncation)]
fn low(seq: u64) -> u32 {
    seq as u32
}

#[cfg(test)]
mod tests;
