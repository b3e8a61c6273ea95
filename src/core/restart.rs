//! Defines restart points, and the start rule, which decides at which offset the consumer begins to read a partition.
//!
//! A [`Boundary`] contains an offset and the largest event time *below that offset*. A commit to Kafka stores the
//! offset, and stores the largest event time in the commit's metadata, so that offset and watermark move together. The
//! progress item in the tables also contains a boundary, so that a restart point exists even if the group's offsets are
//! lost. This table shows the start rule:
//!
//! | the commit … | the progress item | start |
//! |---|---|---|
//! | names this topic id and these tables | – | at the commit |
//! | names this topic id and these tables, but is below the log's beginning | is further ahead | at the progress item |
//! | has empty or unreadable metadata | – | no start: an operator must decide |
//! | has empty or unreadable metadata and offset 0, and the log begins at 0 | – | as if the commit were missing |
//! | is missing, or names another topic or other tables | exists | at the progress item |
//! | is missing, or names another topic or other tables | is missing | at the log's start, once the item is created |
//!
//! The shell also compares the records below the committed offset with the log ([`StartFacts::replaced_from`]).
//!
//! A boundary also contains the [sums](Boundary::sums) of the log below its offset. Adding up the sums of a few
//! progress items therefore gives the grand total, no matter how many series exist. The start rule does not use the
//! sums.
//!
//! All records below a published boundary are durable, no matter which consumer published the boundary. A former owner
//! of the partition may have committed the group's offset. Retention may already have removed the records at that
//! offset. If the log still covers the progress item, the partition starts at the progress item, and no data is lost.
//! If even the progress item is outside the log, records are lost ([`Start::Expired`], [`Start::Truncated`]).

use crate::clock::{BootMs, SteadyMs, UnixMs};
use crate::event::Offset;
use crate::stretch::Sum;
use crate::watermark::MaxTime;
use crate::window::Rules;

/// A point from which a partition can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The offset to read next. All records below this offset are durable.
    pub next: Offset,
    /// The largest event time below `next`.
    pub max: MaxTime,
    /// The counts of the log's events below `next`: events in windows, late events, and all events by severity. The
    /// counts do not depend on which consumer counted the events. Rejected records and heartbeats are not counted.
    ///
    /// `None` means that the sums are unknown. The sums become unknown if a consumer that runs an older version has
    /// owned the partition. A loss of records that may already be counted also makes the sums unknown. Unknown sums
    /// stay unknown for the rest of the log. Once the consumers are idle, the sums of all progress items add up to the
    /// counts in all totals rows. The total includes the progress items of former topic ids. If a topic is deleted
    /// while a consumer counts its events, the total lacks the events after the last publication of the progress item.
    pub sums: Option<Sum>,
}

impl Boundary {
    /// Returns the boundary at the beginning of a log, before any event of the log is counted.
    pub const fn begin(next: Offset) -> Boundary {
        Boundary {
            next,
            max: MaxTime::new(None),
            sums: Some(Sum::ZERO),
        }
    }
}

/// The metadata that a consumer writes into a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The id of the topic that the offset belongs to.
    pub topic_id: String,
    /// The id of the tables to which all records below the offset were written.
    pub tables_id: String,
    /// The largest event time below the offset.
    pub max: MaxTime,
    /// The sums of the log below the offset (see [`Boundary::sums`]).
    pub sums: Option<Sum>,
}

impl Metadata {
    /// Returns the metadata as text: `v1;topic=<topic id>;tables=<tables id>;max=<ms or ->`. If the sums are known, the
    /// text continues with `;sums=<events>,<late>,<low>,<medium>,<high>,<critical>`.
    pub fn format(&self) -> String {
        let max = self
            .max
            .max_ms()
            .map_or("-".to_owned(), |ms| ms.0.to_string());
        let sums = self.sums.map_or(String::new(), |sums| {
            let numbers = sums.numbers().map(|number| number.to_string());
            format!(";sums={}", numbers.join(","))
        });
        format!(
            "v1;topic={};tables={};max={max}{sums}",
            self.topic_id, self.tables_id
        )
    }

