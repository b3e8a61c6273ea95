//! `GET /api/v1/timeline?hours=6&to=`: what a chart of everything needs, in one answer.
//!
//! Every series (city and type) with its total and, for the last `hours` before `to`, its counts by
//! severity in steps of one or several windows, some hundred of them. Without `to` it ends with the
//! current window, or, where nothing happened within `hours`, with the newest window there is.
//!
//! Nothing is scanned: the totals name the series, and each is a Query on its windows. Hours in which
//! every window is final are kept ([`Hours`]), so a page that asks again and again costs the rows
//! of the last hour or two. The largest series come first, as many as [`WINDOWS_MAX`] allows;
//! `series_total` tells how many there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use moka::sync::Cache;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::core::keys::series;
use crate::core::time::{format_millis, format_seconds, parse_timestamp};
use crate::store::error::StoreError;
use crate::store::reads::{AggregationItem, Range, TotalItem};

pub(super) const PATH: &str = "/api/v1/timeline";

const HOURS_DEFAULT: u32 = 6;
/// A week: beyond it a chart wants days, which nobody counts here.
const HOURS_MAX: u32 = 168;
const HOUR_MS: i64 = 3_600_000;
/// The usual window, for tables without a single row.
const WINDOW_MS_DEFAULT: i64 = 300_000;
/// Most windows read for one answer: a day of 208 series, a week of 29. At most a second's reading.
const WINDOWS_MAX: u32 = 60_000;
/// Windows are gathered into at most so many steps: more are too thin to be seen.
const STEPS_MAX: i64 = 100;
/// How long an hour whose windows are all final is believed.
const HOUR_AGE_MAX: Duration = Duration::from_secs(300);
/// Most windows kept, at some 60 bytes each.
const KEPT_WINDOWS_MAX: u64 = 400_000;

/// Hours of series that take no more events: by series and hour since the epoch.
pub(crate) type Hours = Cache<(String, i64), Arc<Vec<Window>>>;

/// Returns an empty memory of final hours.
pub(crate) fn hours() -> Hours {
    Cache::builder()
        .time_to_live(HOUR_AGE_MAX)
        .max_capacity(KEPT_WINDOWS_MAX)
        .weigher(|_, windows: &Arc<Vec<Window>>| {
            u32::try_from(windows.len() + 2).unwrap_or(u32::MAX)
        })
        .build()
}

/// A window of a series, as far as a chart shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    start_ms: i64,
    end_ms: i64,
    counts: [u64; 4],
    is_final: bool,
}

impl Window {
    /// Returns the window of a row; none if its times are foreign.
    fn of(item: &AggregationItem) -> Option<Window> {
        let (start_ms, end_ms) = (
            parse_timestamp(&item.window_start)?,
            parse_timestamp(&item.window_end)?,
        );
        (start_ms < end_ms).then_some(Window {
            start_ms,
            end_ms,
            counts: item.severity_counts,
            is_final: item.is_final,
        })
    }
}

#[derive(Serialize, ToSchema)]
struct Timeline {
    from: String,
    to: String,
    step_seconds: i64,
    generated_at: String,
    /// Steps with a window that may still change.
    #[schema(value_type = Vec<i64>)]
    open: BTreeSet<i64>,
    series_count: usize,
    series_total: usize,
    series: Vec<Series>,
}

#[derive(Serialize, ToSchema)]
struct Series {
    city: String,
    event_type: String,
    event_count: u64,
    late_count: u64,
    severity_low: u64,
    severity_medium: u64,
    severity_high: u64,
    severity_critical: u64,
    /// Step, then the counts of that step from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    steps: Vec<[u64; 5]>,
}

