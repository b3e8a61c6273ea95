//! Each role asks DynamoDB for all that its IAM policy allows, and for nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use citystream::api::{ApiState, router};
use citystream::core::clock::UnixMs;
use citystream::core::keys::TableNames;
use citystream::notify::config::{NotifyConfig, SecretReading};
use citystream::shutdown::Shutdown;
use citystream::store::embedded::embedded;
use citystream::store::reads::{DynamoReads, IncidentFollower};
use citystream::store::rights::TableUser;
use citystream::store::tables::{create, incidents_spec};
use citystream::tables::dynamodb::{WantedTables, check, ensure};
use citystream::tables::steps::StepDisplay;
use citystream::telemetry::Metrics;
use citystream::verify::compare::CompareSource;
use citystream::verify::incidents::compare_incidents;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::member::Member;
use crate::notify;
use crate::verify;
use crate::world::{BASE_MS, World, client_through};

const RULE: &str = "[[rule]]\nname = \"critical\"\nseverity = [\"critical\"]\nquiet = \"15m\"\n";

/// Operation, table and index of a request.
type Asked = (String, String, Option<String>);

/// Passes requests on and records what they ask for.
#[derive(Clone, Debug)]
struct Recorder {
    inner: SharedHttpConnector,
    asked: Arc<Mutex<BTreeSet<Asked>>>,
}

impl HttpConnector for Recorder {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        if operation.ends_with("Item") || ["Query", "Scan"].contains(&operation) {
            // The program also checks this value to prove the response.
            let units = text("ReturnConsumedCapacity");
            assert_eq!(units.as_deref(), Some("TOTAL"), "{operation}: {body}");
        }
        let tables = match (text("TableName"), body["RequestItems"].as_object()) {
            (Some(table), _) => vec![table],
            (None, Some(tables)) => tables.keys().cloned().collect(),
            (None, None) => panic!("{operation} names no table: {body}"),
        };
        let mut asked = self.asked.lock().unwrap();
        for table in tables {
            asked.insert((operation.to_owned(), table, text("IndexName")));
        }
        drop(asked);
        self.inner.call(request)
    }
}

/// Returns a client of the world's database, and the record of what it asks for.
fn recorded(world: &World) -> (SharedHttpClient, Arc<Mutex<BTreeSet<Asked>>>) {
    let (inner, asked) = (embedded(world.database()), Arc::default());
    let noted = Arc::clone(&asked);
    let http = http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Recorder {
            inner: inner.http_connector(settings, components),
            asked: Arc::clone(&noted),
        })
    });
    (http, asked)
}

fn granted(user: TableUser) -> BTreeSet<Asked> {
    let names = TableNames::new("citystream");
    let grants = user.grants().into_iter().map(|grant| {
        let table = names.of(grant.table).to_owned();
        let index = grant.index.map(str::to_owned);
        (grant.operation.to_owned(), table, index)
    });
    grants.collect()
}

/// Asks the API for an answer of each kind, and returns the rights that it used.
async fn answering(world: &World, names: &TableNames) -> BTreeSet<Asked> {
    let (http, answering) = recorded(world);
    let client = client_through(http).await;
    // The task begins with an empty stack. Without optimization, the stack of an answer takes almost 2 MiB.
    let asking = tokio::spawn(ask_for_each(client, names.clone()));
    asking.await.unwrap();
    answering.lock().unwrap().clone()
}

async fn ask_for_each(client: Client, names: TableNames) {
    let metrics = Metrics::new();
    let reads = Arc::new(DynamoReads::new(client, names, metrics.clone()));
    let router = router(ApiState::new(reads, metrics));
    for path in [
        "health",
        "events/NYC",
        "summary/NYC",
        "alerts",
        "alerts?city=NYC&hours=720",
        "cities",
        "incidents",
        "silences",
        "aggregations?city=NYC&event_type=traffic",
        "stats",
    ] {
        let request = axum::http::Request::get(format!("/api/v1/{path}"));
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_uses_all_the_rights_of_its_policy_and_no_others() {
    let world = World::new(1).await;
    // Two cities, windows and hours that end so that progress is published and hours are rolled up, and an alert.
    for minute in 0..80 {
        world.event(
            0,
            ["NYC", "Boston"][minute % 2],
            "traffic",
            minute / 2 % 4,
            BASE_MS + 60_000 * i64::try_from(minute).unwrap(),
        );
    }
    let (http, counting) = recorded(&world);
    let member = world.member_rolling(Some(http)).await;
    world.committed("citystream").await;
    let has_rolled_up = |m: &Member| m.metrics.rollups_until_seconds.get() > 0;
    member.until("an hour is rolled up", has_rolled_up).await;
    assert!(member.stop().await.is_ok());
    assert_eq!(*counting.lock().unwrap(), granted(TableUser::Consume));

    let names = TableNames::new("citystream");
    let incidents = incidents_spec(&names);
    assert!(create(&world.client, &incidents).await.unwrap());
    assert_eq!(answering(&world, &names).await, granted(TableUser::Serve));

    let (http, comparing) = recorded(&world);
    let source = CompareSource {
        client: client_through(http).await,
        ..verify::source(&world)
    };
    assert_eq!(verify::misses(&world, &source).await, 4);
    let rules = NotifyConfig::parse(Path::new("rules"), RULE, None, SecretReading::Skip);
    let (rules, metrics) = (rules.unwrap().rules, Metrics::new());
    let compared = compare_incidents(&source, &rules, &metrics, &Shutdown::default()).await;
    assert!(compared.unwrap().is_some());
    assert_eq!(*comparing.lock().unwrap(), granted(TableUser::Verify));

    let (http, following) = recorded(&world);
    let reads = DynamoReads::new(client_through(http).await, names.clone(), metrics);
    let polled = IncidentFollower::default()
        .poll(&reads, UnixMs(BASE_MS))
        .await;
    assert_eq!(polled.unwrap(), []);
    assert_eq!(*following.lock().unwrap(), granted(TableUser::Tail));

    let (http, making) = recorded(&world);
    let client = client_through(http).await;
    let new = TableNames::new("another");
    let wanted = WantedTables {
        shards: Some(8),
        ..WantedTables::default()
    };
    for names in [&names, &new] {
        ensure(&client, names, &wanted, &StepDisplay::silent())
            .await
            .unwrap();
        check(&client, names, &wanted).await.unwrap();
    }
    let allowed = granted(TableUser::InitTables);
    for (operation, table, index) in making.lock().unwrap().clone() {
        let table = table.replace("another", "citystream");
        let asked = (operation, table, index);
        assert!(allowed.contains(&asked), "{asked:?} is not allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_uses_all_the_rights_of_its_policy_and_counts_each_request() {
    let world = World::new(1).await;
    notify::make_table(&world).await;
    let (http, asked) = recorded(&world);
    let config = notify::config("http://127.0.0.1:1/hook");
    let role = notify::start_with(&world, &config, client_through(http).await, &[]);
    world.event(0, "NYC", "traffic", 3, BASE_MS);
    world.flush();
    let requests = |role: &notify::Running, operation| {
        let ended = [operation, &*world.names.incidents, "ok"];
        role.metrics
            .dynamodb_requests
            .with_label_values(&ended)
            .get()
    };
    for operation in ["GetItem", "PutItem", "Query", "UpdateItem"] {
        let is_counted = |role: &notify::Running| requests(role, operation) > 0;
        role.until(operation, is_counted).await;
    }
    role.stop().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), granted(TableUser::Notify));
}
