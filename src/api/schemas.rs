//! The severities in the OpenAPI document, which several handlers refer to.

use serde::Serialize;
use utoipa::ToSchema;

/// How serious an event is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only its schema is used
pub(super) enum Level {
    Low,
    Medium,
    High,
    Critical,
}

/// A severity to filter by; an empty value matches every severity.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only its schema is used
pub(super) enum Severities {
    #[serde(rename = "")]
    Any,
    Low,
    Medium,
    High,
    Critical,
}
