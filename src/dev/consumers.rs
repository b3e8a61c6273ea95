//! The consumers of `dev`: the active one, the successor of each killed one, and zombies.
//!
//! A zombie is a consumer that others believe to be dead: it reads for a while, its writes are held
//! back, and then all of them reach the tables at once. The fences must reject what was counted before.

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
use crate::dev::faults::WriteFaults;
use crate::exit::Exit;
use crate::produce::credit::Credit;
use crate::settings::Consume;
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::telemetry::Metrics;

/// How long a zombie reads while its writes are held back. Its requests would time out later.
const ASLEEP: Duration = Duration::from_secs(4);
/// Longest wait for a zombie's first record. Clients reconnect slowly to a broker that was stopped.
const FIRST_RECORD_MAX: Duration = Duration::from_secs(60);
/// How long a zombie writes in addition to the active consumer.
const AWAKE_MIN: Duration = Duration::from_secs(6);
/// When a zombie ends that has not caught up before.
const AWAKE_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at a consumer's state.
const POLL: Duration = Duration::from_millis(50);

/// Everything that a consumer is started with.
#[derive(Clone)]
pub(crate) struct Consumers {
    /// The settings.
    pub(crate) args: Consume,
    /// The database, to which each zombie connects with its own client.
    pub(crate) database: Database,
    /// The active consumer's client of the database.
    pub(crate) client: Client,
    /// Where the active consumer counts.
    pub(crate) metrics: Metrics,
    /// The state of the active consumer.
    pub(crate) status: Arc<Status>,
    /// Receives the boundary of each partition.
    pub(crate) settled: Settled,
    /// Kills the active consumer.
    pub(crate) killer: Arc<Notify>,
}

impl Consumers {
    /// Returns consumers whose active one writes through `faults` and gives credit back.
    ///
    /// # Errors
    /// If the client of the database cannot be made.
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
            status: Arc::new(Status::new()),
            settled: Arc::new(move |partition, next| credit.settle(partition, next)),
            killer: Arc::new(Notify::new()),
        })
    }

    /// Returns the outcomes of all records that active consumers have read so far.
    pub(crate) fn ledger(&self) -> Ledger {
        ledger(&self.metrics)
    }

    /// Runs the active consumer and starts a successor each time it is killed. Returns when one of
    /// them ends by itself.
    ///
    /// # Errors
    /// The error that ended the consumer.
    pub(crate) async fn run(&self, shutdown: &Shutdown) -> anyhow::Result<Exit> {
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
                    // Its successor reports its own waits.
                    for wait in [Wait::Topic, Wait::Tables, Wait::Sink] {
                        self.status.set_waiting(wait, None);
                    }
                }
            }
        }
    }

    /// Kills the active consumer without draining or committing anything. Returns when its successor
    /// is ready.
    pub(crate) async fn kill(&self) {
        self.status
            .set_waiting(Wait::Start, Some("the consumer was killed".to_owned()));
        self.killer.notify_one();
        while self.status.ready().is_err() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a zombie and returns the outcomes of its records.
    ///
    /// It begins at the last published restart point. For [`ASLEEP`] after its first record its writes
    /// are held back. Then `woken` is called, and all of them go out.
    ///
    /// # Errors
    /// The error that ended the zombie.
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
            // In its own group no other member takes its partitions away.
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
