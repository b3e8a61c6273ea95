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

/// Makes the broker answer the next fetch with "out of range", although the position is inside the log. After such a
/// response, librdkafka no longer reads the partition, and there is no lost range to report.
fn break_fetching(world: &World) {
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    world.broker.request_errors(RDKafkaApiKey::Fetch, &[error]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_the_client_stops_reading_is_restarted() {
    let world = World::new(2).await;
    let member = world.member(&[], None).await;
    send(&world, 0..200);
    member
        .until("it counts", |m| m.ledger().counted == 200)
        .await;
    break_fetching(&world);
    tokio::time::sleep(Duration::from_millis(500)).await;
    send(&world, 200..400);
    member
        .until("it goes on", |m| m.ledger().counted == 400)
        .await;
    assert_eq!(member.metrics.stalls.get(), 0);
    world.committed("citystream").await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_partition_gets_a_new_client_and_goes_on() {
    let world = World::new(2).await;
    let member = world.member_with(&[], None, 2_000).await;
    send(&world, 0..200);
    member
        .until("it counts", |m| m.ledger().counted == 200)
        .await;
    // The first response leads to a restart at the same position, and the second response to a stall. The restart takes
    // a fraction of this time.
    break_fetching(&world);
    tokio::time::sleep(Duration::from_secs(5)).await;
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
async fn a_failing_dynamodb_is_not_reported_as_a_stall() {
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
