//! Decides for each row of a slice whether the row agrees with the log, differs from the log, or cannot be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{
    AuditName, AuditPut, AuditRow, Counts, Fence, FoundPut, FoundRow, Key, Slice, SliceEntry,
    WrongSums, distinct,
};
use crate::clock::UnixMs;
use crate::event::{Offset, Severity};

/// The way in which a row differs from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mismatch {
    /// The row is missing from the tables, although the log has records for it.
    Missing,
    /// The content of the row in the tables differs from the content that the log requires.
    Wrong,
    /// The tables contain the row, although the log has no records for it.
    Extra,
    /// The counts are correct, but a fence of the row is wrong. With a wrong fence, the row could count a later record
    /// twice or never.
    Fence,
}

impl Mismatch {
    /// Returns the name of this kind of difference in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Mismatch::Missing => "missing",
            Mismatch::Wrong => "wrong",
            Mismatch::Extra => "extra",
            Mismatch::Fence => "fence",
        }
    }
}

/// A row that differs from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key of the row.
    pub key: Key,
    /// The way in which the row differs from the log.
    pub kind: Mismatch,
    /// A description of the actual and the expected content of the row.
    pub detail: String,
}

/// The reason why a row cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Incomparable {
    /// The row counts records of a deleted topic that had the same name as the current topic.
    Remade,
    /// The row counts records that are no longer in the log.
    Older,
    /// Some events of the row may or may not be late, depending on records that are no longer in the log.
    Unclear,
    /// The row is missing, but DynamoDB may have deleted it, because it has expired.
    Expired,
    /// The row is a progress item whose sums are unknown.
    NoSums,
}

impl Incomparable {
    /// All reasons why a row cannot be compared.
    pub const ALL: [Incomparable; 5] = [
        Incomparable::Remade,
        Incomparable::Older,
        Incomparable::Unclear,
        Incomparable::Expired,
        Incomparable::NoSums,
    ];

    /// Returns the reason as text. Reports print this text after words such as "not comparable: 12 rows".
    pub const fn reason(self) -> &'static str {
        match self {
            Incomparable::Remade => "from a topic that was recreated since",
            Incomparable::Older => "from records that the log no longer has",
            Incomparable::Unclear => "late or not, depending on records that the log no longer has",
            Incomparable::Expired => "may have expired",
            Incomparable::NoSums => {
                "progress items without sums, as an older version or a loss of records leaves them"
            }
        }
    }

    /// Returns the name of the reason in the JSON report.
    pub const fn name(self) -> &'static str {
        match self {
            Incomparable::Remade => "topic_made_again",
            Incomparable::Older => "older_than_the_log",
            Incomparable::Unclear => "lateness_unclear",
            Incomparable::Expired => "may_have_expired",
            Incomparable::NoSums => "progress_without_sums",
        }
    }
}

