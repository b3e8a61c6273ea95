//! Tests of a consumer as a member of its group: a dead sink, rebalances, and brokers that refuse or move.

use std::time::Duration;

use citystream::api::ops::Probe as _;
use citystream::core::plan::RawRows;
use citystream::exit::Exit;
use dynoxide::Database;
use rdkafka::mocking::MockCoordinator;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::consume::{GROUP, nth};
use crate::faults::Faults;
use crate::member::Member;
use crate::process::broker_down;
use crate::reference::Said;
use crate::snapshot::same;
use crate::world::{BASE_MS, World, is_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sink_keeps_memory_bounded_and_the_membership_and_the_backlog_is_drained_later() {
    let world = World::with(Database::memory().unwrap(), 3, 1, RawRows::All).await;
    for n in 0..24_000 {
        nth(&world, usize::try_from(n % 3).unwrap(), n / 3);
    }
    world.flush();
    let faults = Faults::new(3, 0);
    let poll = ["--kafka-property", "max.poll.interval.ms=3000"];
    let session = ["--kafka-property", "session.timeout.ms=3000"];
    let budget = [
        "--memory-budget",
        "16MiB",
        "--kafka-property",
        "heartbeat.interval.ms=500",
    ];
    let args = [&poll[..], &session, &budget].concat();
    let member = world.member(&args, Some(&faults)).await;
    member.until("it counts", |m| m.ledger().counted > 0).await;
    faults.hold(true);
    let budget_bytes = 16 * 1024 * 1024 / 2;
    member
        .until("the budget is full", |m| {
            m.metrics.in_flight_bytes.get() >= budget_bytes
        })
        .await;
    let consumed = member.ledger().consumed;
    let timeouts = |m: &Member| {
        let requests = &m.metrics.dynamodb_requests;
        let of = |table| {
            requests
                .with_label_values(&["UpdateItem", table, "unknown"])
                .get()
        };
        of("citystream-totals") + of("citystream-aggregations")
    };
    // A request times out after 5 s, which is longer than `max.poll.interval.ms` here.
    let before = timeouts(&member);
    member
        .until("requests time out", |m| timeouts(m) > before + 4)
        .await;
    let (used, more) = (
        member.metrics.in_flight_bytes.get(),
        member.ledger().consumed,
    );
    // One batch from the client and the records fetched in the meantime may exceed the budget.
    assert!(used < budget_bytes + 3_000_000, "{used} bytes in flight");
    assert!(
        more < consumed + 3_000,
        "it goes on taking records: {consumed} {more}"
    );
    assert!(more < 24_000, "the sink was dead for some records at least");
    faults.hold(false);
    world.committed(GROUP).await;
    let ledger = member.ledger();
    assert_eq!(
        (ledger.consumed, ledger.given_up),
        (24_000, 0),
        "still a member: nothing was read twice"
    );
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    let (got, want) = (world.got().await, world.want());
    same(&got, &want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_revoke_with_a_dead_sink_ends() {
    let world = World::new(2).await;
    let faults = Faults::new(4, 0);
    let slow = ["--kafka-property", "session.timeout.ms=6000"];
    let args = [
        &slow[..],
        &["--kafka-property", "heartbeat.interval.ms=100"],
    ]
    .concat();
    let member = world.member(&args, Some(&faults)).await;
    for n in 0..20 {
        nth(&world, usize::try_from(n % 2).unwrap(), n);
    }
    world.committed(GROUP).await;
    faults.hold(true);
    for n in 20..40 {
        nth(&world, usize::try_from(n % 2).unwrap(), n);
    }
    member
        .until("records wait", |m| m.ledger().in_flight == 20)
        .await;
    // A second member joins, so the first must give up a partition that it cannot drain.
    let second = world.member(&args, None).await;
    let given = |m: &Member| {
        m.metrics
            .render()
            .matches("watermark_timestamp_seconds{")
            .count()
            < 2
    };
    member.until("a partition is revoked", given).await;
    let begun = std::time::Instant::now();
    let ended = member.stop().await;
    // The design allows 10 s. The bound leaves room for a slow machine.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let error = ended.expect_err("records were left behind");
    assert!(!is_settings(&error), "{error:#}");
    faults.hold(false);
    world.committed(GROUP).await;
    assert_eq!(second.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebalances_under_load_stop_no_partition_and_lose_no_event() {
    let world = World::new(4).await;
    let quick = ["--row-interval", "20ms"];
    // A visit is a join and a leave, which is at least two rebalances, and takes about 3 s on the mock cluster.
    // REBALANCE_VISITS=25 makes fifty rebalances.
    let visits = std::env::var("REBALANCE_VISITS").map_or(3, |n| n.parse().unwrap());
    let staying = world.member(&quick, None).await;
    let feeding = std::cell::Cell::new(true);
    let feed = async {
        let mut n = 0;
        while feeding.get() {
            for partition in 0..4 {
                nth(&world, partition, n);
            }
            n += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let visit = async {
        staying
            .until("it takes records", |m| m.ledger().consumed > 0)
            .await;
        for _ in 0..visits {
            let visitor = world.member(&quick, None).await;
            visitor
                .until("it owns a partition", |m| m.ledger().consumed > 0)
                .await;
            assert_eq!(visitor.stop().await.unwrap(), Exit::Done);
            let before = staying.ledger().consumed;
            staying
                .until("the other goes on", |m| m.ledger().consumed > before)
                .await;
        }
        feeding.set(false);
    };
    tokio::join!(feed, visit);
    world.committed(GROUP).await;
    assert!(staying.ledger().balances());
    assert_eq!(staying.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_commits_are_survived() {
    refusals_are_survived(RDKafkaApiKey::OffsetCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_heartbeats_are_survived() {
    refusals_are_survived(RDKafkaApiKey::Heartbeat).await;
}

/// Sends one refusal with each of the errors that make a member join again.
async fn refusals_are_survived(api: RDKafkaApiKey) {
    use RDKafkaRespErr as E;
    let world = World::new(2).await;
    let member = world.member(&[], None).await;
    let errors = [
        E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        E::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        E::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    ];
    let mut n = 0;
    for error in errors {
        for _ in 0..20 {
            nth(&world, usize::try_from(n % 2).unwrap(), n);
            n += 1;
        }
        world.broker.request_errors(api, &[error]);
        world.committed(GROUP).await;
    }
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_and_coordinators_that_move_or_go_down_stop_no_partition() {
    let world = World::with(Database::memory().unwrap(), 3, 3, RawRows::All).await;
    let member = world.member(&[], None).await;
    let mut n = 0;
    for round in 0..3 {
        let broker = round + 1;
        let coordinator = MockCoordinator::Group(GROUP.to_owned());
        world.broker.coordinator(coordinator, broker).unwrap();
        for partition in 0..3 {
            let topic = crate::world::TOPIC;
            let leader = Some((partition + round) % 3 + 1);
            world
                .broker
                .partition_leader(topic, partition, leader)
                .unwrap();
        }
        for _ in 0..30 {
            nth(&world, usize::try_from(n % 3).unwrap(), n);
            n += 1;
        }
        world.committed(GROUP).await;
        broker_down(&world.broker, broker);
        for _ in 0..30 {
            nth(&world, usize::try_from(n % 3).unwrap(), n);
            n += 1;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.broker.broker_up(broker).unwrap();
        world.committed(GROUP).await;
    }
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_leader_keeps_no_other_from_starting() {
    let world = World::with(Database::memory().unwrap(), 2, 1, RawRows::All).await;
    for n in 0..40 {
        nth(&world, 0, n);
        nth(&world, 1, n);
    }
    world.flush();
    let topic = crate::world::TOPIC;
    world.broker.partition_leader(topic, 1, None).unwrap();
    let member = world.member(&[], None).await;
    member
        .until("the others are read", |m| m.ledger().consumed == 40)
        .await;
    member
        .until("readiness names the waiting partition", |m| {
            m.status
                .ready()
                .is_err_and(|why| why.contains("partition 1"))
        })
        .await;
    world.broker.partition_leader(topic, 1, Some(1)).unwrap();
    world.committed(GROUP).await;
    member
        .until("the member is ready", |m| m.status.ready().is_ok())
        .await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_dead_letters_end_with_their_assignment() {
    let world = World::new(2).await;
    for n in 0..100 {
        for partition in 0..2 {
            world.send(partition, Said::Bad, BASE_MS + n, Some(b"no event"), &[]);
        }
    }
    world.flush();
    let letters = format!("{}-dlq", crate::world::TOPIC);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    world.broker.topic_error(&letters, refused).unwrap();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let holds = async |member: &Member, count: u64| {
        let all = |m: &Member| m.ledger().in_flight == count;
        member
            .until("it holds the records that it has read", all)
            .await;
    };
    let staying = world.member(&[], None).await;
    holds(&staying, 200).await;
    let before = tasks();
    assert!(before >= 200, "{before}");
    for _ in 0..2 {
        let visitor = world.member(&[], None).await;
        holds(&visitor, 100).await;
        visitor.stop().await.unwrap_err();
        holds(&staying, 200).await;
    }
    staying
        .until("dead letters of earlier assignments have ended", |_| {
            tasks() < before + 50
        })
        .await;
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    world.broker.topic_error(&letters, fine).unwrap();
    world.committed(GROUP).await;
    assert_eq!(staying.stop().await.unwrap(), Exit::Done);
    assert!(world.got().await.dead.len() == 200);
}

#[test]
fn librdkafka_keeps_assignments_when_commits_meet_rebalances() {
    // Versions before 2.10 lost the assignment.
    let (number, text) = rdkafka::util::get_rdkafka_version();
    assert!(number >= 0x020a_0000, "{text}");
}
