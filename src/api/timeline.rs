//! `GET /api/v1/timeline?hours=6&to=&city=&event_type=&severity=&series_limit=50`: what a chart needs.
//!
//! Counts by severity in steps of one or several windows, for the last `hours` before `to`, of every
//! series (city and type), and of all that are not listed together (`others`). Without `to` the range ends with the current
//! window, or, where nothing happened within `hours`, with the newest window there is.
//!
//! Nothing is scanned: the totals name the series, and each is a Query on its windows. Hours in which
//! every window is final are kept ([`Hours`]), so a page that asks again and again costs the rows
//! of the last hour or two. A reading that meets the ceiling of a request leaves what it read there,
//! so the next request goes on. The largest series are read, as many as [`SERIES_READ_MAX`] and
//! [`WINDOWS_MAX`] allow; `series_read` and `series_total` tell how many `totals` covers.

mod hours;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::hours::{Hours, hours};
use self::hours::{Window, span};
use crate::api::error::ApiError;
use crate::api::openapi::{Level, Severities};
use crate::api::params::{LIMIT_MAX, Params};
use crate::api::state::ApiState;
use crate::core::event::Severity;
use crate::core::keys::series;
use crate::core::time::{TIME_MS_END, format_millis, format_seconds};
use crate::store::reads::{EveryTotal, TotalItem};

pub(super) const PATH: &str = "/api/v1/timeline";

const HOURS_DEFAULT: u32 = 6;
/// A week: beyond it a chart wants days, which nobody counts here.
const HOURS_MAX: u32 = 168;
const HOUR_MS: i64 = 3_600_000;
/// The usual window, for tables without a single row.
const WINDOW_MS_DEFAULT: i64 = 300_000;
/// `to` is rounded up to a multiple of it, so that its milliseconds make no answer of their own.
const TO_MS: i64 = 300_000;
/// Series listed unless `series_limit` says otherwise.
const SERIES_LIMIT_DEFAULT: u32 = 50;
/// Most series read for one answer: each costs half a read unit, and one for each window that is not
/// final.
const SERIES_READ_MAX: usize = 400;
/// Most windows read for one answer, as far as the totals tell: a day of 416 series, a week of 59.
const WINDOWS_MAX: u64 = 120_000;
/// Windows are gathered into at most so many steps: more are too thin to be seen.
const STEPS_MAX: i64 = 100;

/// What a chart of a range needs.
#[derive(Serialize, ToSchema)]
struct Timeline {
    /// First instant of the range.
    #[schema(format = DateTime)]
    from: String,
    /// First instant after the range.
    #[schema(format = DateTime)]
    to: String,
    /// Length of a step, a whole number of windows.
    step_seconds: i64,
    /// When the totals were read.
    #[schema(format = DateTime)]
    generated_at: String,
    /// The parameter `city`.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The parameter `event_type`, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// The parameter `severity`, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Level, required = false)]
    severity: Option<&'static str>,
    /// First instant of the newest window of the range that holds an event; null where none does.
    #[schema(format = DateTime)]
    newest_window_start: Option<String>,
    /// Steps with a window that may still change.
    #[schema(value_type = Vec<i64>)]
    open: BTreeSet<i64>,
    totals: RangeCounts,
    all_time: Counts,
    /// How many series are listed.
    series_count: usize,
    /// How many series `totals` covers: the largest ones.
    series_read: usize,
    /// How many series there are, of the city and type asked for.
    series_total: usize,
    /// The largest series of all time, largest first.
    series: Vec<Series>,
    others: Others,
}

/// Sums of the events of all time, whatever the severity asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
struct Counts {
    /// Events counted in windows.
    event_count: u64,
    /// Events that came too late for theirs.
    late_count: u64,
    /// Events of low severity, late ones included.
    severity_low: u64,
    /// Events of medium severity, late ones included.
    severity_medium: u64,
    /// Events of high severity, late ones included.
    severity_high: u64,
    /// Events of critical severity, late ones included.
    severity_critical: u64,
}

impl Counts {
    fn of(total: &TotalItem) -> Counts {
        let [low, medium, high, critical] = total.severity_counts;
        Counts {
            event_count: total.event_count,
            late_count: total.late_count,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
        }
    }
}

/// Sums of the events in the windows of the range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
struct RangeCounts {
    /// Events counted in windows.
    event_count: u64,
    /// Always null: no window holds late events, so nothing says how many belong to a range.
    #[schema(required = true)]
    late_count: Option<u64>,
    /// Events of low severity.
    severity_low: u64,
    /// Events of medium severity.
    severity_medium: u64,
    /// Events of high severity.
    severity_high: u64,
    /// Events of critical severity.
    severity_critical: u64,
}

