//! `GET /api/v1/stats`: all events of all cities, late ones included.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::core::event::Severity;
use crate::core::time::format_millis;

pub(super) const PATH: &str = "/api/v1/stats";

#[derive(Default, Serialize)]
struct Stats {
    total_events_processed: u64,
    high_severity_alerts: u64,
    critical_alerts: u64,
    late_events: u64,
    generated_at: String,
}

pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &[])?;
    let make = async {
        let mut stats = Stats::default();
        for total in state.reads().totals(None).await? {
            stats.total_events_processed += total.events();
            stats.late_events += total.late_count;
            stats.high_severity_alerts += total.severity_counts[Severity::High.index()];
            stats.critical_alerts += total.severity_counts[Severity::Critical.index()];
        }
        stats.generated_at = format_millis(state.now_ms());
        Ok(stats)
    };
    state.answer(params.key(), make).await
}
