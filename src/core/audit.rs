//! The comparison of a log with the tables: a second fold, beside the one that writes.
//!
//! It shares parsing and the arithmetic of windows with the write path and nothing else: watermark,
//! rows, keys and sums are its own, so that a mistake there does not vouch for itself.
//!
//! A [`Slice`] is a stretch of all rows in the order of city and time ([`Place`]). The caller fills
//! it with what the tables hold ([`Slice::add_row`], [`Slice::add_put`]), hands it every record of the log
//! in offset order ([`Slice::take`]), and asks for the outcome ([`Slice::judge`]). Memory is bounded:
//! what does not fit any more is cut off at the slice's upper end, for the next slice.
//!
//! What makes it exact while consumers run: a row's fence says which records of a partition it holds,
//! so it must hold those and no others. The *claim* of a partition is the offset below which
//! everything was said to be stored before the rows were read; below it, nothing may be missing.
//! Records at or above both are in no row yet, and nobody says so.

mod judge;
mod key;
mod progress;
#[cfg(test)]
mod tests;
mod watermark;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::event::{Event, Offset, Severity};
use crate::parse::{Body, Reject};
use crate::window::Rules;

pub use judge::{Difference, Incomparable, Kind, Outcome, Sums};
pub use key::{Key, Name, Place, TOTALS_TIME_MS};
pub use progress::{PROGRESS_ITEM, Published, WrongSums};
pub use watermark::{Lateness, Stamp, Watermark};

/// The counts of a row, or of a progress item. Signed: a damaged row can hold anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events counted in windows.
    pub event_count: i64,
    /// Late events; totals only.
    pub late_count: i64,
    /// Both kinds, by [`Severity::index`].
    pub severities: [i64; 4],
}

impl Counts {
    fn add(&mut self, severity: Severity, late: bool) {
        if late {
            self.late_count += 1;
        } else {
            self.event_count += 1;
        }
        self.severities[severity.index()] += 1;
    }
}

/// A fence of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The partition.
    pub partition: i32,
    /// The first record counted.
    pub first: Offset,
    /// One past the last.
    pub next: Offset,
}

/// A row of counts as the tables hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRow {
    /// What it counts.
    pub counts: Counts,
    /// Its set of severities by [`Severity::index`]; `None` for totals, which have none.
    pub distinct: Option<[bool; 4]>,
    /// Its fences of the log.
    pub fences: Vec<Fence>,
    /// It has fences of another topic id.
    pub foreign: bool,
    /// An attribute that contradicts its key, or a broken fence.
    pub odd: Option<String>,
}

/// A raw event or an alert as the tables hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPut {
    /// Fingerprint of what it says, see [`content`].
    pub content: u64,
    /// Its flag `late`.
    pub late: bool,
    /// Partition and offset that a raw event names; alerts name none.
    pub source: Option<(i32, Offset)>,
    /// Its city is not the one of the key it was looked for under.
    pub elsewhere: bool,
    /// Past its `ttl`: as good as gone.
    pub expired: bool,
}

/// Returns a fingerprint of what a raw event (with `future` and `extra`) or an alert says.
pub fn content(
    city: &str,
    event_type: &str,
    severity: &str,
    description: &str,
    future: bool,
    extra: Option<&str>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (city, event_type, severity, description, future, extra).hash(&mut hasher);
    hasher.finish()
}

/// Which events have raw rows and alerts, as the tables' config item says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// All, and alerts.
    All,
    /// Those of high and critical severity, and alerts.
    Alerts,
    /// None, and no alerts.
    Nothing,
}

/// One partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its oldest record.
    pub start: Offset,
    /// Everything below is said to be stored.
    pub claim: Offset,
    /// No event time below its start is larger; `None` if nobody knows.
    pub before_max_ms: Option<i64>,
    /// What its progress item says, if it has one.
    pub published: Option<Published>,
}

