//! The Kafka client of a consumer, and its replacement when partitions stand still.

use std::sync::Arc;

use rdkafka::error::KafkaResult;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::core::event::Offset;
use crate::kafka::budget::Budget;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::consumer::{Consumer, ConsumerEvent};
use crate::kafka::inquiry::Inquiry;

/// Starts a client with a memory budget and a channel of its own.
pub(super) type StartClient = Box<
    dyn Fn() -> KafkaResult<(Consumer, Arc<Budget>, UnboundedReceiver<ConsumerEvent>)>
        + Send
        + Sync,
>;

/// The Kafka client that reads now.
pub(super) struct Client {
    consumer: Consumer,
    budget: Arc<Budget>,
    events: UnboundedReceiver<ConsumerEvent>,
    start: StartClient,
}

impl Client {
    /// Starts the first client.
    pub(super) fn start(start: StartClient) -> KafkaResult<Client> {
        let (consumer, budget, events) = start()?;
        Ok(Client {
            consumer,
            budget,
            events,
            start,
        })
    }

    /// Starts another client and closes this one. It does not wait for the close, which may never end.
    pub(super) fn replace(&mut self) -> KafkaResult<()> {
        let (consumer, budget, events) = (self.start)()?;
        self.budget = budget;
        self.events = events;
        std::mem::replace(&mut self.consumer, consumer).close();
        Ok(())
    }

    /// Waits for the next event; `None` once the consumer thread has ended.
    pub(super) async fn next_event(&mut self) -> Option<ConsumerEvent> {
        self.events.recv().await
    }

    /// Returns the next event that has arrived.
    pub(super) fn try_event(&mut self) -> Option<ConsumerEvent> {
        self.events.try_recv().ok()
    }

    /// Reads a partition from `next` on.
    pub(super) fn begin(&self, partition: i32, assignment: u64, next: Offset) {
        self.consumer.begin(partition, assignment, next);
    }

    /// Stops reading a partition until [`Client::begin`].
    pub(super) fn hold(&self, partition: i32) {
        self.consumer.hold(partition);
    }

    /// Returns when the consumer thread polled last, in milliseconds of the monotonic clock.
    pub(super) fn beat_ms(&self) -> i64 {
        self.consumer.beat_ms()
    }

    /// Returns the errors that the client has logged.
    pub(super) fn errors(&self) -> ClientErrors {
        self.consumer.client_errors()
    }

    /// Returns a handle for questions to Kafka.
    pub(super) fn inquiry(&self) -> Inquiry {
        self.consumer.inquiry()
    }

    /// Returns the memory budget for records.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Closes the client. Its events go on until it has left the group.
    pub(super) fn close(self) -> UnboundedReceiver<ConsumerEvent> {
        self.consumer.close();
        self.events
    }
}
