//! What is new since the last look: pure bookkeeping over answers of the tables.
//!
//! The totals are the alarm: a series whose total grew has windows to look at, a city whose high and
//! critical counts grew has as many new alerts to find. So a look costs what changed, not what lies
//! in the tables. Counts and alerts are written separately, so an alert that a count promised may
//! show up some looks later; what never shows up is given up after [`ALERT_LOOKS_MAX`].

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use crate::core::event::Severity;
use crate::core::keys::series;
use crate::core::time::parse_timestamp;
use crate::store::reads::{AggregationItem, AlertItem, TotalItem};

/// Most series whose windows are read in one look; the others wait for the next one.
pub(super) const SERIES_PER_LOOK_MAX: usize = 100;
/// Looks between two reads of a series' windows: a busy one changes with every look, and its rows are
/// most of what a listener costs.
const SERIES_EVERY: u64 = 5;
/// Most cities whose alerts are read in one look.
pub(super) const CITIES_PER_LOOK_MAX: usize = 50;
/// Fewest and most alerts that are read of a city: new ones need not be the newest by event time.
const ALERTS_PER_CITY: std::ops::RangeInclusive<u64> = 20..=500;
/// Looks after which alerts that were counted but not found are given up: the tables may keep none,
/// or two records were the same alert.
const ALERT_LOOKS_MAX: u32 = 5;
/// Looks after which series with open windows are read again, to tell when those become final.
const OPEN_EVERY: u64 = 10;
/// Alerts remembered as told.
const TOLD_MAX: usize = 20_000;

/// What the totals say of a series: events in windows, late ones, high and critical ones.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    events: u64,
    late: u64,
    alerts: u64,
}

/// Alerts of a city that were counted and not found yet.
#[derive(Clone, Copy, Default)]
struct Promised {
    count: u64,
    looks: u32,
}

/// The state between two looks.
#[derive(Default)]
pub(super) struct Changes {
    totals: Option<BTreeMap<String, Counts>>,
    grand: Option<TotalItem>,
    /// Series whose windows are to be read, and those with windows that are not final.
    dirty: BTreeSet<String>,
    open: BTreeSet<String>,
    /// The look at which a series' windows were read last.
    read_at: BTreeMap<String, u64>,
    /// Windows as last told, by series: start, count, final.
    windows: BTreeMap<String, Vec<(String, u64, bool)>>,
    promised: BTreeMap<String, Promised>,
    told: HashSet<String>,
    told_in_order: VecDeque<String>,
    looks: u64,
}

impl Changes {
    /// Takes the grand total of a look; returns whether it changed.
    pub(super) fn take_grand_total(&mut self, all: &TotalItem) -> bool {
        let before = self.grand.replace(all.clone());
        before.as_ref() != Some(all)
    }

    /// Takes the totals of a look. The first ones are where counting starts.
    pub(super) fn take_totals(&mut self, totals: &[TotalItem]) {
        self.looks += 1;
        if self.looks.is_multiple_of(OPEN_EVERY) {
            self.dirty.append(&mut self.open);
        }
        let alarm = |t: &TotalItem| {
            t.severity_counts[Severity::High.index()]
                + t.severity_counts[Severity::Critical.index()]
        };
        let now: BTreeMap<String, Counts> = totals
            .iter()
            .map(|t| {
                let counts = Counts {
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
            let (was, is) = (before.get(&name).copied().unwrap_or_default(), now[&name]);
            if is.events != was.events {
                self.dirty.insert(name);
            }
            if is.alerts > was.alerts {
                let promised = self.promised.entry(total.city.clone()).or_default();
                promised.count += is.alerts - was.alerts;
                promised.looks = 0;
            }
        }
        self.totals = Some(now);
    }

    /// Returns the series whose windows are to be read now, those first that wait the longest.
    pub(super) fn series_to_read(&mut self) -> Vec<String> {
        let mut due: Vec<(u64, &String)> = self
            .dirty
            .iter()
            .map(|name| (self.read_at.get(name).copied(), name))
            .filter(|(at, _)| at.is_none_or(|at| self.looks >= at + SERIES_EVERY))
            .map(|(at, name)| (at.unwrap_or(0), name))
            .collect();
        due.sort_unstable();
        due.truncate(SERIES_PER_LOOK_MAX);
        let out: Vec<String> = due.into_iter().map(|(_, name)| name.clone()).collect();
        for name in &out {
            self.dirty.remove(name);
            self.read_at.insert(name.clone(), self.looks);
        }
        out
    }

    /// Takes windows that were read; returns those that are new, count more or became final, oldest
    /// first.
    pub(super) fn take_windows(
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
            let told = self.windows.get(&series(&w.city, &w.event_type));
            let same = |(start, count, is_final): &(String, u64, bool)| {
                *start == w.window_start && *count == w.event_count && *is_final == w.is_final
            };
            !told.is_some_and(|told| told.iter().any(same))
        });
        for (name, rows) in &read {
            if rows.iter().any(|(_, _, is_final)| !is_final) {
                self.open.insert(name.clone());
            }
        }
        self.windows.extend(read);
        windows
    }