impl RangeCounts {
    fn of([low, medium, high, critical]: [u64; 4]) -> RangeCounts {
        RangeCounts {
            event_count: low + medium + high + critical,
            late_count: None,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
        }
    }
}

/// A city and type: its counts of all time, and its steps.
#[derive(Serialize, ToSchema)]
struct Series {
    /// The city, as producers spell it.
    city: String,
    /// The type, such as `traffic`.
    event_type: String,
    /// Events counted in windows, of all time.
    event_count: u64,
    /// Events that came too late for theirs, of all time.
    late_count: u64,
    /// Events of low severity, of all time.
    severity_low: u64,
    /// Events of medium severity, of all time.
    severity_medium: u64,
    /// Events of high severity, of all time.
    severity_high: u64,
    /// Events of critical severity, of all time.
    severity_critical: u64,
    /// For each step with an event: the step's number, then its events from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    steps: Vec<[u64; 5]>,
}

/// The series that are not listed, together: their counts of all time, and the steps of those that were
/// read.
#[derive(Serialize, ToSchema)]
struct Others {
    /// How many they are.
    series_count: usize,
    /// Events counted in windows, of all time.
    event_count: u64,
    /// Events that came too late for theirs, of all time.
    late_count: u64,
    /// Events of low severity, of all time.
    severity_low: u64,
    /// Events of medium severity, of all time.
    severity_medium: u64,
    /// Events of high severity, of all time.
    severity_high: u64,
    /// Events of critical severity, of all time.
    severity_critical: u64,
    /// For each step with an event: the step's number, then its events from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    steps: Vec<[u64; 5]>,
}

