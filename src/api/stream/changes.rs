//! Finds the alerts that are new and the windows that have changed since the last poll, by comparing data that was read
//! from DynamoDB.
//!
//! The totals rows show which series have changed since the last poll. If the total of a series grew, the poller reads
//! the windows of that series. If the high and critical counts of a city grew by n, the poller expects n new alerts of
//! that city. The cost of a poll depends on the number of changes, and not on the size of the tables. Consumers write
//! counts and alerts separately, so an alert may appear in the tables some polls after it was counted. If an expected
//! alert has not appeared after [`ALERT_POLLS_MAX`] polls, the poller stops waiting for it and asks the listeners to
//! reload the list of alerts.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::keys::series;
use crate::core::time::parse_timestamp;
use crate::store::reads::{AggregationItem, AlertItem, TotalItem};

/// Maximum number of series whose windows one poll reads. If more series have changed, the remaining series wait for
/// the next poll.
pub(super) const SERIES_PER_POLL_MAX: usize = 100;
/// Minimum number of polls between two reads of the same series' windows. Reading the windows of busy series causes
/// most of the stream's cost. These windows change with every poll.
const SERIES_EVERY: u64 = 5;
/// Maximum number of cities whose alerts one poll reads.
pub(super) const CITIES_PER_POLL_MAX: usize = 50;
/// Minimum and maximum number of alerts that one poll reads for a city. A poll reads more alerts than it expects,
/// because a new alert does not always have the newest event time.
const ALERTS_PER_CITY: std::ops::RangeInclusive<u64> = 20..=500;
/// Number of polls after which the poller stops waiting for an alert that the totals count. A counted alert never
/// appears if the tables store no alerts, or if two records describe the same alert.
const ALERT_POLLS_MAX: u32 = 5;
/// Number of polls after which the poller reads all series with open windows again, to find the windows that have
/// become final.
const OPEN_EVERY: u64 = 10;
/// Minimum number of polls between two events that ask the listeners to reload the list of alerts. The poller also
/// waits for the missing alerts of a busy city for at most `MISSED_EVERY` polls.
const MISSED_EVERY: u64 = 30;
/// Maximum number of published alerts whose keys the poller remembers.
const PUBLISHED_MAX: usize = 20_000;

/// The counts of one series, from its totals row.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct SeenCounts {
    /// Number of events that are counted in windows.
    events: u64,
    late: u64,
    /// Number of events of high and critical severity.
    alerts: u64,
}

/// The alerts of one city that the totals count but that no read has found yet.
#[derive(Clone, Copy, Default)]
struct ExpectedAlerts {
    count: u64,
    /// Number of polls that have looked for alerts of the city since the number of expected alerts last grew.
    polls: u32,
    /// The number of the poll in which the poller began to wait for alerts of the city.
    since: u64,
}

/// The state that the poller keeps between two polls.
#[derive(Default)]
pub(super) struct Changes {
    totals: Option<BTreeMap<String, SeenCounts>>,
    grand: Option<TotalItem>,
    /// Series whose windows must be read.
    dirty: BTreeSet<String>,
    /// The series that have windows that are not final.
    open: BTreeSet<String>,
    /// For each series, the number of the poll that last read its windows.
    read_at: BTreeMap<String, u64>,
    /// For each series, the windows that were last published. Each window has a start, a number of events, and a flag
    /// that is true if the window is final.
    windows: BTreeMap<String, Vec<(String, u64, bool)>>,
    expected: BTreeMap<String, ExpectedAlerts>,
    published: HashSet<String>,
    published_in_order: VecDeque<String>,
    /// True if the poller did not find some counted alerts and has not notified the listeners yet.
    has_missed: bool,
    /// The number of the poll that last notified the listeners about missed alerts.
    missed_at: Option<u64>,
    polls: u64,
}

impl Changes {
    /// Stores the grand total (the sum over all series). Returns true if the grand total has changed since the previous
    /// poll.
    pub(super) fn apply_grand_total(&mut self, all: &TotalItem) -> bool {
        let before = self.grand.replace(all.clone());
        before.as_ref() != Some(all)
    }

