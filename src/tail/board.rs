//! The data that the live screen of `tail` shows: counts, the last records, rates and the lag.
//!
//! A `Board` holds the data of the live screen, does no I/O, and never reads a clock. The reading thread adds records
//! to the `Board`. The drawing thread sets the current time of the `Board`, and draws its data on the screen. The
//! memory of a `Board` is limited to [`RECORDS_MAX`] records per list, [`LETTER_BYTES_MAX`] bytes of dead letters, and
//! the limits of [`LiveCounts`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::classify::{Classified, TailEvent};
use super::counts::{CountRow, LiveCounts};
use super::dead_letters;
use super::history::{MARKS, SeverityCounts};
use crate::core::clock::UnixMs;
use crate::kafka::reader::Letter;

/// Maximum number of records in each of the board's two lists. One list holds alerts, and the other list holds all
/// events or all dead letters.
pub(super) const RECORDS_MAX: usize = 500;
/// Time between two snapshots of the counts, in milliseconds. A snapshot is called a mark, and the screen computes
/// rates from the marks.
const MARK_EVERY_MS: i64 = 1_000;
/// Maximum memory for dead letters, in bytes. A dead letter can be as large as 2 MiB, but most dead letters are smaller
/// than 1 KiB.
const LETTER_BYTES_MAX: usize = 16 << 20;

/// A record in one of the lists that the live screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedRecord {
    /// The number of the record in the order of arrival, counted from 1. The number of a record stays the same when
    /// newer records arrive.
    pub(super) number: u64,
    /// The time that determines the position of the record in lists that are sorted by time.
    pub(super) time_ms: UnixMs,
    pub(super) content: RecordContent,
}

/// The content of a listed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordContent {
    /// An event from the topic of events.
    Event(TailEvent),
    /// A dead letter from the dead-letter topic.
    DeadLetter(Letter),
}

/// The state of the reader that reads the log from Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadState {
    /// The reader is waiting because Kafka does not answer or the topic does not exist. The text contains the problem
    /// and, after a semicolon, the remedy.
    Waiting(String),
    /// The reader is reading the log. The value is the number of records that the reader still has to read.
    Reading(u64),
}

/// All data that the live screen can show.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) counts: LiveCounts,
    /// The newest events of severity high or critical, sorted by event time with the newest event first. During a
    /// replay, records arrive one partition after another, so their order of arrival is not the order of event times.
    pub(super) alerts: VecDeque<Arc<ListedRecord>>,
    /// The newest events or dead letters, sorted by time with the newest record first.
    pub(super) records: VecDeque<Arc<ListedRecord>>,
    /// The number of alerts since `tail` began to read.
    pub(super) alert_count: u64,
    /// The smallest and the largest event time so far, without event times that are too far in the future.
    pub(super) times_ms: Option<(UnixMs, UnixMs)>,
    pub(super) state: ReadState,
    /// A hint for the user about a filter that matches no event.
    pub(super) hint: Option<String>,
    /// True if late events can be recognized. Late events can be recognized only if `tail` reads the log from the
    /// oldest record.
    pub(super) knows_late: bool,
    /// The current time, as set by the last call of [`Board::tick`].
    pub(super) now_ms: UnixMs,
    /// The times at which snapshots of the counts were stored. A snapshot is also called a mark. A mark's time has the
    /// same index in this array as the mark's counts have in the history of each row. The field `mark` is the index of
    /// the newest mark.
    mark_times: [Option<UnixMs>; MARKS],
    mark: usize,
    /// Memory of the dead letters in the list of records, in bytes.
    letter_bytes: usize,
}

