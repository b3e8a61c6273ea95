//! What a slice comes to: each row agrees, differs, or cannot be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{
    Counts, Entry, Fence, FoundPut, FoundRow, Key, Name, Put, Row, Slice, WrongSums, distinct,
};
use crate::event::{Offset, Severity};

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The log has it, the tables do not.
    Missing,
    /// Both have it, and disagree.
    Wrong,
    /// The tables have it, the log does not.
    Extra,
    /// It counts right, but a fence names offsets at which the log has no record of the row, so a
    /// record to come would be left out or counted twice.
    Fence,
}

impl Kind {
    /// Returns the word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Wrong => "wrong",
            Kind::Extra => "extra",
            Kind::Fence => "fence",
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which row.
    pub key: Key,
    /// How.
    pub kind: Kind,
    /// In words: what is there, and what should be.
    pub detail: String,
}

/// Why a row cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Incomparable {
    /// It was counted, in part, from a topic that was deleted and made again.
    Remade,
    /// It was counted, in part, from records that the log no longer has.
    Older,
    /// Lateness of its events depends on records that the log no longer has.
    Unclear,
    /// It is missing, but may have expired.
    Expired,
    /// It is a progress item that does not know its sums.
    NoSums,
}

impl Incomparable {
    /// All of them.
    pub const ALL: [Incomparable; 5] = [
        Incomparable::Remade,
        Incomparable::Older,
        Incomparable::Unclear,
        Incomparable::Expired,
        Incomparable::NoSums,
    ];

    /// Returns the reason, to follow "not comparable: 12 rows".
    pub const fn reason(self) -> &'static str {
        match self {
            Incomparable::Remade => "from a topic that was made again since",
            Incomparable::Older => "from records that the log no longer has",
            Incomparable::Unclear => "late or not by records that the log no longer has",
            Incomparable::Expired => "may have expired",
            Incomparable::NoSums => {
                "progress items without sums, as an older version or a loss of records leaves them"
            }
        }
    }

    /// Returns the name in JSON.
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

/// Events by the log and by the tables, over the rows that can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// By the log.
    pub log: i64,
    /// By the tables.
    pub tables: i64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first of the rows that differ.
    pub differences: Vec<Difference>,
    /// The progress items that differ.
    pub wrong_sums: Vec<WrongSums>,
    /// How many rows and progress items differ.
    pub difference_count: u64,
    /// How many differ, by [`Key::kind`] or [`super::PROGRESS_ITEM`], and how.
    pub differing: BTreeMap<(&'static str, Kind), u64>,
    /// How many could not be compared, by reason.
    pub incomparable: BTreeMap<Incomparable, u64>,
    /// How many were compared, by [`Key::kind`] or [`super::PROGRESS_ITEM`].
    pub compared: BTreeMap<&'static str, u64>,
    /// Events in windows.
    pub windows: Sums,
    /// Events in totals, late ones included.
    pub totals: Sums,
}

/// Differences that are kept; the others are counted.
pub(super) const DIFFERENCES_MAX: usize = 1_000;

impl Outcome {
    /// Adds what another slice found.
    pub fn merge(&mut self, other: Outcome) {
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

enum Verdict {
    /// Nothing to say: nothing is claimed of it, or it has expired.
    Nothing,
    Agrees,
    Differs(Kind, String),
    Cannot(Incomparable),
}

impl Slice {
    /// Returns the rows of counts that the log wants and the tables did not show, the first `max`
    /// behind `after`: to be read by their keys, since an index may lag, and compared again where
    /// they exist.
    pub fn missing_rows(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |_, entry| match entry {
            Entry::Row(row) => row.found.is_none() && row.counts != Counts::default(),
            Entry::Put(_) => false,
        })
    }

    /// Returns the raw events and alerts that seem to differ, the first `max` behind `after`: to be
    /// read by their keys, since an index may lag. The answers go to [`Slice::look_again`].
    pub fn suspects(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |_, entry| match entry {
            Entry::Row(_) => false,
            Entry::Put(put) => match &put.found {
                None => true,
                Some(found) => !(found.expired || put.seen && put.matched),
            },
        })
    }

