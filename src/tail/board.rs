//! What a live screen has to show: counts, the last records, rates, how far reading is behind.
//!
//! A pure value: the reader's thread puts in what was read, the screen's thread says what time it is
//! and draws. It holds no more than [`RECORDS_MAX`] records of each kind, [`LETTER_BYTES_MAX`] of dead
//! letters, and the bounded counts.

use std::collections::VecDeque;
use std::sync::Arc;

use super::classify::{Said, Sighting};
use super::counts::{Counts, Row};
use super::dead_letters;
use super::history::{MARKS, Tally};
use crate::kafka::reader::Letter;

/// Records kept of each kind, alerts and all events.
pub(super) const RECORDS_MAX: usize = 500;
/// Time between two notes of the counts.
const MARK_EVERY_MS: i64 = 1_000;
/// Bytes of dead letters kept; one has at most 2 MiB, and most have less than 1 KiB.
const LETTER_BYTES_MAX: usize = 16 << 20;

/// A record by its number, which stays the same while others come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Counted from 1.
    pub(super) number: u64,
    /// The record.
    pub(super) what: What,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An event.
    Event(Sighting),
    /// A dead letter.
    Letter(Letter),
}

/// What the reader is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Kafka or the topic is not there: what is wrong and, behind `; `, what to do.
    Waiting(String),
    /// Reading, so many records behind the log's end.
    Reading(u64),
}

/// Everything seen so far.
#[derive(Clone, Debug)]
pub(super) struct Board {
    /// By city, type and severity; of dead letters by reason.
    pub(super) counts: Counts,
    /// The last events that raise alerts, the newest first.
    pub(super) alerts: VecDeque<Arc<Seen>>,
    /// The last events or dead letters, the newest first.
    pub(super) records: VecDeque<Arc<Seen>>,
    /// Events that raise alerts, seen in all.
    pub(super) alert_count: u64,
    /// The smallest and the largest time that can be believed, of events or of rejected records.
    pub(super) times_ms: Option<(i64, i64)>,
    /// What the reader is at.
    pub(super) state: State,
    /// What to say about a city or type that was asked for and that no event had so far.
    pub(super) hint: Option<String>,
    /// Late events are told from others.
    pub(super) knows_late: bool,
    /// The time of the last [`Board::tick`].
    pub(super) now_ms: i64,
    /// When the counts were noted, place by place; the newest is at `mark`.
    mark_times: [Option<i64>; MARKS],
    mark: usize,
    /// Bytes of the dead letters among the records.
    letter_bytes: usize,
}

impl Board {
    /// Returns an empty board at a time.
    pub(super) fn new(knows_late: bool, now_ms: i64) -> Board {
        let mut mark_times = [None; MARKS];
        mark_times[0] = Some(now_ms);
        Board {
            counts: Counts::with_history(),
            alerts: VecDeque::with_capacity(RECORDS_MAX),
            records: VecDeque::with_capacity(RECORDS_MAX),
            alert_count: 0,
            times_ms: None,
            state: State::Waiting("connecting".to_owned()),
            hint: None,
            knows_late,
            now_ms,
            mark_times,
            mark: 0,
            letter_bytes: 0,
        }
    }

    /// Takes what a record says.
    pub(super) fn take(&mut self, said: Said) {
        match said {
            Said::Nothing => {}
            Said::Rejected(reason) => self.counts.reject(reason),
            Said::Event(sighting) => {
                self.counts.add(&sighting);
                if !sighting.future {
                    self.saw(sighting.event.time_ms);
                }
                let is_alert = sighting.event.severity.is_alert();
                let seen = Arc::new(Seen {
                    number: self.counts.sum.total(),
                    what: What::Event(sighting),
                });
                if is_alert {
                    self.alert_count += 1;
                    push(&mut self.alerts, Arc::clone(&seen));
                }
                push(&mut self.records, seen);
            }
            Said::Letter(letter) => {
                if !self.counts.add_letter(&letter) {
                    return;
                }
                if let Some(time_ms) = dead_letters::time_ms(&letter) {
                    self.saw(time_ms);
                }
                self.keep(letter);
            }
        }
    }

    /// Takes a time that can be believed.
    fn saw(&mut self, time_ms: i64) {
        let (from, to) = self.times_ms.unwrap_or((time_ms, time_ms));
        self.times_ms = Some((from.min(time_ms), to.max(time_ms)));
    }

