//! Divides a request body into events, sends the valid events to Kafka, and waits for their outcomes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::api::error::ApiError;
use crate::api::server::{BASE_BYTES, ByteShare};
use crate::core::clock::UnixMs;
use crate::core::murmur2::partition_of;
use crate::core::submission::{BodyError, Framing, ValidEvent, judge, split};
use crate::produce::accept::answer::Line;
use crate::produce::accept::{EventDoor, KAFKA_MAX, Parts, STOP_MAX};
use crate::produce::receipts::{BATCH_EVENTS_MAX, EventOutcome, ReceiptBatch};

/// Maximum size of an HTTP response in bytes, not counting the results of individual lines.
const ANSWER_BYTES: usize = 1_024;
/// Pause before a request checks again whether the embedded broker has room for an event.
const CREDIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// The lines of a request body whose valid events were sent to Kafka.
pub(super) struct SentLines {
    pub(super) lines: Vec<Line>,
    /// The outcomes of the valid events; `None` if no event is valid.
    batch: Option<Arc<ReceiptBatch>>,
}

impl EventDoor {
    /// Checks the events of a request body that arrived at `arrival_ms`, and sends the valid events to Kafka. The
    /// function blocks the calling thread.
    ///
    /// # Errors
    /// Returns an error, and sends no event, if the body cannot be divided into events, if memory is short, or if Kafka
    /// cannot accept the events.
    pub(super) fn send(
        &self,
        body: &[u8],
        framing: Framing,
        arrival_ms: UnixMs,
        share: &ByteShare,
    ) -> Result<SentLines, ApiError> {
        let door = &*self.0;
        let items = split(body, framing, BATCH_EVENTS_MAX).map_err(body_error)?;
        let mut lines = Vec::with_capacity(items.len());
        let mut events = Vec::with_capacity(items.len());
        for item in &items {
            lines.push(match judge(item, arrival_ms) {
                Ok(mut event) => {
                    let verdict = Ok(event.event_id.take());
                    events.push(event);
                    let number = item.line;
                    Line { number, verdict }
                }
                Err(reject) => Line::rejected(item.line, reject),
            });
        }
        // Memory for the response is reserved before any event is sent, because the client must learn the outcome of
        // every event that is sent.
        let results = lines.iter().map(|line| line.result_bytes_max(&door.topic));
        let results: usize = ANSWER_BYTES + results.sum::<usize>();
        let copies = events.iter().map(|event| match &event.value {
            Cow::Borrowed(_) => 0,
            Cow::Owned(value) => value.len(),
        });
        let copies: usize = copies.sum();
        if !share.resize(BASE_BYTES + body.len() + copies + results) {
            return Err(ApiError::busy());
        }
        if events.is_empty() {
            return Ok(SentLines { lines, batch: None });
        }
        let batch = door.send_events(&events)?;
        let _fits = share.resize(BASE_BYTES + results);
        let batch = Some(batch);
        Ok(SentLines { lines, batch })
    }
}

impl Parts {
    /// Sends all events to Kafka, or none if there is no room for all of them.
    ///
    /// If the embedded broker of `citystream dev` runs out of room, only the first events of a request are sent. If the
    /// operator has configured a librdkafka queue that is smaller than a batch, a request may also be sent only in
    /// part.
    fn send_events(&self, events: &[ValidEvent<'_>]) -> Result<Arc<ReceiptBatch>, ApiError> {
        let deliveries = self.producer.deliveries();
        deliveries.check_flow().map_err(|why| {
            let public =
                "Kafka does not take events at the moment; nothing of this request was sent";
            ApiError::kafka_unavailable(public, why)
        })?;
        let bytes = events.iter().map(|e| e.city.len() + e.value.len()).sum();
        let receipts = self.producer.receipts();
        let batch = receipts.open(events.len(), bytes, deliveries.elapsed_us());
        let batch = batch.ok_or_else(|| {
            let public = "too many events wait for Kafka; nothing of this request was sent";
            ApiError::kafka_unavailable(public, "the limit of open batches is reached")
        })?;
        let until = Instant::now() + KAFKA_MAX;
        for (index, event) in events.iter().enumerate() {
            let sent = self.wait_for_credit(event, until)
                && self
                    .producer
                    .try_send(&batch, index, &event.city, &event.value)
                    .inspect_err(|error| tracing::debug!(%error, "failed to queue an event"))
                    .is_ok();
            if !sent {
                receipts.cancel_from(&batch, index);
                break;
            }
        }
        Ok(batch)
    }

    /// Waits until the embedded broker of `citystream dev` has room for an event, and reserves the room. Returns false
    /// if the deadline `until` passes or the role stops.
    fn wait_for_credit(&self, event: &ValidEvent<'_>, until: Instant) -> bool {
        let Some((credit, partitions)) = &self.credit else {
            return true;
        };
        let partition = partition_of(event.city.as_bytes(), *partitions);
        while !credit.try_take(partition, event.city.len() + event.value.len()) {
            if Instant::now() >= until || self.shutdown.is_triggered() {
                return false;
            }
            std::thread::sleep(CREDIT_PAUSE);
        }
        true
    }
}

impl SentLines {
    /// Waits until the outcome of every event is known or the time limit passes, and then returns the outcomes. Returns
    /// `None` if no event is valid.
    pub(super) async fn wait(&self, door: &EventDoor) -> Option<Vec<EventOutcome>> {
        let batch = self.batch.as_ref()?;
        tokio::select! {
            () = batch.wait() => {}
            () = tokio::time::sleep(KAFKA_MAX) => {}
            () = async {
                door.0.shutdown.wait().await;
                tokio::time::sleep(STOP_MAX).await;
            } => {}
        }
        Some(batch.outcomes())
    }
}

fn body_error(error: BodyError) -> ApiError {
    match error {
        BodyError::Empty => ApiError::bad_body("the body has no event"),
        BodyError::TooMany => ApiError::too_many_events(BATCH_EVENTS_MAX),
        BodyError::BrokenArray(why) => {
            ApiError::bad_body(format!("the body is not a JSON array: {why}"))
        }
    }
}