/// Counts of every city and type over the last hours, for a chart
#[utoipa::path(
    get,
    path = "/api/v1/timeline",
    summary = "Counts of every city and type over the last hours, for a chart",
    params(
        ("hours" = Option<u32>, Query, description = "How far back from `to`", minimum = 1, maximum = 168, example = 6),
        ("to" = Option<String>, Query, description = "First instant after the last, RFC 3339; the current window, or the newest one, if it is not given", format = DateTime, example = "2013-01-02T06:00:00Z"),
    ),
    responses(
        (status = 200, description = "Counts of every city and type over the last hours, for a chart", body = Timeline, example = json!({"from": "2013-01-02T00:00:00Z", "to": "2013-01-02T06:00:00Z", "step_seconds": 300, "generated_at": "2013-01-02T06:00:00.000Z", "open": [71], "series_count": 1, "series_total": 1, "series": [{"city": "NYC", "event_type": "traffic", "event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "steps": [[71, 1, 0, 4, 0]]}]})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &["hours", "to"])?;
    let hours = params.number("hours", HOURS_MAX)?.unwrap_or(HOURS_DEFAULT);
    let to_ms = params.instant("to")?;
    let make = timeline(&state, hours, to_ms);
    state.answer(params.key(), make).await
}

async fn timeline(state: &ApiState, hours: u32, to_ms: Option<i64>) -> Result<Timeline, ApiError> {
    let now_ms = state.now_ms();
    let mut totals = state.totals().await?.items.clone();
    totals.sort_by_cached_key(|t| (Reverse(t.events()), series(&t.city, &t.event_type)));
    let series_total = totals.len();
    // Twelve windows of five minutes an hour.
    let series_max = usize::try_from(WINDOWS_MAX / (hours * 12)).unwrap_or(usize::MAX);
    totals.truncate(series_max);
    let names: Vec<String> = totals
        .iter()
        .map(|t| series(&t.city, &t.event_type))
        .collect();

    let span_ms = i64::from(hours) * HOUR_MS;
    let mut to = to_ms.unwrap_or(now_ms + 1);
    let mut windows = span(state, &names, to, span_ms).await?;
    if to_ms.is_none()
        && windows.is_empty()
        && let Some(newest) = state.reads().newest_window(names.clone(), now_ms).await?
    {
        to = newest + 1;
        windows = span(state, &names, to, span_ms).await?;
    }
    Ok(gathered(
        totals,
        series_total,
        &windows,
        to,
        span_ms,
        now_ms,
    ))
}

/// Returns the windows of each series that start in the whole hours around `[to - span, to)`.
async fn span(
    state: &ApiState,
    names: &[String],
    to_ms: i64,
    span_ms: i64,
) -> Result<BTreeMap<String, Vec<Window>>, StoreError> {
    let (first, end) = (
        (to_ms - span_ms).div_euclid(HOUR_MS).max(0),
        (to_ms + HOUR_MS - 1).div_euclid(HOUR_MS),
    );
    let kept = state.hours();
    let mut found = BTreeMap::<String, Vec<Window>>::new();
    // Series that lack the same hours are read together.
    let mut lacking = BTreeMap::<(i64, i64), Vec<String>>::new();
    for name in names {
        let mut lack: Option<(i64, i64)> = None;
        for hour in first..end {
            match kept.get(&(name.clone(), hour)) {
                Some(windows) if lack.is_none() => {
                    found.entry(name.clone()).or_default().extend(&*windows);
                }
                // One Query reads them all from the first hour that is lacking.
                _ => lack = Some((lack.map_or(hour, |(from, _)| from), hour + 1)),
            }
        }
        if let Some(range) = lack {
            lacking.entry(range).or_default().push(name.clone());
        }
    }
    for ((from, until), names) in lacking {
        let range = Range {
            from_ms: from * HOUR_MS,
            to_ms: until * HOUR_MS,
        };
        let items = state.reads().windows(names.clone(), range).await?;
        let mut read = BTreeMap::<(String, i64), Vec<Window>>::new();
        for item in items {
            if let Some(window) = Window::of(&item) {
                let hour = window.start_ms.div_euclid(HOUR_MS);
                let name = series(&item.city, &item.event_type);
                read.entry((name, hour)).or_default().push(window);
            }
        }
        keep(kept, &names, from..until, &read);
        for ((name, _), windows) in read {
            found.entry(name).or_default().extend(windows);
        }
    }
    found.retain(|_, windows| {
        windows.retain(|w| w.end_ms > to_ms - span_ms && w.start_ms < to_ms);
        !windows.is_empty()
    });
    Ok(found)
}

/// Remembers the hours in which everything is final. The newest hour with a window and the one before
/// are left out: a series that is silent there may still speak.
fn keep(
    kept: &Hours,
    names: &[String],
    hours: std::ops::Range<i64>,
    read: &BTreeMap<(String, i64), Vec<Window>>,
) {
    let Some(newest) = read.keys().map(|(_, hour)| *hour).max() else {
        return;
    };
    for hour in hours.start..hours.end.min(newest - 1) {
        for name in names {
            let key = (name.clone(), hour);
            let windows = read.get(&key).cloned().unwrap_or_default();
            if windows.iter().all(|w| w.is_final) {
                kept.insert(key, Arc::new(windows));
            }
        }
    }
}

/// Returns how many windows make a step: whole ones, so that at most [`STEPS_MAX`] fill the span.
fn step_ms(window_ms: i64, span_ms: i64) -> i64 {
    // Steps people know: 1, 2, 3 … windows up to an hour, then whole hours.
    let least = (span_ms / STEPS_MAX).max(window_ms);
    let candidates = [1, 2, 3, 6, 12, 24, 36, 72, 144].map(|n| n * window_ms);
    let fits = candidates.into_iter().find(|step| *step >= least);
    fits.unwrap_or(least.div_euclid(window_ms).max(1) * window_ms)
}

fn gathered(
    totals: Vec<TotalItem>,
    series_total: usize,
    windows: &BTreeMap<String, Vec<Window>>,
    to_ms: i64,
    span_ms: i64,
    now_ms: i64,
) -> Timeline {
    let window_ms = windows
        .values()
        .flatten()
        .map(|w| w.end_ms - w.start_ms)
        .min()
        .unwrap_or(WINDOW_MS_DEFAULT);
    let step_ms = step_ms(window_ms, span_ms);
    // The step that holds the last instant ends the chart; whole steps before it fill the span.
    let to_ms = ((to_ms - 1).div_euclid(step_ms) + 1) * step_ms;
    let from_ms = to_ms - (span_ms + step_ms - 1).div_euclid(step_ms) * step_ms;
    let mut open = BTreeSet::new();
    let mut all = Vec::new();
    for total in totals {
        let mut steps = BTreeMap::<i64, [u64; 4]>::new();
        let name = series(&total.city, &total.event_type);
        for window in windows.get(&name).into_iter().flatten() {
            if window.start_ms < from_ms || window.start_ms >= to_ms {
                continue;
            }
            let step = (window.start_ms - from_ms) / step_ms;
            let sums = steps.entry(step).or_default();
            for (sum, count) in sums.iter_mut().zip(window.counts) {
                *sum += count;
            }
            if !window.is_final {
                open.insert(step);
            }
        }
        let [low, medium, high, critical] = total.severity_counts;
        all.push(Series {
            event_count: total.event_count,
            late_count: total.late_count,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
            city: total.city,
            event_type: total.event_type,
            steps: steps
                .into_iter()
                .map(|(step, [low, medium, high, critical])| {
                    let step = u64::try_from(step).expect("steps begin at from");
                    [step, low, medium, high, critical]
                })
                .collect(),
        });
    }
    Timeline {
        from: format_seconds(from_ms),
        to: format_seconds(to_ms),
        step_seconds: step_ms / 1_000,
        generated_at: format_millis(now_ms),
        open,
        series_count: all.len(),
        series_total,
        series: all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_whole_windows_and_a_chart_has_about_a_hundred_at_most() {
        const MINUTE: i64 = 60_000;
        for (window, hours, want) in [
            (5, 1, 5),
            (5, 6, 5),
            (5, 24, 15),
            (5, 168, 120),
            (1, 1, 1),
            (1, 24, 24),
            (10, 1, 10),
            (7, 1, 7),
        ] {
            let step = step_ms(window * MINUTE, hours * HOUR_MS);
            assert_eq!(step, want * MINUTE, "{window} min, {hours} h");
        }
    }

    #[test]
    fn only_hours_that_can_no_longer_change_are_kept() {
        let kept = hours();
        let window = |hour: i64, is_final| Window {
            start_ms: hour * HOUR_MS,
            end_ms: hour * HOUR_MS + WINDOW_MS_DEFAULT,
            counts: [1, 0, 0, 0],
            is_final,
        };
        let names = ["a#x".to_owned(), "b#x".to_owned()];
        let read = BTreeMap::from([
            (("a#x".to_owned(), 10), vec![window(10, true)]),
            (("b#x".to_owned(), 11), vec![window(11, false)]),
            (("a#x".to_owned(), 14), vec![window(14, false)]),
        ]);
        keep(&kept, &names, 10..16, &read);
        let got: Vec<(&str, i64)> = names
            .iter()
            .flat_map(|name| (10..16).map(move |hour| (name.as_str(), hour)))
            .filter(|(name, hour)| kept.contains_key(&((*name).to_owned(), *hour)))
            .collect();
        let want = [
            ("a#x", 10),
            ("a#x", 11),
            ("a#x", 12),
            ("b#x", 10),
            ("b#x", 12),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn steps_hold_each_window_once_and_say_which_may_change() {
        let window = |minute: i64, low, is_final| Window {
            start_ms: minute * 60_000,
            end_ms: (minute + 5) * 60_000,
            counts: [low, 0, 0, 1],
            is_final,
        };
        let total = TotalItem {
            city: "NYC".into(),
            event_type: "traffic".into(),
            event_count: 9,
            ..TotalItem::default()
        };
        let windows = BTreeMap::from([(
            "NYC#traffic".to_owned(),
            vec![window(0, 1, true), window(5, 2, true), window(55, 4, false)],
        )]);
        let got = gathered(vec![total], 7, &windows, HOUR_MS, HOUR_MS, 0);
        assert_eq!(
            (got.from.as_str(), got.to.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        );
        assert_eq!(
            (got.step_seconds, got.series_count, got.series_total),
            (300, 1, 7)
        );
        assert_eq!(
            got.series[0].steps,
            [[0, 1, 0, 0, 1], [1, 2, 0, 0, 1], [11, 4, 0, 0, 1]]
        );
        assert_eq!(got.open, BTreeSet::from([11]));
        let got = gathered(Vec::new(), 0, &windows, HOUR_MS, 24 * HOUR_MS, 0);
        assert_eq!(got.step_seconds, 900);
    }
}