/// The numbers of events in the log and in the tables, summed over all rows that can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The number of counted events according to the log.
    pub log: i64,
    /// The number of counted events according to the tables.
    pub tables: i64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditOutcome {
    /// The rows that differ from the log, up to a maximum number.
    pub differences: Vec<Difference>,
    /// The progress items that differ from the log.
    pub wrong_sums: Vec<WrongSums>,
    /// Number of rows and progress items that differ from the log.
    pub difference_count: u64,
    /// Number of differences, by kind of row ([`Key::kind`] or [`super::PROGRESS_ITEM`]) and by mismatch.
    pub differing: BTreeMap<(&'static str, Mismatch), u64>,
    /// Number of rows that could not be compared, by reason.
    pub incomparable: BTreeMap<Incomparable, u64>,
    /// Number of rows that were compared, by kind of row ([`Key::kind`] or [`super::PROGRESS_ITEM`]).
    pub compared: BTreeMap<&'static str, u64>,
    /// The numbers of events in all compared window rows.
    pub windows: Sums,
    /// The numbers of events in all compared totals rows, including late events.
    pub totals: Sums,
}

/// Maximum number of differences that an outcome lists. The outcome only counts further differences.
pub(super) const DIFFERENCES_MAX: usize = 1_000;

impl AuditOutcome {
    /// Adds the outcome of another slice to this outcome.
    pub fn merge(&mut self, other: AuditOutcome) {
        let room = DIFFERENCES_MAX.saturating_sub(self.differences.len());
        self.differences
            .extend(other.differences.into_iter().take(room));
        self.wrong_sums.extend(other.wrong_sums);
        self.difference_count += other.difference_count;
        for (what, count) in other.differing {
            *self.differing.entry(what).or_default() += count;
        }
        for (reason, count) in other.incomparable {
            *self.incomparable.entry(reason).or_default() += count;
        }
        for (kind, count) in other.compared {
            *self.compared.entry(kind).or_default() += count;
        }
        for (mine, theirs) in [
            (&mut self.windows, other.windows),
            (&mut self.totals, other.totals),
        ] {
            mine.log += theirs.log;
            mine.tables += theirs.tables;
        }
    }
}

pub(super) enum RowVerdict {
    /// The row is not compared, because no record below the claim belongs to the row, or because the row has expired.
    Nothing,
    Agrees,
    Differs(Mismatch, String),
    Cannot(Incomparable),
}

impl Slice {
    /// Returns the keys of rows of counts that the log requires, but that the caller has not added to the slice.
    /// Returns at most `max` keys in ascending order, beginning after the key `after`. Because an index may lag behind
    /// its table, the caller then reads these rows by key. If the table has one of these rows, the caller repeats the
    /// comparison.
    pub fn missing_rows(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |key, entry| match entry {
            SliceEntry::Row(row) => {
                key.grain().is_none() && row.found.is_none() && row.counts != Counts::default()
            }
            SliceEntry::Put(_) => false,
        })
    }

    /// Returns the keys of raw events and alerts that seem to differ from the log. Returns at most `max` keys in
    /// ascending order, beginning after the key `after`. Because an index may lag behind its table, the caller reads
    /// these items again by key, and passes them to [`Slice::look_again`].
    pub fn suspects(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |_, entry| match entry {
            SliceEntry::Row(_) => false,
            SliceEntry::Put(put) => match &put.found {
                None => true,
                Some(found) => !(found.expired || put.seen && put.matched),
            },
        })
    }

    /// Returns the keys of alerts for which the slice knows no record. Returns at most `max` keys in ascending order,
    /// beginning after the key `after`. The caller finds the record of each alert in the raw event with the same id.
    pub fn unknown_alerts(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |key, entry| match entry {
            SliceEntry::Row(_) => false,
            SliceEntry::Put(put) => matches!(key.name, AuditName::Alert(_)) && !put.seen,
        })
    }

    pub(super) fn keys(
        &self,
        after: Option<&Key>,
        max: usize,
        wanted: impl Fn(&Key, &SliceEntry) -> bool,
    ) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries.range::<Key, _>((from, Bound::Unbounded));
        let entries = entries.filter(|(key, entry)| wanted(key, entry));
        entries.take(max).map(|(key, _)| key.clone()).collect()
    }

    /// Replaces an item that seemed to differ from the log with the item that the table now contains at the same key.
    pub fn look_again(&mut self, key: &Key, now: Option<FoundPut>) {
        let Some(SliceEntry::Put(put)) = self.entries.get_mut(key) else {
            return;
        };
        if now.is_none() && !put.seen {
            self.entries.remove(key);
            return;
        }
        // Two records with the same id and time but different cities share one raw event, which has either city.
        let is_it = |found: &FoundPut| {
            let others = |at: (i32, Offset)| {
                found.elsewhere && put.want.is_some_and(|w| at != (w.partition, w.offset))
            };
            put.want.is_some_and(|want| want.is(found)) || found.source.is_some_and(others)
        };
        put.matched |= now.as_ref().is_some_and(is_it);
        put.found = now;
    }

    /// Sets the position of an alert's record, which the caller has read from the alert's raw event.
    pub fn trace(&mut self, key: &Key, source: (i32, Offset)) {
        if let Some(SliceEntry::Put(AuditPut {
            found: Some(found), ..
        })) = self.entries.get_mut(key)
        {
            found.source = Some(source);
        }
    }

    /// Returns true if raw events or alerts are missing.
    pub fn misses_puts(&self) -> bool {
        self.entries.values().any(|entry| match entry {
            SliceEntry::Row(_) => false,
            SliceEntry::Put(put) => put.found.is_none(),
        })
    }

    /// Removes the items that DynamoDB has refused to store from the missing items. `refused` contains the positions of
    /// their records, which are in the dead-letter topic.
    pub fn excuse(&mut self, refused: &BTreeSet<(i32, Offset)>) {
        self.entries.retain(|_, entry| match entry {
            SliceEntry::Row(_) => true,
            SliceEntry::Put(put) => {
                let at = put.want.map(|want| (want.partition, want.offset));
                put.found.is_some() || !at.is_some_and(|at| refused.contains(&at))
            }
        });
    }

    /// Updates the offsets at which the logs begin. Retention may have removed records while the caller read the log.
    pub fn begin_at(&mut self, starts: &BTreeMap<i32, Offset>) {
        for (partition, start) in starts {
            if let Some((log, _)) = self.logs.get_mut(partition) {
                log.start = log.start.max(*start);
            }
        }
        self.whole_logs = self.logs.values().all(|(log, _)| log.start.0 == 0);
    }

    /// Decides the outcome of every row in the slice.
    pub fn outcome(&self) -> AuditOutcome {
        let mut out = AuditOutcome::default();
        self.judge_progress(&mut out);
        for (key, entry) in &self.entries {
            let verdict = match entry {
                SliceEntry::Row(row) if key.grain().is_some() => row.judge_rollup(),
                SliceEntry::Row(row) => self.judge_row(key, row, &mut out),
                SliceEntry::Put(put) => self.judge_put(key, put),
            };
            match verdict {
                RowVerdict::Nothing => continue,
                RowVerdict::Cannot(reason) => {
                    *out.incomparable.entry(reason).or_default() += 1;
                    continue;
                }
                RowVerdict::Agrees => {}
                RowVerdict::Differs(kind, detail) => {
                    out.difference_count += 1;
                    *out.differing.entry((key.kind(), kind)).or_default() += 1;
                    if out.differences.len() < DIFFERENCES_MAX {
                        let key = key.clone();
                        out.differences.push(Difference { key, kind, detail });
                    }
                }
            }
            *out.compared.entry(key.kind()).or_default() += 1;
        }
        out
    }

    /// Returns the reason why a row of counts cannot be compared with the log, or `None` if its fences allow a
    /// comparison.
    pub(super) fn cannot_compare(&self, found: &FoundRow) -> Option<Incomparable> {
        let is_older = |fence: &Fence| {
            let log = self.logs.get(&fence.partition);
            log.is_some_and(|(log, _)| fence.first < log.start)
        };
        match found {
            FoundRow { foreign: true, .. } => Some(Incomparable::Remade),
            FoundRow { fences, .. } if fences.iter().any(is_older) => Some(Incomparable::Older),
            FoundRow { .. } => None,
        }
    }

    fn judge_row(&self, key: &Key, row: &AuditRow, out: &mut AuditOutcome) -> RowVerdict {
        let totals = matches!(key.name, AuditName::Totals(_));
        if row.unsure {
            return RowVerdict::Cannot(Incomparable::Unclear);
        }
        let none = FoundRow::default();
        let found = row.found.as_ref().unwrap_or(&none);
        if let Some(reason) = self.cannot_compare(found) {
            return RowVerdict::Cannot(reason);
        }
        if totals && !self.whole_logs {
            return RowVerdict::Cannot(Incomparable::Older);
        }
        if row.found.is_none() && row.counts == Counts::default() {
            return RowVerdict::Nothing;
        }
        let sums = if totals {
            &mut out.totals
        } else {
            &mut out.windows
        };
        sums.log += row.counts.event_count + row.counts.late_count;
        sums.tables += found.counts.event_count + found.counts.late_count;
        if row.found.is_none() {
            let count = row.counts.event_count + row.counts.late_count;
            return RowVerdict::Differs(
                Mismatch::Missing,
                format!("the log has {}", events(count)),
            );
        }
        if let Some(odd) = &found.odd {
            return RowVerdict::Differs(Mismatch::Wrong, odd.clone());
        }
        let mut details = row.disagreements(found);
        if !details.is_empty() {
            let nothing = row.counts == Counts::default();
            if let Some((partition, offset)) = row.lacking_at {
                let others = match row.lacking {
                    1 => String::new(),
                    n => format!(" and {} more", n - 1),
                };
                details.push(format!(
                    "the record at partition {partition}, offset {offset}{others} is not counted"
                ));
            }
            let kind = if nothing {
                Mismatch::Extra
            } else {
                Mismatch::Wrong
            };
            return RowVerdict::Differs(kind, details.join("; "));
        }
        let broken = self.broken_fences(row, found);
        if broken.is_empty() {
            RowVerdict::Agrees
        } else {
            RowVerdict::Differs(Mismatch::Fence, broken.join("; "))
        }
    }

    fn broken_fences(&self, row: &AuditRow, found: &FoundRow) -> Vec<String> {
        let mut out = Vec::new();
        for (fence, (first, next, before)) in found.fences.iter().zip(&row.ends) {
            let Fence {
                partition,
                first: f,
                next: n,
            } = fence;
            if !self.logs.contains_key(partition) {
                out.push(format!(
                    "a fence names partition {partition}, which the topic does not have"
                ));
            } else if *before {
                out.push(format!(
                    "partition {partition} has a record of it before the fence's first, {f}"
                ));
            } else if !(*first && *next) {
                out.push(format!(
                    "the fence of partition {partition} names offsets {f} to {n}, where the log has no record of it"
                ));
            }
        }
        if out.is_empty() && row.lacking > 0 {
            // The counts are equal only by chance: the row counts some records twice and omits as many others.
            out.push("its fence leaves out records that are stored".to_owned());
        }
        out
    }

    fn judge_put(&self, key: &Key, put: &AuditPut) -> RowVerdict {
        let at = |want: Option<super::Want>| {
            want.map_or(String::new(), |w| {
                format!(
                    "the log has it at partition {}, offset {}",
                    w.partition, w.offset
                )
            })
        };
        let Some(found) = &put.found else {
            let ttl_ms = match key.name {
                AuditName::Raw(_) => Some(self.scope.raw_ttl_ms),
                _ => self.scope.alert_ttl_ms,
            };
            let record_ms = put.want.and_then(|want| want.record_ms);
            let stored_ms = record_ms.unwrap_or(UnixMs(0)).max(self.scope.made_ms);
            let ends_ms = ttl_ms.map(|ttl_ms| stored_ms.saturating_add(ttl_ms));
            if ends_ms.is_some_and(|ends_ms| ends_ms <= self.scope.now_ms) {
                return RowVerdict::Cannot(Incomparable::Expired);
            }
            return RowVerdict::Differs(Mismatch::Missing, at(put.want));
        };
        if found.expired {
            return RowVerdict::Nothing;
        }
        if put.seen {
            // If no record below the claim requires the item, a consumer may still replace the item with the content of
            // a newer record.
            let wrong = !put.matched && put.want.is_some();
            return if wrong {
                let detail = format!("it says something else; {}", at(put.want));
                RowVerdict::Differs(Mismatch::Wrong, detail)
            } else {
                RowVerdict::Agrees
            };
        }
        if self.scope.remade {
            return RowVerdict::Cannot(Incomparable::Remade);
        }
        let known = match found.source {
            Some((partition, offset)) => {
                let log = self.logs.get(&partition);
                log.is_none_or(|(log, _)| offset >= log.start)
            }
            None => self.whole_logs,
        };
        if known {
            let detail = match found.source {
                Some((p, o)) => format!("the log has no such event at partition {p}, offset {o}"),
                None => "the log has no such event".to_owned(),
            };
            RowVerdict::Differs(Mismatch::Extra, detail)
        } else {
            RowVerdict::Cannot(Incomparable::Older)
        }
    }
}

impl AuditRow {
    /// Returns a description of each count in the row that differs from the log.
    pub(super) fn disagreements(&self, found: &FoundRow) -> Vec<String> {
        let (log, row) = (&self.counts, &found.counts);
        let mut pairs = vec![
            ("event_count".to_owned(), row.event_count, log.event_count),
            ("late_count".to_owned(), row.late_count, log.late_count),
        ];
        for severity in Severity::ALL {
            let at = severity.index();
            let (row, log) = (row.severities[at], log.severities[at]);
            pairs.push((format!("severity_{severity}"), row, log));
        }
        let differing = pairs.into_iter().filter(|(_, row, log)| row != log);
        let mut out: Vec<String> = differing
            .map(|(name, row, log)| format!("{name} is {row}, by the log {log}"))
            .collect();
        if out.is_empty() && found.distinct.is_some_and(|set| set != distinct(log)) {
            out.push("the attribute severities differs from the counts by severity".to_owned());
        }
        if out.is_empty() && *log == Counts::default() {
            out.push("the log has no event of it".to_owned());
        }
        out
    }
}

fn events(count: i64) -> String {
    match count {
        1 => "1 event of it".to_owned(),
        n => format!("{n} events of it"),
    }
}