    /// Parses the text format of [`Metadata::format`], or returns `None` for other text. Unknown keys are ignored.
    ///
    /// If the sums cannot be parsed, they are treated as unknown.
    pub fn parse(text: &str) -> Option<Metadata> {
        let mut parts = text.split(';');
        if parts.next() != Some("v1") {
            return None;
        }
        let (mut topic_id, mut tables_id, mut max, mut sums) = (None, None, None, None);
        for part in parts {
            let (key, value) = part.split_once('=')?;
            match key {
                "topic" => topic_id = Some(value.to_owned()),
                "tables" => tables_id = Some(value.to_owned()),
                "max" if value == "-" => max = Some(MaxTime::default()),
                "max" => max = Some(MaxTime::new(Some(UnixMs(value.parse().ok()?)))),
                "sums" => sums = parse_sums(value),
                _ => {}
            }
        }
        Some(Metadata {
            topic_id: topic_id?,
            tables_id: tables_id?,
            max: max?,
            sums,
        })
    }
}

fn parse_sums(text: &str) -> Option<Sum> {
    let numbers: Option<Vec<u64>> = text.split(',').map(|number| number.parse().ok()).collect();
    Sum::checked(numbers?.try_into().ok()?)
}

/// An offset that the consumer group committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The offset to read next.
    pub next: Offset,
    /// The metadata of the commit. Another tool may have written the commit and its metadata.
    pub metadata: String,
}

/// All facts that the start rule needs to decide where a partition starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFacts {
    /// The topic id from Kafka, which the caller reads before the other facts.
    pub topic_id: String,
    /// The random id in the tables' config item.
    pub tables_id: String,
    /// The time at which the caller began to read the tables' id.
    pub tables_read_ms: BootMs,
    /// The group's committed offset for the partition, or `None` if the group has no committed offset.
    pub commit: Option<Commit>,
    /// The restart point in the progress item of the log, or `None` if the item does not exist.
    pub progress: Option<Boundary>,
    /// The offset of the log's oldest record, and the offset after its newest record.
    pub log: (Offset, Offset),
    /// The first offset below the committed offset whose record was replaced after it was read, or `None` if no such
    /// record is known ([`crate::replaced`]).
    pub replaced_from: Option<Offset>,
}

/// The result of the start rule, which decides where a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The partition starts at this boundary.
    At(Boundary),
    /// The progress item is missing, so the caller must create a progress item with the given boundary. The caller then
    /// applies the start rule again, because another consumer may have created the progress item first.
    Create(Boundary),
    /// The partition cannot start, because the metadata of the group's committed offset is not readable. The field
    /// contains the committed offset.
    Unreadable(Offset),
    /// Retention removed the records `[from, to)` from the beginning of the log.
    Expired {
        /// The restart point at which reading should continue.
        from: Boundary,
        /// The offset at which the log begins now.
        to: Offset,
    },
    /// The log ends at `end`, before the restart point, because records were removed from its end.
    Truncated {
        /// The restart point at which reading should continue.
        from: Boundary,
        /// The offset at which the log ends now.
        end: Offset,
    },
    /// The log was cut at `since` and has grown past the restart point again. Other records have the offsets
    /// `[since, from.next)` now.
    Replaced {
        /// The restart point at which reading should continue.
        from: Boundary,
        /// The first offset whose record was replaced.
        since: Offset,
    },
}

/// Returns the metadata of a commit, extended by the leader epoch of the last record below the offset. The text
/// continues with `;epoch=<epoch>`.
///
/// Kafka's own field for the epoch is not used, because some servers refuse a commit whose epoch is not the current one.
pub fn with_epoch(metadata: &str, epoch: i32) -> String {
    format!("{metadata};epoch={epoch}")
}

impl Commit {
    /// Returns the leader epoch of the last record below the offset, or `None` if the metadata does not contain it.
    pub fn epoch(&self) -> Option<i32> {
        let mut parts = self.metadata.split(';');
        parts
            .find_map(|part| part.strip_prefix("epoch="))?
            .parse()
            .ok()
    }

