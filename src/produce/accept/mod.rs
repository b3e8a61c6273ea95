//! `POST /api/v1/events`: takes events over HTTP, and answers when Kafka has acknowledged them.
//!
//! | module | holds |
//! |---|---|
//! | `headers` | who may send events, and what a body is |
//! | `receive` | the body, within a limit of bytes |
//! | [`crate::core::submission`] | the body's events, and which of them are valid |
//! | `sending` | handing valid events to Kafka, and waiting for their outcomes |
//! | `answer` | what became of each line |
//! | `route` | the route, its metrics and its description |
//!
//! An invalid event never reaches Kafka from here. An event with the status `accepted` is in the log of all replicas.
//! The status `unknown` says that the event may be in the log, or may arrive there later. A client that sends an event
//! again can therefore make it count twice.

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
/// Time between two looks at the deliveries.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long the body of a request may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(20);
/// How long a request waits for room in Kafka's queue and for its acknowledgements.
const KAFKA_MAX: Duration = Duration::from_secs(10);
/// How long a request waits for its acknowledgements after the role has begun to stop. The flush afterwards takes at
/// most eight seconds, and systemd ends the process after ten seconds.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The limits of the requests with events. The deadline is longer than all waits of a request together, because a
/// request whose events are on their way must be answered with their outcomes.
pub(crate) const UPLOADS: Uploads = Uploads {
    path: PATH,
    body_bytes_max: receive::BODY_BYTES_MAX,
    deadline: Duration::from_secs(60),
};

/// What the requests with events share. All clones share the producer.
#[derive(Clone)]
pub(crate) struct EventDoor(Arc<Parts>);

struct Parts {
    producer: Arc<EventProducer>,
    topic: String,
    /// The room that is left in the embedded broker of `dev`, and its number of partitions.
    credit: Option<(Credit, i32)>,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl EventDoor {
    /// Returns a door through which clients send events to `topic` until `shutdown`.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub(crate) fn new(
        producer: Arc<EventProducer>,
        topic: &str,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> EventDoor {
        // The series exist from the start. If a series appeared only with its first event, a rate would miss that
        // event.
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

    /// Takes credit for each event, for a topic with `partitions` partitions in the embedded broker.
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

/// Looks at the deliveries until `shutdown`, because a stall is measured between two looks. Without this, the first
/// request after a quiet time could see a stall.
async fn watch_flow(deliveries: Arc<Deliveries>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    while !shutdown.is_triggered() {
        ticks.tick().await;
        let _unused = deliveries.check_flow();
    }
}
