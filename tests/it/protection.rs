//! Tests of the options that protect tables in production.
//!
//! They check which requests `init-tables` sends for each option, on new and on existing tables, and that a second
//! run sends none. The embedded database creates the tables. This file answers requests about backups, keys and tags,
//! which that database does not know, as AWS does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use citystream::core::keys::TableNames;
use citystream::store::embedded::embedded;
use citystream::store::protect::Protection;
use citystream::tables::dynamodb::{WantedTables, check, ensure};
use citystream::tables::steps::{Finding, FindingOutcome, StepDisplay};
use serde_json::{Value, json};

use crate::world::client_through;

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/abc";

/// The state of a table that the embedded database does not keep.
#[derive(Debug, Default)]
struct More {
    pitr: bool,
    key: Option<String>,
    tags: Vec<Value>,
}

#[derive(Debug, Default)]
struct State {
    more: BTreeMap<String, More>,
    /// The requests that change something, in order.
    changes: Vec<(String, Value)>,
}

/// Answers for AWS, and passes the other requests to the embedded database.
#[derive(Clone, Debug)]
struct Aws {
    inner: SharedHttpConnector,
    state: Arc<Mutex<State>>,
}

impl Aws {
    /// Returns the response, or `None` if the database must answer.
    fn answer(&self, operation: &str, body: &Value) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        if !operation.starts_with("Describe") && !operation.starts_with("List") {
            state.changes.push((operation.to_owned(), body.clone()));
        }
        let named = body["TableName"].as_str().or(body["ResourceArn"].as_str());
        let name = named.unwrap().rsplit('/').next().unwrap().to_owned();
        let more = state.more.entry(name).or_default();
        match operation {
            "DescribeContinuousBackups" => {
                let status = if more.pitr { "ENABLED" } else { "DISABLED" };
                Some(json!({"ContinuousBackupsDescription": {
                    "ContinuousBackupsStatus": "ENABLED",
                    "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
                }}))
            }
            "UpdateContinuousBackups" => {
                more.pitr = true;
                Some(json!({}))
            }
            "ListTagsOfResource" => Some(json!({"Tags": more.tags})),
            "TagResource" => {
                more.tags.extend(body["Tags"].as_array().unwrap().clone());
                Some(json!({}))
            }
            "UpdateTable" if body["SSESpecification"].is_object() => {
                let key = body["SSESpecification"]["KMSMasterKeyId"].as_str();
                more.key = key.map(str::to_owned);
                Some(json!({}))
            }
            "CreateTable" => {
                let key = body["SSESpecification"]["KMSMasterKeyId"].as_str();
                more.key = key.map(str::to_owned);
                more.tags = body["Tags"].as_array().cloned().unwrap_or_default();
                None
            }
            _ => None,
        }
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let aws = self.clone();
        HttpConnectorFuture::new(async move {
            let ok = StatusCode::try_from(200).unwrap();
            if let Some(answer) = aws.answer(&operation, &body) {
                return Ok(HttpResponse::new(ok, SdkBody::from(answer.to_string())));
            }
            let answer = aws.inner.call(request).await?;
            if operation != "DescribeTable" || answer.status() != ok {
                return Ok(answer);
            }
            let mut described: Value =
                serde_json::from_slice(answer.body().bytes().unwrap()).unwrap();
            let name = described["Table"]["TableName"].as_str().unwrap();
            if let Some(key) = &aws.state.lock().unwrap().more[name].key {
                described["Table"]["SSEDescription"] =
                    json!({"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key});
            }
            Ok(HttpResponse::new(ok, SdkBody::from(described.to_string())))
        })
    }
}

async fn start() -> (Client, Arc<Mutex<State>>) {
    let inner = embedded(dynoxide::Database::memory().unwrap());
    let state: Arc<Mutex<State>> = Arc::default();
    let shared = Arc::clone(&state);
    let http = http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Aws {
            inner: inner.http_connector(settings, components),
            state: Arc::clone(&shared),
        })
    });
    (client_through(http).await, state)
}

fn protected() -> WantedTables {
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    WantedTables {
        protection: Protection {
            deletion: true,
            pitr: true,
            kms_key: Some(KEY.to_owned()),
            tags: vec![tag("project", "city"), tag("owner", "ann")],
            warm_writes: None,
        },
        ..WantedTables::default()
    }
}

/// Runs `init-tables`. Returns its result for each table, and the requests that change tables.
async fn run(
    client: &Client,
    state: &Mutex<State>,
    wanted: &WantedTables,
) -> (Vec<Finding>, Vec<(String, Value)>) {
    state.lock().unwrap().changes.clear();
    let names = TableNames::new("p");
    let made = ensure(client, &names, wanted, &StepDisplay::silent()).await;
    let (_, mut findings) = made.unwrap();
    // The last result is the config item.
    findings.truncate(4);
    let changes = std::mem::take(&mut state.lock().unwrap().changes);
    let of_tables = |(operation, _): &(String, Value)| !operation.ends_with("Item");
    (findings, changes.into_iter().filter(of_tables).collect())
}

