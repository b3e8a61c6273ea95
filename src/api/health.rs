//! `GET /api/v1/health`: `UP`, or 503 and `DOWN` with the reason where the tables cannot be read.

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

/// The answer of 200.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `UP`.
    status: &'static str,
    /// When it was asked.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The name of this service.
    service: &'static str,
}

/// The answer of 503 and 504.
#[derive(Serialize, ToSchema)]
struct Down {
    /// `DOWN`.
    status: &'static str,
    /// When it was asked.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The name of this service.
    service: &'static str,
    /// Why, for people.
    reason: String,
}

/// Whether DynamoDB can be read
#[utoipa::path(
    get,
    path = "/api/v1/health",
    operation_id = "get_health",
    summary = "Whether DynamoDB can be read",
    responses(
        (status = 200, description = "Whether DynamoDB can be read", body = Health, example = json!({"status": "UP", "timestamp": "2013-01-02T06:00:00.000Z", "service": "CityStream API"})),
        (status = 503, description = "`DOWN`: DynamoDB cannot be read", body = Down),
        (status = 504, description = "`DOWN`: DynamoDB did not answer in time", body = Down),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &[])?;
    let make = async {
        state.reads().ping().await?;
        Ok::<_, StoreError>(Health {
            status: "UP",
            timestamp: format_millis(state.now_ms()),
            service: SERVICE,
        })
    };
    match state.answer(params.key(), make).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let reason = error.to_string();
            let down = Down {
                status: "DOWN",
                timestamp: format_millis(state.now_ms()),
                service: SERVICE,
                reason,
            };
            Ok(error.into_response_with(serde_json::json!(down)))
        }
    }
}
