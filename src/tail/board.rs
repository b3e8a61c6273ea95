//! The data of the live screen: counts, the last records, rates and the lag.
//!
//! A board is a plain value. The reading thread adds records; the drawing thread sets the time and draws. Memory is
//! bounded by [`RECORDS_MAX`] records of each list, [`LETTER_BYTES_MAX`] of dead letters, and the bounds of
//! [`LiveCounts`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::classify::{Classified, TailEvent};
use super::counts::{CountRow, LiveCounts};
use super::dead_letters;
use super::history::{MARKS, SeverityCounts};
use crate::kafka::reader::Letter;

/// Records kept in each list: alerts, and all events or dead letters.
pub(super) const RECORDS_MAX: usize = 500;
/// Time between two marks of the counts, from which rates are computed.
const MARK_EVERY_MS: i64 = 1_000;
/// Memory for dead letters, in bytes. One can have 2 MiB, but most have less than 1 KiB.
const LETTER_BYTES_MAX: usize = 16 << 20;

/// A record in the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedRecord {
    /// The position among all records, from 1. It identifies the record while newer ones arrive.
    pub(super) number: u64,
    pub(super) content: RecordContent,
}

/// The content of a listed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordContent {
    /// From the event topic.
    Event(TailEvent),
    /// From the dead-letter topic.
    DeadLetter(Letter),
}

/// What the reader is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadState {
    /// It waits for Kafka or for the topic. The text says what is wrong and, after `; `, what to do.
    Waiting(String),
    /// It reads, with this lag in records.
    Reading(u64),
}

/// Everything that the live screen can show.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) counts: LiveCounts,
    /// The last events of severity high or critical, newest first.
    pub(super) alerts: VecDeque<Arc<ListedRecord>>,
    /// The last events or dead letters, newest first.
    pub(super) records: VecDeque<Arc<ListedRecord>>,
    /// The number of alerts since the beginning.
    pub(super) alert_count: u64,
    /// The smallest and the largest time, not counting future events.
    pub(super) times_ms: Option<(i64, i64)>,
    pub(super) state: ReadState,
    /// A hint about a filter that matches no event.
    pub(super) hint: Option<String>,
    /// Whether late events are recognized.
    pub(super) knows_late: bool,
    /// The time of the last [`Board::tick`].
    pub(super) now_ms: i64,
    /// When the counts were marked, by index in the rows' histories. `mark` is the index of the newest.
    mark_times: [Option<i64>; MARKS],
    mark: usize,
    /// Memory of the dead letters among the records.
    letter_bytes: usize,
}

impl Board {
    /// Returns an empty board.
    pub(super) fn new(knows_late: bool, now_ms: i64) -> Board {
        let mut mark_times = [None; MARKS];
        mark_times[0] = Some(now_ms);
        Board {
            counts: LiveCounts::with_history(),
            alerts: VecDeque::with_capacity(RECORDS_MAX),
            records: VecDeque::with_capacity(RECORDS_MAX),
            alert_count: 0,
            times_ms: None,
            state: ReadState::Waiting("connecting".to_owned()),
            hint: None,
            knows_late,
            now_ms,
            mark_times,
            mark: 0,
            letter_bytes: 0,
        }
    }

    /// Counts a record and puts it into the lists.
    pub(super) fn add(&mut self, classified: Classified) {
        match classified {
            Classified::Hidden => {}
            Classified::Rejected(reason) => self.counts.add_rejected(reason),
            Classified::Event(event) => {
                self.counts.add_event(&event);
                if !event.future {
                    self.extend_times(event.event.time_ms);
                }
                let is_alert = event.event.severity.is_alert();
                let record = self.list(RecordContent::Event(event));
                if is_alert {
                    self.alert_count += 1;
                    self.alerts.truncate(RECORDS_MAX - 1);
                    self.alerts.push_front(record);
                }
            }
            Classified::DeadLetter(letter) => {
                if !self.counts.add_dead_letter(&letter) {
                    return;
                }
                if let Some(time_ms) = dead_letters::time_ms(&letter) {
                    self.extend_times(time_ms);
                }
                self.letter_bytes += dead_letters::bytes(&letter);
                self.list(RecordContent::DeadLetter(letter));
            }
        }
    }

    fn extend_times(&mut self, time_ms: i64) {
        let (from, to) = self.times_ms.unwrap_or((time_ms, time_ms));
        self.times_ms = Some((from.min(time_ms), to.max(time_ms)));
    }

    /// Puts a counted record into the list of all records, and drops the oldest ones beyond the bounds.
    fn list(&mut self, content: RecordContent) -> Arc<ListedRecord> {
        while self.records.len() >= RECORDS_MAX || self.letter_bytes > LETTER_BYTES_MAX {
            let Some(oldest) = self.records.pop_back() else {
                break;
            };
            if let RecordContent::DeadLetter(oldest) = &oldest.content {
                self.letter_bytes -= dead_letters::bytes(oldest);
            }
        }
        let number = self.counts.sum.total();
        let record = Arc::new(ListedRecord { number, content });
        self.records.push_front(Arc::clone(&record));
        record
    }

