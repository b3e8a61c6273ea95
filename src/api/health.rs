//! `GET /api/v1/health`: `UP`, or 503 and `DOWN` with the reason where the tables cannot be read.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::core::time::format_millis;
use crate::store::error::StoreError;

pub(super) const PATH: &str = "/api/v1/health";

const SERVICE: &str = "CityStream API";

#[derive(Serialize)]
struct Health {
    status: &'static str,
    timestamp: String,
    service: &'static str,
}

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
            Ok(error.into_response_with(serde_json::json!({
                "status": "DOWN",
                "timestamp": format_millis(state.now_ms()),
                "service": SERVICE,
                "reason": reason,
            })))
        }
    }
}
