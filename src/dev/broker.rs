//! The embedded broker. The broker runs in its own thread, because the handle of the mock cluster must not move between
//! threads.

use std::sync::mpsc::{self, Sender};

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;

/// The id of the embedded broker. The cluster has no other broker.
const BROKER: i32 = 1;

/// A running embedded broker, which stops when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    /// The address of the broker, as `host:port`.
    pub(crate) servers: String,
    switch: Sender<bool>,
}

impl Broker {
    /// Starts a broker with the given topics, each with its number of partitions.
    ///
    /// # Errors
    /// Returns an error if librdkafka cannot start the broker or create a topic.
    pub(crate) fn start(topics: Vec<(String, i32)>) -> anyhow::Result<Broker> {
        let (switch, switched) = mpsc::channel();
        let (report, started) = mpsc::channel();
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || match start_cluster(&topics) {
                Ok(cluster) => {
                    let servers = cluster.bootstrap_servers();
                    if report.send(Ok(servers)).is_ok() {
                        follow_switch(&cluster, &switched);
                    }
                }
                Err(error) => drop(report.send(Err(error))),
            })
            .context("failed to start a thread")?;
        let servers = started.recv().context("the embedded broker panicked")??;
        Ok(Broker { servers, switch })
    }

    /// If `reachable` is false, makes the broker close all connections and refuse new connections. If `reachable` is
    /// true, makes the broker accept connections again.
    pub(crate) fn set_reachable(&self, reachable: bool) {
        if self.switch.send(reachable).is_err() {
            tracing::warn!("the embedded broker has ended");
        }
    }
}

fn start_cluster(
    topics: &[(String, i32)],
) -> anyhow::Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(BROKER).context("failed to start the embedded broker")?;
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1)?;
    }
    Ok(cluster)
}

fn follow_switch(
    cluster: &MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    switched: &mpsc::Receiver<bool>,
) {
    while let Ok(reachable) = switched.recv() {
        let done = if reachable {
            cluster.broker_up(BROKER)
        } else {
            cluster.broker_down(BROKER)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "failed to switch the embedded broker");
        }
    }
}
