//! The end of the role: stop reading, drain, commit, leave the group, within ten seconds.

use std::time::{Duration, Instant};

use crate::blocking::run_blocking;
use crate::consume::shell::{Leaving, Shell};
use crate::core::pipeline::CommitPart;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kafka::consumer::Event;
use crate::telemetry::steady_ms;

/// Longest drain after SIGTERM; with committing and leaving the group it stays below 10 s.
const SHUTDOWN_DRAIN_MS: i64 = 7_000;
/// Longest wait for the last commit, and for the consumer thread to leave the group.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1_200);

impl Shell {
    /// Stops reading, drains, commits, leaves the group.
    pub(super) async fn leave(mut self) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let partitions: Vec<i32> = self.p.pipeline.partitions().collect();
        self.given_up_before = self.p.pipeline.report().ledger.given_up;
        tracing::info!(in_flight = self.p.pipeline.in_flight(), "draining");
        for partition in &partitions {
            self.p.consumer.hold(*partition);
        }
        self.leaving.push(Leaving {
            waiting: partitions.iter().copied().collect(),
            parts: Vec::new(),
            answer: None,
        });
        self.p
            .pipeline
            .revoked(steady_ms(), &partitions, false, SHUTDOWN_DRAIN_MS);
        loop {
            self.act();
            if self.leaving.iter().all(|l| l.waiting.is_empty()) {
                break;
            }
            let wake = self
                .p
                .pipeline
                .next_ms()
                .map_or(100, |ms| (ms - steady_ms()).clamp(0, 100));
            tokio::select! {
                event = self.p.events.recv() => if let Some(event) = event { self.event(event) },
                done = self.done.recv() => if let Some(done) = done { self.finish(done) },
                () = tokio::time::sleep(Duration::from_millis(wake.unsigned_abs())) => {}
            }
            self.take_waiting();
        }
        let parts: Vec<CommitPart> = self.leaving.drain(..).flat_map(|l| l.parts).collect();
        self.last_commit(&parts).await;
        let ledger = self.p.pipeline.report().ledger;
        // Given up by this last drain, as opposed to earlier rebalances.
        let left_behind = ledger.given_up - self.given_up_before;
        *self
            .p
            .host
            .metrics
            .ledger
            .lock()
            .expect("no panic holds the ledger") = ledger;
        // The client leaves the group when its last handle goes, on the consumer thread if nothing
        // else holds one; the channel closes once it has.
        drop(self.p.locator);
        self.p.consumer.close();
        let left = async {
            while let Some(event) = self.p.events.recv().await {
                if let Event::Revoked { answer, .. } = event {
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
            _ if left_behind > 0 => {
                anyhow::bail!("{left_behind} records are not yet durable and will be read again")
            }
            None if self.p.stop_at_end => anyhow::bail!(
                Failure::new("stopped before the group has committed the end of every partition")
                    .with_remedy("run it again: it continues where it stopped")
            ),
            _ => Ok(Exit::Done),
        }
    }

    async fn last_commit(&self, parts: &[CommitPart]) {
        if parts.is_empty() {
            return;
        }
        let (inquiry, parts) = (self.p.locator.inquiry(), parts.to_vec());
        let answered = run_blocking(move || inquiry.commit(&parts));
        match tokio::time::timeout(LEAVE_TIMEOUT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last commit was refused"),
            Err(_) => tracing::warn!("the last commit was not answered"),
        }
    }
}
