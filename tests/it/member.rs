//! A consumer that runs inside this process, as `consume` runs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use citystream::consume::{ConsumeStatus, Host, RollupPace, run_with};
use citystream::exit::Exit;
use citystream::settings::Consume;
use citystream::shutdown::Shutdown;
use citystream::telemetry::Metrics;

use crate::world::WAIT_MAX;

/// A running consumer.
pub(crate) struct Member {
    pub(crate) stop: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) status: Arc<ConsumeStatus>,
    task: tokio::task::JoinHandle<anyhow::Result<Exit>>,
}

impl Member {
    pub(crate) fn start(args: Consume, client: Client, stall_ms: i64) -> Member {
        Member::start_with(args, client, stall_ms, None)
    }

    pub(crate) fn start_with(
        args: Consume,
        client: Client,
        stall_ms: i64,
        rollups: Option<RollupPace>,
    ) -> Member {
        let (stop, metrics) = (Shutdown::default(), Metrics::new());
        let status = Arc::new(ConsumeStatus::default());
        let host = Host {
            metrics: metrics.clone(),
            status: Arc::clone(&status),
            settled: None,
            producer_time_is_fine: true,
            stall_ms,
            rollups,
        };
        let task = tokio::spawn(run_with(args, client, host, stop.clone()));
        Member {
            stop,
            metrics,
            status,
            task,
        }
    }

    /// Waits until the consumer ends by itself.
    pub(crate) async fn end(self) -> anyhow::Result<Exit> {
        let ended = tokio::time::timeout(WAIT_MAX, self.task).await;
        ended.expect("it ends").unwrap()
    }

    /// Stops the consumer as SIGTERM does.
    pub(crate) async fn stop(self) -> anyhow::Result<Exit> {
        self.stop.trigger();
        self.end().await
    }

    /// Ends the consumer as SIGKILL does.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    pub(crate) fn ledger(&self) -> citystream::core::ledger::Ledger {
        self.metrics.ledger.lock().unwrap().clone()
    }

    /// Waits until `is` returns true of this consumer.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Member) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            assert!(!self.task.is_finished(), "it ended before: {what}");
            assert!(begun.elapsed() < WAIT_MAX, "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