    /// Gives series back whose windows could not be read.
    pub(super) fn read_again(&mut self, series: Vec<String>) {
        for name in &series {
            self.read_at.remove(name);
        }
        self.dirty.extend(series);
    }

    /// Returns the cities whose alerts are to be read now, and how many of each.
    pub(super) fn alerts_to_read(&self) -> Vec<(String, usize)> {
        let wanted = self.promised.iter().take(CITIES_PER_LOOK_MAX);
        wanted
            .map(|(city, promised)| {
                // A second and later look goes deeper.
                let depth = (promised.count + 10) << promised.looks.min(6);
                let depth = depth.clamp(*ALERTS_PER_CITY.start(), *ALERTS_PER_CITY.end());
                (city.clone(), usize::try_from(depth).unwrap_or(usize::MAX))
            })
            .collect()
    }

    /// Takes the newest alerts of a city; returns those that are new, in the order they were stored.
    ///
    /// New is what was stored at or after `since_ms` and not told yet; of more than the counts
    /// promised, the last stored ones.
    pub(super) fn take_alerts(
        &mut self,
        city: &str,
        alerts: Vec<AlertItem>,
        since_ms: i64,
    ) -> Vec<AlertItem> {
        let Some(promised) = self.promised.get_mut(city) else {
            return Vec::new();
        };
        let mut new: Vec<AlertItem> = alerts
            .into_iter()
            .filter(|a| parse_timestamp(&a.processing_time).is_some_and(|ms| ms >= since_ms))
            .filter(|a| !self.told.contains(&identity(a)))
            .collect();
        sort_as_stored(&mut new);
        let most = usize::try_from(promised.count).unwrap_or(usize::MAX);
        let new = new.split_off(new.len().saturating_sub(most));
        promised.count -= new.len() as u64;
        promised.looks += 1;
        if promised.count == 0 || promised.looks >= ALERT_LOOKS_MAX {
            self.promised.remove(city);
        }
        for alert in &new {
            let id = identity(alert);
            if self.told.insert(id.clone()) {
                self.told_in_order.push_back(id);
            }
        }
        while self.told_in_order.len() > TOLD_MAX {
            if let Some(oldest) = self.told_in_order.pop_front() {
                self.told.remove(&oldest);
            }
        }
        new
    }
}

