//! `GET /openapi.json`: the API in OpenAPI 3.1, made from the handlers and their answers.
//!
//! Parameters, shapes and examples stand with each handler. What holds for all of them (errors,
//! tokens) is added here once.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::api::{aggregations, alerts, cities, events, health, stats, stream, summary, timeline};

pub(super) const PATH: &str = "/openapi.json";

/// What may go wrong anywhere, and the codes.
const ERRORS: [(&str, &str); 12] = [
    (
        "400",
        "A parameter, cursor or path is wrong: `bad_parameter`, `bad_cursor`, `bad_event_id`, `bad_path`, `bad_header`",
    ),
    ("401", "A bearer token is needed: `unauthorized`"),
    (
        "403",
        "The server does not answer to the name in `Host`: `forbidden`",
    ),
    ("404", "Nothing is at this path: `not_found`"),
    (
        "408",
        "The request was not done in time: `deadline_exceeded`",
    ),
    ("413", "The body is too large: `body_too_large`"),
    ("414", "Path and query are too long: `uri_too_long`"),
    (
        "429",
        "This client asks too often, or its reads cost too much: `too_many_requests`, `read_budget_spent`; see `Retry-After`",
    ),
    ("431", "The header lines are too long: `headers_too_large`"),
    ("500", "A bug: `internal`"),
    (
        "503",
        "DynamoDB cannot be read, or the answer would cost too much: `store_unavailable`, `read_ceiling`, `too_many_series`; or the server has no room for the request: `busy`; see `Retry-After`",
    ),
    (
        "504",
        "DynamoDB did not answer in time: `store_timeout`; see `Retry-After`",
    ),
];

/// The tag of each operation.
const TAGS: [(&str, &str); 9] = [
    ("get_health", "operation"),
    ("get_stats", "counts"),
    ("list_cities", "counts"),
    ("get_summary", "counts"),
    ("list_events", "events"),
    ("list_alerts", "events"),
    ("list_aggregations", "counts"),
    ("get_timeline", "counts"),
    ("listen", "events"),
];

/// How bad an event is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // only its schema is used
pub(super) enum Level {
    Low,
    Medium,
    High,
    Critical,
}

/// A severity to filter by; empty for any.
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

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "error": "limit must be a whole number from 1 to 1000, not \"0\"",
    "code": "bad_parameter",
    "request_id": "5f0c2d9b8a7e6f10",
}))]
struct Error {
    /// A sentence for people.
    error: String,
    /// A stable word for programs.
    code: String,
    /// What to quote: it stands in the server's log.
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CityStream API",
        description = "Counts, events and alerts of cities, from DynamoDB. Every list is newest first; \
                       where it goes on, the answer holds `next`: pass it as `cursor` with otherwise \
                       the same parameters. Counts are exact: each event is counted once, in its \
                       window or, if it comes too late for that, as late.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server that this document comes from")),
    tags(
        (name = "counts", description = "Sums of all time, windows, and the timeline"),
        (name = "events", description = "Single events and alerts, and the stream of what is new"),
        (name = "operation", description = "Health, readiness and metrics"),
    ),
    paths(
        health::get,
        stats::get,
        cities::get,
        summary::get,
        events::get,
        alerts::get,
        aggregations::get,
        timeline::get,
        stream::get,
    ),
    components(schemas(Error, Level, Severities)),
    modifiers(&Common)
)]
struct Document;

struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", bearer);
        // A token is needed only where the server has a file of them.
        let nobody = SecurityRequirement::default();
        let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
        document.security = Some(vec![nobody, bearer]);
        for path in document.paths.paths.values_mut() {
            let Some(operation) = &mut path.get else {
                continue;
            };
            let id = operation.operation_id.as_deref();
            let tag = TAGS.iter().find(|(known, _)| Some(*known) == id);
            operation.tags = tag.map(|(_, tag)| vec![(*tag).to_owned()]);
            for (status, description) in ERRORS {
                let body = ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name("Error")))
                    .build();
                let response = ResponseBuilder::new()
                    .description(description)
                    .content("application/json", body)
                    .build();
                let all = &mut operation.responses.responses;
                all.entry(status.to_owned()).or_insert(RefOr::T(response));
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                // An optional parameter is left out; it is never null.
                if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
                    && let SchemaType::Array(types) = &mut object.schema_type
                {
                    types.retain(|one| *one != Type::Null);
                    if let [one] = types.as_slice() {
                        object.schema_type = SchemaType::Type(one.clone());
                    }
                }
            }
        }
        for (path, id, what, kind, others) in [
            (
                "/livez",
                "get_livez",
                "`ok` while the process lives",
                "text/plain",
                &[][..],
            ),
            (
                "/readyz",
                "get_readyz",
                "`ok` while DynamoDB can be read",
                "text/plain",
                &[("503", "what it waits for")][..],
            ),
            (
                "/metrics",
                "get_metrics",
                "Every metric, for Prometheus",
                "text/plain; version=0.0.4; charset=utf-8",
                &[],
            ),
            (
                PATH,
                "get_openapi",
                "This document",
                "application/json",
                &[],
            ),
        ] {
            let mut operation = OperationBuilder::new()
                .operation_id(Some(id))
                .tag("operation")
                .summary(Some(what));
            let all = [("200", what)].into_iter().chain(others.iter().copied());
            for (status, description) in all {
                let any = ObjectBuilder::new()
                    .schema_type(SchemaType::AnyValue)
                    .build();
                let body = ContentBuilder::new().schema(Some(any)).build();
                let response = ResponseBuilder::new()
                    .description(description)
                    .content(kind, body)
                    .build();
                operation = operation.response(status, response);
            }
            let item = PathItem::new(HttpMethod::Get, operation.build());
            document.paths.paths.insert(path.to_owned(), item);
        }
    }
}

static JSON: LazyLock<String> = LazyLock::new(|| {
    Document::openapi()
        .to_pretty_json()
        .expect("the document is made of texts and numbers")
});

/// Returns the document.
pub fn json() -> &'static str {
    &JSON
}

pub(super) async fn get() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, json())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_document_names_every_resource_with_its_errors_and_an_example() {
        let document: Value = serde_json::from_str(json()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for path in [
            health::PATH,
            stats::PATH,
            cities::PATH,
            summary::PATH,
            events::PATH,
            alerts::PATH,
            aggregations::PATH,
            timeline::PATH,
            stream::PATH,
        ] {
            let get = &document["paths"][path]["get"];
            assert!(get["summary"].is_string(), "{path}");
            let errors = get["responses"].as_object().unwrap();
            assert!(errors.len() > ERRORS.len(), "{path}");
            let content = get["responses"]["200"]["content"].as_object().unwrap();
            for (kind, body) in content {
                assert!(body["example"] != Value::Null, "{path} {kind}");
            }
            for parameter in get["parameters"].as_array().into_iter().flatten() {
                let name = &parameter["name"];
                assert!(parameter["description"].is_string(), "{path} {name}");
                let schema = &parameter["schema"];
                let typed = schema["type"].is_string() || schema["$ref"].is_string();
                assert!(typed, "{path} {name}");
            }
        }
        // What only `dev` has is no part of it.
        assert!(!json().contains("/break"));
    }

    #[test]
    fn operations_have_ids_of_their_own_and_every_field_a_description() {
        let document: Value = serde_json::from_str(json()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let ids: std::collections::BTreeSet<&str> = paths
            .values()
            .map(|path| path["get"]["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), paths.len(), "{ids:?}");
        for (path, item) in paths {
            assert!(item["get"]["tags"][0].is_string(), "{path}");
        }
        assert_eq!(document["servers"][0]["url"], "/");
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{name}");
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                assert!(
                    of["description"].is_string() || of["$ref"].is_string(),
                    "{name}.{field}: {of}"
                );
            }
        }
    }
}
