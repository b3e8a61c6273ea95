//! `GET /api/v1/stats`: the number of events of all cities, including late events.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::api::totals::GrandTotal;
use crate::core::event::Severity;
use crate::core::time::format_millis;

pub(super) const PATH: &str = "/api/v1/stats";

/// The number of events, summed over all cities.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// The number of events of all cities and all time, including late events.
    total_events_processed: u64,
    /// The number of events of high severity, over all cities and all time.
    high_severity_alerts: u64,
    /// The number of events of critical severity, over all cities and all time.
    critical_alerts: u64,
    /// The number of events that arrived too late for their window, over all cities and all time.
    late_events: u64,
    /// When the server read the totals.
    #[schema(format = DateTime)]
    generated_at: String,
    /// The text `partitions` if there are too many series to read all of them; absent otherwise. If `summed_over` is
    /// `partitions`, all numbers are sums of the counts that consumers publish for each partition of the topic. The
    /// published counts are at most about five minutes old.
    #[serde(skip_serializing_if = "Option::is_none")]
    summed_over: Option<&'static str>,
}

impl From<&GrandTotal> for Stats {
    fn from(grand: &GrandTotal) -> Stats {
        let all = &grand.all;
        Stats {
            total_events_processed: all.events(),
            high_severity_alerts: all.severity_counts[Severity::High.index()],
            critical_alerts: all.severity_counts[Severity::Critical.index()],
            late_events: all.late_count,
            generated_at: format_millis(grand.read_ms),
            summed_over: grand.from_progress.then_some("partitions"),
        }
    }
}

/// Returns the number of events of all cities, including late events
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    operation_id = "get_stats",
    tag = "counts",
    summary = "Number of events of all cities, late ones included",
    responses(
        (status = 200, description = "Number of events of all cities, late ones included", body = Stats, example = json!({"total_events_processed": 33960, "high_severity_alerts": 2025, "critical_alerts": 780, "late_events": 609, "generated_at": "2013-01-02T06:00:00.000Z"})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "")?;
    let make = async { Ok::<_, ApiError>(Stats::from(&state.grand_total().await?)) };
    state.answer(params.key(), make).await
}
