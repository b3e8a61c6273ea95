//! Shuts the consumer down. Within ten seconds, the consumer stops reading, drains its partitions, commits and leaves
//! the group.

use std::time::{Duration, Instant};

use crate::blocking::run_blocking;
use crate::consume::shell::Shell;
use crate::core::pipeline::CommitPart;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kafka::consumer::ConsumerEvent;
use crate::telemetry::steady_ms;

/// Maximum duration of the drain after SIGTERM, in milliseconds.
const SHUTDOWN_DRAIN_MS: i64 = 7_000;
/// Maximum duration of the last commit before the consumer leaves the group.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(1_200);
/// Maximum total time for the drain, the last commit and leaving the group. This time is shorter than the 10 s that a
/// shutdown may take.
const END_TIMEOUT: Duration = Duration::from_millis(9_400);

impl Shell {
    /// Stops reading, drains the partitions, commits and leaves the group.
    pub(super) async fn leave(mut self) -> anyhow::Result<Exit> {
        let started = Instant::now();
        self.stop_rollups();
        let given_up_before = self.pipeline.report().ledger.given_up;
        self.drain().await;
        let parts = self.revokes.take_parts();
        // The shell commits before it closes the Kafka client, so that the next owner of each partition starts at the
        // partition's boundary (INV-1). Without this commit, the next owner would start at an older committed offset,
        // and would read some records a second time.
        self.commit_last(parts).await;
        let ledger = self.pipeline.report().ledger;
        // `given_up` excludes the records that this consumer gave up in earlier rebalances, because other members of
        // the group have read these records.
        let given_up = ledger.given_up - given_up_before;
        let metrics = &self.host.metrics;
        *metrics.ledger.lock().expect("no panic holds the ledger") = ledger;
        // The Kafka client leaves the group when the last handle to it is dropped, and `requests` contains such
        // handles. The channel of events closes after the Kafka client has left the group.
        drop(self.requests);
        let mut events = self.client.close();
        let left = async {
            while let Some(event) = events.recv().await {
                if let ConsumerEvent::Revoked { answer, .. } = event {
                    drop(answer.send(Vec::new()));
                }
            }
        };
        // During a rebalance, Kafka removes a member from the group only after the other members have joined again. If
        // the process exits before that, Kafka keeps this member in the group until its session times out. Until then,
        // no other member reads the partitions of this member.
        let timeout = END_TIMEOUT.saturating_sub(started.elapsed());
        if tokio::time::timeout(timeout, left).await.is_err() {
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
                    .with_remedy("run the command again: it continues where it stopped")
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
                // After the consumer thread has ended, `next_event` returns `None` at once. `None` does not match the
                // pattern, so `select!` waits for the other branches.
                Some(event) = self.client.next_event() => self.event(event),
                Some(done) = self.done.recv() => self.finish(done),
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
        match tokio::time::timeout(COMMIT_TIMEOUT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Kafka refused the last commit"),
            Err(_) => tracing::warn!("Kafka did not answer the last commit in time"),
        }
    }
}