    /// Takes the current time, and marks the counts once a second.
    pub(super) fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let last = self.mark_times[self.mark];
        // A clock that was set back must not stop the marks.
        if last.is_none_or(|last| now_ms - last >= MARK_EVERY_MS || now_ms < last) {
            self.mark = (self.mark + 1) % MARKS;
            self.mark_times[self.mark] = Some(now_ms);
            self.counts.mark(self.mark);
        }
    }

    /// Returns the largest time, not counting future events.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.times_ms.map(|(_, newest_ms)| newest_ms)
    }

    /// Returns a row's records per second over the last ten seconds, of the chosen severities.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self, row: &CountRow, severities: [bool; 4]) -> f64 {
        let after = (self.mark + 1) % MARKS;
        // Until every place is used, the oldest mark is at index 0.
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

/// Returns the sum of the chosen severities.
pub(super) fn sum(counts: SeverityCounts, severities: [bool; 4]) -> u64 {
    let chosen = counts.into_iter().zip(severities);
    chosen
        .filter(|(_, is_chosen)| *is_chosen)
        .map(|(n, _)| n)
        .sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::event::{Event, Offset, Severity};

    /// Returns an event at `ms` milliseconds after 2013-01-01T06:00:00Z.
    pub(in crate::tail) fn event(city: &str, kind: &str, severity: Severity, ms: i64) -> TailEvent {
        TailEvent {
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
        }
    }

    /// Returns a dead letter about a record of `city-events`.
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
    fn dead_letters_are_counted_by_reason_and_their_memory_is_bounded() {
        let mut board = Board::new(false, 0);
        let big = vec![b'x'; 1 << 20];
        for n in 0..700 {
            let reason = ["not_json", "bad_city"][usize::from(n % 4 == 0)];
            board.add(Classified::DeadLetter(letter(reason, 3, n, Some(b"{"))));
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
            board.add(Classified::DeadLetter(letter(
                "too_large",
                3,
                n,
                Some(&big),
            )));
        }
        // 16 MiB hold 15 values of 1 MiB and their headers.
        assert_eq!(board.records.len(), 15);
        let sum = |board: &Board| {
            let bytes = board.records.iter().map(|record| match &record.content {
                RecordContent::DeadLetter(letter) => dead_letters::bytes(letter),
                RecordContent::Event(_) => unreachable!("all are dead letters"),
            });
            bytes.sum::<usize>()
        };
        assert_eq!(board.letter_bytes, sum(&board));
        for n in 750..1_400 {
            board.add(Classified::DeadLetter(letter("empty", 3, n, None)));
        }
        assert_eq!(
            (board.letter_bytes, board.records.len()),
            (sum(&board), 500)
        );
    }

    #[test]
    fn a_dead_letter_without_a_plausible_timestamp_has_the_time_of_its_rejection() {
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
            board.add(Classified::DeadLetter(letter));
            assert_eq!(board.times_ms, Some((want, want)), "{own}");
        }
    }

    #[test]
    fn the_last_records_are_kept_newest_first() {
        let mut board = Board::new(true, 0);
        for n in 0..1_200 {
            let severity = Severity::ALL[usize::try_from(n % 4).unwrap()];
            board.add(Classified::Event(event("NYC", "traffic", severity, n)));
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
    fn a_future_event_is_counted_but_not_charted() {
        let mut board = Board::new(true, 0);
        board.add(Classified::Event(event("NYC", "traffic", Severity::Low, 0)));
        let mut far = event("NYC", "traffic", Severity::Low, 9_000_000_000);
        far.future = true;
        board.add(Classified::Event(far));
        assert_eq!(board.counts.sum.total(), 2);
        assert_eq!(board.newest_ms(), Some(1_357_020_000_000));
        let (_, _, row) = board.counts.rows().next().unwrap();
        let history = row.history.as_ref().unwrap();
        assert_eq!(history.window(1, 1_357_020_000_000 / 300_000), [1, 0, 0, 0]);
    }

    #[test]
    fn a_rate_covers_the_last_ten_seconds() {
        let mut board = Board::new(true, 0);
        let rate = |board: &Board, severities| {
            let (_, _, row) = board.counts.rows().next().unwrap();
            board.rate(row, severities)
        };
        // 100 events a second for 20 s, every fourth of each severity, then none for 20 s.
        for now_ms in (50..=20_000).step_by(50) {
            for n in 0..5 {
                let at = usize::try_from(now_ms / 50 * 5 + n).unwrap();
                board.add(Classified::Event(event(
                    "NYC",
                    "traffic",
                    Severity::ALL[at % 4],
                    now_ms,
                )));
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
        // The clock is set back.
        board.tick(5_000);
        board.tick(6_000);
        board.add(Classified::Event(event("NYC", "traffic", Severity::Low, 0)));
        assert!(rate(&board, [true; 4]) >= 0.0);
    }
}