/// What is compared.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The topic, part of the ids of events that have none.
    pub topic: String,
    /// The rules of event time.
    pub rules: Rules,
    /// Which events are stored.
    pub stored: Stored,
    /// Event times and window starts `[from, until)`.
    pub range: (i64, i64),
    /// Another topic of this name was counted here before.
    pub remade: bool,
    /// Raw events live at least as long after their record …
    pub raw_ttl_ms: i64,
    /// … so do alerts, for ever if `None` …
    pub alert_ttl_ms: Option<i64>,
    /// … and the tables, which were made then (Unix ms; 0 if unknown).
    pub made_ms: i64,
    /// The clock.
    pub now_ms: i64,
    /// Memory for the rows of a slice, in bytes.
    pub bytes_max: usize,
}

/// What one pass over the log saw, whatever the slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records.
    pub records: u64,
    /// Valid events.
    pub events: u64,
    /// Valid events that came after their window was closed.
    pub late: u64,
    /// Rejected records.
    pub rejected: u64,
    /// Valid events at or above the claims: nobody says yet that they are stored.
    pub unclaimed: u64,
}

#[derive(Clone, Debug, Default)]
struct Row {
    found: Option<FoundRow>,
    counts: Counts,
    /// Records below the claim that the row's fence leaves out, and the first of them.
    lacking: u64,
    lacking_at: Option<(i32, Offset)>,
    /// Per fence: a record of the row stands at its first, and before its next; one stands earlier.
    ends: Vec<(bool, bool, bool)>,
    /// Whether an event belongs here depends on records that the log no longer has.
    unsure: bool,
}

#[derive(Clone, Debug)]
struct Put {
    found: Option<FoundPut>,
    /// A record has this key; one has this content, too.
    seen: bool,
    matched: bool,
    want: Option<Want>,
}

/// The first record below the claim that a put is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// What it says.
    pub content: u64,
    /// Whether it is late.
    pub late: Lateness,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: Offset,
    /// Its Kafka timestamp.
    pub record_ms: Option<i64>,
}

impl Want {
    fn is(&self, found: &FoundPut) -> bool {
        self.content == found.content && self.late.may_be(found.late)
    }
}

#[derive(Clone, Debug)]
enum Entry {
    // Boxed: there are many more raw events and alerts, and they are smaller.
    Row(Box<Row>),
    Put(Put),
}

/// A stretch of rows: what the tables hold of them, and what the log says.
#[derive(Debug)]
pub struct Slice {
    scope: Scope,
    /// First place, and the first one behind; `None` is the end.
    lo: Option<Place>,
    hi: Option<Place>,
    logs: BTreeMap<i32, (Log, Watermark)>,
    whole_logs: bool,
    /// What the log has below the `next` of each partition's progress item.
    published: BTreeMap<i32, Counts>,
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
    bytes_peak: usize,
    seen: Seen,
}

impl Slice {
    /// Returns an empty slice from `lo` on (`None`: from the beginning).
    pub fn new(scope: Scope, lo: Option<Place>, logs: &BTreeMap<i32, Log>) -> Slice {
        let watermark = |log: &Log| Watermark::new(log.start.0 > 0, log.before_max_ms);
        Slice {
            scope,
            lo,
            hi: None,
            logs: logs.iter().map(|(p, l)| (*p, (*l, watermark(l)))).collect(),
            whole_logs: logs.values().all(|log| log.start.0 == 0),
            published: BTreeMap::new(),
            entries: BTreeMap::new(),
            bytes: 0,
            bytes_peak: 0,
            seen: Seen::default(),
        }
    }

    /// Returns where the next slice begins; `None` if this is the last.
    pub fn hi(&self) -> Option<&Place> {
        self.hi.as_ref()
    }

    /// Ends the slice before `hi`; what lies behind is dropped.
    pub fn end_at(&mut self, hi: Place) {
        if self.hi.as_ref().is_none_or(|old| hi < *old) {
            let cut = Key {
                place: hi.clone(),
                name: Name::Totals("".into()),
            };
            drop(self.entries.split_off(&cut));
            self.bytes = self.entries.iter().map(|(k, e)| bytes(k, e)).sum();
            self.hi = Some(hi);
        }
    }

    /// Tells whether the tables' rows fill three quarters of the slice: the rest is for rows that
    /// only the log knows.
    pub fn is_full(&self) -> bool {
        self.bytes > self.scope.bytes_max / 4 * 3
    }

