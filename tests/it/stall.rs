//! Tests of partitions that the Kafka client stops reading while everything else works.

use std::time::Duration;

use citystream::api::ops::Probe as _;
use citystream::exit::Exit;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::faults::Faults;
use crate::world::{BASE_MS, World};

fn send(world: &World, n: std::ops::Range<i64>) {
    for n in n {
        let partition = usize::try_from(n % 2).unwrap();
        world.event(partition, "NYC", "traffic", 1, BASE_MS + n);
    }
    world.flush();
}

/// A single response "out of range" for a position inside the log ends the reading of a partition. librdkafka never
/// asks again, and there is no lost range to report.
fn break_fetching(world: &World) {
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    world.broker.request_errors(RDKafkaApiKey::Fetch, &[error]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_partition_gets_a_new_client_and_goes_on() {
    let world = World::new(2).await;
    let member = world.member_with(&[], None, 2_000).await;
    send(&world, 0..200);
    member
        .until("it counts", |m| m.ledger().counted == 200)
        .await;
    break_fetching(&world);
    // The broker answers a fetch that is already waiting after 100 ms, and refuses the next one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    send(&world, 200..400);
    member
        .until("a new client is made", |m| m.metrics.stalls.get() == 1)
        .await;
    member
        .until("it goes on", |m| m.ledger().counted == 400)
        .await;
    world.committed("citystream").await;
    assert_eq!(member.status.live(), Ok(()));
    assert!(member.ledger().balances());
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sink_is_not_a_stall() {
    let world = World::new(2).await;
    let faults = Faults::new(11, 0);
    let member = world.member_with(&[], Some(&faults), 2_000).await;
    send(&world, 0..50);
    member
        .until("it counts", |m| m.ledger().counted == 50)
        .await;
    faults.hold(true);
    send(&world, 50..100);
    member
        .until("writes fail", |m| m.status.ready().is_err())
        .await;
    // This is longer than the stall timeout.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(member.status.live(), Ok(()), "down is not dead");
    assert_eq!(member.metrics.stalls.get(), 0);
    faults.hold(false);
    member
        .until("it goes on", |m| m.ledger().counted == 100)
        .await;
    world.committed("citystream").await;
    member
        .until("it is ready", |m| m.status.ready().is_ok())
        .await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}
