//! `GET /api/v1/timeline?from=&to=&hours=6&step=&tz=&city=&event_type=&severity=&series_limit=50&compare=&format=`: the data of a chart.
//!
//! For each step of the range, the response contains the number of events by severity. A step consists of windows,
//! hours or days ([`grid`]). The response lists the largest series, and adds up the other series in `others`. The
//! listed series and `others` add up to `totals`.
//!
//! The handler never scans a table, because the totals rows identify all series. For hours that are already rolled up,
//! the handler reads rollups. For later hours, and for steps that are shorter than an hour, the handler reads windows
//! ([`collect`]). The server caches rollups and final windows, because rollups and final windows do not change
//! ([`rollup_cache`](super::rollup_cache), [`window_cache`](super::window_cache)). Because of these caches, a web page
//! that polls the timeline reads only the last hour or two from DynamoDB. If a request reaches its limit of read units,
//! the response contains only the series that were already read, and its field `partial` is true. The next request gets
//! the counts of the series that were already read from the cache, and reads further series. The field `series_total`
//! is the number of matching series. The field `series_read` is the number of matching series that `totals` counts.

mod answer;
mod collect;
mod grid;
mod query;
mod range;
mod rows;
mod steps;
mod windows;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use self::answer::Timeline;
use self::collect::{collect, rolled_up_until};
use self::grid::{Grid, GridError, STEPS_MAX};
use self::query::{MatchingSeries, TimelineQuery, find_series};
use self::range::{AskedRange, Begin};
use self::rows::rows_of;
use self::steps::make_timeline;
use crate::api::error::ApiError;
use crate::api::export::{ListFormat, body_of};
use crate::api::params::{HOUR_MS, LIMIT_MAX, Params};
use crate::api::schemas::{Compare, Severities, StepUnit};
use crate::api::state::{AnswerBody, ApiState, Freshness, READ_UNITS_MAX};
use crate::core::clock::UnixMs;
use crate::core::keys::series;
use crate::store::reads::RolledUp;

pub(super) const PATH: &str = "/api/v1/timeline";

/// The server assumes that events still arrive if the last rolled-up hour ended less than `LIVE_MS` milliseconds ago.
const LIVE_MS: i64 = 3 * HOUR_MS;

