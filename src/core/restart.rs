//! Defines restart points and the start rule. The start rule decides at which offset the consumer begins to read a
//! partition.
//!
//! A [`Boundary`] contains an offset and the largest event time *below that offset*. A commit to Kafka contains the
//! offset, and its metadata contains the largest event time, so that offset and watermark move together. The progress
//! item in the tables also contains a boundary. This boundary serves as the restart point if the group's offsets are
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
//! The shell also checks whether the log still has the records that the group has read ([`StartFacts::replaced_from`]).
//!
//! A boundary also contains the [sums](Boundary::sums) of the log below its offset. A reader gets the grand total of
//! all series by adding up the sums of a few progress items. The start rule does not use the sums.
//!
//! All records below a published boundary are durable, no matter which consumer published the boundary. The group's
//! commit may be so old that retention has removed the records at its offset. If the offset of the progress item is
//! still in the log, the partition starts there, and no record is lost. If the offset of the progress item is also
//! outside the log, records are lost ([`Start::Expired`], [`Start::Truncated`]).

use crate::clock::{BootMs, UnixMs};
use crate::event::Offset;
use crate::stretch::Sum;
use crate::watermark::MaxTime;

/// A point from which a partition can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The offset to read next. All records below this offset are durable.
    pub next: Offset,
    /// The largest event time below `next`.
    pub max: MaxTime,
    /// The counts of the log's events below `next`: events in windows, late events, and all events by severity. The
    /// sums include the events that other consumers have counted. They exclude rejected records and heartbeats.
    ///
    /// `None` means that the sums are unknown. The sums become unknown if a consumer of an older version owns the
    /// partition, or if the log loses records that may already be counted. Unknown sums stay unknown for the rest of
    /// the log. Once the consumers are idle, the sums of all progress items add up to the counts in all totals rows.
    /// This total includes the progress items of former topic ids. If a topic is deleted while a consumer counts its
    /// events, the sums lack the events after the last publication of the progress item.
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
    /// The topic id from Kafka. The caller reads it before the other facts.
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
    /// The first offset below the committed offset at which the log now contains another record than the one the group
    /// has read. `None` means that no such offset is known ([`crate::replaced`]).
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
    /// The partition cannot start, because the metadata of the group's committed offset is empty or unreadable. The
    /// field contains this offset.
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
    /// The log has lost its records from `since` on, and has grown past the restart point again. The offsets `[since,
    /// from.next)` now belong to other records.
    Replaced {
        /// The restart point at which reading should continue.
        from: Boundary,
        /// The first offset at which the log now contains another record.
        since: Offset,
    },
}

/// Appends `;epoch=<epoch>` to the metadata of a commit. `epoch` is the leader epoch of the last record below the
/// committed offset.
///
/// Commits do not use Kafka's own field for the epoch, because some brokers refuse a commit with an older epoch.
pub fn with_epoch(metadata: &str, epoch: i32) -> String {
    format!("{metadata};epoch={epoch}")
}

impl Commit {
    /// Returns the leader epoch of the last record below the committed offset, or `None` if the metadata contains no
    /// epoch.
    pub fn epoch(&self) -> Option<i32> {
        let mut parts = self.metadata.split(';');
        parts
            .find_map(|part| part.strip_prefix("epoch="))?
            .parse()
            .ok()
    }

    /// Returns the committed boundary if the metadata of the commit contains the given topic id and tables id.
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
            // The sums are contradictory: three events in total, but four events by severity.
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
        // The log begins after the committed offset, and the progress item is further ahead.
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
}
