//! `GET /api/v1/silences`: the silences that have not ended, sorted by their end time.
//!
//! If there is no incidents table, because `notify` is not in use, the client gets status 404 with the code
//! `no_incidents_table`.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;
use crate::core::incident::silence::Silence;
use crate::core::time::format_millis;
use crate::store::error::StoreErrorKind;

pub(super) const PATH: &str = "/api/v1/silences";

/// The silences that have not ended.
#[derive(Serialize, ToSchema)]
struct Silences {
    /// The number of silences.
    count: usize,
    /// The silences, sorted by the time at which they end.
    silences: Vec<ListedSilence>,
}

/// A period in which receivers get no messages about certain incidents.
#[derive(Serialize, ToSchema)]
struct ListedSilence {
    /// The id of the silence, which is an argument of the command `citystream silence end`.
    silence: String,
    /// The rule whose incidents are silenced; absent if the silence covers all rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The city whose incidents are silenced; absent if the silence covers all cities.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The event type whose incidents are silenced; absent if the silence covers all event types.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// When the silence began.
    #[schema(format = DateTime)]
    from: String,
    /// When the silence ends.
    #[schema(format = DateTime)]
    until: String,
    /// The reason for the silence, as given by the person who created it.
    why: String,
}

impl From<Silence> for ListedSilence {
    fn from(silence: Silence) -> ListedSilence {
        ListedSilence {
            silence: silence.id.into(),
            rule: silence.rule.map(Into::into),
            city: silence.city.map(Into::into),
            event_type: silence.event_type.map(Into::into),
            from: format_millis(silence.from_ms),
            until: format_millis(silence.until_ms),
            why: silence.why.into(),
        }
    }
}

/// Returns the silences that have not ended
#[utoipa::path(
    get,
    path = "/api/v1/silences",
    operation_id = "list_silences",
    tag = "events",
    summary = "Silences that have not ended: receivers get no messages about the incidents that they cover. 404 `no_incidents_table` without `notify`",
    responses(
        (status = 200, description = "Silences, sorted by the time at which they end", body = Silences, example = json!({"count": 1, "silences": [{"silence": "K7WQ2M", "city": "NYC", "event_type": "construction", "from": "2013-01-02T06:00:00.000Z", "until": "2013-01-02T14:00:00.000Z", "why": "marathon"}]})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "")?;
    let make = async {
        let read = state.reads().silences().await;
        let mut silences = read.map_err(|error| match error.kind() {
            StoreErrorKind::NotFound => ApiError::no_incidents_table(),
            _ => params.read_error(error),
        })?;
        let now_ms = state.now_ms();
        silences.retain(|silence| now_ms < silence.until_ms);
        silences.sort_by(|a, b| (a.until_ms, &a.id).cmp(&(b.until_ms, &b.id)));
        let silences: Vec<ListedSilence> = silences.into_iter().map(Into::into).collect();
        Ok::<_, ApiError>(Silences {
            count: silences.len(),
            silences,
        })
    };
    state.answer(params.key(), make).await
}