/// Returns the counts of every city and event type over the last hours
#[utoipa::path(
    get,
    path = "/api/v1/timeline",
    operation_id = "get_timeline",
    tag = "counts",
    summary = "Counts of every city and event type in a range of time, for a chart",
    description = "In every answer, the events in the steps of `series` and `others` add up to `totals.event_count`.",
    params(
        ("from" = Option<String>, Query, description = "Start of the range, RFC 3339, a date in `tz`, or `first` for the first event. It is rounded down to a whole step", example = "2013-01-01"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339 or a date in `tz`, rounded up to five minutes and a whole step. By default, the end of the current window, or of the newest window if that range is empty", example = "2013-01-02T06:00:00Z"),
        ("hours" = Option<u32>, Query, description = "Length of the range in hours, if `from` is absent", minimum = 1, maximum = 8784, example = 6),
        ("step" = Option<StepUnit>, Query, description = "What a step is made of. By default, a length with which the range has 40 to 200 steps", example = "hour"),
        ("tz" = Option<String>, Query, description = "The time zone in which days begin", example = "Europe/Berlin"),
        ("city" = Option<String>, Query, description = "Only series of this city", example = "NYC"),
        ("event_type" = Option<String>, Query, description = "Only series of this event type", example = "traffic"),
        ("severity" = Option<Severities>, Query, description = "Count only events of this severity in `steps` and `totals`", example = "critical"),
        ("series_limit" = Option<u32>, Query, description = "Maximum number of series listed; `others` sums the rest. By default 50, and fewer if the range is longer than 36 days, down to 5", minimum = 1, maximum = 1000, example = 50),
        ("compare" = Option<Compare>, Query, description = "`previous` adds the range of the same length before this one", example = "previous"),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold one row for each series and step with events; the rows without a city are the sum of the series that are not listed. An `Accept` header works, too", example = "json"),
    ),
    responses(
        (status = 200, description = "Counts of every city and event type in a range of time", body = Timeline, example = json!({"from": "2013-01-02T00:00:00Z", "to": "2013-01-02T06:00:00Z", "step": "window", "step_seconds": 300, "generated_at": "2013-01-02T06:00:00.000Z", "newest_window_start": "2013-01-02T05:55:00Z", "open": [71], "totals": {"event_count": 5, "late_count": null, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "all_time": {"event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "series_count": 1, "series_read": 1, "series_total": 1, "series": [{"city": "NYC", "event_type": "traffic", "event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "steps": [[71, 1, 0, 4, 0]]}], "others": {"series_count": 0, "event_count": 0, "late_count": 0, "severity_low": 0, "severity_medium": 0, "severity_high": 0, "severity_critical": 0, "steps": []}})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let allowed = "from to hours step tz city event_type severity series_limit compare format";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let format = ListFormat::of(&params, &headers)?;
    let query = TimelineQuery {
        range: AskedRange::parse(&params)?,
        step: StepUnit::parse(&params)?,
        city: params.text("city").map(ToOwned::to_owned),
        event_type: params.text("event_type").map(str::to_ascii_lowercase),
        severity: params.severity()?,
        limit: params
            .number("series_limit", LIMIT_MAX)?
            .map(|limit| limit as usize),
        with_previous: match params.given("compare") {
            None => false,
            Some("previous") => true,
            Some(_) => return Err(ApiError::bad_parameter("compare must be previous")),
        },
    };
    let key = format!("{PATH} {}", query.key());
    if format != ListFormat::Json {
        if query.with_previous {
            return Err(ApiError::bad_parameter("compare needs format=json"));
        }
        let make = build_rows(&state, query, format);
        return state
            .answer_with_body(format!("{key} {format:?}"), make)
            .await;
    }
    let make = async {
        let (timeline, _, freshness) = build_timeline(&state, query).await?;
        Ok::<_, ApiError>((timeline, freshness))
    };
    state.answer_with_freshness(key, make).await
}

/// Builds the timeline as rows for CSV or NDJSON. CSV and NDJSON cannot mark a response as partial, so a partial
/// timeline is an error. The series that were already read stay in the cache for the next request.
async fn build_rows(
    state: &ApiState,
    query: TimelineQuery,
    format: ListFormat,
) -> Result<(AnswerBody, Freshness), ApiError> {
    let (timeline, grid, freshness) = build_timeline(state, query).await?;
    if timeline.partial.is_some() {
        return Err(ApiError::read_ceiling(READ_UNITS_MAX));
    }
    let rows = rows_of(&timeline, &grid);
    Ok((body_of(format, "timeline", &rows)?, freshness))
}

async fn build_timeline(
    state: &ApiState,
    query: TimelineQuery,
) -> Result<(Timeline, Grid, Freshness), ApiError> {
    let rolled_up = state.reads().rolled_up(state.now_ms()).await?;
    let matching = find_series(state, &query).await?;
    let (grid, mut timeline) = build_asked(state, &query, &matching, rolled_up).await?;
    if query.with_previous {
        let previous = grid.previous(&query.range.zone).map_err(grid_error)?;
        let previous = build_range(state, &query, &matching, &previous, rolled_up).await?;
        timeline.previous = Some(Box::new(previous));
    }
    let parts = [Some(&timeline), timeline.previous.as_deref()];
    let is_partial = parts
        .into_iter()
        .flatten()
        .any(|part| part.partial.is_some());
    let freshness = if is_partial {
        Freshness::Partial
    } else {
        Freshness::Revalidate
    };
    Ok((timeline, grid, freshness))
}

/// Builds the timeline of the requested range. If the request has no parameter `to`, the range ends at the current
/// time. If there is no `to` and no event has arrived for a while, the range ends with the newest window.
async fn build_asked(
    state: &ApiState,
    query: &TimelineQuery,
    matching: &MatchingSeries,
    rolled_up: RolledUp,
) -> Result<(Grid, Timeline), ApiError> {
    let now_ms = state.now_ms();
    let first_ms = match query.range.begin {
        Begin::First => {
            let first = state.reads().first_hour(matching.rollups(), rolled_up);
            first.await?
        }
        Begin::At(_) | Begin::Before(_) => None,
    };
    let build = async |to_ms| {
        let range = query.range.ending_at(to_ms, first_ms);
        let grid = Grid::new(range, query.step, rolled_up.window_ms, &query.range.zone);
        let grid = grid.map_err(grid_error)?;
        let timeline = build_range(state, query, matching, &grid, rolled_up).await?;
        Ok::<_, ApiError>((grid, timeline))
    };
    if let Some(to_ms) = query.range.to_ms {
        return build(to_ms).await;
    }
    if matches!(query.range.begin, Begin::Before(_)) {
        let built = build(now_ms + 1).await?;
        let is_empty = built.1.newest_window_start.is_none() && built.1.partial.is_none();
        if !is_empty {
            return Ok(built);
        }
        return match newest_window(state, matching, now_ms).await? {
            Some(newest_ms) => build(newest_ms + 1).await,
            None => Ok(built),
        };
    }
    // If events no longer arrive, the range ends with the newest window, so that the events fill the chart.
    let newest_ms = if now_ms - rolled_up.until_ms < LIVE_MS {
        None
    } else {
        newest_window(state, matching, now_ms).await?
    };
    build(newest_ms.unwrap_or(now_ms) + 1).await
}

/// Returns the start of the newest window of all series that a request reads.
async fn newest_window(
    state: &ApiState,
    matching: &MatchingSeries,
    now_ms: UnixMs,
) -> Result<Option<UnixMs>, ApiError> {
    let names = matching.read.iter();
    let names = names.map(|total| series(&total.city, &total.event_type));
    Ok(state.reads().newest_window(names.collect(), now_ms).await?)
}

async fn build_range(
    state: &ApiState,
    query: &TimelineQuery,
    matching: &MatchingSeries,
    grid: &Grid,
    rolled_up: RolledUp,
) -> Result<Timeline, ApiError> {
    let windows_ms = grid.end_ms() - rolled_up_until(grid, rolled_up);
    let listed_max = query.listed_max(grid.end_ms() - grid.begin_ms());
    let matching = matching.with_windows_of(windows_ms, rolled_up.window_ms);
    let collected = collect(state, &matching, grid, rolled_up, listed_max).await?;
    Ok(make_timeline(query, matching, grid, collected))
}

fn grid_error(error: GridError) -> ApiError {
    ApiError::bad_parameter(match error {
        GridError::TooManySteps(steps) => format!(
            "the range has {steps} steps, and an answer has at most {STEPS_MAX}; use a longer step or a shorter range"
        ),
        GridError::SplitHour => {
            "days of this tz begin in the middle of an hour of UTC, so they are not sums of hours; use step=hour".to_owned()
        }
    })
}