    /// Returns the committed boundary if the commit names this topic id and these tables.
    pub fn boundary(&self, topic_id: &str, tables_id: &str) -> Option<Boundary> {
        let m = Metadata::parse(&self.metadata)?;
        let ours = m.topic_id == topic_id && m.tables_id == tables_id;
        ours.then_some(Boundary {
            next: self.next,
            max: m.max,
            sums: m.sums,
        })
    }
}

impl StartFacts {
    /// Returns the group's committed offset if its metadata contains the current topic id and tables id.
    pub fn own_commit(&self) -> Option<Boundary> {
        let commit = self.commit.as_ref()?;
        commit.boundary(&self.topic_id, &self.tables_id)
    }
}

/// Decides where a partition begins.
pub fn start(facts: &StartFacts) -> Start {
    let (log_start, log_end) = facts.log;
    if let Some(commit) = &facts.commit
        && Metadata::parse(&commit.metadata).is_none()
        && !(commit.next == Offset(0) && log_start == Offset(0))
    {
        return Start::Unreadable(commit.next);
    }
    let own_commit = facts.own_commit();
    let Some(from) = own_commit.or(facts.progress) else {
        return Start::Create(Boundary::begin(log_start));
    };
    let from = match facts.progress {
        Some(progress) if from.next < log_start && progress.next > from.next => progress,
        _ => from,
    };
    if from.next < log_start {
        Start::Expired {
            from,
            to: log_start,
        }
    } else if from.next > log_end {
        Start::Truncated { from, end: log_end }
    } else if let Some(since) = facts.replaced_from
        && own_commit == Some(from)
    {
        Start::Replaced { from, since }
    } else {
        Start::At(from)
    }
}

/// Maximum time between two publications of a progress item while the consumer commits new offsets, in milliseconds.
pub const PROGRESS_INTERVAL_MS: i64 = 3_600_000;

/// Number of unpublished events that make a publication due, if the last publication was at least
/// [`PROGRESS_EVENTS_MS`] ago.
pub const PROGRESS_EVENTS: u64 = 20;
/// Minimum time between two publications if each is triggered by [`PROGRESS_EVENTS`] new events, in milliseconds.
pub const PROGRESS_EVENTS_MS: i64 = 5_000;
/// Maximum time until the sums of a progress item include a committed event, in milliseconds.
pub const PROGRESS_SUMS_MS: i64 = 300_000;

/// Time until a failed publication is repeated, in milliseconds.
pub const PROGRESS_RETRY_MS: i64 = 10_000;

/// Decides when a consumer advances the progress item of a partition. The item never moves back.
///
/// Publishing the sums costs little. A publication that is triggered by [`PROGRESS_EVENTS`] new events costs at most
/// 0.05 write units per event. The wait [`PROGRESS_SUMS_MS`] triggers a publication only if the watermark has not
/// passed the end of a window in the meantime. At one event every 15 s, a publication after [`PROGRESS_SUMS_MS`] also
/// covers 20 events. A publication covers all unpublished events, so each event adds to the cost of only one
/// publication.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    published: Boundary,
    published_ms: SteadyMs,
    /// The time at which the last publication was requested.
    asked_ms: SteadyMs,
    /// The time at which a failed publication is repeated, or `None` if no publication has failed.
    retry_ms: Option<SteadyMs>,
}

impl Progress {
    /// Returns the state for a progress item that currently contains the boundary `published`.
    pub fn new(published: Boundary, now_ms: SteadyMs) -> Progress {
        Progress {
            published,
            published_ms: now_ms,
            asked_ms: now_ms,
            retry_ms: None,
        }
    }

    /// Returns true if the boundary `committed` should be published now. A publication is due in four cases: the
    /// watermark has passed the end of a window, an hour has passed, the consumer gives up the partition, or the
    /// published sums are out of date.
    pub fn is_due(
        &self,
        committed: Boundary,
        rules: &Rules,
        leaving: bool,
        now_ms: SteadyMs,
    ) -> bool {
        if committed.next <= self.published.next {
            return false;
        }
        let windows = |b: Boundary| b.max.watermark_ms(rules).map(|w| rules.window_start(w));
        leaving
            || windows(committed) > windows(self.published)
            || now_ms - self.published_ms >= PROGRESS_INTERVAL_MS
            || self.sums_are_due(committed, now_ms)
    }

