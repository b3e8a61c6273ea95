//! What must hold for any answer of DynamoDB: the status and the bytes may be anything.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use citystream::core::batch::{Batch, BatchOutcome};
use citystream::core::clock::UnixMs;
use citystream::core::event::{Event, Offset, Severity};
use citystream::core::keys::{TableNames, hash};
use citystream::core::pipeline::Publish;
use citystream::core::plan::{
    Put, PutTable, RowKey, RowUpdate, StoredEvent, Ticket, UpdateOutcome,
};
use citystream::core::restart::Boundary;
use citystream::core::stretch::Sum;
use citystream::store::config::read_config;
use citystream::store::embedded::client_through;
use citystream::store::incidents::IncidentTable;
use citystream::store::reads::{DynamoReads, IncidentFilter, PageRequest, Range, Reads as _};
use citystream::store::write::Writer;
use citystream::telemetry::Metrics;
use tokio::runtime::Runtime;

const STATUSES: [u16; 5] = [200, 400, 413, 500, 503];
const NOW_MS: UnixMs = UnixMs(1_357_020_000_000);
/// The log, and the offsets of the update whose answer is made up.
const LOG: &str = "T#0";
const FIRST: i64 = 7;
const NEXT: i64 = 12;

/// Requests that get the made-up answer. Later ones fail, because a reader of pages would ask for ever if each page said
/// that another follows.
const ANSWERS_MAX: usize = 100;

/// The answer that the next requests get.
#[derive(Clone, Debug, Default)]
struct Answer(Arc<Mutex<(usize, u16, Vec<u8>)>>);

impl Answer {
    fn next(&self) -> (u16, Vec<u8>) {
        let (given, status, body) = &mut *self.0.lock().expect("no panic holds it");
        *given += 1;
        if *given > ANSWERS_MAX {
            return (500, Vec::new());
        }
        (*status, body.clone())
    }
}

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.next();
        let status = StatusCode::try_from(status).expect("a status");
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        let headers = answer.headers_mut();
        headers.insert("content-type", "application/x-amz-json-1.0");
        HttpConnectorFuture::ready(Ok(answer))
    }
}

/// Everything that reads answers.
struct Readers {
    runtime: Runtime,
    answer: Answer,
    client: aws_sdk_dynamodb::Client,
    names: TableNames,
    writer: Writer,
    reads: DynamoReads,
    incidents: IncidentTable,
}

/// Returns the readers, one caller at a time: the next caller would change the answer.
fn readers() -> MutexGuard<'static, Readers> {
    static READERS: OnceLock<Mutex<Readers>> = OnceLock::new();
    let readers = READERS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let answer = Answer::default();
        let connector = SharedHttpConnector::new(answer.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        let client = runtime.block_on(client_through(http)).expect("a client");
        let (names, metrics) = (TableNames::new("c"), Metrics::new());
        let writer = Writer::new(client.clone(), names.clone(), 1_000, metrics.clone());
        Mutex::new(Readers {
            reads: DynamoReads::new(client.clone(), names.clone(), metrics),
            incidents: IncidentTable::new(client.clone(), &names.incidents),
            runtime,
            answer,
            client,
            names,
            writer,
        })
    });
    readers.lock().expect("the check that panics is the last")
}

fn row_update() -> RowUpdate {
    RowUpdate {
        partition: 0,
        assignment: 1,
        row_id: 0,
        row: RowKey {
            series: "NYC#traffic".into(),
            window_start_ms: None,
        },
        log_key: LOG.into(),
        first: Offset(FIRST),
        next: Offset(NEXT),
        sum: Sum::checked([5, 0, 5, 0, 0, 0]).expect("a sum"),
    }
}

fn batch() -> Batch {
    let event = Event {
        city: "NYC".into(),
        event_type: "traffic".into(),
        severity: Severity::Low,
        time_ms: NOW_MS,
        description: "".into(),
        event_id: None,
        extra: None,
    };
    let stored = StoredEvent {
        event,
        event_id: "c-0-7".into(),
        id_hash: hash("c-0-7"),
        topic: "c".into(),
        partition: 0,
        offset: Offset(FIRST),
        late: false,
        future: false,
    };
    let ticket = Ticket {
        partition: 0,
        assignment: 1,
        seq: 0,
    };
    let event = Arc::new(stored);
    Batch {
        id: 1,
        table: PutTable::Raw,
        puts: vec![Put { ticket, event }],
    }
}

/// The first byte chooses the status of the answer, and the other bytes are its body. No answer makes a reader panic,
/// and no answer proves a write unless it shows what was written.
pub(crate) fn answers(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let status = STATUSES[usize::from(*choice) % STATUSES.len()];
    let readers = &*readers();
    *readers.answer.0.lock().expect("no panic holds it") = (0, status, body.to_vec());
    readers.runtime.block_on(async {
        writes(readers, status, body).await;
        reads(readers).await;
    });
}

async fn writes(readers: &Readers, status: u16, body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    let writer = &readers.writer;
    if let Ok((outcome, error)) = writer.update(&row_update(), NOW_MS).await {
        match outcome {
            UpdateOutcome::Counted => {
                assert_eq!(status, 200);
                assert!(text.contains("12"), "the fence is not in {text}");
                assert!(error.is_none());
            }
            UpdateOutcome::Fenced(fence) => {
                assert_ne!(status, 200);
                assert!(fence > Offset(FIRST), "{fence:?} refuses nothing");
            }
            UpdateOutcome::Unknown | UpdateOutcome::Refused => assert!(error.is_some()),
        }
    }
    let (outcome, error) = writer.put(&batch(), NOW_MS).await;
    match outcome {
        BatchOutcome::Stored { unprocessed } => {
            assert_eq!(status, 200);
            assert!(unprocessed.is_empty() || unprocessed == [0]);
        }
        BatchOutcome::Failed { .. } | BatchOutcome::Invalid => assert!(error.is_some()),
    }
    let publish = Publish {
        partition: 0,
        assignment: 1,
        log_key: LOG.into(),
        tables_id: "D".to_owned(),
        boundary: Boundary::begin(Offset(NEXT)),
        watermark_ms: None,
    };
    if writer.publish_progress(&publish).await.is_ok() {
        assert!(text.contains("ConditionalCheckFailed") || status == 200);
    }
    let created = writer.create_progress(&publish).await;
    assert!(created.is_err() || text.contains(LOG), "{text}");
    let read = writer.read_progress(LOG).await;
    assert!(read.is_err() || status == 200);
}

async fn reads(readers: &Readers) {
    let request = || PageRequest {
        range: Range {
            from_ms: UnixMs(0),
            to_ms: NOW_MS,
        },
        limit: 10,
        after: None,
        now_ms: NOW_MS,
    };
    let (reads, city, series) = (&readers.reads, "NYC".to_owned(), "NYC#traffic".to_owned());
    drop(read_config(&readers.client, &readers.names).await);
    drop(reads.events(city.clone(), request()).await);
    drop(reads.alerts(None, None, request()).await);
    drop(reads.incidents(IncidentFilter::default(), request()).await);
    drop(reads.silences().await);
    drop(reads.aggregations(series.clone(), request()).await);
    drop(reads.latest_windows(vec![series]).await);
    drop(reads.rolled_up(NOW_MS).await);
    drop(reads.totals(Some(city)).await);
    drop(readers.incidents.checkpoint("T", 0).await);
    drop(readers.incidents.of_rule("critical").await);
}
