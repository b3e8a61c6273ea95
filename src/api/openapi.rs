//! `GET /openapi.json`: the description of the API in OpenAPI 3.1, generated from the handlers and their responses.
//!
//! Each handler declares its own parameters, schemas and examples. This module adds the errors and the token scheme
//! that all operations have in common to the document.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::api::export::ListFormat;
use crate::api::schemas::{Compare, IncidentState, Level, Severities, StepUnit};
use crate::api::{
    aggregations, alerts, cities, events, health, incidents, silences, stats, stream, summary,
    timeline,
};

pub(super) const PATH: &str = "/openapi.json";

/// The errors that every operation can return, each with its status, its meaning and its codes.
const ERRORS: &str = "\
400 A parameter, cursor, header or path is invalid: `bad_parameter`, `bad_cursor`, `bad_event_id`, `bad_path`, `bad_header`
401 A valid bearer token is required: `unauthorized`
403 The name in `Host` is not allowed: `forbidden`
404 There is nothing at this path (`not_found`), or no table of incidents (`no_incidents_table`)
408 The server could not answer in time: `deadline_exceeded`
413 The body is too large: `body_too_large`
414 Path and query are too long: `uri_too_long`
429 This client sends too many requests, or its reads cost too much: `too_many_requests`, `read_budget_spent`. See `Retry-After`
431 The header lines are too long: `headers_too_large`
500 A bug: `internal`
503 DynamoDB cannot be read (`store_unavailable`), the answer would cost too much (`read_ceiling`), there are too many series to sum those of one event type (`too_many_series`, without `Retry-After`), or a limit of connections or unread answers is reached (`busy`). See `Retry-After`
504 DynamoDB did not answer in time: `store_timeout`. See `Retry-After`";

/// The routes without a utoipa handler, each with its path, operation id, content type and summary.
const OPERATOR_ROUTES: &str = "\
/livez | get_livez | text/plain | `ok` while the process is alive
/readyz | get_readyz | text/plain | `ok` while DynamoDB can be read
/metrics | get_metrics | text/plain; version=0.0.4; charset=utf-8 | All metrics, for Prometheus
/openapi.json | get_openapi | application/json | This document";

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error, example = json!({
    "error": "limit must be a whole number from 1 to 1000, not \"0\"",
    "code": "bad_parameter",
    "request_id": "5f0c2d9b8a7e6f10",
}))]
pub(crate) struct ErrorBody {
    /// A sentence for people that says what is wrong.
    error: String,
    /// A stable code for programs.
    code: String,
    /// The id of the request, which also appears in the server's log.
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CityStream API",
        description = "Counts, events, alerts and incidents of cities, from DynamoDB. Lists are newest first. If a list \
                       continues, the answer has `next`: repeat the request with it as `cursor`. Counts are \
                       exact: each event is counted once, in its window or, if it arrives too late, as late.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server of this document")),
    tags(
        (name = "counts", description = "All-time counts, windows, and the timeline"),
        (name = "events", description = "Events, alerts and incidents, and the stream of new events"),
        (name = "operation", description = "Health, readiness and metrics"),
    ),
    paths(
        health::get,
        stats::get,
        cities::get,
        summary::get,
        events::get,
        alerts::get,
        incidents::get,
        silences::get,
        aggregations::get,
        timeline::get,
        stream::get,
    ),
    components(schemas(Compare, ErrorBody, IncidentState, Level, ListFormat, Severities, StepUnit)),
    modifiers(&Common)
)]
struct Document;

struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        complete(document, ERRORS, OPERATOR_ROUTES);
    }
}