    /// Returns the number of events that are in the committed sums but not in the published sums.
    fn unpublished(&self, committed: Boundary) -> u64 {
        match (committed.sums, self.published.sums) {
            (Some(sums), Some(published)) => sums.events().saturating_sub(published.events()),
            // The progress item does not contain any sums yet.
            (Some(_), None) => PROGRESS_EVENTS,
            (None, _) => 0,
        }
    }

    /// Returns the time at which the boundary `committed` must be published if no further commit follows. Returns
    /// `None` if its sums are already published and no publication has failed.
    pub fn idle_ms(&self, committed: Boundary) -> Option<SteadyMs> {
        if committed.next <= self.published.next {
            return None;
        }
        let has_sums = self.unpublished(committed) > 0;
        let sums_ms = has_sums.then_some(self.published_ms.max(self.asked_ms) + PROGRESS_SUMS_MS);
        self.retry_ms.or(sums_ms)
    }

    /// Notes that a publication was requested. The publication may still fail.
    pub fn asked(&mut self, now_ms: SteadyMs) {
        self.asked_ms = now_ms;
        self.retry_ms = None;
    }

    /// Notes that a publication has failed, or that its outcome is unknown. Without a retry, windows would become final
    /// only at the next commit, and a partition without new records has no next commit.
    pub fn failed(&mut self, boundary: Boundary, now_ms: SteadyMs) {
        if boundary.next > self.published.next {
            self.retry_ms = Some(now_ms + PROGRESS_RETRY_MS);
        }
    }

    fn sums_are_due(&self, committed: Boundary, now_ms: SteadyMs) -> bool {
        let least_ms = match self.unpublished(committed) {
            0 => return false,
            PROGRESS_EVENTS.. => PROGRESS_EVENTS_MS,
            _ => PROGRESS_SUMS_MS,
        };
        now_ms - self.published_ms >= least_ms
    }

