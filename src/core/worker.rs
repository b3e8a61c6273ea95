//! Implements the worker: a state machine that takes the records of one assigned partition and returns the writes to
//! the tables.
//!
//! The worker processes records in offset order. For each record, the worker decides which rows count the record, and
//! whether the record is late (INV-4). The worker gathers the records of each row into stretches, and tracks which
//! records are not yet durable. Each row has at most one update in flight. While an update is in flight, the worker
//! gathers the next stretch of the same row. The worker sends that stretch when it knows the outcome of the previous
//! update and the row's update interval is over. If the outcome of an update is unknown, the worker sends the update
//! again unchanged. The worker offers the end of the contiguous prefix of durable records for commit, and never a later
//! offset (INV-1, INV-6).
//!
//! A worker must not read a clock, must not wait, and must not share state with the worker of another assignment. The
//! pipeline drops the worker when the assignment ends. The module `restart` decides at which offset the next assignment
//! of the partition begins.

mod rows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::{SteadyMs, UnixMs};
use crate::event::{Event, Offset, Severity};
use crate::keys;
use crate::ledger::Ledger;
use crate::parse::{Body, Reason};
use crate::plan::{Put, PutTable, RawRows, StoredEvent, Ticket};
use crate::restart::Boundary;
use crate::stretch::{Entry, Sum};
use crate::watermark::MaxTime;
use crate::window::Rules;
use rows::{Row, SeriesRows};

/// The identity of an assignment, and the settings that apply to the assignment.
#[derive(Clone, Debug)]
pub struct Place {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The number that identifies the assignment of the partition.
    pub assignment: u64,
    /// The log key, which is `<topic id>#<partition>`.
    pub log_key: Arc<str>,
    /// The tables' fixed rules for windows, lateness and future events.
    pub rules: Rules,
    /// The setting that decides which events get a raw row and an alert.
    pub keep: RawRows,
    /// Minimum time between two updates of one row, in milliseconds.
    pub row_interval_ms: i64,
}

/// A record from the log, with its parsed content.
#[derive(Clone, Debug)]
pub struct Record {
    /// The offset of the record.
    pub offset: Offset,
    /// The Kafka timestamp of the record, if the record has one.
    pub timestamp_ms: Option<UnixMs>,
    /// The number of bytes of the memory budget that the record uses.
    pub bytes: u32,
    /// The parsed content of the record.
    pub content: Content,
}

/// The content of a record after parsing.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event or a heartbeat.
    Valid(Body),
    /// A rejected record, which the consumer copies to the dead-letter topic in its original form.
    Rejected(Box<Rejected>),
}

/// A rejected record in its original form, ready to be sent to the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The reason for the rejection.
    pub reason: Reason,
    /// A human-readable description of the problem that made the record invalid.
    pub detail: String,
    /// The unchanged key of the record.
    pub key: Option<Vec<u8>>,
    /// The unchanged value of the record.
    pub value: Option<Vec<u8>>,
    /// The unchanged headers of the record.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record.
    pub offset: Offset,
    /// The record's timestamp, if it has one.
    pub timestamp_ms: Option<UnixMs>,
}

/// A write that the worker returns as soon as it takes a record.
#[derive(Clone, Debug)]
pub enum Write {
    /// A raw item or an alert to store.
    Put(PutTable, Put),
    /// A dead letter to send.
    Reject(Ticket, Box<Rejected>),
}

/// Bit flags that say which writes of a record are not yet done.
mod pending {
    pub(super) const RAW: u8 = 1;
    pub(super) const ALERT: u8 = 2;
    pub(super) const DLQ: u8 = 4;
    pub(super) const WINDOW: u8 = 8;
    pub(super) const TOTALS: u8 = 16;
    /// Flags of the writes that need the whole event. The event stays in memory while any of these writes is pending.
    pub(super) const WHOLE: u8 = RAW | ALERT | DLQ;
}

/// Memory of a record that waits only for its row updates, in bytes. Each record needs 32 bytes for a `Tracked`, and 16
/// bytes for an `Entry` in each of two stretches. The constant is twice this sum, because the capacity of a list may be
/// twice its length.
const COUNTED_BYTES: u32 = 128;
const _: () = assert!(size_of::<Tracked>() == 32 && size_of::<Entry>() == 16);
/// Minimum capacity that the list of records in flight and the list of rows keep when the worker frees memory.
const ROOM_KEPT: usize = 4_096;

#[derive(Clone, Copy, Debug)]
enum Class {
    Event {
        severity: Severity,
        late: bool,
        /// True if a fence shows that the event was counted before.
        already: bool,
    },
    Heartbeat,
    Rejected(Reason),
}

impl Class {
    /// Returns the class of an event that was not counted before.
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
    /// The offset after the record. If a gap in the offsets follows the record, the field contains the end of the gap.
    next: Offset,
    /// The largest event time of all records up to and including this record.
    max: MaxTime,
    /// The record's timestamp, or a negative number if the record has none.
    timestamp_ms: UnixMs,
    bytes: u32,
    pending: u8,
    class: Class,
}