    /// Returns the most bytes its rows took.
    pub fn bytes_peak(&self) -> usize {
        self.bytes_peak
    }

    /// Returns what the log held.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Returns how many rows it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a row of counts of the tables.
    pub fn add_row(&mut self, key: Key, found: FoundRow) {
        let ends = vec![(false, false, false); found.fences.len()];
        let row = Row {
            found: Some(found),
            ends,
            ..Row::default()
        };
        self.insert(key, Entry::Row(Box::new(row)));
    }

    /// Adds a raw event or an alert of the tables.
    pub fn add_put(&mut self, key: Key, found: FoundPut) {
        let put = Put {
            found: Some(found),
            seen: false,
            matched: false,
            want: None,
        };
        self.insert(key, Entry::Put(put));
    }

    /// Takes the next record of a partition.
    pub fn take(
        &mut self,
        partition: i32,
        offset: Offset,
        stamp: Stamp,
        body: &Result<Body, Reject>,
    ) {
        self.seen.records += 1;
        let rules = self.scope.rules;
        let Some((log, watermark)) = self.logs.get_mut(&partition) else {
            // A partition that was added since; nothing is claimed of it.
            return;
        };
        let event = match body {
            Err(_) => {
                self.seen.rejected += 1;
                return;
            }
            Ok(Body::Heartbeat(time_ms)) => {
                watermark.pass(*time_ms, stamp, &rules);
                return;
            }
            Ok(Body::Event(event)) => event,
        };
        let claimed = offset < log.claim;
        let late = watermark.pass(event.time_ms, stamp, &rules);
        if log.is_published(offset) {
            let counts = self.published.entry(partition).or_default();
            counts.add(event.severity, late == Lateness::Late);
        }
        self.seen.events += 1;
        self.seen.late += u64::from(late == Lateness::Late);
        self.seen.unclaimed += u64::from(!claimed);
        let at = At {
            partition,
            offset,
            record_ms: stamp.ms,
            claimed,
            late,
        };
        if self.whole_logs {
            self.count(Key::totals(&event.city, &event.event_type), event, at);
        }
        let start_ms = rules.window_start(event.time_ms);
        if late != Lateness::Late && self.in_range(start_ms) {
            self.count(
                Key::window(&event.city, &event.event_type, start_ms),
                event,
                at,
            );
        }
        let alert = event.severity.is_alert();
        let stored = match self.scope.stored {
            Stored::All => true,
            Stored::Alerts => alert,
            Stored::Nothing => false,
        };
        if stored && self.in_range(event.time_ms) {
            self.store(event, at, alert);
        }
    }

    fn in_range(&self, time_ms: i64) -> bool {
        let (from, until) = self.scope.range;
        from <= time_ms && time_ms < until
    }

    fn holds(&self, place: &Place) -> bool {
        self.lo.as_ref().is_none_or(|lo| lo <= place)
            && self.hi.as_ref().is_none_or(|hi| place < hi)
    }

    fn count(&mut self, key: Key, event: &Event, at: At) {
        if !self.holds(&key.place) {
            return;
        }
        if !self.entries.contains_key(&key) {
            if !at.claimed || at.late == Lateness::Unknown {
                return;
            }
            self.insert(key.clone(), Entry::Row(Box::default()));
        }
        // Making room may have cut it off again.
        let Some(Entry::Row(row)) = self.entries.get_mut(&key) else {
            return;
        };
        if at.late == Lateness::Unknown {
            row.unsure = true;
            return;
        }
        let fences = row.found.as_ref().map_or(&[][..], |f| &f.fences);
        let mut fence_next = None;
        for (fence, ends) in fences.iter().zip(&mut row.ends) {
            if fence.partition == at.partition {
                fence_next = Some(fence.next);
                ends.0 |= at.offset == fence.first;
                ends.1 |= at.offset.next() == fence.next;
                ends.2 |= at.offset < fence.first;
            }
        }
        let held = fence_next.is_some_and(|next| at.offset < next);
        if !held && !at.claimed {
            return;
        }
        if !held {
            row.lacking += 1;
            row.lacking_at = row.lacking_at.or(Some((at.partition, at.offset)));
        }
        row.counts.add(event.severity, at.late == Lateness::Late);
    }

