//! Stops the role.

use std::time::Duration;

use super::{NotifyRole, TICK};
use crate::exit::Exit;
use crate::kafka::consumer::ConsumerEvent;
use crate::telemetry::steady_ms;

/// Maximum time to wait for DynamoDB, and then for Kafka, while the role stops.
const STOP_MAX: Duration = Duration::from_secs(5);

impl NotifyRole {
    /// Completes the writes in progress, publishes the checkpoints, and leaves the group.
    pub(super) async fn stop(mut self) -> anyhow::Result<Exit> {
        let deadline = tokio::time::Instant::now() + STOP_MAX;
        self.partitions.hurry();
        self.publish();
        while self.partitions.is_busy() && tokio::time::Instant::now() < deadline {
            // After a failed write, the loop waits until the pause is over.
            if let Ok(Some(done)) = tokio::time::timeout(TICK, self.done.recv()).await {
                self.finish(done);
            }
            self.partitions.write_rows(steady_ms());
            self.publish();
        }
        let NotifyRole {
            consumer,
            mut events,
            starter,
            end,
            ..
        } = self;
        drop(starter);
        consumer.close();
        let left = async {
            while let Some(event) = events.recv().await {
                if let ConsumerEvent::Revoked { answer, .. } = event {
                    drop(answer.send(Vec::new()));
                }
            }
        };
        if tokio::time::timeout(STOP_MAX, left).await.is_err() {
            tracing::warn!("left the group without an answer");
        }
        end.unwrap_or(Ok(())).map(|()| Exit::Done)
    }
}
