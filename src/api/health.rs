//! `GET /api/v1/health`: reports `UP` if the tables can be read. If the tables cannot be read, the response is status
//! 503 with `DOWN` and the reason.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::core::time::format_millis;
use crate::store::error::StoreError;

pub(super) const PATH: &str = "/api/v1/health";

const SERVICE: &str = "CityStream API";

/// Reports whether the API can read the tables.
#[derive(Serialize, ToSchema)]
struct Health {
    /// The status: `UP` or `DOWN`.
    status: &'static str,
    /// When the server answered.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The name of this service.
    service: &'static str,
    /// A sentence that explains why DynamoDB cannot be read; absent if the status is `UP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Returns whether DynamoDB can be read
#[utoipa::path(
    get,
    path = "/api/v1/health",
    operation_id = "get_health",
    tag = "operation",
    summary = "Whether DynamoDB can be read",
    responses(
        (status = 200, description = "Whether DynamoDB can be read", body = Health, example = json!({"status": "UP", "timestamp": "2013-01-02T06:00:00.000Z", "service": "CityStream API"})),
        (status = 503, description = "`DOWN`: DynamoDB cannot be read", body = Health),
        (status = 504, description = "`DOWN`: DynamoDB did not answer in time", body = Health),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "")?;
    let health = |status, reason| Health {
        status,
        timestamp: format_millis(state.now_ms()),
        service: SERVICE,
        reason,
    };
    let make = async {
        state.reads().ping().await?;
        Ok::<_, StoreError>(health("UP", None))
    };
    state.answer(params.key(), make).await.or_else(|error| {
        let down = health("DOWN", Some(error.to_string()));
        Ok(error.into_response_with(serde_json::json!(down)))
    })
}