/// Completes `document` with the token scheme, the errors that all operations can return, and the operator's routes.
///
/// Each line of `errors` contains a status code and its description. Each line of `routes` contains a path, an
/// operation id, a content type and a summary.
pub(crate) fn complete(document: &mut utoipa::openapi::OpenApi, errors: &str, routes: &str) {
    let components = document.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("bearer", bearer);
    // The server requires a token only if the operator configures a token file.
    let anonymous = SecurityRequirement::default();
    let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
    document.security = Some(vec![anonymous, bearer]);
    let paths = &mut document.paths.paths;
    for path in paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            add_errors(operation, errors);
            add_tables(operation);
            remove_null_types(operation);
        }
    }
    for route in routes.lines() {
        let columns: Vec<&str> = route.split(" | ").collect();
        let [path, id, kind, summary] = columns[..] else {
            unreachable!("a route has four columns");
        };
        let operation = operator_operation(id, kind, summary);
        paths.insert(path.to_owned(), PathItem::new(HttpMethod::Get, operation));
    }
}

fn add_errors(operation: &mut Operation, errors: &str) {
    for (status, description) in errors.lines().filter_map(|line| line.split_once(' ')) {
        let schema = Some(Ref::from_schema_name("Error"));
        let response = response(description, "application/json", schema);
        let all = &mut operation.responses.responses;
        all.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

/// Adds the content types CSV and NDJSON to the response of an operation that has the parameter `format`.
fn add_tables(operation: &mut Operation) {
    let mut parameters = operation.parameters.iter().flatten();
    if !parameters.any(|parameter| parameter.name == "format") {
        return;
    }
    let Some(RefOr::T(answer)) = operation.responses.responses.get_mut("200") else {
        return;
    };
    for (kind, example) in [
        ("text/csv", "city,total_events\nNYC,12\n"),
        (
            "application/x-ndjson",
            "{\"city\":\"NYC\",\"total_events\":12}\n",
        ),
    ] {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let content = ContentBuilder::new()
            .schema(Some(text))
            .example(Some(example.into()));
        answer.content.insert(kind.to_owned(), content.build());
    }
}

/// Removes `null` from the types of parameters. A client omits an optional parameter and never sends null.
fn remove_null_types(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
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

fn operator_operation(id: &str, kind: &str, summary: &str) -> Operation {
    let any = || Some(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .tag("operation")
        .summary(Some(summary))
        .response("200", response(summary, kind, any()));
    if id == "get_readyz" {
        let waits = response("What the server waits for", kind, any());
        operation = operation.response("503", waits);
    }
    operation.build()
}

fn response(description: &str, kind: &str, schema: Option<impl Into<RefOr<Schema>>>) -> Response {
    let body = ContentBuilder::new().schema(schema).build();
    ResponseBuilder::new()
        .description(description)
        .content(kind, body)
        .build()
}

static JSON: LazyLock<String> = LazyLock::new(|| {
    Document::openapi()
        .to_pretty_json()
        .expect("the document consists of texts and numbers")
});

/// Returns the OpenAPI document as JSON.
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
    fn the_document_has_every_resource_with_its_errors_and_an_example() {
        let document: Value = serde_json::from_str(json()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for path in [
            health::PATH,
            stats::PATH,
            cities::PATH,
            summary::PATH,
            events::PATH,
            alerts::PATH,
            incidents::PATH,
            silences::PATH,
            aggregations::PATH,
            timeline::PATH,
            stream::PATH,
        ] {
            let get = &document["paths"][path]["get"];
            assert!(get["summary"].is_string(), "{path}");
            let errors = get["responses"].as_object().unwrap();
            assert!(errors.len() > ERRORS.lines().count(), "{path}");
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
            let has_format = get["parameters"]
                .to_string()
                .contains("\"name\":\"format\"");
            assert_eq!(has_format, content.contains_key("text/csv"), "{path}");
        }
        // The routes of `dev` are not part of the OpenAPI document.
        assert!(!json().contains("/break"));
    }

    #[test]
    fn each_reference_names_a_schema() {
        let document: Value = serde_json::from_str(json()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let references: Vec<&str> = json().split("\"#/components/schemas/").skip(1).collect();
        assert!(references.len() > 20, "{}", references.len());
        for reference in references {
            let (name, _) = reference.split_once('"').unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn each_operation_has_its_own_id_and_each_field_a_description() {
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
                    of.to_string().contains("\"description\"") || of["$ref"].is_string(),
                    "{name}.{field}: {of}"
                );
            }
        }
    }
}
