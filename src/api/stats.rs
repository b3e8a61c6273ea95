//! `GET /api/v1/stats`: all events of all cities, late ones included.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::{ApiState, Totals};
use crate::core::event::Severity;
use crate::core::time::format_millis;

pub(super) const PATH: &str = "/api/v1/stats";

/// The sums of all totals.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct Stats {
    total_events_processed: u64,
    high_severity_alerts: u64,
    critical_alerts: u64,
    late_events: u64,
    generated_at: String,
}

impl Stats {
    pub(super) fn of(totals: &Totals) -> Stats {
        let mut stats = Stats {
            generated_at: format_millis(totals.read_ms),
            ..Stats::default()
        };
        for total in &totals.items {
            stats.total_events_processed += total.events();
            stats.late_events += total.late_count;
            stats.high_severity_alerts += total.severity_counts[Severity::High.index()];
            stats.critical_alerts += total.severity_counts[Severity::Critical.index()];
        }
        stats
    }
}

/// All events of all cities, late ones included
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    summary = "All events of all cities, late ones included",
    responses(
        (status = 200, description = "All events of all cities, late ones included", body = Stats, example = json!({"total_events_processed": 33960, "high_severity_alerts": 2025, "critical_alerts": 780, "late_events": 609, "generated_at": "2013-01-02T06:00:00.000Z"})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &[])?;
    let make = async { Ok::<_, ApiError>(Stats::of(&*state.totals().await?)) };
    state.answer(params.key(), make).await
}