impl Board {
    /// Returns an empty board.
    pub(super) fn new(knows_late: bool, now_ms: UnixMs) -> Board {
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

    /// Counts a record and adds the record to the lists of the board.
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
                    insert_by_time(&mut self.alerts, record);
                    self.alerts.truncate(RECORDS_MAX);
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

    fn extend_times(&mut self, time_ms: UnixMs) {
        let (from, to) = self.times_ms.unwrap_or((time_ms, time_ms));
        self.times_ms = Some((from.min(time_ms), to.max(time_ms)));
    }

    /// Adds a counted record to the list of all records, and drops the oldest records if the list exceeds its limits.
    fn list(&mut self, content: RecordContent) -> Arc<ListedRecord> {
        let record = Arc::new(ListedRecord {
            number: self.counts.sum.total(),
            time_ms: list_time(&content),
            content,
        });
        insert_by_time(&mut self.records, Arc::clone(&record));
        while self.records.len() > RECORDS_MAX
            || self.letter_bytes > LETTER_BYTES_MAX && self.records.len() > 1
        {
            let Some(oldest) = self.records.pop_back() else {
                break;
            };
            if let RecordContent::DeadLetter(oldest) = &oldest.content {
                self.letter_bytes -= dead_letters::bytes(oldest);
            }
        }
        record
    }

    /// Sets the current time of the board. Stores a snapshot of the counts if the last snapshot is at least one second
    /// old.
    pub(super) fn tick(&mut self, now_ms: UnixMs) {
        self.now_ms = now_ms;
        let last = self.mark_times[self.mark];
        // The board must continue to store snapshots of the counts even if the wall clock is set back.
        if last.is_none_or(|last| now_ms - last >= MARK_EVERY_MS || now_ms < last) {
            self.mark = (self.mark + 1) % MARKS;
            self.mark_times[self.mark] = Some(now_ms);
            self.counts.mark(self.mark);
        }
    }

    /// Returns the largest event time so far, without event times that are too far in the future.
    pub(super) fn newest_ms(&self) -> Option<UnixMs> {
        self.times_ms.map(|(_, newest_ms)| newest_ms)
    }

    /// Returns the records per second of a row over the last ten seconds, counting only the chosen severities.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self, row: &CountRow, severities: [bool; 4]) -> f64 {
        let after = (self.mark + 1) % MARKS;
        // Until every index of `mark_times` has a mark, the oldest mark is at index 0.
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

/// Returns the time by which a record is sorted. A future event is sorted by the timestamp of its Kafka record. If the
/// list were sorted only by event time, a future event would stay at the top of the list for too long.
fn list_time(content: &RecordContent) -> UnixMs {
    match content {
        RecordContent::Event(event) => match event.record_ms {
            Some(record_ms) if event.future => record_ms,
            _ => event.event.time_ms,
        },
        RecordContent::DeadLetter(letter) => {
            dead_letters::time_ms(letter).unwrap_or_else(|| letter.record_ms.unwrap_or_default())
        }
    }
}

/// Inserts a record into a list in which the newest record comes first. Among records with equal times, the record that
/// arrived last comes first.
fn insert_by_time(list: &mut VecDeque<Arc<ListedRecord>>, record: Arc<ListedRecord>) {
    let key = |record: &ListedRecord| (record.time_ms, record.number);
    let at = list.partition_point(|listed| key(listed) > key(&record));
    list.insert(at, record);
}

/// Returns the sum of the counts of the chosen severities.
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
    use crate::core::clock::UnixMs;
    use crate::core::event::{Event, Offset, Severity};

    /// Returns an event whose time is `ms` milliseconds after 2013-01-01T06:00:00Z.
    pub(in crate::tail) fn event(city: &str, kind: &str, severity: Severity, ms: i64) -> TailEvent {
        TailEvent {
            event: Event {
                city: city.into(),
                event_type: kind.into(),
                severity,
                time_ms: UnixMs(1_357_020_000_000 + ms),
                description: format!("{kind} in {city}").into(),
                event_id: None,
                extra: None,
            },
            late: false,
            future: false,
            partition: 2,
            offset: Offset(17),
            record_ms: Some(UnixMs(1_357_020_000_000 + ms + 1_500)),
        }
    }

    /// Returns a dead letter for a record of the topic `city-events`.
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
            record_ms: Some(UnixMs(time_ms + 1_500)),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            key: Some(b"NYC".to_vec()),
            value: value.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn dead_letters_are_counted_by_reason_and_their_memory_is_bounded() {
        let mut board = Board::new(false, UnixMs(0));
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
        let times = (UnixMs(1_357_020_000_000), UnixMs(1_357_020_699_000));
        assert_eq!(board.times_ms, Some(times));
        for n in 700..750 {
            board.add(Classified::DeadLetter(letter(
                "too_large",
                3,
                n,
                Some(&big),
            )));
        }
        // Within the limit of 16 MiB, the board can keep 15 dead letters with values of 1 MiB.
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
            let mut board = Board::new(false, UnixMs(0));
            board.add(Classified::DeadLetter(letter));
            assert_eq!(board.newest_ms(), Some(UnixMs(want)), "{own}");
        }
    }

