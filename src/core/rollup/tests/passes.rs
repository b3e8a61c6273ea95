//! Tests complete rollup passes on simulated tables. The consumer may crash at any step.

use crate::clock::UnixMs;
use std::collections::BTreeSet;

use super::*;
use crate::keys::totals_shard;
use crate::time::format_seconds;

/// Simulated tables in memory.
#[derive(Default)]
struct Tables {
    windows: BTreeMap<(String, UnixMs), SeverityCounts>,
    rows: BTreeMap<(String, String), RollupRow>,
    mark: Option<RollupMark>,
    asked: usize,
    keys_read: i64,
}

impl Tables {
    fn series(&self) -> BTreeSet<String> {
        self.windows
            .keys()
            .map(|(series, _)| series.clone())
            .collect()
    }

    /// Carries out the request `ask` on the simulated tables, and passes the result to `roll`.
    fn answer(&mut self, roll: &mut Roll, ask: Ask, chance: u32) {
        self.asked += 1;
        match ask {
            Ask::Move(mark) => {
                let version = self.mark.as_ref().map_or(0, |mark| mark.version);
                assert_eq!(mark.version, version + 1);
                self.mark = Some(mark.clone());
                roll.moved(mark);
            }
            Ask::Settle => roll.settled(),
            Ask::FirstWindow(from_ms) => {
                let later = self.windows.keys().filter(|(_, ms)| *ms >= from_ms);
                roll.first_window(later.map(|(_, ms)| *ms).min());
            }
            Ask::Series { shard, after } => {
                let of_shard = |series: &String| {
                    totals_shard(series) == format!("totals#{shard}") && *series > after
                };
                let mut page: Vec<String> = self.series().into_iter().filter(of_shard).collect();
                let has_more = page.len() > 2;
                page.truncate(2);
                roll.series(page, has_more);
            }
            Ask::Windows {
                series,
                from_ms,
                until_ms,
            } => {
                assert!(until_ms - from_ms <= 1_000 * WINDOW_MS);
                self.keys_read += (until_ms - from_ms) / WINDOW_MS;
                let found = self
                    .windows
                    .range((series.clone(), from_ms)..(series, until_ms));
                let found: Vec<_> = found.map(|((_, ms), counts)| (*ms, *counts)).collect();
                roll.windows(&found);
            }
            Ask::Hours { series, day_ms } => {
                let shard = series.shard(Grain::Hour);
                let day = day_ms..day_ms + DAY_MS;
                let rows = self.rows.values().filter(|row| row.key().0 == shard);
                let rows = rows.filter(|row| day.contains(&row.start_ms));
                let hours: Vec<_> = rows.map(|row| (row.start_ms, row.counts())).collect();
                roll.hours(series, &hours);
            }
            Ask::Put { rows, wait_ms } => {
                assert!(rows.len() <= 25 && wait_ms >= 0);
                let keys: BTreeSet<_> = rows.iter().map(RollupRow::key).collect();
                assert_eq!(keys.len(), rows.len(), "a key twice in a put");
                let refused = |at: &usize| chance.is_multiple_of(3) && at.is_multiple_of(2);
                let unprocessed: Vec<usize> = (0..rows.len()).filter(refused).collect();
                for (at, row) in rows.into_iter().enumerate() {
                    if !unprocessed.contains(&at) {
                        self.rows.insert(row.key(), row);
                    }
                }
                roll.put(&unprocessed);
            }
            Ask::Done(_) => unreachable!("the caller ends"),
        }
    }

    /// Rolls up all hours before `until_ms`. For each number `n` in `crashes`, a consumer crashes after `n` steps, and
    /// another one continues.
    fn roll_up(&mut self, until_ms: UnixMs, crashes: &[usize]) {
        let now = facts(&[log(Some(until_ms), 9, Some(9), 9)]);
        let mut crashes = crashes.iter().copied();
        while let Ok(plan) = plan(self.mark.as_ref(), &now) {
            let mut roll = Roll::new(plan, WINDOW_MS);
            let life = crashes.next().unwrap_or(usize::MAX);
            for step in 0..life {
                let chance = u32::try_from(step).unwrap();
                let ask = roll.next_ask(chance);
                if let Ask::Done(mark) = ask {
                    assert_eq!(Some(&mark), self.mark.as_ref());
                    break;
                }
                self.answer(&mut roll, ask, chance);
            }
        }
    }

    /// Returns the expected rollup rows. This function computes them from the windows without the code under test.
    fn want(&self, until_ms: UnixMs) -> BTreeMap<(String, String), SeverityCounts> {
        let mut want = BTreeMap::<(String, String), SeverityCounts>::new();
        for ((series, start_ms), counts) in &self.windows {
            let (_, kind) = series.split_once('#').unwrap();
            let in_shard = series.replace("**#", "***#");
            for (grain, length_ms) in [("hour", 3_600_000), ("day", 86_400_000)] {
                let start = *start_ms - start_ms.0 % length_ms;
                if start + length_ms > until_ms {
                    continue;
                }
                for name in [in_shard.clone(), format!("*#{kind}")] {
                    let key = (format!("{grain}#{name}"), format_seconds(start));
                    let row = want.entry(key).or_default();
                    for (sum, count) in row.iter_mut().zip(counts) {
                        *sum += count;
                    }
                }
            }
        }
        want
    }

