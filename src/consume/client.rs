//! Manages the Kafka client of a consumer. The consumer replaces its Kafka client when a partition stalls.

use std::sync::Arc;

use rdkafka::error::KafkaResult;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::core::clock::SteadyMs;
use crate::core::event::Offset;
use crate::kafka::budget::Budget;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::consumer::Inquiry;
use crate::kafka::consumer::{Consumer, ConsumerEvent};

/// A function that starts a Kafka client with its own memory budget and its own channel of events.
pub(super) type StartClient = Box<
    dyn Fn() -> KafkaResult<(Consumer, Arc<Budget>, UnboundedReceiver<ConsumerEvent>)>
        + Send
        + Sync,
>;

/// The Kafka client that the consumer currently uses.
pub(super) struct Client {
    consumer: Consumer,
    budget: Arc<Budget>,
    events: UnboundedReceiver<ConsumerEvent>,
    start: StartClient,
}

impl Client {
    /// Starts the first Kafka client of the consumer.
    pub(super) fn start(start: StartClient) -> KafkaResult<Client> {
        let (consumer, budget, events) = start()?;
        Ok(Client {
            consumer,
            budget,
            events,
            start,
        })
    }

    /// Starts a new Kafka client, and begins to close the current one. The function does not wait for the end of the
    /// closing, because a stalled client may never finish closing.
    pub(super) fn replace(&mut self) -> KafkaResult<()> {
        let (consumer, budget, events) = (self.start)()?;
        self.budget = budget;
        self.events = events;
        std::mem::replace(&mut self.consumer, consumer).close();
        Ok(())
    }

    /// Waits for the next event from the consumer thread, and returns it. Returns `None` after the consumer thread has
    /// ended.
    pub(super) async fn next_event(&mut self) -> Option<ConsumerEvent> {
        self.events.recv().await
    }

    /// Returns the next event from the consumer thread, if an event has already arrived.
    pub(super) fn try_event(&mut self) -> Option<ConsumerEvent> {
        self.events.try_recv().ok()
    }

    /// Makes the consumer thread start reading a partition at the offset `next`.
    pub(super) fn begin(&self, partition: i32, assignment: u64, next: Offset) {
        self.consumer.begin(partition, assignment, next);
    }

    /// Makes the consumer thread stop reading a partition until [`Client::begin`] is called for that partition.
    pub(super) fn hold(&self, partition: i32) {
        self.consumer.hold(partition);
    }

    /// Returns the time at which the consumer thread last polled Kafka.
    pub(super) fn beat_ms(&self) -> SteadyMs {
        self.consumer.beat_ms()
    }

    /// Returns the errors that the Kafka client has reported.
    pub(super) fn errors(&self) -> ClientErrors {
        self.consumer.client_errors()
    }

    /// Returns a handle that sends blocking requests to Kafka.
    pub(super) fn inquiry(&self) -> Inquiry {
        self.consumer.inquiry()
    }

    /// Returns the memory budget for the records that the Kafka client has read.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Closes the Kafka client. The returned channel delivers events until the client has left the consumer group.
    pub(super) fn close(self) -> UnboundedReceiver<ConsumerEvent> {
        self.consumer.close();
        self.events
    }
}
