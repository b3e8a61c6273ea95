//! The end of the role: stop reading, drain, commit, leave the group, within ten seconds.

use std::time::{Duration, Instant};

use crate::blocking::run_blocking;
use crate::consume::shell::Shell;
use crate::core::pipeline::CommitPart;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kafka::consumer::ConsumerEvent;
use crate::telemetry::steady_ms;

/// Longest drain after SIGTERM. Together with the last commit and leaving the group it stays below 10 s.
const SHUTDOWN_DRAIN_MS: i64 = 7_000;
/// Longest wait for the last commit, and for the consumer thread to leave the group.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1_200);

impl Shell {
    /// Stops reading, drains, commits and leaves the group.
    pub(super) async fn leave(mut self) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let given_up_before = self.pipeline.report().ledger.given_up;
        self.drain().await;
        let parts = self.revokes.take_parts();
        self.commit_last(parts).await;
        let ledger = self.pipeline.report().ledger;
        // Rebalances before this drain may have given up records as well; their new owners read those.
        let given_up = ledger.given_up - given_up_before;
        let metrics = &self.host.metrics;
        *metrics.ledger.lock().expect("no panic holds the ledger") = ledger;
        // The client leaves the group when its last handle is dropped, and `requests` holds some. After that the
        // channel of events closes.
        drop(self.requests);
        let mut events = self.client.close();
        let left = async {
            while let Some(event) = events.recv().await {
                if let ConsumerEvent::Revoked { answer, .. } = event {
                    drop(answer.send(Vec::new()));
                }
            }
        };
        if tokio::time::timeout(LEAVE_TIMEOUT, left).await.is_err() {
            tracing::warn!("Kafka did not confirm in time that this member left the group");
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(took_ms, "left the group");
        match self.end {
            Some(Err(error)) => Err(error),
            _ if given_up > 0 => {
                anyhow::bail!("{given_up} records are not yet durable and will be read again")
            }
            None if self.options.stop_at_end => anyhow::bail!(
                Failure::new("stopped before the group has committed the end of every partition")
                    .with_remedy("run it again: it continues where it stopped")
            ),
            _ => Ok(Exit::Done),
        }
    }

    async fn drain(&mut self) {
        let partitions: Vec<i32> = self.pipeline.partitions().collect();
        tracing::info!(in_flight = self.pipeline.in_flight(), "draining");
        for partition in &partitions {
            self.client.hold(*partition);
        }
        self.revokes.add(&partitions, None);
        self.pipeline
            .revoked(steady_ms(), &partitions, false, SHUTDOWN_DRAIN_MS);
        loop {
            self.act();
            if self.revokes.are_done() {
                return;
            }
            let wake = self.until_next(100);
            tokio::select! {
                event = self.client.next_event() => if let Some(event) = event { self.event(event) },
                done = self.done.recv() => if let Some(done) = done { self.finish(done) },
                () = tokio::time::sleep(wake) => {}
            }
            self.take_arrived();
        }
    }

    async fn commit_last(&self, parts: Vec<CommitPart>) {
        if parts.is_empty() {
            return;
        }
        let inquiry = self.requests.locator().inquiry();
        let answered = run_blocking(move || inquiry.commit(&parts));
        match tokio::time::timeout(LEAVE_TIMEOUT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last commit was refused"),
            Err(_) => tracing::warn!("the last commit was not answered"),
        }
    }
}