    /// Compares the totals that a poll has read with the totals of the previous poll. The first call only stores the
    /// totals, so that later calls can compare them.
    ///
    /// If `totals` lists only some series (`lists_all` is false), the function only stores the first counts of a newly
    /// listed series, because the events of that series may be old.
    pub(super) fn apply_totals(&mut self, totals: &[TotalItem], lists_all: bool) {
        self.polls += 1;
        if self.polls.is_multiple_of(OPEN_EVERY) {
            self.dirty.append(&mut self.open);
        }
        let alarm = |t: &TotalItem| {
            t.severity_counts[Severity::High.index()]
                + t.severity_counts[Severity::Critical.index()]
        };
        let now: BTreeMap<String, SeenCounts> = totals
            .iter()
            .map(|t| {
                let counts = SeenCounts {
                    events: t.event_count,
                    late: t.late_count,
                    alerts: alarm(t),
                };
                (series(&t.city, &t.event_type), counts)
            })
            .collect();
        let Some(before) = self.totals.take() else {
            self.totals = Some(now);
            return;
        };
        for total in totals {
            let name = series(&total.city, &total.event_type);
            let is = now[&name];
            let unknown = if lists_all { SeenCounts::default() } else { is };
            let was = before.get(&name).copied().unwrap_or(unknown);
            if is.events != was.events {
                self.dirty.insert(name);
            }
            if is.alerts > was.alerts {
                let none = ExpectedAlerts {
                    since: self.polls,
                    ..ExpectedAlerts::default()
                };
                let expected = self.expected.entry(total.city.clone()).or_insert(none);
                expected.count += is.alerts - was.alerts;
                expected.polls = 0;
            }
        }
        self.totals = Some(now);
    }

    /// Returns the series whose windows the poll must read. The series that has not been read for the longest time
    /// comes first.
    pub(super) fn series_to_read(&mut self) -> Vec<String> {
        let mut due: Vec<(u64, &String)> = self
            .dirty
            .iter()
            .map(|name| (self.read_at.get(name).copied(), name))
            .filter(|(at, _)| at.is_none_or(|at| self.polls >= at + SERIES_EVERY))
            .map(|(at, name)| (at.unwrap_or(0), name))
            .collect();
        due.sort_unstable();
        due.truncate(SERIES_PER_POLL_MAX);
        let out: Vec<String> = due.into_iter().map(|(_, name)| name.clone()).collect();
        for name in &out {
            self.dirty.remove(name);
            self.read_at.insert(name.clone(), self.polls);
        }
        out
    }

    /// Compares the windows that a poll has read with the windows that were last published. Returns the windows that
    /// are new, have a different number of events, or have become final, with the oldest window first.
    pub(super) fn apply_windows(
        &mut self,
        mut windows: Vec<AggregationItem>,
    ) -> Vec<AggregationItem> {
        windows.sort_by(|a, b| a.window_start.cmp(&b.window_start));
        let mut read = BTreeMap::<String, Vec<(String, u64, bool)>>::new();
        for w in &windows {
            let seen = (w.window_start.clone(), w.event_count, w.is_final);
            let name = series(&w.city, &w.event_type);
            read.entry(name).or_default().push(seen);
        }
        windows.retain(|w| {
            let published = self.windows.get(&series(&w.city, &w.event_type));
            let same = |(start, count, is_final): &(String, u64, bool)| {
                *start == w.window_start && *count == w.event_count && *is_final == w.is_final
            };
            !published.is_some_and(|published| published.iter().any(same))
        });
        for (name, rows) in &read {
            if rows.iter().any(|(_, _, is_final)| !is_final) {
                self.open.insert(name.clone());
            }
        }
        self.windows.extend(read);
        windows
    }

    /// Marks series whose windows could not be read, so that the next poll reads their windows again.
    pub(super) fn read_again(&mut self, series: Vec<String>) {
        for name in &series {
            self.read_at.remove(name);
        }
        self.dirty.extend(series);
    }

