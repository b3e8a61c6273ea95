//! `GET /api/v1/timeline?hours=6&to=&city=&event_type=&severity=&series_limit=50`: the data of a chart.
//!
//! The answer counts events by severity in steps of one or more windows, over the last `hours` before `to`. It
//! lists the largest series and sums the others in `others`. Without `to`, the range ends with the current
//! window, or with the newest window if the last `hours` are empty.
//!
//! Nothing is scanned: the totals name the series, and the windows of each series are one Query. The cache
//! keeps hours in which every window is final ([`window_cache`](super::window_cache)), so a page that polls
//! reads only the last hour or two. A request that reaches its read ceiling answers with the series it could
//! read (`partial`) and leaves them in the cache, so the next request continues there. Only the largest series are read, as [`query::SERIES_READ_MAX`] and
//! [`query::WINDOWS_MAX`] allow; `series_read` and `series_total` show how many series `totals` covers.

mod answer;
mod query;
mod steps;
mod windows;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

use self::answer::Timeline;
use self::query::{TimelineQuery, find_series, round_up};
use self::steps::sum_windows;
use self::windows::read_windows;
use crate::api::error::ApiError;
use crate::api::params::{LIMIT_MAX, Params};
use crate::api::schemas::Severities;
use crate::api::state::{ApiState, Freshness};
use crate::core::keys::series;

pub(super) const PATH: &str = "/api/v1/timeline";

const HOURS_DEFAULT: u32 = 6;
/// A week. A longer chart would need counts by day, which the tables do not have.
const HOURS_MAX: u32 = 168;
/// Maximum number of series listed if `series_limit` is absent.
const SERIES_LIMIT_DEFAULT: u32 = 50;

/// Returns the counts of every city and event type over the last hours
#[utoipa::path(
    get,
    path = "/api/v1/timeline",
    operation_id = "get_timeline",
    tag = "counts",
    summary = "Counts of every city and event type over the last hours, for a chart",
    description = "In every answer, the events in the steps of `series` and `others` add up to `totals.event_count`.",
    params(
        ("hours" = Option<u32>, Query, description = "Length of the range in hours", minimum = 1, maximum = 168, example = 6),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339, rounded up to five minutes. By default, the end of the current window, or of the newest window if that range is empty", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("city" = Option<String>, Query, description = "Only series of this city", example = "NYC"),
        ("event_type" = Option<String>, Query, description = "Only series of this event type", example = "traffic"),
        ("severity" = Option<Severities>, Query, description = "Count only events of this severity in `steps` and `totals`", example = "critical"),
        ("series_limit" = Option<u32>, Query, description = "Maximum number of series listed; `others` sums the rest", minimum = 1, maximum = 1000, example = 50),
    ),
    responses(
        (status = 200, description = "Counts of every city and event type over the last hours", body = Timeline, example = json!({"from": "2013-01-02T00:00:00Z", "to": "2013-01-02T06:00:00Z", "step_seconds": 300, "generated_at": "2013-01-02T06:00:00.000Z", "newest_window_start": "2013-01-02T05:55:00Z", "open": [71], "totals": {"event_count": 5, "late_count": null, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "all_time": {"event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0}, "series_count": 1, "series_read": 1, "series_total": 1, "series": [{"city": "NYC", "event_type": "traffic", "event_count": 5, "late_count": 0, "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "steps": [[71, 1, 0, 4, 0]]}], "others": {"series_count": 0, "event_count": 0, "late_count": 0, "severity_low": 0, "severity_medium": 0, "severity_high": 0, "severity_critical": 0, "steps": []}})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = "hours to city event_type severity series_limit";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let query = TimelineQuery {
        hours: params.number("hours", HOURS_MAX)?.unwrap_or(HOURS_DEFAULT),
        to_ms: params.instant("to")?.map(round_up),
        city: params.text("city").map(ToOwned::to_owned),
        event_type: params.text("event_type").map(str::to_ascii_lowercase),
        severity: params.severity()?,
        limit: params
            .number("series_limit", LIMIT_MAX)?
            .unwrap_or(SERIES_LIMIT_DEFAULT) as usize,
    };
    let key = format!("{PATH} {query:?}");
    let make = build_timeline(&state, query);
    state.answer_with_freshness(key, make).await
}

async fn build_timeline(
    state: &ApiState,
    query: TimelineQuery,
) -> Result<(Timeline, Freshness), ApiError> {
    let now_ms = state.now_ms();
    let mut matching = find_series(state, &query).await?;
    let names: Vec<String> = matching
        .read
        .iter()
        .map(|t| series(&t.city, &t.event_type))
        .collect();
    let mut to_ms = query.to_ms.unwrap_or(now_ms + 1);
    let mut read = read_windows(state, &names, to_ms, query.span_ms()).await?;
    if query.to_ms.is_none()
        && read.windows.is_empty()
        && read.series_complete == names.len()
        && let Some(newest_ms) = state.reads().newest_window(names.clone(), now_ms).await?
    {
        to_ms = newest_ms + 1;
        read = read_windows(state, &names, to_ms, query.span_ms()).await?;
    }
    matching.read.truncate(read.series_complete);
    let mut timeline = sum_windows(&query, matching, &read.windows, to_ms);
    if read.series_complete < names.len() {
        timeline.partial = Some(true);
        return Ok((timeline, Freshness::Partial));
    }
    Ok((timeline, Freshness::Revalidate))
}