impl Tracked {
    /// Returns `sums` plus this record. The sums include events that another consumer has counted in the tables.
    fn added_to(&self, sums: Option<Sum>) -> Option<Sum> {
        let mut sums = sums?;
        if let Class::Event { severity, late, .. } = self.class {
            sums.add_event(severity, late);
        }
        Some(sums)
    }
}

/// The state of one assignment of one partition.
#[derive(Clone, Debug)]
pub struct Worker {
    place: Place,
    position: Offset,
    max: MaxTime,
    durable: Boundary,
    tracked: VecDeque<Tracked>,
    first_seq: u64,
    /// The rows of all series, grouped by the hash of the series ([`keys::series_hash`]). Hashing an event's city and
    /// type once is faster than comparing the city and the type with the names of many series.
    series: BTreeMap<u32, Vec<SeriesRows>>,
    rows: Vec<Option<Row>>,
    free_rows: Vec<u32>,
    due: BTreeSet<(SteadyMs, u32)>,
    draining: bool,
    bytes: u64,
    tally: Tally,
}

/// A worker's counters since the last call of [`Worker::take_tally`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The changes to the ledger, in which the field `in_flight` is always 0.
    pub ledger: Ledger,
    /// Number of future events.
    pub future: u64,
    /// Number of alerts of high severity, and number of alerts of critical severity.
    pub alerts: [u64; 2],
    /// Number of row updates that a fence refused.
    pub fence_conflicts: u64,
    /// Number of gaps in the offsets that a second read confirmed as real.
    pub gaps_real: u64,
    /// Number of gaps in the offsets at which the Kafka client had skipped records.
    pub gaps_skipped: u64,
    /// The timestamps of the records that became durable. The caller computes the latency from these timestamps.
    pub durable_ms: Vec<UnixMs>,
    /// Number of bytes that new rows have taken from the memory budget.
    pub bytes_taken: u64,
    /// Number of bytes that records and rows have returned to the memory budget.
    pub bytes_freed: u64,
}

impl Worker {
    /// Returns a worker that begins at the boundary `start`.
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

    /// Processes the next record, and appends the record's puts or its dead letter to `writes`.
    ///
    /// The worker ignores a record whose offset is below the worker's position, because it has already processed that
    /// record.
    pub fn take(&mut self, now_ms: SteadyMs, record: Record, writes: &mut Vec<Write>) {
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
            timestamp_ms: timestamp_ms.unwrap_or(UnixMs(-1)),
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
        now_ms: SteadyMs,
        event: Event,
        offset: &Offset,
        timestamp_ms: Option<UnixMs>,
        ticket: Ticket,
        writes: &mut Vec<Write>,
    ) -> (u8, Class) {
        let rules = self.place.rules;
        // The watermark before an event decides whether the event is late.
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

    /// Notes that the raw item or the alert of a record is stored in its table.
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
            // Exactly one totals row counts each valid event, so the fence of this row shows whether the event was
            // counted before.
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

    /// Returns the memory of an event to the memory budget once no put or dead letter needs the event. Row updates do
    /// not need the event itself, and the worker sends them much later than puts. If the budget still included these
    /// events, the consumer would stop reading although memory is free.
    fn lighten(&mut self, at: usize) {
        let tracked = &mut self.tracked[at];
        if tracked.pending & pending::WHOLE == 0 {
            let freed = tracked.bytes.saturating_sub(COUNTED_BYTES);
            tracked.bytes -= freed;
            self.bytes -= u64::from(freed);
            self.tally.bytes_freed += u64::from(freed);
        }
    }

    /// Moves the durable boundary to the end of the completed prefix, and never further (INV-6).
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
            if front.timestamp_ms >= UnixMs(0) {
                self.tally.durable_ms.push(front.timestamp_ms);
            }
            self.tracked.pop_front();
            self.first_seq += 1;
        }
        // Without shrinking, the list would keep the memory for the partition's largest backlog forever.
        let len = self.tracked.len().max(ROOM_KEPT);
        if self.tracked.capacity() / 4 > len {
            self.tracked.shrink_to(len * 2);
        }
    }

    /// Moves the position to `end`, past a range of offsets without records.
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

    /// Returns the end of the contiguous durable prefix, which is the boundary that may be committed.
    pub fn durable(&self) -> Boundary {
        self.durable
    }

    /// Returns the offset of the next record that the worker expects.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Returns the watermark at the position.
    pub fn watermark_ms(&self) -> Option<UnixMs> {
        self.max.watermark_ms(&self.place.rules)
    }

    /// Returns the number of records that are not yet durable.
    pub fn in_flight(&self) -> usize {
        self.tracked.len()
    }

    /// Returns the number of bytes of the memory budget that the records in flight and the rows use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the identity and the settings of the assignment.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the counters since the last call of this method, and resets all counters.
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

/// Returns the lower 32 bits of a record's sequence number.
#[allow(clippy::cast_possible_truncation)]
fn low(seq: u64) -> u32 {
    seq as u32
}

#[cfg(test)]
mod tests;