    /// Keeps a letter, and of those before it what there is room for.
    fn keep(&mut self, letter: Letter) {
        self.letter_bytes += dead_letters::bytes(&letter);
        while self.records.len() >= RECORDS_MAX || self.letter_bytes > LETTER_BYTES_MAX {
            let Some(oldest) = self.records.pop_back() else {
                break;
            };
            if let What::Letter(oldest) = &oldest.what {
                self.letter_bytes -= dead_letters::bytes(oldest);
            }
        }
        let number = self.counts.sum.total();
        let what = What::Letter(letter);
        self.records.push_front(Arc::new(Seen { number, what }));
    }

    /// Takes the time, and notes the counts once a second.
    pub(super) fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let last = self.mark_times[self.mark];
        if last.is_none_or(|last| now_ms - last >= MARK_EVERY_MS || now_ms < last) {
            self.mark = (self.mark + 1) % MARKS;
            self.mark_times[self.mark] = Some(now_ms);
            self.counts.mark(self.mark);
        }
    }

    /// Returns the largest time that can be believed.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.times_ms.map(|(_, newest_ms)| newest_ms)
    }

    /// Returns a row's records a second over the last ten seconds, of some severities.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self, row: &Row, severities: [bool; 4]) -> f64 {
        let after = (self.mark + 1) % MARKS;
        // Until it has been around once, the first place is the oldest.
        let oldest = if self.mark_times[after].is_some() {
            after
        } else {
            0
        };
        let since = self.mark_times[oldest].unwrap_or(self.now_ms);
        let before = row.history.as_ref().map_or([0; 4], |h| h.marked(oldest));
        let grown = sum(row.severities, severities).saturating_sub(sum(before, severities));
        grown as f64 * 1_000.0 / (self.now_ms - since).max(MARK_EVERY_MS) as f64
    }
}

/// Returns the events of some severities.
pub(super) fn sum(tally: Tally, severities: [bool; 4]) -> u64 {
    let chosen = tally.into_iter().zip(severities);
    chosen
        .map(|(count, chosen)| if chosen { count } else { 0 })
        .sum()
}