/// Sorts alerts by when they were stored.
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

    const SINCE_MS: i64 = 1_357_020_010_000; // 2013-01-01T06:00:10Z

    #[test]
    fn a_grand_total_is_told_when_it_changes() {
        let mut changes = Changes::default();
        for (events, told) in [(5, true), (5, false), (6, true), (6, false)] {
            let all = total("", events, 0, 0);
            assert_eq!(changes.take_grand_total(&all), told, "{events}");
        }
    }

    #[test]
    fn only_what_grew_is_looked_at() {
        let mut changes = Changes::default();
        changes.take_totals(&[total("NYC", 5, 0, 2), total("LA", 1, 0, 1)]);
        assert!(changes.series_to_read().is_empty());
        assert!(changes.alerts_to_read().is_empty());
        changes.take_totals(&[total("NYC", 5, 0, 2), total("LA", 1, 0, 1)]);
        assert!(changes.series_to_read().is_empty());
        changes.take_totals(&[total("NYC", 6, 0, 2), total("LA", 1, 1, 2)]);
        assert_eq!(changes.series_to_read(), ["NYC#traffic"]);
        assert!(changes.series_to_read().is_empty());
        assert_eq!(changes.alerts_to_read(), [("LA".to_owned(), 20)]);
    }

    #[test]
    fn a_busy_series_is_read_every_fifth_look_and_a_quiet_one_at_once() {
        let mut changes = Changes::default();
        changes.take_totals(&[]);
        let mut read = Vec::new();
        for look in 1..=12 {
            let mut totals = vec![total("NYC", look, 0, 0)];
            totals.extend((look >= 4).then(|| total("LA", 1, 0, 0)));
            changes.take_totals(&totals);
            let names = changes.series_to_read();
            // One that could not be read is due at once.
            if look == 6 {
                changes.read_again(names.clone());
                assert_eq!(changes.series_to_read(), names);
            }
            read.extend(names.into_iter().map(|name| (look, name)));
        }
        let want = [(1, "NYC"), (4, "LA"), (6, "NYC"), (11, "NYC")];
        let want = want.map(|(look, city)| (look, format!("{city}#traffic")));
        assert_eq!(read, want);
    }

    #[test]
    fn of_too_many_series_those_come_first_that_wait_the_longest() {
        let mut changes = Changes::default();
        changes.take_totals(&[]);
        let mut read = BTreeMap::<String, u32>::new();
        for look in 1..=30 {
            let cities = (0..1_000).map(|n| total(&format!("c{n}"), look, 0, 0));
            changes.take_totals(&cities.collect::<Vec<_>>());
            let names = changes.series_to_read();
            assert_eq!(names.len(), SERIES_PER_LOOK_MAX);
            for name in names {
                *read.entry(name).or_default() += 1;
            }
        }
        assert_eq!(read.len(), 1_000);
        assert!(read.values().all(|reads| *reads == 3), "{read:?}");
    }

    #[test]
    fn a_window_is_told_when_it_changed_and_once_more_when_it_is_final() {
        let mut changes = Changes::default();
        let rows = |a, b, is_final| vec![window("06:05", b, false), window("06:00", a, is_final)];
        assert_eq!(changes.take_windows(rows(1, 1, false)).len(), 2);
        let told = changes.take_windows(rows(1, 2, false));
        assert_eq!((told.len(), told[0].window_start.as_str()), (1, "06:05"));
        assert!(changes.take_windows(rows(1, 2, false)).is_empty());
        let told = changes.take_windows(rows(1, 2, true));
        assert_eq!((told.len(), told[0].is_final), (1, true));
        // The other one is open, so it is read again although nothing grew.
        let mut again = Vec::new();
        for _look in 0..OPEN_EVERY {
            changes.take_totals(&[]);
            again.extend(changes.series_to_read());
        }
        assert_eq!(again, ["NYC#traffic"]);
    }

    #[test]
    fn a_promised_alert_is_found_once_even_if_it_comes_later() {
        let mut changes = Changes::default();
        changes.take_totals(&[total("NYC", 5, 0, 2)]);
        changes.take_totals(&[total("NYC", 7, 0, 4)]);
        let stored = |ids: &[(&str, u32)]| ids.iter().map(|(id, s)| alert(id, *s)).collect();
        let read: Vec<_> = stored(&[("b", 12), ("old", 3)]);
        assert_eq!(ids(&changes.take_alerts("NYC", read, SINCE_MS)), ["b"]);
        let read: Vec<_> = stored(&[("c", 13), ("b", 12), ("old", 3)]);
        assert_eq!(ids(&changes.take_alerts("NYC", read, SINCE_MS)), ["c"]);
        assert!(changes.alerts_to_read().is_empty());
        // One is promised, so the last stored one of two is it.
        changes.take_totals(&[total("NYC", 8, 0, 5)]);
        let read: Vec<_> = stored(&[("e", 15), ("d", 14), ("c", 13), ("b", 12)]);
        assert_eq!(ids(&changes.take_alerts("NYC", read, SINCE_MS)), ["e"]);
    }

    #[test]
    fn alerts_that_never_show_up_are_given_up() {
        let mut changes = Changes::default();
        changes.take_totals(&[total("NYC", 0, 0, 0)]);
        changes.take_totals(&[total("NYC", 9, 0, 9)]);
        let mut depths = Vec::new();
        while let Some((city, depth)) = changes.alerts_to_read().pop() {
            depths.push(depth);
            assert!(changes.take_alerts(&city, Vec::new(), SINCE_MS).is_empty());
        }
        assert_eq!(depths.len(), ALERT_LOOKS_MAX as usize);
        assert!(depths.is_sorted() && depths[0] < depths[4], "{depths:?}");
    }
}