    /// Notes that the progress item now contains `boundary`.
    pub fn published(&mut self, boundary: Boundary, now_ms: SteadyMs) {
        self.published_ms = now_ms;
        if boundary.next > self.published.next {
            self.published = boundary;
            self.retry_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(next: i64, max: Option<i64>) -> Boundary {
        Boundary {
            next: Offset(next),
            max: MaxTime::new(max.map(UnixMs)),
            sums: None,
        }
    }

    #[test]
    fn metadata_round_trips_and_ignores_unknown_keys() {
        for max in [None, Some(0), Some(-5), Some(1_357_020_000_000)] {
            let m = Metadata {
                topic_id: "T-_0123456789abcdefghi".into(),
                tables_id: "abc".into(),
                max: MaxTime::new(max.map(UnixMs)),
                sums: max.and_then(|_| Sum::checked([7, 2, 3, 4, 1, 1])),
            };
            assert_eq!(Metadata::parse(&m.format()), Some(m));
        }
        let m = Metadata::parse("v1;topic=T;new=thing;tables=D;max=7").expect("readable");
        assert_eq!(
            (m.topic_id.as_str(), m.max.max_ms()),
            ("T", Some(UnixMs(7)))
        );
        for bad in [
            "",
            "v2;topic=T;tables=D;max=7",
            "v1",
            "v1;topic=T;tables=D",
            "v1;topic=T;max=7",
            "v1;tables=D;max=7",
            "v1;topic=T;tables=D;max=",
            "v1;topic=T;tables=D;max=x",
            "v1;topic",
            "something else",
        ] {
            assert_eq!(Metadata::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sums_that_cannot_be_read_are_unknown_and_the_rest_holds() {
        let read = |sums: &str| {
            let m = Metadata::parse(&format!("v1;topic=T;tables=D;max=7{sums}"));
            let m = m.expect("readable");
            assert_eq!(m.max.max_ms(), Some(UnixMs(7)));
            m.sums.map(|sums| sums.numbers())
        };
        assert_eq!(read(";sums=2,1,3,0,0,0"), Some([2, 1, 3, 0, 0, 0]));
        for unknown in [
            "",
            ";sums=",
            ";sums=2,1,3,0,0",
            ";sums=2,1,3,0,0,0,0",
            ";sums=2,1,3,0,0,x",
            ";sums=-2,1,3,0,0,0",
            // These numbers contradict each other: there are three events in total, but four events by severity.
            ";sums=2,1,3,1,0,0",
            ";sums=18446744073709551615,1,0,0,0,0",
        ] {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_commit_may_contain_the_epoch_of_its_last_record() {
        let commit = |metadata: &str| Commit {
            next: Offset(5),
            metadata: metadata.to_owned(),
        };
        let without = "v1;topic=T;tables=D;max=50;sums=5,0,5,0,0,0";
        assert_eq!(commit(without).epoch(), None);
        let with = with_epoch(without, 12);
        assert_eq!(commit(&with).epoch(), Some(12));
        assert_eq!(Metadata::parse(&with), Metadata::parse(without));
        assert_eq!(commit("").epoch(), None);
        assert_eq!(commit("v1;epoch=new").epoch(), None);
    }

    #[test]
    fn the_start_rule_is_the_designs() {
        let ours = "v1;topic=T;tables=D;max=50";
        let check =
            |commit: Option<(i64, &str)>, progress: Option<i64>, log: (i64, i64), want: Start| {
                let facts = StartFacts {
                    topic_id: "T".into(),
                    tables_id: "D".into(),
                    tables_read_ms: BootMs(0),
                    commit: commit.map(|(next, m)| Commit {
                        next: Offset(next),
                        metadata: m.into(),
                    }),
                    progress: progress.map(|next| boundary(next, Some(40))),
                    log: (Offset(log.0), Offset(log.1)),
                    replaced_from: None,
                };
                assert_eq!(start(&facts), want, "{facts:?}");
            };
        let create = |next| Start::Create(Boundary::begin(Offset(next)));
        let at = |next, max| Start::At(boundary(next, Some(max)));
        // Case 1: the metadata of the commit contains the current topic id and tables id.
        check(Some((5, ours)), None, (0, 9), at(5, 50));
        check(Some((5, ours)), Some(7), (0, 9), at(5, 50));
        check(Some((9, ours)), None, (0, 9), at(9, 50));
        // Case 2: the metadata of the commit is empty or unreadable.
        check(Some((5, "")), Some(3), (0, 9), Start::Unreadable(Offset(5)));
        check(
            Some((5, "someone")),
            None,
            (0, 9),
            Start::Unreadable(Offset(5)),
        );
        check(Some((0, "")), None, (3, 9), Start::Unreadable(Offset(0)));
        check(Some((0, "")), Some(3), (0, 9), at(3, 40));
        check(Some((0, "")), None, (0, 9), create(0));
        // Case 3: there is no commit, or its metadata contains another topic id or tables id.
        check(None, Some(3), (0, 9), at(3, 40));
        check(
            Some((5, "v1;topic=U;tables=D;max=50")),
            Some(3),
            (0, 9),
            at(3, 40),
        );
        check(
            Some((5, "v1;topic=T;tables=E;max=50")),
            Some(3),
            (0, 9),
            at(3, 40),
        );
        // Case 4: the current log has neither a commit nor a progress item.
        check(None, None, (0, 9), create(0));
        check(None, None, (4, 9), create(4));
        check(
            Some((5, "v1;topic=U;tables=D;max=50")),
            None,
            (2, 9),
            create(2),
        );
        // The log begins after the offset of an old commit, and the progress item is further ahead than the commit.
        check(Some((5, ours)), Some(6), (6, 9), at(6, 40));
        check(Some((5, ours)), Some(8), (6, 9), at(8, 40));
        check(Some((5, ours)), Some(8), (5, 9), at(5, 50));
        // The restart point is outside the log.
        let from = boundary(5, Some(50));
        check(
            Some((5, ours)),
            Some(5),
            (6, 9),
            Start::Expired {
                from,
                to: Offset(6),
            },
        );
        check(
            Some((5, ours)),
            Some(10),
            (6, 9),
            Start::Truncated {
                from: boundary(10, Some(40)),
                end: Offset(9),
            },
        );
        check(
            Some((5, ours)),
            Some(7),
            (8, 9),
            Start::Expired {
                from: boundary(7, Some(40)),
                to: Offset(8),
            },
        );
        check(
            Some((5, ours)),
            None,
            (6, 9),
            Start::Expired {
                from,
                to: Offset(6),
            },
        );
        check(
            Some((5, ours)),
            None,
            (0, 4),
            Start::Truncated {
                from,
                end: Offset(4),
            },
        );
        let from = boundary(3, Some(40));
        check(
            None,
            Some(3),
            (6, 9),
            Start::Expired {
                from,
                to: Offset(6),
            },
        );
    }

    #[test]
    fn replaced_records_matter_only_to_a_start_at_the_commit() {
        let check = |metadata: &str, log: (i64, i64), want: Start| {
            let facts = StartFacts {
                topic_id: "T".into(),
                tables_id: "D".into(),
                tables_read_ms: BootMs(0),
                commit: Some(Commit {
                    next: Offset(5),
                    metadata: metadata.into(),
                }),
                progress: Some(boundary(7, Some(40))),
                log: (Offset(log.0), Offset(log.1)),
                replaced_from: Some(Offset(3)),
            };
            assert_eq!(start(&facts), want, "{facts:?}");
        };
        let ours = "v1;topic=T;tables=D;max=50";
        let (from, since) = (boundary(5, Some(50)), Offset(3));
        check(ours, (0, 9), Start::Replaced { from, since });
        check(ours, (0, 5), Start::Replaced { from, since });
        let end = Offset(4);
        check(ours, (0, 4), Start::Truncated { from, end });
        check(ours, (6, 9), Start::At(boundary(7, Some(40))));
        let former = "v1;topic=U;tables=D;max=50";
        check(former, (0, 9), Start::At(boundary(7, Some(40))));
    }

    #[test]
    fn sums_are_published_after_twenty_events_or_five_minutes() {
        let at = |next: i64, events: Option<u64>| Boundary {
            sums: events.and_then(|n| Sum::checked([n, 0, n, 0, 0, 0])),
            ..boundary(next, Some(900_000))
        };
        let due = |known: Option<u64>, events: Option<u64>, after_ms: i64| {
            let p = Progress::new(at(10, known), SteadyMs(0));
            p.is_due(at(99, events), &Rules::default(), false, SteadyMs(after_ms))
        };
        for (known, events, least_ms) in [
            (Some(5), Some(25), PROGRESS_EVENTS_MS),
            (Some(5), Some(24), PROGRESS_SUMS_MS),
            (Some(5), Some(6), PROGRESS_SUMS_MS),
            // Neither heartbeats nor unknown sums trigger additional publications.
            (Some(5), Some(5), PROGRESS_INTERVAL_MS),
            (Some(5), None, PROGRESS_INTERVAL_MS),
            (None, None, PROGRESS_INTERVAL_MS),
            (None, Some(0), PROGRESS_EVENTS_MS),
        ] {
            assert!(!due(known, events, least_ms - 1), "{known:?} {events:?}");
            assert!(due(known, events, least_ms), "{known:?} {events:?}");
        }
        let p = Progress::new(at(10, Some(5)), SteadyMs(0));
        let back = p.is_due(
            at(10, Some(99)),
            &Rules::default(),
            false,
            SteadyMs(400_000),
        );
        assert!(!back, "forward only");
    }

    /// Returns the numbers of events and publications in a simulated day with three partitions. The events of the topic
    /// are `gap_ms` apart on average, and each partition gets a heartbeat every minute. `known` is true if the restart
    /// points contain sums.
    #[test]
    fn a_failed_publication_is_repeated_after_ten_seconds() {
        let sums = |next, events| Boundary {
            sums: Sum::checked([events, 0, events, 0, 0, 0]),
            ..boundary(next, Some(0))
        };
        let mut progress = Progress::new(sums(0, 0), SteadyMs(0));
        progress.asked(SteadyMs(1_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(301_000)));
        progress.failed(sums(5, 5), SteadyMs(2_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(12_000)));
        // A new attempt waits for its own outcome.
        progress.asked(SteadyMs(12_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(312_000)));
        progress.published(sums(5, 5), SteadyMs(13_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), None);
        // The failure of an older publication arrives late.
        progress.failed(sums(4, 4), SteadyMs(14_000));
        assert_eq!(progress.idle_ms(sums(6, 6)), Some(SteadyMs(313_000)));
        // Without sums, only a failure leads to another attempt.
        let rejected = Boundary {
            sums: None,
            ..sums(7, 7)
        };
        assert_eq!(progress.idle_ms(rejected), None);
        progress.failed(rejected, SteadyMs(20_000));
        assert_eq!(progress.idle_ms(rejected), Some(SteadyMs(30_000)));
    }

    fn a_day(gap_ms: i64, known: bool) -> (u64, u64) {
        let rules = Rules::default();
        let (mut events, mut published) = (0, 0);
        for partition in 0..3 {
            let start = Boundary {
                sums: known.then_some(Sum::ZERO),
                ..boundary(0, None)
            };
            let (mut at, mut progress) = (start, Progress::new(start, SteadyMs(0)));
            // The times between events vary from 0.5 to 1.5 times the average, and are the same in every run.
            let mut chance = 7 + partition;
            let mut next_ms = 0;
            for now_ms in (0..86_400_000).step_by(1_000) {
                if now_ms >= next_ms {
                    chance = (chance * 1_103_515_245 + 12_345) % (1 << 31);
                    next_ms += 3 * gap_ms / 2 + 3 * gap_ms * (chance % 1_000) / 1_000;
                    events += 1;
                    at.max.observe(UnixMs(now_ms));
                    at.next = at.next.next();
                    if let Some(sums) = &mut at.sums {
                        sums.add_event(crate::event::Severity::Low, false);
                    }
                } else if now_ms % 60_000 == 0 {
                    at.max.observe(UnixMs(now_ms));
                    at.next = at.next.next();
                }
                if progress.is_due(at, &rules, false, SteadyMs(now_ms)) {
                    progress.published(at, SteadyMs(now_ms));
                    published += 1;
                }
            }
        }
        (events, published)
    }

    #[test]
    fn sums_cost_less_than_a_tenth_of_a_write_unit_an_event() {
        // The test uses average times of 5 s, 60 s, 1 s and about 0.3 s between two events.
        for gap_ms in [5_000, 60_000, 1_000, 334] {
            let (events, without) = a_day(gap_ms, false);
            let (same, with) = a_day(gap_ms, true);
            assert_eq!(events, same);
            #[allow(clippy::cast_precision_loss)] // The number of publications in a day is small.
            let more = (with as f64 - without as f64) / events as f64;
            assert!((0.0..0.1).contains(&more), "{gap_ms}: {more} an event");
            assert!(gap_ms > 5_000 || with > without, "{gap_ms}: {with}");
        }
    }

    #[test]
    fn progress_is_published_once_a_window_and_never_back() {
        let rules = Rules::default();
        let mut p = Progress::new(boundary(10, None), SteadyMs(0));
        assert!(!p.is_due(
            boundary(10, Some(1)),
            &rules,
            true,
            SteadyMs(9 * PROGRESS_INTERVAL_MS)
        ));
        assert!(!p.is_due(boundary(9, Some(9_000_000)), &rules, true, SteadyMs(0)));
        assert!(
            p.is_due(boundary(11, Some(0)), &rules, false, SteadyMs(0)),
            "a first watermark"
        );
        p.published(boundary(11, Some(900_000)), SteadyMs(0));
        assert!(!p.is_due(boundary(12, Some(1_199_999)), &rules, false, SteadyMs(0)));
        assert!(p.is_due(boundary(12, Some(1_200_000)), &rules, false, SteadyMs(0)));
        assert!(p.is_due(boundary(12, Some(900_000)), &rules, true, SteadyMs(0)));
        assert!(p.is_due(
            boundary(12, Some(900_000)),
            &rules,
            false,
            SteadyMs(PROGRESS_INTERVAL_MS)
        ));
        p.published(boundary(5, None), SteadyMs(7));
        assert!(!p.is_due(boundary(11, Some(900_000)), &rules, true, SteadyMs(7)));
    }
}