    /// Returns the cities whose alerts the poll must read, each with the number of alerts to read.
    pub(super) fn alerts_to_read(&self) -> Vec<(String, usize)> {
        let wanted = self.expected.iter().take(CITIES_PER_POLL_MAX);
        wanted
            .map(|(city, expected)| {
                // As long as expected alerts are missing, each poll reads twice as many alerts as the previous poll.
                let depth = (expected.count + 10) << expected.polls.min(6);
                let depth = depth.clamp(*ALERTS_PER_CITY.start(), *ALERTS_PER_CITY.end());
                (city.clone(), usize::try_from(depth).unwrap_or(usize::MAX))
            })
            .collect()
    }

    /// Finds the new alerts among the newest alerts of a city. Returns the new alerts in the order in which the
    /// consumers stored them.
    ///
    /// An alert is new if it was stored at or after `since_ms` and has not been published yet. If more alerts are new
    /// than the poller expects, the function returns only the alerts that were stored last.
    pub(super) fn apply_alerts(
        &mut self,
        city: &str,
        alerts: Vec<AlertItem>,
        since_ms: UnixMs,
    ) -> Vec<AlertItem> {
        let Some(expected) = self.expected.get_mut(city) else {
            return Vec::new();
        };
        let keeps_alerts = !alerts.is_empty();
        let mut new: Vec<AlertItem> = alerts
            .into_iter()
            .filter(|a| parse_timestamp(&a.processing_time).is_some_and(|ms| ms >= since_ms))
            .filter(|a| !self.published.contains(&identity(a)))
            .collect();
        sort_as_stored(&mut new);
        let most = usize::try_from(expected.count).unwrap_or(usize::MAX);
        let new = new.split_off(new.len().saturating_sub(most));
        expected.count -= new.len() as u64;
        expected.polls += 1;
        // If the alerts of a city are counted faster than they appear, `polls` is reset with every poll and never
        // reaches its limit.
        let is_late =
            expected.polls >= ALERT_POLLS_MAX || self.polls >= expected.since + MISSED_EVERY;
        if expected.count == 0 || is_late {
            // A counted alert may be missing because a consumer died before it stored the alert, or because the poll
            // read only newer alerts. If the tables store no alerts at all, the listeners have missed nothing.
            self.has_missed |= expected.count > 0 && keeps_alerts;
            self.expected.remove(city);
        }
        for alert in &new {
            let id = identity(alert);
            if self.published.insert(id.clone()) {
                self.published_in_order.push_back(id);
            }
        }
        while self.published_in_order.len() > PUBLISHED_MAX {
            if let Some(oldest) = self.published_in_order.pop_front() {
                self.published.remove(&oldest);
            }
        }
        new
    }

    /// Returns true if the listeners must reload the list of alerts, because the poller did not find all new alerts.
    pub(super) fn take_missed(&mut self) -> bool {
        let is_soon = self
            .missed_at
            .is_some_and(|at| self.polls < at + MISSED_EVERY);
        if !self.has_missed || is_soon {
            return false;
        }
        self.has_missed = false;
        self.missed_at = Some(self.polls);
        true
    }
}

/// Sorts alerts by the time at which consumers stored them.
pub(super) fn sort_as_stored(alerts: &mut [AlertItem]) {
    alerts.sort_by(|a, b| {
        (&a.processing_time, &a.event_time, &a.event_id).cmp(&(
            &b.processing_time,
            &b.event_time,
            &b.event_id,
        ))
    });
}

