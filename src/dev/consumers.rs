//! The consumers of `dev`: the one that works, its successors, and what comes back from the grave.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use dynoxide::Database;
use tokio::sync::Notify;

use crate::api::ops::Probe as _;
use crate::consume::{self, Host, Settled, Status, Wait};
use crate::core::ledger::Ledger;
use crate::core::stall::PATIENCE_MS;
use crate::dev::faults::Faults;
use crate::exit::Exit;
use crate::settings::Consume;
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::telemetry::Metrics;

/// How long a zombie reads before any of its writes goes out: below the time after which its
/// requests would be given up.
const ASLEEP: Duration = Duration::from_secs(4);
/// How long it may take to read its first record: a broker that was stopped is found again slowly.
const BLIND_MOST: Duration = Duration::from_secs(60);
/// How long it writes beside the living at least, and at most if it does not catch up before.
const AWAKE_LEAST: Duration = Duration::from_secs(6);
const AWAKE_MOST: Duration = Duration::from_secs(30);
/// How often a successor is asked whether it works.
const LOOK: Duration = Duration::from_millis(50);

/// What consumers are made from.
#[derive(Clone)]
pub(super) struct Consumers {
    pub(super) args: Consume,
    pub(super) database: Database,
    /// The working consumer's way to the database.
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) status: Arc<Status>,
    pub(super) settled: Settled,
    pub(super) killer: Arc<Notify>,
}

impl Consumers {
    /// Returns what became of the working consumers' records so far.
    pub(super) fn ledger(&self) -> Ledger {
        ledger(&self.metrics)
    }

    /// Runs a consumer, and another one each time it is killed, until one of them ends by itself.
    pub(super) async fn run(&self, shutdown: &Shutdown) -> anyhow::Result<Exit> {
        loop {
            let host = Host {
                metrics: self.metrics.clone(),
                status: Arc::clone(&self.status),
                settled: Some(Arc::clone(&self.settled)),
                producer_time_is_fine: true,
                stall_ms: PATIENCE_MS,
            };
            let (args, client) = (self.args.clone(), self.client.clone());
            let mut running = tokio::spawn(consume::run_with(args, client, host, shutdown.clone()));
            tokio::select! {
                ended = &mut running => return ended.context("the consumer panicked")?,
                () = self.killer.notified() => {
                    tracing::warn!("killing the consumer");
                    running.abort();
                    let _killed = running.await;
                    // What it waited for died with it.
                    for wait in [Wait::Topic, Wait::Tables, Wait::Sink] {
                        self.status.set_waiting(wait, None);
                    }
                }
            }
        }
    }

    /// Ends the working consumer where it stands: nothing is drained, nothing committed. Returns once
    /// its successor works.
    pub(super) async fn kill(&self) {
        self.status
            .set_waiting(Wait::Start, Some("the consumer was killed".to_owned()));
        self.killer.notify_one();
        while self.status.ready().is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs a consumer that knows nothing of the working one: it begins at the last published restart
    /// point, reads for [`ASLEEP`] while nothing of what it would write goes out, and then writes
    /// all of it; `woken` is called then. Its sleep begins once it has read something. Returns what
    /// became of its records.
    pub(super) async fn zombie(
        &self,
        shutdown: &Shutdown,
        woken: &(dyn Fn() + Sync),
    ) -> anyhow::Result<Ledger> {
        let faults = Faults::default();
        faults.hold(true);
        let through = faults.wrap(embedded::embedded(self.database.clone()));
        let client = embedded::client_through(through).await?;
        let metrics = Metrics::new();
        let args = Consume {
            // In a group of its own, nobody takes its partitions away.
            group: format!("zombie-{:x}", fastrand::u32(..)),
            ..self.args.clone()
        };
        let host = Host {
            metrics: metrics.clone(),
            status: Arc::new(Status::new()),
            settled: None,
            producer_time_is_fine: true,
            stall_ms: PATIENCE_MS,
        };
        let mut running = tokio::spawn(consume::run_with(args, client, host, shutdown.clone()));
        let living = async {
            let reads = async {
                while ledger(&metrics).consumed == 0 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _in_time = tokio::time::timeout(BLIND_MOST, reads).await;
            tokio::time::sleep(ASLEEP).await;
            faults.hold(false);
            woken();
            tokio::time::sleep(AWAKE_LEAST).await;
            let caught_up = async {
                while ledger(&metrics).in_flight > 0 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _in_time = tokio::time::timeout(AWAKE_MOST - AWAKE_LEAST, caught_up).await;
        };
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            () = living => None,
        };
        match ended {
            Some(ended) => {
                ended.context("the zombie panicked")??;
            }
            None => {
                running.abort();
                let _killed = running.await;
            }
        }
        Ok(ledger(&metrics))
    }
}

fn ledger(metrics: &Metrics) -> Ledger {
    let ledger = metrics.ledger.lock().expect("no panic holds the ledger");
    ledger.clone()
}
