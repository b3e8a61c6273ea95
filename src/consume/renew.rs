//! Another Kafka client in the place of one that is stuck.
//!
//! The old one is told to close and leaves the group by itself; nobody waits for it, since it may hang
//! for good. Its partitions are given up as if they had been taken away: what was in flight is read
//! again by whoever gets them, and the rows refuse what they have counted.

use std::sync::Arc;

use rdkafka::error::KafkaResult;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::consume::shell::Shell;
use crate::kafka::budget::Budget;
use crate::kafka::consumer::{Consumer, ConsumerEvent};
use crate::telemetry::steady_ms;

/// Makes a client with a budget of its own, and what it tells.
pub(super) type StartConsumer = Box<
    dyn Fn() -> KafkaResult<(Consumer, Arc<Budget>, UnboundedReceiver<ConsumerEvent>)>
        + Send
        + Sync,
>;

impl Shell {
    pub(super) fn renew_consumer(&mut self, stalled: &[i32]) {
        let (consumer, budget, events) = match (self.p.start_consumer)() {
            Ok(started) => started,
            Err(error) => return self.fail(&format!("failed to make a new Kafka client: {error}")),
        };
        tracing::warn!(
            partitions = ?stalled,
            "partitions have records to read and do not move, making a new Kafka client"
        );
        self.p.host.metrics.stalls.inc();
        self.stalls.renewed(stalled);
        let now_ms = steady_ms();
        let all: Vec<i32> = self.p.pipeline.partitions().collect();
        for partition in &all {
            self.forget(*partition);
        }
        self.p.pipeline.revoked(now_ms, &all, true, 0);
        self.p.pipeline.commit_done(now_ms, false);
        // Carries the releases out and gives the last bytes back to the old budget.
        self.act();
        self.generation += 1;
        self.looking = false;
        self.p.locator = self.p.locator.renewed(consumer.inquiry());
        self.p.budget = budget;
        self.p.events = events;
        std::mem::replace(&mut self.p.consumer, consumer).close();
    }
}
