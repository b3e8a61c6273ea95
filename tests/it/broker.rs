//! Brokers inside this process: librdkafka's mock cluster, without its wait of 3 s before a group's first rebalance.
#![allow(unsafe_code)]

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka_sys as rdsys;

/// A cluster that lives as long as the process.
pub(crate) type Broker = MockCluster<'static, DefaultProducerContext>;

/// How long a new group waits for more members. The mock's default is that of Apache Kafka, 3 s. Nearly every test
/// starts a group, so this wait would be most of the suite's time.
const FIRST_REBALANCE: Duration = Duration::from_millis(200);

/// Starts a cluster of `brokers` brokers.
pub(crate) fn start_brokers(brokers: i32) -> Broker {
    // The safe wrapper cannot set the delay, and it keeps the cluster's handle to itself. A cluster that belongs to a
    // producer can be reached through that producer. The producer must outlive the cluster, so it is never dropped.
    let producer: BaseProducer = ClientConfig::new()
        .set("test.mock.num.brokers", brokers.to_string())
        .create()
        .unwrap();
    let producer: &'static BaseProducer = Box::leak(Box::new(producer));
    let client = producer.client();
    let delay_ms = i32::try_from(FIRST_REBALANCE.as_millis()).unwrap();
    // SAFETY: the producer and its cluster are never destroyed, and the function sets the value under the cluster's
    // own lock.
    unsafe {
        let cluster = rdsys::rd_kafka_handle_mock_cluster(client.native_ptr());
        assert!(!cluster.is_null());
        rdsys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
    }
    client.mock_cluster().unwrap()
}
