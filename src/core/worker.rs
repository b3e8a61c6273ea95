//! The state machine of one assignment of one partition: records in, writes out.
//!
//! It decides each record's row and lateness in offset order (C4), gathers the records of a row into
//! stretches, and tracks what is not yet durable. A row has at most one update under way; the next
//! stretch gathers meanwhile and leaves when the outcome is known and the row's interval is over.
//! An update whose outcome is unknown is sent again as it was. The boundary offered for commit is
//! the end of the contiguous prefix of durable records (C1, C6), never more.
//!
//! It must not: read a clock, wait, share state with another assignment. All of its state goes with
//! the assignment; the next one begins by the start rule.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::core::event::{Event, Offset};
use crate::core::keys;
use crate::core::ledger::Ledger;
use crate::core::mutant::{self, Mutant};
use crate::core::parse::{Body, Reason};
use crate::core::plan::{
    Keep, Put, PutTable, RowKey, RowUpdate, StoredEvent, Ticket, UpdateOutcome,
};
use crate::core::restart::Boundary;
use crate::core::stretch::{Entry, Stretch};
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;

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
/// What a row takes until it was idle for an interval: its names, two stretches, and its place in a list that
/// is half full at worst.
const ROW_BYTES: u64 = 384;
/// Room for so many records in flight, or rows, is never given back.
const ROOM_KEPT: usize = 4_096;