    #[test]
    fn the_last_records_are_kept_newest_first() {
        let mut board = Board::new(true, UnixMs(0));
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
        let times = (UnixMs(1_357_020_000_000), UnixMs(1_357_020_001_199));
        assert_eq!(board.times_ms, Some(times));
    }

    #[test]
    fn a_replay_lists_alerts_by_time_whatever_their_order_of_arrival() {
        let mut board = Board::new(true, UnixMs(0));
        // The test adds the events of one partition after another, as a replay does.
        for partition in 0..3 {
            for n in 0..400 {
                let event = event("NYC", "traffic", Severity::High, n * 3 + partition);
                board.add(Classified::Event(event));
            }
        }
        let times = |list: &VecDeque<Arc<ListedRecord>>| -> Vec<i64> {
            list.iter()
                .map(|r| r.time_ms.0 - 1_357_020_000_000)
                .collect()
        };
        let want: Vec<i64> = (700..1_200).rev().collect();
        assert_eq!(times(&board.alerts), want);
        assert_eq!(times(&board.records), want);
        // A future event is sorted by the timestamp of its Kafka record, not by its event time.
        let mut far = event("NYC", "traffic", Severity::High, 9_000_000_000);
        (far.future, far.record_ms) = (true, Some(UnixMs(1_357_020_000_900)));
        board.add(Classified::Event(far));
        assert_eq!(
            board.alerts.iter().position(|r| r.number == 1_201),
            Some(299)
        );
    }

    #[test]
    fn a_future_event_is_counted_but_not_charted() {
        let mut board = Board::new(true, UnixMs(0));
        board.add(Classified::Event(event("NYC", "traffic", Severity::Low, 0)));
        let mut far = event("NYC", "traffic", Severity::Low, 9_000_000_000);
        far.future = true;
        board.add(Classified::Event(far));
        assert_eq!(board.counts.sum.total(), 2);
        assert_eq!(board.newest_ms(), Some(UnixMs(1_357_020_000_000)));
        let (_, _, row) = board.counts.rows().next().unwrap();
        let history = row.history.as_ref().unwrap();
        assert_eq!(history.window(1, 1_357_020_000_000 / 300_000), [1, 0, 0, 0]);
    }

    #[test]
    fn a_rate_covers_the_last_ten_seconds() {
        let mut board = Board::new(true, UnixMs(0));
        let rate = |board: &Board, severities| {
            let (_, _, row) = board.counts.rows().next().unwrap();
            board.rate(row, severities)
        };
        // In the first 20 s, the test adds 100 events per second, and cycles through the four severities. From second
        // 20 to second 40, the test adds no events.
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
            board.tick(UnixMs(now_ms));
            if now_ms >= 2_000 {
                assert!((rate(&board, [true; 4]) - 100.0).abs() < 0.1, "{now_ms}");
            }
        }
        assert!((rate(&board, [false, false, false, true]) - 25.0).abs() < 0.2);
        for (now_ms, want) in [(25_000, 50.0), (30_000, 0.0), (40_000, 0.0)] {
            for now_ms in (board.now_ms.0 + 50..=now_ms).step_by(50) {
                board.tick(UnixMs(now_ms));
            }
            assert!((rate(&board, [true; 4]) - want).abs() < 6.0, "{now_ms}");
        }
        // The test sets the clock back.
        board.tick(UnixMs(5_000));
        board.tick(UnixMs(6_000));
        board.add(Classified::Event(event("NYC", "traffic", Severity::Low, 0)));
        assert!(rate(&board, [true; 4]) >= 0.0);
    }
}