/// Counts of every city and type over the last hours, for a chart
#[utoipa::path(
    get,
    path = "/api/v1/timeline",
    operation_id = "get_timeline",
    summary = "Counts of every city and type over the last hours, for a chart",
    description = "For every answer, the events in the steps of `series` and `others` sum up to `totals.event_count`.",
    params(
        ("hours" = Option<u32>, Query, description = "How far back from `to`", minimum = 1, maximum = 168, example = 6),
        ("to" = Option<String>, Query, description = "First instant after the last, RFC 3339, rounded up to five minutes; the current window, or the newest one, if it is not given", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("city" = Option<String>, Query, description = "Only series of this city", example = "NYC"),
        ("event_type" = Option<String>, Query, description = "Only series of this type", example = "traffic"),
        ("severity" = Option<Severities>, Query, description = "Only events of this severity in `steps` and `totals`", example = "critical"),
        ("series_limit" = Option<u32>, Query, description = "Most series listed; the others are summed in `others`", minimum = 1, maximum = 1000, example = 50),
    ),
    responses(
        (status = 200, description = "Counts of every city and type over the last hours, for a chart", body = Timeline, example = json!({"from": "2013-01-02T00:00:00Z", "to": "2013-01-02T06:00:00Z", "step_seconds": 300, "generated_at": "2013-01-02T06:00:00.000Z", "newest_window_start": "2013-01-02T05:55:00Z", "open": [71], "totals": {"event_count": 5, "late_count": null, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "all_time": {"event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "series_count": 1, "series_read": 1, "series_total": 1, "series": [{"city": "NYC", "event_type": "traffic", "event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "steps": [[71, 1, 0, 4, 0]]}], "others": {"series_count": 0, "event_count": 0, "late_count": 0, "severity_low": 0, "severity_medium": 0, "severity_high": 0, "severity_critical": 0, "steps": []}})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = [
        "hours",
        "to",
        "city",
        "event_type",
        "severity",
        "series_limit",
    ];
    let params = Params::parse(PATH, None, &uri, &allowed)?;
    let ask = Ask {
        hours: params.number("hours", HOURS_MAX)?.unwrap_or(HOURS_DEFAULT),
        to_ms: params.instant("to")?.map(round_up),
        city: params.text("city").map(ToOwned::to_owned),
        event_type: params.text("event_type").map(str::to_ascii_lowercase),
        severity: params.severity()?,
        limit: params
            .number("series_limit", LIMIT_MAX)?
            .unwrap_or(SERIES_LIMIT_DEFAULT) as usize,
    };
    let key = format!("{PATH} {ask:?}");
    state.answer(key, timeline(&state, ask)).await
}

/// What is asked for.
#[derive(Clone, Debug)]
struct Ask {
    hours: u32,
    to_ms: Option<i64>,
    city: Option<String>,
    event_type: Option<String>,
    severity: Option<Severity>,
    limit: usize,
}

impl Ask {
    fn span_ms(&self) -> i64 {
        i64::from(self.hours) * HOUR_MS
    }
}

fn round_up(to_ms: i64) -> i64 {
    ((to_ms + TO_MS - 1).div_euclid(TO_MS) * TO_MS).min(TIME_MS_END)
}

/// The series asked for, largest first: those to read, and what holds for all of them.
struct Wanted {
    read: Vec<TotalItem>,
    series_total: usize,
    all: TotalItem,
    /// `all` comes from progress items, which may know more than the totals of series.
    is_kept: bool,
    read_ms: i64,
}

async fn wanted(state: &ApiState, ask: &Ask) -> Result<Wanted, ApiError> {
    let of_all = ask.city.is_none() && ask.event_type.is_none();
    let mut kept = None;
    if of_all {
        kept = Some(state.grand_total().await?).filter(|grand| grand.is_kept);
    }
    let totals = match kept {
        // The figure of all time does not wait for a first reading of very many series.
        Some(_) => state.totals_soon().await.unwrap_or_default(),
        None => state.totals().await?,
    };
    let every = &totals.every;
    let suits = |total: &&TotalItem| {
        let of = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|w| w == is);
        of(&ask.city, &total.city) && of(&ask.event_type, &total.event_type)
    };
    let mut list = Cow::from(&every.largest);
    match &ask.city {
        Some(city) if !totals.are_complete() => {
            let mut of_city = EveryTotal::new(usize::MAX);
            of_city.take(state.reads().totals(Some(city.clone())).await?);
            list = of_city.sorted().largest.into();
        }
        None if ask.event_type.is_some() => totals.complete()?,
        _ => {}
    }
    let is_kept = kept.is_some();
    let (mut all, read_ms) = match kept {
        Some(grand) => (grand.all, grand.read_ms),
        None => (every.all.clone(), totals.read_ms),
    };
    let mut series_total = every.series_count;
    if !of_all {
        (all, series_total) = (TotalItem::default(), 0);
        for total in list.iter().filter(suits) {
            all.add(total);
            series_total += 1;
        }
    }
    // No series has more windows than events, nor more than twelve an hour.
    let mut windows = 0;
    let fits = |total: &&TotalItem| {
        windows += total.event_count.min(u64::from(ask.hours) * 12);
        windows <= WINDOWS_MAX
    };
    let read = list.iter().filter(suits).take(SERIES_READ_MAX);
    Ok(Wanted {
        read: read.take_while(fits).cloned().collect(),
        series_total,
        all,
        is_kept,
        read_ms,
    })
}

async fn timeline(state: &ApiState, ask: Ask) -> Result<Timeline, ApiError> {
    let now_ms = state.now_ms();
    let wanted = wanted(state, &ask).await?;
    let names: Vec<String> = wanted
        .read
        .iter()
        .map(|t| series(&t.city, &t.event_type))
        .collect();
    let mut to = ask.to_ms.unwrap_or(now_ms + 1);
    let mut windows = span(state, &names, to, ask.span_ms()).await?;
    if ask.to_ms.is_none()
        && windows.is_empty()
        && let Some(newest) = state.reads().newest_window(names.clone(), now_ms).await?
    {
        to = newest + 1;
        windows = span(state, &names, to, ask.span_ms()).await?;
    }
    Ok(gathered(&ask, wanted, &windows, to))
}

/// Returns how many windows make a step: whole ones, so that at most [`STEPS_MAX`] fill the span.
fn step_ms(window_ms: i64, span_ms: i64) -> i64 {
    // Steps people know: 1, 2, 3 … windows up to an hour, then whole hours.
    let least = (span_ms / STEPS_MAX).max(window_ms);
    let candidates = [1, 2, 3, 6, 12, 24, 36, 72, 144].map(|n| n * window_ms);
    let fits = candidates.into_iter().find(|step| *step >= least);
    fits.unwrap_or(least.div_euclid(window_ms).max(1) * window_ms)
}

/// Counts by severity of each step with an event.
type Steps = BTreeMap<i64, [u64; 4]>;

/// The steps of a range.
struct Grid {
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
}

impl Grid {
    /// Returns the grid: the step that holds the last instant ends it; whole steps before it fill the
    /// span.
    fn new(windows: &BTreeMap<String, Vec<Window>>, to_ms: i64, span_ms: i64) -> Grid {
        let lengths = windows.values().flatten().map(|w| w.end_ms - w.start_ms);
        let step_ms = step_ms(lengths.min().unwrap_or(WINDOW_MS_DEFAULT), span_ms);
        let to_ms = ((to_ms - 1).div_euclid(step_ms) + 1) * step_ms;
        Grid {
            from_ms: to_ms - (span_ms + step_ms - 1).div_euclid(step_ms) * step_ms,
            to_ms,
            step_ms,
        }
    }

    fn step_of(&self, window: &Window) -> Option<i64> {
        let inside = (self.from_ms..self.to_ms).contains(&window.start_ms);
        inside.then(|| (window.start_ms - self.from_ms) / self.step_ms)
    }
}

fn gathered(
    ask: &Ask,
    mut wanted: Wanted,
    windows: &BTreeMap<String, Vec<Window>>,
    to_ms: i64,
) -> Timeline {
    let grid = Grid::new(windows, to_ms, ask.span_ms());
    let (mut open, mut newest) = (BTreeSet::new(), None);
    let (mut listed, mut others) = (Vec::new(), Steps::new());
    let mut range = [0; 4];
    let mut lifted = wanted.all.clone();
    for total in &mut wanted.read {
        let name = series(&total.city, &total.event_type);
        let own = windows.get(&name).into_iter().flatten();
        let own = own.filter(|window| grid.step_of(window).is_some());
        lift(total, &mut lifted, own);
    }
    // The kept total may count what the totals of series lack, and would count it twice.
    if !wanted.is_kept {
        wanted.all = lifted;
    }
    let mut rest = wanted.all.clone();
    let series_read = wanted.read.len();
    for (n, total) in wanted.read.into_iter().enumerate() {
        let mut own = Steps::new();
        let steps = if n < ask.limit { &mut own } else { &mut others };
        let name = series(&total.city, &total.event_type);
        for window in windows.get(&name).into_iter().flatten() {
            let Some(step) = grid.step_of(window) else {
                continue;
            };
            let counts = only(window.counts, ask.severity);
            if !window.is_final {
                open.insert(step);
            }
            if counts == [0; 4] {
                continue;
            }
            newest = newest.max(Some(window.start_ms));
            add(steps.entry(step).or_default(), counts);
            add(&mut range, counts);
        }
        if n < ask.limit {
            rest.subtract(&total);
            listed.push(one_series(total, own));
        }
    }
    let totals = RangeCounts::of(range);
    Timeline {
        from: format_seconds(grid.from_ms),
        to: format_seconds(grid.to_ms),
        step_seconds: grid.step_ms / 1_000,
        generated_at: format_millis(wanted.read_ms),
        city: ask.city.clone(),
        event_type: ask.event_type.clone(),
        severity: ask.severity.map(Severity::name),
        newest_window_start: newest.map(format_seconds),
        open,
        totals,
        all_time: Counts::of(&wanted.all),
        series_count: listed.len(),
        series_read,
        series_total: wanted.series_total,
        others: the_others(wanted.series_total - listed.len(), &rest, others),
        series: listed,
    }
}

/// Raises a total, and the sum over all, to what its windows hold: they are read after the totals and
/// may count more by then, and what a window counts is counted for all time.
fn lift<'a>(total: &mut TotalItem, all: &mut TotalItem, windows: impl Iterator<Item = &'a Window>) {
    let mut counts = [0; 4];
    for window in windows {
        add(&mut counts, window.counts);
    }
    let raise = |count: &mut u64, sum: &mut u64, least: u64| {
        *sum += least.saturating_sub(*count);
        *count = least.max(*count);
    };
    let events = counts.iter().sum();
    raise(&mut total.event_count, &mut all.event_count, events);
    for (level, least) in counts.into_iter().enumerate() {
        let (count, sum) = (&mut total.severity_counts, &mut all.severity_counts);
        raise(&mut count[level], &mut sum[level], least);
    }
}