fn identity(alert: &AlertItem) -> String {
    format!("{}#{}#{}", alert.city, alert.event_time, alert.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(city: &str, events: u64, late: u64, high: u64) -> TotalItem {
        TotalItem {
            city: city.into(),
            event_type: "traffic".into(),
            event_count: events,
            late_count: late,
            severity_counts: [0, 0, high, 0],
        }
    }

    fn window(start: &str, event_count: u64, is_final: bool) -> AggregationItem {
        AggregationItem {
            window_start: start.into(),
            city: "NYC".into(),
            event_type: "traffic".into(),
            event_count,
            is_final,
            ..AggregationItem::default()
        }
    }

    fn alert(id: &str, stored_s: u32) -> AlertItem {
        AlertItem {
            event_id: id.into(),
            event_time: "2013-01-01T06:00:00.000Z".into(),
            city: "NYC".into(),
            processing_time: format!("2013-01-01T06:00:{stored_s:02}.000Z"),
            ..AlertItem::default()
        }
    }

    fn ids(alerts: &[AlertItem]) -> Vec<&str> {
        alerts.iter().map(|a| a.event_id.as_str()).collect()
    }

    const SINCE_MS: UnixMs = UnixMs(1_357_020_010_000); // 2013-01-01T06:00:10Z

    #[test]
    fn a_grand_total_is_published_when_it_changes() {
        let mut changes = Changes::default();
        for (events, is_new) in [(5, true), (5, false), (6, true), (6, false)] {
            let all = total("", events, 0, 0);
            assert_eq!(changes.apply_grand_total(&all), is_new, "{events}");
        }
    }

    #[test]
    fn only_series_and_cities_that_grew_are_read() {
        let mut changes = Changes::default();
        changes.apply_totals(&[total("NYC", 5, 0, 2), total("LA", 1, 0, 1)], true);
        assert!(changes.series_to_read().is_empty());
        assert!(changes.alerts_to_read().is_empty());
        changes.apply_totals(&[total("NYC", 5, 0, 2), total("LA", 1, 0, 1)], true);
        assert!(changes.series_to_read().is_empty());
        changes.apply_totals(&[total("NYC", 6, 0, 2), total("LA", 1, 1, 2)], true);
        assert_eq!(changes.series_to_read(), ["NYC#traffic"]);
        assert!(changes.series_to_read().is_empty());
        assert_eq!(changes.alerts_to_read(), [("LA".to_owned(), 20)]);
    }

    #[test]
    fn a_series_that_appears_in_a_cut_list_only_sets_its_baseline() {
        let mut changes = Changes::default();
        changes.apply_totals(&[total("NYC", 5, 0, 2)], false);
        changes.apply_totals(&[total("NYC", 5, 0, 2), total("LA", 9, 0, 9)], false);
        assert!(changes.series_to_read().is_empty());
        assert!(changes.alerts_to_read().is_empty());
        changes.apply_totals(&[total("LA", 10, 0, 10)], false);
        assert_eq!(changes.series_to_read(), ["LA#traffic"]);
        assert_eq!(changes.alerts_to_read(), [("LA".to_owned(), 20)]);
    }

    #[test]
    fn a_busy_series_is_read_every_fifth_poll_and_a_quiet_one_at_once() {
        let mut changes = Changes::default();
        changes.apply_totals(&[], true);
        let mut read = Vec::new();
        for poll in 1..=12 {
            let mut totals = vec![total("NYC", poll, 0, 0)];
            totals.extend((poll >= 4).then(|| total("LA", 1, 0, 0)));
            changes.apply_totals(&totals, true);
            let names = changes.series_to_read();
            // If reading the windows of a series fails, the poller reads them again without the usual pause.
            if poll == 6 {
                changes.read_again(names.clone());
                assert_eq!(changes.series_to_read(), names);
            }
            read.extend(names.into_iter().map(|name| (poll, name)));
        }
        let want = [(1, "NYC"), (4, "LA"), (6, "NYC"), (11, "NYC")];
        let want = want.map(|(poll, city)| (poll, format!("{city}#traffic")));
        assert_eq!(read, want);
    }

    #[test]
    fn series_that_have_waited_longest_are_read_first() {
        let mut changes = Changes::default();
        changes.apply_totals(&[], true);
        let mut read = BTreeMap::<String, u32>::new();
        for poll in 1..=30 {
            let cities = (0..1_000).map(|n| total(&format!("c{n}"), poll, 0, 0));
            changes.apply_totals(&cities.collect::<Vec<_>>(), true);
            let names = changes.series_to_read();
            assert_eq!(names.len(), SERIES_PER_POLL_MAX);
            for name in names {
                *read.entry(name).or_default() += 1;
            }
        }
        assert_eq!(read.len(), 1_000);
        assert!(read.values().all(|reads| *reads == 3), "{read:?}");
    }

    #[test]
    fn a_window_is_published_when_it_changes_and_once_more_when_it_is_final() {
        let mut changes = Changes::default();
        let rows = |a, b, is_final| vec![window("06:05", b, false), window("06:00", a, is_final)];
        assert_eq!(changes.apply_windows(rows(1, 1, false)).len(), 2);
        let changed = changes.apply_windows(rows(1, 2, false));
        assert_eq!(
            (changed.len(), changed[0].window_start.as_str()),
            (1, "06:05")
        );
        assert!(changes.apply_windows(rows(1, 2, false)).is_empty());
        let changed = changes.apply_windows(rows(1, 2, true));
        assert_eq!((changed.len(), changed[0].is_final), (1, true));
        // One of the two windows is still open, so the poller reads the series again although its total did not grow.
        let mut again = Vec::new();
        for _poll in 0..OPEN_EVERY {
            changes.apply_totals(&[], true);
            again.extend(changes.series_to_read());
        }
        assert_eq!(again, ["NYC#traffic"]);
    }

    #[test]
    fn an_expected_alert_is_published_once_even_if_it_arrives_later() {
        let mut changes = Changes::default();
        changes.apply_totals(&[total("NYC", 5, 0, 2)], true);
        changes.apply_totals(&[total("NYC", 7, 0, 4)], true);
        let stored = |ids: &[(&str, u32)]| ids.iter().map(|(id, s)| alert(id, *s)).collect();
        let read: Vec<_> = stored(&[("b", 12), ("old", 3)]);
        assert_eq!(ids(&changes.apply_alerts("NYC", read, SINCE_MS)), ["b"]);
        let read: Vec<_> = stored(&[("c", 13), ("b", 12), ("old", 3)]);
        assert_eq!(ids(&changes.apply_alerts("NYC", read, SINCE_MS)), ["c"]);
        assert!(changes.alerts_to_read().is_empty());
        // The totals count one more alert, but the poll finds two new alerts, so the poll publishes only the alert that
        // was stored last.
        changes.apply_totals(&[total("NYC", 8, 0, 5)], true);
        let read: Vec<_> = stored(&[("e", 15), ("d", 14), ("c", 13), ("b", 12)]);
        assert_eq!(ids(&changes.apply_alerts("NYC", read, SINCE_MS)), ["e"]);
    }

    #[test]
    fn alerts_that_never_arrive_are_no_longer_expected() {
        let mut changes = Changes::default();
        changes.apply_totals(&[total("NYC", 0, 0, 0)], true);
        changes.apply_totals(&[total("NYC", 9, 0, 9)], true);
        let mut depths = Vec::new();
        while let Some((city, depth)) = changes.alerts_to_read().pop() {
            depths.push(depth);
            assert!(changes.apply_alerts(&city, Vec::new(), SINCE_MS).is_empty());
        }
        assert_eq!(depths.len(), ALERT_POLLS_MAX as usize);
        assert!(depths.is_sorted() && depths[0] < depths[4], "{depths:?}");
        // The tables of this test store no alerts, so the listeners have missed no alert.
        assert!(!changes.take_missed());
    }

    #[test]
    fn listeners_are_told_of_alerts_that_were_counted_and_not_found() {
        let mut changes = Changes::default();
        changes.apply_totals(&[total("NYC", 0, 0, 0)], true);
        let mut told = Vec::new();
        for poll in 1..=100 {
            // With each poll, the totals count one more alert, but none of these alerts appears in the tables.
            changes.apply_totals(&[total("NYC", poll, 0, poll.min(40))], true);
            for (city, _) in changes.alerts_to_read() {
                changes.apply_alerts(&city, vec![alert("old", 3)], SINCE_MS);
            }
            told.extend(changes.take_missed().then_some(poll));
        }
        assert_eq!(told, [31, 61]);
        changes.apply_totals(&[total("NYC", 101, 0, 41)], true);
        for poll in 102..=140 {
            for (city, _) in changes.alerts_to_read() {
                changes.apply_alerts(&city, vec![alert("old", 3)], SINCE_MS);
            }
            told.extend(changes.take_missed().then_some(poll));
            changes.apply_totals(&[total("NYC", poll, 0, 41)], true);
        }
        assert_eq!(told.len(), 3, "{told:?}");
    }
}