#[derive(Clone, Copy, Debug)]
enum Class {
    Counted,
    Late,
    Already,
    Heartbeat,
    Rejected(Reason),
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

#[derive(Clone, Debug)]
struct Row {
    key: RowKey,
    /// Waits for the next update.
    gathered: Vec<Entry>,
    /// Is under way, or will be sent again.
    sent: Option<Sent>,
    /// When the row's place in `Worker::due` lies, if it has one.
    due_ms: Option<i64>,
    last_sent_ms: i64,
}

#[derive(Clone, Debug)]
struct Sent {
    stretch: Stretch,
    /// Some try of this very stretch has an unknown outcome.
    unknown: bool,
    attempts: u32,
}

#[derive(Clone, Debug)]
struct SeriesRows {
    /// `city#event_type`.
    name: Arc<str>,
    totals: Option<u32>,
    windows: Vec<(i64, u32)>,
}

/// One assignment of one partition.
#[derive(Clone, Debug)]
pub struct Worker {
    place: Place,
    position: Offset,
    max: MaxTime,
    /// The maximum before the batch, and before the last durable record; only planted bugs use them.
    batch_max: MaxTime,
    last_max: MaxTime,
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
            batch_max: start.max,
            last_max: start.max,
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
                let awaited = !mutant::on(Mutant::DeadLetterNotAwaited);
                (
                    if awaited { pending::DLQ } else { 0 },
                    Class::Rejected(reason),
                )
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
        let judge = if mutant::on(Mutant::LatenessPerBatch) {
            self.batch_max
        } else {
            self.max
        };
        let late = judge.is_late(event.time_ms, &rules);
        let future = rules.is_future(event.time_ms, timestamp_ms);
        if future && !mutant::on(Mutant::FutureBelieved) {
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
                pending |= if mutant::on(Mutant::PutNotAwaited) {
                    0
                } else {
                    pending::ALERT
                };
                self.tally.alerts[severity.index() - 2] += 1;
                let event = Arc::clone(&event);
                writes.push(Write::Put(PutTable::Alerts, Put { ticket, event }));
            }
            if raw {
                pending |= if mutant::on(Mutant::PutNotAwaited) {
                    0
                } else {
                    pending::RAW
                };
                writes.push(Write::Put(PutTable::Raw, Put { ticket, event }));
            }
        }
        (pending, if late { Class::Late } else { Class::Counted })
    }

    /// Adds a record to the next stretch of its row.
    fn gather(
        &mut self,
        now_ms: i64,
        series_hash: u32,
        event: &Event,
        window_start_ms: Option<i64>,
        entry: Entry,
    ) {
        let id = self.row_of(series_hash, event, window_start_ms);
        let row = self.rows[id as usize]
            .as_mut()
            .expect("row_of returns a row in use");
        push_first_exactly(&mut row.gathered, entry);
        if row.due_ms.is_none() && row.sent.is_none() {
            row.due_ms = Some(now_ms);
            self.due.insert((now_ms, id));
        }
    }

    fn row_of(&mut self, series_hash: u32, event: &Event, window_start_ms: Option<i64>) -> u32 {
        let same_hash = self.series.entry(series_hash).or_default();
        let at = same_hash
            .iter()
            .position(|s| keys::is_series(&s.name, &event.city, &event.event_type));
        let at = at.unwrap_or_else(|| {
            let series = SeriesRows {
                name: keys::series(&event.city, &event.event_type).into(),
                totals: None,
                windows: Vec::new(),
            };
            push_first_exactly(same_hash, series);
            same_hash.len() - 1
        });
        let series = &mut same_hash[at];
        let found = match window_start_ms {
            None => series.totals,
            Some(start) => series
                .windows
                .iter()
                .find(|(s, _)| *s == start)
                .map(|(_, id)| *id),
        };
        if let Some(id) = found {
            return id;
        }
        let row = Row {
            key: RowKey {
                series: Arc::clone(&series.name),
                window_start_ms,
            },
            gathered: Vec::new(),
            sent: None,
            due_ms: None,
            last_sent_ms: i64::MIN,
        };
        self.bytes += ROW_BYTES;
        self.tally.bytes_taken += ROW_BYTES;
        let id = match self.free_rows.pop() {
            Some(id) => {
                self.rows[id as usize] = Some(row);
                id
            }
            None => {
                self.rows.push(Some(row));
                u32::try_from(self.rows.len() - 1).expect("fewer rows than records in memory")
            }
        };
        match window_start_ms {
            None => series.totals = Some(id),
            Some(start) => push_first_exactly(&mut series.windows, (start, id)),
        }
        id
    }

    /// Returns the next row update that was due at `due_by_ms`, if any; its outcome must come back through
    /// [`Worker::update_done`].
    pub fn next_update(&mut self, now_ms: i64, due_by_ms: i64) -> Option<RowUpdate> {
        while let Some(&(due_ms, id)) = self.due.first() {
            if due_ms > due_by_ms {
                return None;
            }
            self.due.pop_first();
            let row = self.rows[id as usize]
                .as_mut()
                .expect("a due row is in use");
            row.due_ms = None;
            if row.sent.is_none() {
                let Some(stretch) = Stretch::new(std::mem::take(&mut row.gathered)) else {
                    self.free(id);
                    continue;
                };
                row.sent = Some(Sent {
                    stretch,
                    unknown: false,
                    attempts: 0,
                });
            }
            row.last_sent_ms = now_ms;
            let sent = row.sent.as_mut().expect("set above");
            sent.attempts += 1;
            return Some(RowUpdate {
                partition: self.place.partition,
                assignment: self.place.assignment,
                row_id: id,
                row: row.key.clone(),
                log_key: Arc::clone(&self.place.log_key),
                first: sent.stretch.first(),
                next: sent.stretch.next(),
                sum: sent.stretch.sum(),
            });
        }
        None
    }

    /// Gives up the rows of a partition without records in flight: they are kept for nothing but the time of
    /// their last update.
    pub fn free_idle_rows(&mut self) {
        if self.in_flight() > 0 {
            return;
        }
        while let Some((_, id)) = self.due.pop_first() {
            self.free(id);
        }
    }

    /// Returns when [`Worker::next_update`] should be asked again, if time alone changes it.
    pub fn next_ms(&self) -> Option<i64> {
        self.due.first().map(|(ms, _)| *ms)
    }

    /// Takes the outcome of a row update. `wait_ms(attempts)` says how long a repetition waits.
    ///
    /// # Panics
    /// If the row has no update under way.
    pub fn update_done(
        &mut self,
        now_ms: i64,
        row_id: u32,
        outcome: UpdateOutcome,
        wait_ms: impl Fn(u32) -> i64,
    ) {
        let row = self.rows[row_id as usize]
            .as_mut()
            .expect("an update under way keeps its row");
        if mutant::on(Mutant::OneForAll) && row.sent.is_none() {
            return;
        }
        let mut sent = row
            .sent
            .take()
            .expect("an outcome answers an update under way");
        let bit = if row.key.window_start_ms.is_some() {
            pending::WINDOW
        } else {
            pending::TOTALS
        };
        let mut due_ms = if self.draining {
            now_ms
        } else {
            row.last_sent_ms
                .saturating_add(self.place.row_interval_ms)
                .max(now_ms)
        };
        match outcome {
            UpdateOutcome::Counted => {
                self.mark(sent.stretch.entries().iter().map(|e| e.seq), bit, false);
                if mutant::on(Mutant::OneForAll) {
                    self.forget_sent();
                }
            }
            UpdateOutcome::Unknown if mutant::on(Mutant::UnknownIsDone) => {
                self.mark(sent.stretch.entries().iter().map(|e| e.seq), bit, false);
            }
            UpdateOutcome::Unknown
                if mutant::on(Mutant::RowOrderLost) && !row.gathered.is_empty() =>
            {
                let next = Stretch::new(std::mem::take(&mut row.gathered));
                row.gathered = sent.stretch.into_entries();
                row.sent = next.map(|stretch| Sent {
                    stretch,
                    unknown: false,
                    attempts: 0,
                });
            }
            UpdateOutcome::Fenced(_) if mutant::on(Mutant::ConflictIsDone) => {
                self.mark(sent.stretch.entries().iter().map(|e| e.seq), bit, true);
            }
            UpdateOutcome::Unknown | UpdateOutcome::Refused => {
                // The same update again, unchanged: whether or not it took effect, the fence tells.
                sent.unknown |= outcome == UpdateOutcome::Unknown;
                due_ms = now_ms + wait_ms(sent.attempts);
                row.sent = Some(sent);
            }
            UpdateOutcome::Fenced(fence) => {
                self.tally.fence_conflicts += 1;
                // An earlier try of this very stretch may be what moved the fence here.
                let own = sent.unknown && fence == sent.stretch.next();
                let (below, rest) = sent.stretch.split_at_fence(fence);
                if let Some(rest) = rest {
                    // What is left goes first and at once, joined by what gathered meanwhile.
                    let mut entries = rest.into_entries();
                    entries.append(&mut row.gathered);
                    row.gathered = entries;
                    due_ms = now_ms;
                }
                self.mark(below.iter().map(|e| e.seq), bit, !own);
            }
        }
        let row = self.rows[row_id as usize].as_mut().expect("still in use");
        if row.sent.is_none() && row.gathered.is_empty() && due_ms <= now_ms {
            self.free(row_id);
        } else {
            row.due_ms = Some(due_ms);
            self.due.insert((due_ms, row_id));
        }
        self.settle();
    }

    /// For [`Mutant::OneForAll`].
    fn forget_sent(&mut self) {
        let mut done = Vec::new();
        for row in self.rows.iter_mut().flatten() {
            if let Some(sent) = row.sent.take() {
                let window = row.key.window_start_ms.is_some();
                done.push((
                    sent,
                    if window {
                        pending::WINDOW
                    } else {
                        pending::TOTALS
                    },
                ));
            }
        }
        for (sent, bit) in done {
            self.mark(sent.stretch.entries().iter().map(|e| e.seq), bit, false);
        }
    }

    /// Notes that a batch of records begins (for [`Mutant::LatenessPerBatch`]).
    pub fn begin_batch(&mut self) {
        self.batch_max = self.max;
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
        let unawaited =
            mutant::on(Mutant::PutNotAwaited) || mutant::on(Mutant::DeadLetterNotAwaited);
        for seq in seqs {
            let at = seq.wrapping_sub(low(self.first_seq)) as usize;
            if at >= self.tracked.len() && unawaited {
                continue;
            }
            let tracked = &mut self.tracked[at];
            if unawaited {
                tracked.pending &= !bit;
                continue;
            }
            assert!(tracked.pending & bit != 0, "C1: a record settles once");
            tracked.pending &= !bit;
            // Each valid event has one totals row, so that row says whether it was counted before.
            if already && bit == pending::TOTALS {
                tracked.class = Class::Already;
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

    /// Moves the durable boundary over the completed prefix, and over nothing else (C6).
    fn settle(&mut self) {
        while let Some(front) = self.tracked.front() {
            if front.pending != 0 {
                break;
            }
            let max = if mutant::on(Mutant::MaxAhead) {
                self.max
            } else if mutant::on(Mutant::MaxBehind) {
                self.last_max
            } else {
                front.max
            };
            self.last_max = front.max;
            self.durable = Boundary {
                next: front.next,
                max,
            };
            self.bytes -= u64::from(front.bytes);
            self.tally.bytes_freed += u64::from(front.bytes);
            let ledger = &mut self.tally.ledger;
            match front.class {
                Class::Counted => ledger.counted += 1,
                Class::Late => ledger.late += 1,
                Class::Already => ledger.already_counted += 1,
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

    fn free(&mut self, id: u32) {
        let row = self.rows[id as usize].take().expect("freed once");
        self.bytes -= ROW_BYTES;
        self.tally.bytes_freed += ROW_BYTES;
        self.free_rows.push(id);
        let hash = keys::hash(&row.key.series);
        let same_hash = self.series.get_mut(&hash).expect("a row has its series");
        for series in &mut *same_hash {
            match row.key.window_start_ms {
                None if series.totals == Some(id) => series.totals = None,
                None => {}
                Some(_) => series.windows.retain(|(_, window)| *window != id),
            }
        }
        same_hash.retain(|series| series.totals.is_some() || !series.windows.is_empty());
        if same_hash.is_empty() {
            self.series.remove(&hash);
        }
        if self.free_rows.len() == self.rows.len() && self.rows.len() > ROOM_KEPT {
            self.rows = Vec::new();
            self.free_rows = Vec::new();
        }
    }

    /// Stops waiting for company: every gathered stretch leaves as soon as its row allows.
    pub fn drain(&mut self, now_ms: i64) {
        self.draining = true;
        for id in 0..self.rows.len() {
            let Some(row) = &mut self.rows[id] else {
                continue;
            };
            if row.sent.is_some() {
                continue;
            }
            let id = u32::try_from(id).expect("row ids are u32");
            if let Some(due_ms) = row.due_ms.replace(now_ms) {
                self.due.remove(&(due_ms, id));
            }
            self.due.insert((now_ms, id));
        }
    }

    /// Notes that the log holds nothing between the position and `end` (control records only).
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
        let last_done = || self.tracked.iter().rev().find(|t| t.pending == 0);
        if mutant::on(Mutant::CommitPosition) {
            return self.boundary_at_position();
        }
        if mutant::on(Mutant::CommitLargest)
            && let Some(done) = last_done()
        {
            return Boundary {
                next: done.next,
                max: done.max,
            };
        }
        self.durable
    }

    /// Returns the position with its maximum: what no commit may carry while records are in flight.
    pub fn boundary_at_position(&self) -> Boundary {
        Boundary {
            next: self.position,
            max: self.max,
        }
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

/// Most lists here never hold a second element; the room that a list makes for its first would take a third
/// of a row's memory.
fn push_first_exactly<T>(list: &mut Vec<T>, first: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(first);
}

#[cfg(test)]
mod tests;
