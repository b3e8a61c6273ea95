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
//! This route never sends an invalid event to Kafka. An event with the status `accepted` is in the log of all replicas.
//! The status `unknown` means that the event may be in the log already, or may arrive there later. If a client resends
//! an event with the status `unknown`, the event may count twice.

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
/// Maximum time for the body of a request to arrive.
const BODY_MAX: Duration = Duration::from_secs(20);
/// Maximum time that a request waits for room in librdkafka's queue or for acknowledgements from Kafka.
const KAFKA_MAX: Duration = Duration::from_secs(10);
/// Maximum time that a request waits for acknowledgements after the role has begun to stop. After this time, the final
/// flush of the producer takes at most eight seconds. systemd ends the process after ten seconds.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The limits of HTTP requests that send events. The deadline is longer than the sum of all waits in a request, because
/// every event that was sent must get its outcome in the answer.
pub(crate) const UPLOADS: Uploads = Uploads {
    path: PATH,
    body_bytes_max: receive::BODY_BYTES_MAX,
    deadline: Duration::from_secs(60),
};

/// The state that all HTTP requests for sending events share. All clones of the state use the same producer.
#[derive(Clone)]
pub(crate) struct EventDoor(Arc<Parts>);

struct Parts {
    producer: Arc<EventProducer>,
    topic: String,
    /// The remaining room in the embedded broker of `dev`, and the number of the topic's partitions.
    credit: Option<(Credit, i32)>,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl EventDoor {
    /// Returns the state of a route through which HTTP clients send events to `topic` until `shutdown` is triggered.
    ///
    /// # Panics
    /// Panics if called outside a Tokio runtime.
    pub(crate) fn new(
        producer: Arc<EventProducer>,
        topic: &str,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> EventDoor {
        // All time series of these metrics are created when the role starts. If a series appeared only with its first
        // event, a `rate()` in Prometheus would miss that event.
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

    /// Requires each event to take credit before it is sent. The topic is in the embedded broker of `dev`, and
    /// `partitions` is its number of partitions.
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

/// Checks the deliveries at regular intervals until the role stops. A stall is detected by comparing two checks.
/// Without regular checks, the first request after a quiet time could wrongly report a stall.
async fn watch_flow(deliveries: Arc<Deliveries>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    while !shutdown.is_triggered() {
        ticks.tick().await;
        let _unused = deliveries.check_flow();
    }
}
