//! `POST /api/v1/events`: accepts events over HTTP, and answers when Kafka has acknowledged them.
//!
//! | module | holds |
//! |---|---|
//! | `headers` | checks of the request headers: the origin and the format of the body |
//! | `receive` | reading the request body, up to a maximum size |
//! | [`crate::core::submission`] | splitting the body into events, and checking each event |
//! | `sending` | handing valid events to Kafka, and waiting for their outcomes |
//! | `answer` | the answer, with the outcome of each line |
//! | `route` | the route, its metrics and its description |
//!
//! The route `POST /api/v1/events` never sends an invalid event to Kafka. An event with the status `accepted` is stored
//! on all in-sync replicas of its Kafka partition. The status `unknown` means that the event may already be in Kafka's
//! log, or may arrive in the log later. If a client resends an event with the status `unknown`, the event may count
//! twice.

mod answer;
mod headers;
mod receive;
mod route;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use crate::api::server::Uploads;
use crate::produce::credit::Credit;
use crate::produce::deliveries::Deliveries;
use crate::produce::producer::EventProducer;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// The path to which clients send events.
const PATH: &str = "/api/v1/events";
/// Time between two checks for stalled deliveries.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Maximum time to receive the whole body of a request.
const BODY_MAX: Duration = Duration::from_secs(20);
/// Maximum time that a request waits for room in librdkafka's queue or for acknowledgements from Kafka.
const KAFKA_MAX: Duration = Duration::from_secs(10);
/// Maximum time that a request waits for acknowledgements after the role has begun to stop. After a request to stop,
/// the final flush of the producer may take eight seconds, and systemd ends the process after ten seconds.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The limits of HTTP requests that send events. The deadline of a request is longer than the sum of all waits in the
/// request, so that the response can report the outcome of every sent event.
pub(crate) const UPLOADS: Uploads = Uploads {
    path: PATH,
    body_bytes_max: receive::BODY_BYTES_MAX,
    deadline: Duration::from_secs(60),
};

/// The state that all HTTP requests to send events share. All clones of an `EventDoor` use the same Kafka producer.
#[derive(Clone)]
pub(crate) struct EventDoor(Arc<Parts>);

struct Parts {
    producer: Arc<EventProducer>,
    topic: String,
    /// The remaining room in the embedded Kafka broker of `citystream dev`, and the number of the topic's partitions.
    credit: Option<(Credit, i32)>,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl EventDoor {
    /// Returns the shared state of the route that sends the events of HTTP clients to `topic`. The route accepts events
    /// until `shutdown` is triggered.
    ///
    /// # Panics
    /// Panics if called outside a Tokio runtime.
    pub(crate) fn new(
        producer: Arc<EventProducer>,
        topic: &str,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> EventDoor {
        // All time series that count received requests and events are created when the role starts. If a time series
        // appeared only with its first event, a `rate()` in Prometheus would miss that event.
        let (requests, events) = (&metrics.ingest_requests, &metrics.ingest_events);
        for status in ["200", "422", "503"] {
            requests.with_label_values(&[status]).inc_by(0);
        }
        for outcome in ["accepted", "rejected", "unknown", "not_sent"] {
            events.with_label_values(&[outcome]).inc_by(0);
        }
        tokio::spawn(watch_flow(producer.deliveries(), shutdown.clone()));
        EventDoor(Arc::new(Parts {
            producer,
            topic: topic.to_owned(),
            credit: None,
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        }))
    }

    /// Makes each event wait until `credit` has room for the event. `partitions` is the number of partitions of the
    /// topic, which is in the embedded broker of `citystream dev`.
    #[must_use]
    pub(crate) fn with_credit(self, credit: Credit, partitions: i32) -> EventDoor {
        let parts = &*self.0;
        EventDoor(Arc::new(Parts {
            producer: Arc::clone(&parts.producer),
            topic: parts.topic.clone(),
            credit: Some((credit, partitions)),
            metrics: parts.metrics.clone(),
            shutdown: parts.shutdown.clone(),
        }))
    }
}

/// Checks at regular intervals whether deliveries have stalled, until the role stops. The task detects a stall by
/// comparing the counts of two checks. Without regular checks, the first HTTP request after a quiet time could wrongly
/// report a stall.
async fn watch_flow(deliveries: Arc<Deliveries>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    while !shutdown.is_triggered() {
        ticks.tick().await;
        let _unused = deliveries.check_flow();
    }
}