fn add(sums: &mut [u64; 4], counts: [u64; 4]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// Returns the counts of one severity alone, if one is asked for.
fn only(counts: [u64; 4], severity: Option<Severity>) -> [u64; 4] {
    let Some(severity) = severity else {
        return counts;
    };
    let mut kept = [0; 4];
    kept[severity.index()] = counts[severity.index()];
    kept
}

fn listed_steps(steps: Steps) -> Vec<[u64; 5]> {
    let steps = steps.into_iter();
    let steps = steps.map(|(step, [low, medium, high, critical])| {
        let step = u64::try_from(step).expect("steps begin at from");
        [step, low, medium, high, critical]
    });
    steps.collect()
}

fn one_series(total: TotalItem, steps: Steps) -> Series {
    let counts = Counts::of(&total);
    Series {
        city: total.city,
        event_type: total.event_type,
        event_count: counts.event_count,
        late_count: counts.late_count,
        severity_low: counts.severity_low,
        severity_medium: counts.severity_medium,
        severity_high: counts.severity_high,
        severity_critical: counts.severity_critical,
        steps: listed_steps(steps),
    }
}

fn the_others(series_count: usize, rest: &TotalItem, steps: Steps) -> Others {
    let counts = Counts::of(rest);
    Others {
        series_count,
        event_count: counts.event_count,
        late_count: counts.late_count,
        severity_low: counts.severity_low,
        severity_medium: counts.severity_medium,
        severity_high: counts.severity_high,
        severity_critical: counts.severity_critical,
        steps: listed_steps(steps),
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
        let ask = |hours, severity, limit| Ask {
            hours,
            to_ms: None,
            city: None,
            event_type: None,
            severity,
            limit,
        };
        let wanted = |read: &[&TotalItem]| {
            let mut all = total.clone();
            all.event_count = 30;
            Wanted {
                read: read.iter().map(|t| (*t).clone()).collect(),
                series_total: 7,
                all,
                is_kept: false,
                read_ms: 0,
            }
        };
        let got = gathered(&ask(1, None, 5), wanted(&[&total]), &windows, HOUR_MS);
        assert_eq!(
            (got.from.as_str(), got.to.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        );
        assert_eq!(
            (got.step_seconds, got.series_count, got.series_total),
            (300, 1, 7)
        );
        let steps = [[0, 1, 0, 0, 1], [1, 2, 0, 0, 1], [11, 4, 0, 0, 1]];
        assert_eq!(got.series[0].steps, steps);
        assert_eq!(got.open, BTreeSet::from([11]));
        assert_eq!(got.totals, RangeCounts::of([7, 0, 0, 3]));
        assert_eq!((got.others.series_count, got.others.event_count), (6, 21));
        assert!(got.others.steps.is_empty());
        assert_eq!(
            got.newest_window_start.as_deref(),
            Some("1970-01-01T00:55:00Z")
        );

        // The windows raise the sums over series, and leave the kept total alone.
        assert_eq!(got.all_time.severity_critical, 3);
        let kept = Wanted {
            is_kept: true,
            ..wanted(&[&total])
        };
        let got = gathered(&ask(1, None, 5), kept, &windows, HOUR_MS);
        assert_eq!(got.all_time.severity_critical, 0);

        // What is not listed is among the others, and a severity leaves out the rest.
        let other = TotalItem {
            city: "LA".into(),
            ..total.clone()
        };
        let two = wanted(&[&other, &total]);
        let got = gathered(&ask(1, Some(Severity::Critical), 1), two, &windows, HOUR_MS);
        assert_eq!((got.series.len(), got.series_read), (1, 2));
        assert!(got.series[0].steps.is_empty());
        assert_eq!(
            got.others.steps,
            [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1], [11, 0, 0, 0, 1]]
        );
        assert_eq!(got.totals, RangeCounts::of([0, 0, 0, 3]));

        let got = gathered(&ask(24, None, 5), wanted(&[]), &windows, HOUR_MS);
        assert_eq!(got.step_seconds, 900);
    }

    #[test]
    fn no_range_holds_more_than_all_time() {
        let total = |event_count, low| TotalItem {
            event_count,
            severity_counts: [low, 4, 0, 0],
            ..TotalItem::default()
        };
        let window = |low| Window {
            start_ms: 0,
            end_ms: 300_000,
            counts: [low, 3, 0, 0],
            is_final: false,
        };
        let (mut one, mut all) = (total(7, 3), total(20, 16));
        lift(&mut one, &mut all, [window(2), window(5)].iter());
        // The windows hold 13 events, where the totals knew of seven.
        assert_eq!((one.event_count, one.severity_counts), (13, [7, 6, 0, 0]));
        assert_eq!((all.event_count, all.severity_counts), (26, [20, 6, 0, 0]));
        lift(&mut one, &mut all, [window(1)].iter());
        assert_eq!((one.event_count, all.event_count), (13, 26));
    }

    #[test]
    fn milliseconds_of_to_make_no_answer_of_their_own() {
        assert_eq!(round_up(0), 0);
        assert_eq!(round_up(1), TO_MS);
        assert_eq!(round_up(TO_MS), TO_MS);
        assert_eq!(round_up(TO_MS + 1), 2 * TO_MS);
    }
}
