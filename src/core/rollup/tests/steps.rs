//! Tests single steps of a rollup pass: the hours of a chunk, the reads for a chunk, and the repeated puts.

use super::*;
use crate::pace::backoff_ms;

/// Returns a pass over the hours `[from, until)` after [`BASE_MS`]. The mark is already at the first hour.
fn pass(from: i64, until: i64, window_ms: i64) -> Roll {
    let plan = RollupPlan {
        mark: mark(BASE_MS + from * HOUR_MS, &[]),
        is_new: false,
        target_ms: BASE_MS + until * HOUR_MS,
        idle: BTreeMap::new(),
    };
    Roll::new(plan, window_ms)
}

/// Answers the requests for series so that only the first shard has series. Returns the first request of another kind.
fn past_series(roll: &mut Roll, series: &[&str]) -> Ask {
    loop {
        let ask = roll.next_ask(0);
        let Ask::Series { shard, after } = &ask else {
            return ask;
        };
        assert_eq!(after, "");
        assert!(*shard < 16, "{shard}");
        let page = match shard {
            0 => series.iter().map(|name| (*name).to_owned()).collect(),
            _ => Vec::new(),
        };
        roll.series(page, false);
    }
}

/// Returns the time range of a request for windows, in hours after [`BASE_MS`].
fn hours_of(ask: &Ask) -> (i64, i64) {
    match ask {
        Ask::Windows {
            from_ms, until_ms, ..
        } => (
            (*from_ms - BASE_MS) / HOUR_MS,
            (*until_ms - BASE_MS) / HOUR_MS,
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chunk_ends_with_its_day() {
    for (from, until, want) in [
        (0, 1, (0, 1)),
        (0, 24, (0, 24)),
        (5, 24, (5, 24)),
        (5, 30, (5, 24)),
        (5, 300, (5, 24)),
        (24, 30, (24, 30)),
        (47, 99, (47, 48)),
    ] {
        let mut roll = pass(from, until, WINDOW_MS);
        assert_eq!(roll.target_ms(), BASE_MS + until * HOUR_MS);
        assert_eq!(roll.mark().until_ms, BASE_MS + from * HOUR_MS);
        let ask = past_series(&mut roll, &["NYC#traffic"]);
        assert_eq!(hours_of(&ask), want, "{from} to {until}");
    }
}

#[test]
fn the_index_is_asked_only_if_more_than_a_day_is_due() {
    // Each case lists the start of the first window in the index, in hours, and the hours whose windows the pass reads
    // next.
    for (first, want) in [
        (Some(0), Some((0, 24))),
        (Some(23), Some((0, 24))),
        (Some(24), Some((24, 48))),
        (Some(100), Some((96, 100))),
        // The index returns a window before the mark.
        (Some(-30), Some((0, 24))),
        (Some(300), None),
        (None, None),
    ] {
        let mut roll = pass(0, 100, WINDOW_MS);
        assert_eq!(roll.next_ask(0), Ask::Settle);
        roll.settled();
        assert_eq!(roll.next_ask(0), Ask::FirstWindow(BASE_MS));
        roll.first_window(first.map(|hour| BASE_MS + hour * HOUR_MS + WINDOW_MS));
        let ask = past_series(&mut roll, &["NYC#traffic"]);
        match want {
            Some(hours) => assert_eq!(hours_of(&ask), hours, "{first:?}"),
            None => {
                let Ask::Move(mark) = ask else {
                    panic!("{ask:?}");
                };
                assert_eq!(mark.until_ms, roll.target_ms());
                roll.moved(mark.clone());
                assert_eq!(roll.next_ask(0), Ask::Done(mark));
            }
        }
    }
    let mut roll = pass(0, 25, WINDOW_MS);
    assert_eq!(roll.next_ask(0), Ask::Settle);
}

#[test]
fn a_thousand_windows_are_read_at_once() {
    // Each case lists the length of a window in milliseconds, and for each read the second of the hour at which it
    // begins.
    for (window_ms, begins) in [(1_000, &[0, 1_000, 2_000, 3_000][..]), (3_600, &[0])] {
        let mut roll = pass(0, 1, window_ms);
        let mut ask = past_series(&mut roll, &["NYC#traffic"]);
        for from_s in begins {
            let from_ms = BASE_MS + from_s * 1_000;
            let want = Ask::Windows {
                series: "NYC#traffic".to_owned(),
                from_ms,
                until_ms: (from_ms + 1_000 * window_ms).min(BASE_MS + HOUR_MS),
            };
            assert_eq!(ask, want);
            roll.windows(&[(from_ms, [1, 0, 0, 2])]);
            ask = past_series(&mut roll, &[]);
        }
        let Ask::Put { rows, wait_ms: 0 } = ask else {
            panic!("{ask:?}");
        };
        let counts: Vec<_> = rows.iter().map(RollupRow::counts).collect();
        let reads = begins.len() as u64;
        let want = [reads, 0, 0, 2 * reads];
        assert_eq!(counts, [want; 2], "the series and all cities");
    }
}

#[test]
fn the_mark_lists_the_idle_partitions_of_its_pass() {
    let (before, after) = ([(1, BASE_MS)], [(2, BASE_MS + HOUR_MS)]);
    let plan = RollupPlan {
        mark: mark(BASE_MS, &before),
        is_new: true,
        target_ms: BASE_MS + HOUR_MS,
        idle: BTreeMap::from(after),
    };
    let first = plan.mark.version + 1;
    let mut roll = Roll::new(plan, WINDOW_MS);
    for (until_ms, idle, version) in [
        (BASE_MS, before, first),
        (BASE_MS + HOUR_MS, after, first + 1),
    ] {
        let want = RollupMark {
            version,
            ..mark(until_ms, &idle)
        };
        assert_eq!(past_series(&mut roll, &[]), Ask::Move(want.clone()));
        roll.moved(want);
    }
}

#[test]
fn a_put_is_repeated_for_the_rows_that_were_not_stored() {
    let mut roll = pass(0, 1, WINDOW_MS);
    past_series(&mut roll, &["NYC#traffic"]);
    roll.windows(&[(BASE_MS, [1, 0, 0, 0])]);
    let Ask::Put { rows, wait_ms: 0 } = past_series(&mut roll, &[]) else {
        panic!("it puts");
    };
    let chance = u32::MAX;
    // Each case lists the attempt number, the rows of the put that the table does not store, and the first row that the
    // pass sends again.
    for (attempt, unprocessed, first) in [(1, &[0, 1][..], 0), (2, &[1], 1), (3, &[0], 1)] {
        roll.put(unprocessed);
        let want = Ask::Put {
            rows: rows[first..].to_vec(),
            wait_ms: backoff_ms(attempt, chance),
        };
        assert_eq!(roll.next_ask(chance), want);
    }
    roll.put(&[]);
    let Ask::Move(mark) = roll.next_ask(0) else {
        panic!("it moves the mark");
    };
    assert_eq!(mark.until_ms, BASE_MS + HOUR_MS);
}

#[test]
fn a_day_row_has_the_stored_hours_of_its_day() {
    let mut roll = pass(23, 24, WINDOW_MS);
    past_series(&mut roll, &["NYC#traffic"]);
    roll.windows(&[(BASE_MS + 23 * HOUR_MS, [1, 0, 0, 0])]);
    past_series(&mut roll, &[]);
    roll.put(&[]);
    let Ask::Hours { series, day_ms } = past_series(&mut roll, &["NYC#traffic"]) else {
        panic!("it reads the hours of the day");
    };
    assert_eq!(
        (&series, day_ms),
        (&rollups(Some("NYC"), "traffic"), BASE_MS)
    );
    // The answer also contains hours of the previous day and of the next day.
    let hours: Vec<_> = [-1, 0, 23, 24]
        .map(|hour| (BASE_MS + hour * HOUR_MS, [5, 0, 0, 1]))
        .to_vec();
    roll.hours(series.clone(), &hours);
    let Ask::Hours { series: all, .. } = past_series(&mut roll, &[]) else {
        panic!("it reads the hours of all cities");
    };
    assert_eq!(all, rollups(None, "traffic"));
    // If a series has no events on the day, the pass writes no day row for it.
    roll.hours(all, &[]);
    let Ask::Put { rows, wait_ms: 0 } = roll.next_ask(0) else {
        panic!("it puts the day row");
    };
    let mut day = Box::<DayHours>::default();
    (day[0], day[23]) = ([5, 0, 0, 1], [5, 0, 0, 1]);
    let want = RollupRow {
        series,
        start_ms: BASE_MS,
        cells: Cells::Day(day),
    };
    assert_eq!(rows, [want]);
}

#[test]
fn a_day_with_very_many_event_types_is_rolled_up_hour_by_hour() {
    let mut roll = pass(0, 24, WINDOW_MS);
    let names: Vec<String> = (0..4_200).map(|n| format!("NYC#type{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hours: Vec<_> = (0..24)
        .map(|hour| (BASE_MS + hour * HOUR_MS, [1, 0, 0, 0]))
        .collect();
    let mut ask = past_series(&mut roll, &names);
    let mut reads = Vec::new();
    // The rows that count all cities stay in memory until the chunk ends, so the pass limits their number to 100,000.
    while let Ask::Windows { .. } = ask {
        let read = hours_of(&ask);
        match reads.last_mut() {
            Some((last, count)) if *last == read => {
                *count += 1;
                assert!(*count <= names.len(), "the pass begins the hour again");
            }
            _ => reads.push((read, 1)),
        }
        roll.windows(&hours);
        ask = loop {
            match roll.next_ask(0) {
                Ask::Put { .. } => roll.put(&[]),
                Ask::Series { shard: 0, .. } => {
                    let names = names.iter().map(|name| (*name).to_owned());
                    roll.series(names.collect(), false);
                }
                Ask::Series { .. } => roll.series(Vec::new(), false),
                other => break other,
            }
        };
    }
    // A chunk has at least one whole hour, even if this hour has too many rows.
    assert_eq!(reads, [((0, 24), 100_000 / 24 + 1), ((0, 1), 4_200)]);
}

#[test]
fn the_cost_of_a_range_counts_the_days_that_end_in_it() {
    // With ten series and two event types, an hour has 12 rows. In each chunk, the pass spends 39 read units on the
    // names of the series.
    for (from, until, days) in [(5, 23, 0), (5, 24, 1), (5, 29, 1), (0, 48, 2), (23, 73, 3)] {
        let hours = until - from;
        let cost = RollupCost::of(
            BASE_MS + from * HOUR_MS,
            BASE_MS + until * HOUR_MS,
            10,
            2,
            12,
        );
        let number = |n: i64| u64::try_from(n).unwrap();
        let want = RollupCost {
            hours: number(hours),
            read_units: number(hours * 12 * 10 + (days + 1) * 39 + days * 12 * 2),
            write_units: number((hours + days) * 12 + days + 1),
        };
        assert_eq!(cost, want, "{from} to {until}");
    }
}