fn push(records: &mut VecDeque<Arc<Seen>>, seen: Arc<Seen>) {
    if records.len() == RECORDS_MAX {
        records.pop_back();
    }
    records.push_front(seen);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::event::{Event, Offset, Severity};

    /// An event of a city, type and severity, so many milliseconds after 2013-01-01T06:00:00Z.
    pub(in crate::tail) fn said(city: &str, kind: &str, severity: Severity, ms: i64) -> Said {
        Said::Event(Sighting {
            event: Event {
                city: city.into(),
                event_type: kind.into(),
                severity,
                time_ms: 1_357_020_000_000 + ms,
                description: format!("{kind} in {city}").into(),
                event_id: None,
                extra: None,
            },
            late: false,
            future: false,
            partition: 2,
            offset: Offset(17),
            record_ms: Some(1_357_020_000_000 + ms + 1_500),
        })
    }

    /// A dead letter of a reason, from a partition and an offset of `city-events`.
    pub(in crate::tail) fn letter(
        reason: &str,
        partition: i32,
        offset: i64,
        value: Option<&[u8]>,
    ) -> Letter {
        let time_ms = 1_357_020_000_000 + offset * 1_000;
        let headers = [
            ("trace", "4bf92f35".to_owned()),
            ("reason", reason.to_owned()),
            ("detail", "what is wrong".to_owned()),
            ("source_topic", "city-events".to_owned()),
            ("source_topic_id", "abc".to_owned()),
            ("source_partition", partition.to_string()),
            ("source_offset", offset.to_string()),
            ("source_timestamp", time_ms.to_string()),
        ];
        Letter {
            partition: 0,
            offset: Offset(offset + 100),
            record_ms: Some(time_ms + 1_500),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            key: Some(b"NYC".to_vec()),
            value: value.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn letters_are_counted_by_reason_and_kept_within_their_bytes() {
        let mut board = Board::new(false, 0);
        let big = vec![b'x'; 1 << 20];
        for n in 0..700 {
            let reason = ["not_json", "bad_city"][usize::from(n % 4 == 0)];
            board.take(Said::Letter(letter(reason, 3, n, Some(b"{"))));
        }
        let rows: Vec<(&str, u64)> = board
            .counts
            .rows()
            .map(|(r, _, row)| (r, row.total()))
            .collect();
        assert_eq!(rows, [("bad_city", 175), ("not_json", 525)]);
        assert_eq!((board.records.len(), board.alerts.len()), (500, 0));
        assert_eq!(
            (board.records[0].number, board.records[499].number),
            (700, 201)
        );
        let times = (1_357_020_000_000, 1_357_020_699_000);
        assert_eq!(board.times_ms, Some(times));
        for n in 700..750 {
            board.take(Said::Letter(letter("too_large", 3, n, Some(&big))));
        }
        // As many as there is room for, and their headers.
        assert_eq!(board.records.len(), 15);
        let sum = |board: &Board| {
            let bytes = board.records.iter().map(|seen| match &seen.what {
                What::Letter(letter) => dead_letters::bytes(letter),
                What::Event(_) => unreachable!("they are letters"),
            });
            bytes.sum::<usize>()
        };
        assert_eq!(board.letter_bytes, sum(&board));
        for n in 750..1_400 {
            board.take(Said::Letter(letter("empty", 3, n, None)));
        }
        assert_eq!(
            (board.letter_bytes, board.records.len()),
            (sum(&board), 500)
        );
    }

    #[test]
    fn a_letter_whose_record_has_no_time_or_a_wild_one_is_shown_by_its_rejection() {
        for (own, want) in [
            ("1357020000000", 1_357_020_000_000),
            ("", 1_357_020_001_500),
            ("soon", 1_357_020_001_500),
            ("-1", 1_357_020_001_500),
            ("1357020601500", 1_357_020_001_500),
            ("9223372036854775807", 1_357_020_001_500),
        ] {
            let mut letter = letter("not_json", 3, 0, None);
            own.clone_into(&mut letter.headers.last_mut().unwrap().1);
            let mut board = Board::new(false, 0);
            board.take(Said::Letter(letter));
            assert_eq!(board.times_ms, Some((want, want)), "{own}");
        }
    }

    #[test]
    fn the_last_records_are_kept_the_newest_first() {
        let mut board = Board::new(true, 0);
        for n in 0..1_200 {
            let severity = Severity::ALL[usize::try_from(n % 4).unwrap()];
            board.take(said("NYC", "traffic", severity, n));
        }
        assert_eq!((board.records.len(), board.alerts.len()), (500, 500));
        assert_eq!(
            (board.records[0].number, board.records[499].number),
            (1_200, 701)
        );
        assert_eq!(
            (board.alerts[0].number, board.alerts[1].number),
            (1_200, 1_199)
        );
        assert_eq!((board.alert_count, board.counts.sum.total()), (600, 1_200));
        assert_eq!(board.times_ms, Some((1_357_020_000_000, 1_357_020_001_199)));
    }

    #[test]
    fn a_future_time_is_counted_and_moves_nothing() {
        let mut board = Board::new(true, 0);
        board.take(said("NYC", "traffic", Severity::Low, 0));
        let Said::Event(mut far) = said("NYC", "traffic", Severity::Low, 9_000_000_000) else {
            unreachable!("it is an event");
        };
        far.future = true;
        board.take(Said::Event(far));
        assert_eq!(board.counts.sum.total(), 2);
        assert_eq!(board.newest_ms(), Some(1_357_020_000_000));
        let (_, _, row) = board.counts.rows().next().unwrap();
        let history = row.history.as_ref().unwrap();
        assert_eq!(history.window(1, 1_357_020_000_000 / 300_000), [1, 0, 0, 0]);
    }

    #[test]
    fn a_rate_is_of_the_last_ten_seconds() {
        let mut board = Board::new(true, 0);
        let rate = |board: &Board, severities| {
            let (_, _, row) = board.counts.rows().next().unwrap();
            board.rate(row, severities)
        };
        // 100 events a second for 20 s, every fourth of each severity, then none for 20 s.
        for now_ms in (50..=20_000).step_by(50) {
            for n in 0..5 {
                let at = usize::try_from(now_ms / 50 * 5 + n).unwrap();
                board.take(said("NYC", "traffic", Severity::ALL[at % 4], now_ms));
            }
            board.tick(now_ms);
            if now_ms >= 2_000 {
                assert!((rate(&board, [true; 4]) - 100.0).abs() < 0.1, "{now_ms}");
            }
        }
        assert!((rate(&board, [false, false, false, true]) - 25.0).abs() < 0.2);
        for (now_ms, want) in [(25_000, 50.0), (30_000, 0.0), (40_000, 0.0)] {
            for now_ms in (board.now_ms + 50..=now_ms).step_by(50) {
                board.tick(now_ms);
            }
            assert!((rate(&board, [true; 4]) - want).abs() < 6.0, "{now_ms}");
        }
        // A clock that is put back must not stop it.
        board.tick(5_000);
        board.tick(6_000);
        board.take(said("NYC", "traffic", Severity::Low, 0));
        assert!(rate(&board, [true; 4]) >= 0.0);
    }
}
