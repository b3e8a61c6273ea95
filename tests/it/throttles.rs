//! Tests of many writes that are throttled at once. The SDK shares one retry budget between all requests of a client,
//! and a fraction of these writes would use it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use citystream::core::clock::UnixMs;
use citystream::core::event::Offset;
use citystream::core::keys::TableNames;
use citystream::core::pace::backoff_ms;
use citystream::core::plan::{RowKey, RowUpdate, UpdateOutcome};
use citystream::core::stretch::Sum;
use citystream::store::client::{ConnectOptions, connect};
use citystream::store::embedded::embedded;
use citystream::store::write::Writer;
use citystream::tables::dynamodb::{WantedTables, ensure};
use citystream::tables::steps::StepDisplay;
use citystream::telemetry::Metrics;
use dynoxide::Database;

const WRITES: u32 = 500;
const THROTTLES_EACH: u32 = 3;

/// Throttles the first requests.
#[derive(Debug)]
struct Throttling {
    inner: SharedHttpConnector,
    left: Arc<AtomicU32>,
}

impl HttpConnector for Throttling {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let taken = |left: u32| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken);
        if left.is_err() {
            return self.inner.call(request);
        }
        let body = r#"{"__type":"x#ThrottlingException","message":"made up by a test"}"#;
        let status = StatusCode::try_from(400).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

fn update(n: u32) -> RowUpdate {
    let sum = Sum {
        event_count: 1,
        late_count: 0,
        severities: [1, 0, 0, 0],
    };
    RowUpdate {
        partition: 0,
        assignment: 1,
        row_id: n,
        row: RowKey {
            series: format!("city {n}#traffic").into(),
            window_start_ms: None,
        },
        log_key: "T#0".into(),
        first: Offset(i64::from(n)),
        next: Offset(i64::from(n) + 1),
        sum,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_writes_throttled_at_once_are_all_written_in_the_end() {
    let left = Arc::new(AtomicU32::new(0));
    let (plain, counter) = (embedded(Database::memory().unwrap()), Arc::clone(&left));
    let client = connect(ConnectOptions {
        attempts: 1,
        http: Some(http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Throttling {
                inner: plain.http_connector(settings, components),
                left: Arc::clone(&counter),
            })
        })),
        endpoint_url: Some("http://embedded.invalid".to_owned()),
        test_credentials: true,
        ..ConnectOptions::default()
    })
    .await
    .unwrap();
    let names = TableNames::new("citystream");
    ensure(
        &client,
        &names,
        &WantedTables::default(),
        &StepDisplay::silent(),
    )
    .await
    .unwrap();
    let metrics = Metrics::new();
    let writer = Writer::new(client, names.clone(), 1_000, metrics.clone());
    writer.set_tables(1, 300_000);
    left.store(WRITES * THROTTLES_EACH, Ordering::SeqCst);
    let write = |n: u32| {
        let writer = writer.clone();
        tokio::spawn(async move {
            let update = update(n);
            for attempt in 1.. {
                let (outcome, error) = writer.update(&update, UnixMs(0)).await.unwrap();
                match outcome {
                    UpdateOutcome::Counted => return attempt,
                    UpdateOutcome::Refused => {
                        let text = error.unwrap().to_string();
                        assert!(text.contains("ThrottlingException"), "{text}");
                    }
                    other => panic!("{other:?} {error:?}"),
                }
                let wait = backoff_ms(attempt, fastrand::u32(..)).unsigned_abs();
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            unreachable!("attempts have no end")
        })
    };
    let mut attempts = 0;
    for task in (0..WRITES).map(write).collect::<Vec<_>>() {
        attempts += task.await.unwrap();
    }
    // The writer saw each refusal: the SDK retried none by itself.
    assert_eq!(attempts, WRITES * (1 + THROTTLES_EACH));
    let refused = metrics
        .dynamodb_requests
        .with_label_values(&["UpdateItem", &names.totals, "throttled"])
        .get();
    assert_eq!(refused, u64::from(WRITES * THROTTLES_EACH));
}
