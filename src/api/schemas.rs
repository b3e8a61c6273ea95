//! Parameter values that several handlers use.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;

/// The unit of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = StepUnit)]
pub(super) enum StepUnit {
    /// Windows.
    Window,
    /// Hours, in UTC.
    Hour,
    /// Days, which begin at midnight in the requested time zone.
    Day,
}

impl StepUnit {
    /// Returns the value of the parameter `step`.
    ///
    /// # Errors
    /// Returns `bad_parameter` if the value names no unit.
    pub(super) fn parse(params: &Params) -> Result<Option<StepUnit>, ApiError> {
        match params.given("step") {
            None => Ok(None),
            Some("window") => Ok(Some(StepUnit::Window)),
            Some("hour") => Ok(Some(StepUnit::Hour)),
            Some("day") => Ok(Some(StepUnit::Day)),
            Some(_) => Err(ApiError::bad_parameter("step must be window, hour or day")),
        }
    }
}

/// The state of an incident. A resolved incident gets no more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum IncidentState {
    /// The incident may get more events.
    Open,
    /// The incident has ended.
    Resolved,
}

impl IncidentState {
    /// Returns the value of the parameter `state`.
    ///
    /// # Errors
    /// Returns `bad_parameter` if the value names no state.
    pub(super) fn parse(params: &Params) -> Result<Option<IncidentState>, ApiError> {
        match params.given("state") {
            None => Ok(None),
            Some("open") => Ok(Some(IncidentState::Open)),
            Some("resolved") => Ok(Some(IncidentState::Resolved)),
            Some(_) => Err(ApiError::bad_parameter("state must be open or resolved")),
        }
    }
}

/// How serious an event is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only the schema of this type is used
pub(super) enum Level {
    Low,
    Medium,
    High,
    Critical,
}

/// The range that a timeline shows for comparison with the requested range.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only the schema of this type is used
pub(super) enum Compare {
    Previous,
}

/// A severity to filter by. An empty value matches every severity.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only the schema of this type is used
pub(super) enum Severities {
    #[serde(rename = "")]
    Any,
    Low,
    Medium,
    High,
    Critical,
}