    fn store(&mut self, event: &Event, at: At, alert: bool) {
        let place = Place::new(&event.city, event.time_ms);
        if !self.holds(&place) {
            return;
        }
        let id = match &event.event_id {
            Some(id) => id.clone(),
            None => format!("{}-{}-{}", self.scope.topic, at.partition, at.offset).into(),
        };
        let future = self.scope.rules.is_future(event.time_ms, at.record_ms);
        let fingerprint = |future: bool, extra: Option<&str>| {
            let (kind, severity) = (&event.event_type, event.severity.name());
            content(
                &event.city,
                kind,
                severity,
                &event.description,
                future,
                extra,
            )
        };
        let want = |content: u64| Want {
            content,
            late: at.late,
            partition: at.partition,
            offset: at.offset,
            record_ms: at.record_ms,
        };
        if alert {
            let key = Key {
                place: place.clone(),
                name: Name::Alert(id.clone()),
            };
            self.put(key, want(fingerprint(false, None)), at.claimed);
        }
        let key = Key {
            place,
            name: Name::Raw(id),
        };
        let raw = want(fingerprint(future, event.extra.as_deref()));
        self.put(key, raw, at.claimed);
    }

    fn put(&mut self, key: Key, want: Want, claimed: bool) {
        match self.entries.get_mut(&key) {
            Some(Entry::Put(put)) => {
                put.seen = true;
                put.matched |= put.found.as_ref().is_some_and(|found| want.is(found));
                if claimed {
                    put.want = put.want.or(Some(want));
                }
            }
            Some(Entry::Row(_)) => {}
            None if claimed => {
                let put = Put {
                    found: None,
                    seen: true,
                    matched: false,
                    want: Some(want),
                };
                self.insert(key, Entry::Put(put));
            }
            None => {}
        }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        if !self.holds(&key.place) {
            return;
        }
        self.bytes += bytes(&key, &entry);
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.bytes -= bytes(&key, &old);
        }
        self.bytes_peak = self.bytes_peak.max(self.bytes);
        if self.bytes > self.scope.bytes_max {
            self.cut();
        }
    }

    /// Leaves the upper half to the next slice. What shares one place, a millisecond of one city,
    /// cannot be parted.
    fn cut(&mut self) {
        let first = self.entries.keys().next().map(|key| key.place.clone());
        let middle = self.entries.keys().nth(self.entries.len() / 2);
        let mut behind = self.entries.keys().rev().map(|key| &key.place);
        let at = match (first, middle) {
            (Some(first), Some(middle)) if middle.place > first => Some(middle.place.clone()),
            (Some(first), _) => behind.next().filter(|last| **last > first).cloned(),
            (None, _) => None,
        };
        if let Some(at) = at {
            self.end_at(at);
        }
    }
}

/// Where a record stands, and what is known of it.
#[derive(Clone, Copy, Debug)]
struct At {
    partition: i32,
    offset: Offset,
    record_ms: Option<i64>,
    claimed: bool,
    late: Lateness,
}

/// What an entry takes: itself, its share of the map's nodes, and what it points to.
fn bytes(key: &Key, entry: &Entry) -> usize {
    let rest = match entry {
        Entry::Row(row) => {
            let found = row.found.as_ref().map_or(0, |found| {
                found.fences.len() * (size_of::<Fence>() + 3)
                    + found.odd.as_ref().map_or(0, |text| text.len())
            });
            size_of::<Row>() + found
        }
        Entry::Put(_) => 0,
    };
    // Two texts, each with its allocation; nodes of the map are two thirds full.
    (size_of::<Key>() + size_of::<Entry>()) * 3 / 2 + key.bytes() + 32 + rest
}

/// Returns the severities that `counts` has any of.
fn distinct(counts: &Counts) -> [bool; 4] {
    Severity::ALL.map(|s| counts.severities[s.index()] > 0)
}