    fn check(&self, until_ms: UnixMs) {
        let got = self
            .rows
            .iter()
            .map(|(key, row)| (key.clone(), row.counts()));
        assert_eq!(got.collect::<BTreeMap<_, _>>(), self.want(until_ms));
        for row in self.rows.values() {
            let Cells::Day(hours) = &row.cells else {
                continue;
            };
            assert_eq!(unpack(&pack(hours)).as_ref(), Some(&**hours));
            for (hour, counts) in (0..).zip(&**hours) {
                let start_ms = row.start_ms + hour * HOUR_MS;
                let key = (row.series.shard(Grain::Hour), format_seconds(start_ms));
                let stored = self.rows.get(&key).map(RollupRow::counts);
                assert_eq!(*counts, stored.unwrap_or_default(), "{key:?}");
            }
        }
    }
}

fn window() -> impl Strategy<Value = ((String, UnixMs), SeverityCounts)> {
    let series = (0usize..5, 0usize..3).prop_map(|(city, kind)| {
        let (city, kind) = (
            ["NYC", "LA", "**", "São Paulo", "A"][city],
            ["traffic", "a", "b"][kind],
        );
        format!("{city}#{kind}")
    });
    // Most generated windows start in the three days after `BASE_MS`, and the others start about a year earlier or
    // later.
    let days = prop_oneof![8 => Just(0i64), 1 => Just(-400i64), 1 => Just(300i64)];
    let start = (days, 0i64..3 * 288).prop_map(|(day, n)| BASE_MS + day * DAY_MS + n * WINDOW_MS);
    let counts = prop::array::uniform4(0u64..400);
    let counts = counts.prop_filter("a window has events", |c| c.iter().sum::<u64>() > 0);
    ((series, start), counts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rollups_equal_a_fold_of_the_windows_whatever_kills_the_writer(
        windows in prop::collection::btree_map(0u32..1_000_000, window(), 0..120),
        crashes in prop::collection::vec(0usize..400, 0..6),
        looks in prop::collection::btree_set(0i64..400, 1..5),
    ) {
        let mut tables = Tables { windows: windows.into_values().collect(), ..Tables::default() };
        for hours in looks {
            // While consumers catch up with a backlog, many hours become due at once. Without a backlog, hours become
            // due one at a time.
            let until_ms = BASE_MS + hours * HOUR_MS;
            tables.roll_up(until_ms + 1_234, &crashes);
            tables.check(until_ms);
        }
    }

    #[test]
    fn a_packed_day_is_what_it_was(hours in prop::array::uniform24(prop::array::uniform4(prop_oneof![0u64..3, any::<u64>()]))) {
        prop_assert_eq!(unpack(&pack(&hours)), Some(hours));
    }
}

#[test]
fn days_without_windows_cost_no_reads_of_windows() {
    let mut tables = Tables::default();
    for day in [0, 4_000] {
        let key = (
            "NYC#traffic".to_owned(),
            BASE_MS + day * DAY_MS + 7 * HOUR_MS,
        );
        tables.windows.insert(key, [1, 0, 0, 0]);
    }
    let until_ms = BASE_MS + 5_000 * DAY_MS + 3 * HOUR_MS;
    tables.roll_up(until_ms, &[]);
    tables.check(until_ms);
    assert_eq!(tables.keys_read, 2 * 288);
    let mark = tables.mark.clone().unwrap();
    assert_eq!(mark.until_ms, until_ms);
    // If only one day is due, the rollup pass reads the windows of this day and does not query the index.
    tables.roll_up(until_ms + DAY_MS, &[]);
    assert_eq!(tables.keys_read, 3 * 288);
    let asked = tables.asked;
    tables.roll_up(until_ms + DAY_MS + 1, &[]);
    assert_eq!(tables.asked, asked);
}

#[test]
fn an_hour_writes_one_row_for_each_series_and_type_and_moves_the_mark_once() {
    let mut tables = Tables::default();
    for city in 0..6 {
        for kind in ["traffic", "weather", "incident", "construction"] {
            let key = (format!("city {city}#{kind}"), BASE_MS + HOUR_MS);
            tables.windows.insert(key, [3, 2, 1, 1]);
        }
    }
    tables.mark = Some(mark(BASE_MS + HOUR_MS, &[]));
    tables.roll_up(BASE_MS + 2 * HOUR_MS, &[]);
    assert_eq!(tables.rows.len(), 24 + 4);
    assert_eq!(tables.mark.as_ref().unwrap().version, 8);
    assert_eq!(tables.keys_read, 24 * 12);
    // At one event every five seconds, there are 720 events an hour. Rolling up one hour writes 28 rollup rows and the
    // mark. At the end of a day, the rollup also writes 28 rows for the day.
    let an_hour = 28.0 + 1.0 + 28.0 / 24.0;
    assert!(an_hour / 720.0 < 0.05, "{}", an_hour / 720.0);
}
