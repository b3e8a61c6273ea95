//! The embedded broker, on a thread of its own, since its handle must not move between threads.

use std::sync::mpsc::{self, Sender};

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;

/// The only broker of the cluster.
const BROKER: i32 = 1;

/// A running broker; it ends with its handle.
#[derive(Debug)]
pub(super) struct Broker {
    /// Where it listens.
    pub(super) servers: String,
    reachable: Sender<bool>,
}

impl Broker {
    /// Starts a broker with these topics and their numbers of partitions.
    pub(super) fn start(topics: Vec<(String, i32)>) -> anyhow::Result<Broker> {
        let (reachable, asked) = mpsc::channel();
        let (told, started) = mpsc::channel();
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || match cluster(&topics) {
                Ok(cluster) => {
                    let servers = cluster.bootstrap_servers();
                    if told.send(Ok(servers)).is_ok() {
                        obey(&cluster, &asked);
                    }
                }
                Err(error) => drop(told.send(Err(error))),
            })
            .context("failed to start a thread")?;
        let servers = started.recv().context("the embedded broker panicked")??;
        Ok(Broker { servers, reachable })
    }

    /// Cuts all connections and takes no new one, or takes them again.
    pub(super) fn set_reachable(&self, reachable: bool) {
        if self.reachable.send(reachable).is_err() {
            tracing::warn!("the embedded broker has ended");
        }
    }
}

fn cluster(
    topics: &[(String, i32)],
) -> anyhow::Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(BROKER).context("failed to start the embedded broker")?;
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1)?;
    }
    Ok(cluster)
}

fn obey(
    cluster: &MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    asked: &mpsc::Receiver<bool>,
) {
    while let Ok(reachable) = asked.recv() {
        let done = if reachable {
            cluster.broker_up(BROKER)
        } else {
            cluster.broker_down(BROKER)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the embedded broker does not obey");
        }
    }
}
