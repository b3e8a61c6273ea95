//! The consumers of `dev`: the active consumer, its successor after a kill, and zombies.
//!
//! A zombie is a consumer that other consumers believe to be dead. A zombie of `dev` reads records while `dev` holds
//! its writes back. When the held-back writes reach the tables all at once, the fences must reject the records that are
//! already counted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use dynoxide::Database;
use tokio::sync::Notify;

use crate::api::ops::Probe as _;
use crate::consume::{self, ConsumeStatus, ConsumeWait, Host, RollupPace, SettledCallback};
use crate::core::ledger::Ledger;
use crate::core::stall::PATIENCE_MS;
use crate::dev::faults::WriteFaults;
use crate::exit::Exit;
use crate::produce::credit::Credit;
use crate::settings::Consume;
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::telemetry::Metrics;

/// Time for which a zombie reads while its writes are held back. A longer time would make the held-back requests of the
/// zombie time out.
const ASLEEP: Duration = Duration::from_secs(4);
/// Maximum time until a zombie reads its first record. Clients reconnect slowly to a broker that was stopped.
const FIRST_RECORD_MAX: Duration = Duration::from_secs(60);
/// Minimum time for which a zombie writes alongside the active consumer.
const AWAKE_MIN: Duration = Duration::from_secs(6);
/// Maximum time for which a zombie writes. A zombie ends earlier if it has nothing left to write.
const AWAKE_MAX: Duration = Duration::from_secs(30);
/// Time between two checks of a consumer's state.
const POLL: Duration = Duration::from_millis(50);

/// The settings and clients with which `dev` starts each consumer.
#[derive(Clone)]
pub(crate) struct Consumers {
    /// The settings of `consume`.
    pub(crate) args: Consume,
    /// The embedded database, to which each zombie connects with its own client.
    pub(crate) database: Database,
    /// The database client of the active consumer.
    pub(crate) client: Client,
    /// The metrics of the active consumer.
    pub(crate) metrics: Metrics,
    /// The status of the active consumer.
    pub(crate) status: Arc<ConsumeStatus>,
    /// A callback that receives the durable boundary of each partition.
    pub(crate) settled: SettledCallback,
    /// The signal that makes `dev` kill the active consumer.
    pub(crate) killer: Arc<Notify>,
}

impl Consumers {
    /// Returns the consumers of `dev`. The active consumer sends its writes through `faults`. When records become
    /// durable, the active consumer gives their credit back, so that the producer may send more events.
    ///
    /// # Errors
    /// Returns an error if the client of the database cannot be created.
    pub(crate) async fn new(
        args: Consume,
        database: Database,
        faults: &WriteFaults,
        credit: &Credit,
        metrics: &Metrics,
    ) -> anyhow::Result<Consumers> {
        let faulty = faults.wrap(embedded::embedded(database.clone()));
        let credit = credit.clone();
        Ok(Consumers {
            args,
            database,
            client: embedded::client_through(faulty).await?,
            metrics: metrics.clone(),
            status: Arc::new(ConsumeStatus::default()),
            settled: Arc::new(move |partition, next| credit.settle(partition, next)),
            killer: Arc::new(Notify::new()),
        })
    }

    /// Returns the counts, by outcome, of all records that active consumers have read since `dev` started.
    pub(crate) fn ledger(&self) -> Ledger {
        ledger(&self.metrics)
    }

    /// Runs the active consumer, and starts a successor each time the active consumer is killed. Returns when a
    /// consumer ends by itself.
    ///
    /// # Errors
    /// Returns the error with which the consumer ended.
    pub(crate) async fn run(&self, shutdown: &Shutdown) -> anyhow::Result<Exit> {
        loop {
            let host = Host {
                metrics: self.metrics.clone(),
                status: Arc::clone(&self.status),
                settled: Some(Arc::clone(&self.settled)),
                producer_time_is_fine: true,
                stall_ms: PATIENCE_MS,
                rollups: Some(RollupPace::EMBEDDED),
            };
            let (args, client) = (self.args.clone(), self.client.clone());
            let mut running = tokio::spawn(consume::run_with(args, client, host, shutdown.clone()));
            tokio::select! {
                ended = &mut running => return ended.context("the consumer panicked")?,
                () = self.killer.notified() => {
                    tracing::warn!("killing the consumer");
                    running.abort();
                    let _killed = running.await;
                    // The successor reports its own reasons for waiting, so the reasons that the killed consumer
                    // reported are removed.
                    for wait in [ConsumeWait::Topic, ConsumeWait::Tables, ConsumeWait::Sink] {
                        self.status.set_waiting(wait, None);
                    }
                }
            }
        }
    }

    /// Kills the active consumer without a drain or a commit. Returns when its successor is ready.
    pub(crate) async fn kill(&self) {
        self.status.set_waiting(
            ConsumeWait::Start,
            Some("the consumer was killed".to_owned()),
        );
        self.killer.notify_one();
        while self.status.ready().is_err() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a zombie, and returns the counts, by outcome, of the records that the zombie has read.
    ///
    /// The zombie starts reading at the last stored restart point. The function holds the zombie's writes back until
    /// the duration [`ASLEEP`] has passed since the zombie read its first record. When the held-back writes are
    /// released to the tables, the function calls `woken`.
    ///
    /// # Errors
    /// Returns the error with which the zombie ended.
    pub(crate) async fn run_zombie(
        &self,
        shutdown: &Shutdown,
        woken: &(dyn Fn() + Sync),
    ) -> anyhow::Result<Ledger> {
        let faults = WriteFaults::default();
        faults.hold(true);
        let through = faults.wrap(embedded::embedded(self.database.clone()));
        let client = embedded::client_through(through).await?;
        let metrics = Metrics::new();
        let args = Consume {
            // The zombie has its own consumer group, so the active consumer cannot take partitions away from the
            // zombie.
            group: format!("zombie-{:x}", fastrand::u32(..)),
            ..self.args.clone()
        };
        let host = Host {
            metrics: metrics.clone(),
            status: Arc::new(ConsumeStatus::default()),
            settled: None,
            producer_time_is_fine: true,
            stall_ms: PATIENCE_MS,
            rollups: None,
        };
        let mut running = tokio::spawn(consume::run_with(args, client, host, shutdown.clone()));
        let life = async {
            let reads = async {
                while ledger(&metrics).consumed == 0 {
                    tokio::time::sleep(POLL).await;
                }
            };
            let _in_time = tokio::time::timeout(FIRST_RECORD_MAX, reads).await;
            tokio::time::sleep(ASLEEP).await;
            faults.hold(false);
            woken();
            tokio::time::sleep(AWAKE_MIN).await;
            let caught_up = async {
                while ledger(&metrics).in_flight > 0 {
                    tokio::time::sleep(POLL).await;
                }
            };
            let _in_time = tokio::time::timeout(AWAKE_MAX - AWAKE_MIN, caught_up).await;
        };
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            () = life => None,
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