fn bodies<'a>(changes: &'a [(String, Value)], operation: &str) -> Vec<&'a Value> {
    let of = changes.iter().filter(|(name, _)| name == operation);
    of.map(|(_, body)| body).collect()
}

fn sse() -> Value {
    json!({"Enabled": true, "SSEType": "KMS", "KMSMasterKeyId": KEY})
}

fn tags() -> Value {
    json!([{"Key": "project", "Value": "city"}, {"Key": "owner", "Value": "ann"}])
}

#[tokio::test]
async fn new_tables_are_created_with_the_requested_protection() {
    let (client, state) = start().await;
    let (findings, changes) = run(&client, &state, &protected()).await;
    assert!(
        findings.iter().all(|f| f.outcome == FindingOutcome::Made),
        "{findings:?}"
    );
    let created = bodies(&changes, "CreateTable");
    assert_eq!(created.len(), 4);
    for body in created {
        assert_eq!(body["DeletionProtectionEnabled"], json!(true));
        assert_eq!(body["SSESpecification"], sse());
        assert_eq!(body["Tags"], tags());
    }
    // DynamoDB takes these settings only for existing tables.
    let pitr = json!({"PointInTimeRecoveryEnabled": true});
    let backups = bodies(&changes, "UpdateContinuousBackups");
    assert_eq!(backups.len(), 4);
    assert!(
        backups
            .iter()
            .all(|b| b["PointInTimeRecoverySpecification"] == pitr)
    );
    let sent: BTreeSet<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
    let known = ["CreateTable", "UpdateContinuousBackups", "UpdateTimeToLive"];
    assert_eq!(sent, known.into());
    let (findings, changes) = run(&client, &state, &protected()).await;
    assert!(
        findings.iter().all(|f| f.outcome == FindingOutcome::Kept),
        "{findings:?}"
    );
    assert_eq!(changes, []);
}

#[tokio::test]
async fn existing_tables_are_protected_on_request_and_never_unprotected() {
    let (client, state) = start().await;
    run(&client, &state, &WantedTables::default()).await;
    let names = TableNames::new("p");
    let notes = [
        "deletion protection",
        "encryption with arn:aws:kms:eu-west-1:123456789012:key/abc",
        "point-in-time recovery",
        "tags project, owner",
    ];
    let off = notes.map(|note| format!("{note} is off"));
    let found = check(&client, &names, &protected()).await.unwrap();
    for finding in &found[..4] {
        assert_eq!(
            (finding.outcome, &finding.notes[..]),
            (FindingOutcome::Differs, &off[..])
        );
    }

    let (findings, changes) = run(&client, &state, &protected()).await;
    let on = notes.map(|note| format!("{note} is now on"));
    for finding in &findings {
        assert_eq!(
            (finding.outcome, &finding.notes[..]),
            (FindingOutcome::Changed, &on[..])
        );
    }
    let table = "p-raw-events";
    let arn = &bodies(&changes, "TagResource")[0]["ResourceArn"];
    assert!(
        arn.as_str().unwrap().ends_with(":table/p-raw-events"),
        "{arn}"
    );
    let pitr = json!({"PointInTimeRecoveryEnabled": true});
    let sent = |name: &str, body: Value| (name.to_owned(), body);
    // Each change is a request of its own, because DynamoDB refuses two at once.
    let wanted = [
        sent(
            "UpdateTable",
            json!({"TableName": table, "DeletionProtectionEnabled": true}),
        ),
        sent(
            "UpdateTable",
            json!({"TableName": table, "SSESpecification": sse()}),
        ),
        sent(
            "UpdateContinuousBackups",
            json!({"TableName": table, "PointInTimeRecoverySpecification": pitr}),
        ),
        sent("TagResource", json!({"ResourceArn": arn, "Tags": tags()})),
    ];
    assert_eq!(changes[..4], wanted);
    assert_eq!(changes.len(), 16);

    // The same options again, or none of them, send nothing.
    for wanted in [protected(), WantedTables::default()] {
        let (findings, changes) = run(&client, &state, &wanted).await;
        assert!(
            findings.iter().all(|f| f.outcome == FindingOutcome::Kept),
            "{findings:?}"
        );
        assert_eq!(changes, []);
    }
    // Of the tags, only new ones are sent.
    let mut more = protected();
    more.protection
        .tags
        .push(("stage".to_owned(), "test".to_owned()));
    let (_, changes) = run(&client, &state, &more).await;
    let tag = json!([{"Key": "stage", "Value": "test"}]);
    assert_eq!(changes.len(), 4);
    assert!(
        changes
            .iter()
            .all(|(name, body)| name == "TagResource" && body["Tags"] == tag)
    );
}