    /// Returns the alerts that no record is known to have raised, the first `max` behind `after`: to
    /// be traced by their raw events.
    pub fn unknown_alerts(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, |key, entry| match entry {
            Entry::Row(_) => false,
            Entry::Put(put) => matches!(key.name, Name::Alert(_)) && !put.seen,
        })
    }

    fn keys(
        &self,
        after: Option<&Key>,
        max: usize,
        wanted: impl Fn(&Key, &Entry) -> bool,
    ) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries.range::<Key, _>((from, Bound::Unbounded));
        let entries = entries.filter(|(key, entry)| wanted(key, entry));
        entries.take(max).map(|(key, _)| key.clone()).collect()
    }

    /// Takes what stands at a suspect's key now.
    pub fn look_again(&mut self, key: &Key, now: Option<FoundPut>) {
        let Some(Entry::Put(put)) = self.entries.get_mut(key) else {
            return;
        };
        if now.is_none() && !put.seen {
            self.entries.remove(key);
            return;
        }
        // Two records of one id and time in two cities share a raw event: either may be there.
        let is_it = |found: &FoundPut| {
            let others = |at: (i32, Offset)| {
                found.elsewhere && put.want.is_some_and(|w| at != (w.partition, w.offset))
            };
            put.want.is_some_and(|want| want.is(found)) || found.source.is_some_and(others)
        };
        put.matched |= now.as_ref().is_some_and(is_it);
        put.found = now;
    }

    /// Takes the record that an alert's raw event names.
    pub fn trace(&mut self, key: &Key, source: (i32, Offset)) {
        if let Some(Entry::Put(Put {
            found: Some(found), ..
        })) = self.entries.get_mut(key)
        {
            found.source = Some(source);
        }
    }

    /// Tells whether raw events or alerts are missing.
    pub fn misses_puts(&self) -> bool {
        self.entries.values().any(|entry| match entry {
            Entry::Row(_) => false,
            Entry::Put(put) => put.found.is_none(),
        })
    }

    /// Takes the records whose items DynamoDB refused: they lie in the dead-letter topic instead.
    pub fn excuse(&mut self, refused: &BTreeSet<(i32, Offset)>) {
        self.entries.retain(|_, entry| match entry {
            Entry::Row(_) => true,
            Entry::Put(put) => {
                let at = put.want.map(|want| (want.partition, want.offset));
                put.found.is_some() || !at.is_some_and(|at| refused.contains(&at))
            }
        });
    }

    /// Takes where the logs begin now: retention may have moved on while they were read.
    pub fn begin_at(&mut self, starts: &BTreeMap<i32, Offset>) {
        for (partition, start) in starts {
            if let Some((log, _)) = self.logs.get_mut(partition) {
                log.start = log.start.max(*start);
            }
        }
        self.whole_logs = self.logs.values().all(|(log, _)| log.start.0 == 0);
    }

    /// Judges every row.
    pub fn judge(&self) -> Outcome {
        let mut out = Outcome::default();
        self.judge_progress(&mut out);
        for (key, entry) in &self.entries {
            let verdict = match entry {
                Entry::Row(row) => self.judge_row(key, row, &mut out),
                Entry::Put(put) => self.judge_put(key, put),
            };
            match verdict {
                Verdict::Nothing => continue,
                Verdict::Cannot(reason) => {
                    *out.incomparable.entry(reason).or_default() += 1;
                    continue;
                }
                Verdict::Agrees => {}
                Verdict::Differs(kind, detail) => {
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

    fn judge_row(&self, key: &Key, row: &Row, out: &mut Outcome) -> Verdict {
        let totals = matches!(key.name, Name::Totals(_));
        if row.unsure {
            return Verdict::Cannot(Incomparable::Unclear);
        }
        let none = FoundRow::default();
        let found = row.found.as_ref().unwrap_or(&none);
        if found.foreign {
            return Verdict::Cannot(Incomparable::Remade);
        }
        let older = |fence: &Fence| {
            let log = self.logs.get(&fence.partition);
            log.is_some_and(|(log, _)| fence.first < log.start)
        };
        if found.fences.iter().any(older) || (totals && !self.whole_logs) {
            return Verdict::Cannot(Incomparable::Older);
        }
        if row.found.is_none() && row.counts == Counts::default() {
            return Verdict::Nothing;
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
            return Verdict::Differs(Kind::Missing, format!("the log has {}", events(count)));
        }
        if let Some(odd) = &found.odd {
            return Verdict::Differs(Kind::Wrong, odd.clone());
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
            let kind = if nothing { Kind::Extra } else { Kind::Wrong };
            return Verdict::Differs(kind, details.join("; "));
        }
        let broken = self.broken_fences(row, found);
        if broken.is_empty() {
            Verdict::Agrees
        } else {
            Verdict::Differs(Kind::Fence, broken.join("; "))
        }
    }

    fn broken_fences(&self, row: &Row, found: &FoundRow) -> Vec<String> {
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
            // The sums agree by chance: as many were counted twice as were left out.
            out.push("its fence leaves out records that are stored".to_owned());
        }
        out
    }

    fn judge_put(&self, key: &Key, put: &Put) -> Verdict {
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
                Name::Raw(_) => Some(self.scope.raw_ttl_ms),
                _ => self.scope.alert_ttl_ms,
            };
            let age = put.want.and_then(|want| want.record_ms).unwrap_or(0);
            let stored_ms = age.max(self.scope.made_ms);
            let ends_ms = ttl_ms.map(|ttl_ms| stored_ms.saturating_add(ttl_ms));
            if ends_ms.is_some_and(|ends_ms| ends_ms <= self.scope.now_ms) {
                return Verdict::Cannot(Incomparable::Expired);
            }
            return Verdict::Differs(Kind::Missing, at(put.want));
        };
        if found.expired {
            return Verdict::Nothing;
        }
        if put.seen {
            // A record that is in no claim yet may be about to replace an older one of the same key.
            let wrong = !put.matched && put.want.is_some();
            return if wrong {
                let detail = format!("it says something else; {}", at(put.want));
                Verdict::Differs(Kind::Wrong, detail)
            } else {
                Verdict::Agrees
            };
        }
        if self.scope.remade {
            return Verdict::Cannot(Incomparable::Remade);
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
            Verdict::Differs(Kind::Extra, detail)
        } else {
            Verdict::Cannot(Incomparable::Older)
        }
    }
}

impl Row {
    /// Returns what the row says and the log does not, count by count.
    fn disagreements(&self, found: &FoundRow) -> Vec<String> {
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
            out.push("severities names others than it counts".to_owned());
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
