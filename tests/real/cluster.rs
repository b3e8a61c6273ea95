//! Tests of faults on Kafka's side under load: links that are slow, cut or dead in one direction, brokers that are
//! killed while they lead a partition, coordinate the group or control the cluster, and a broker whose disk is full.
//!
//! A producer and two members work through the links. At the end, the log must hold each acknowledged event once, and
//! the tables must hold what the log holds. `CHAOS=long` repeats the faults.

use std::time::Duration;

use crate::brokers::{SmallDisk, controller, coordinator, has_moved};
use crate::chaos::rounds;
use crate::links::{Links, Mode, links};
use crate::log;
use crate::role::{Role, wait_for};
use crate::services::{skipped, three_brokers};
use crate::world::World;

/// DynamoDB Local keeps up with this rate on a busy machine.
const RATE: &str = "100/s";
/// Events that are acknowledged during a fault. At [`RATE`], that takes longer than the session of a member.
const DURING: f64 = 500.0;
/// Events that are acknowledged and settled after a fault.
const AFTER: f64 = 100.0;

/// A producer and two members that reach Kafka through the links.
struct Work<'a> {
    world: &'a World,
    produce: Role,
    members: [Role; 2],
}

impl<'a> Work<'a> {
    fn begin(world: &'a World, links: &Links) -> Work<'a> {
        let init = ["--replication", "3"];
        world.start("init-tables", &init).ends_with(0);
        let servers = [("KAFKA_BOOTSTRAP_SERVERS", links.servers())];
        let member = || world.start_with("consume", &crate::world::SOON, &servers);
        let mut members = [member(), member()];
        for member in &mut members {
            member.is_ready(200, "");
        }
        let args = ["--rate", RATE, "--heartbeat", "1h"];
        let produce = world.start_with("produce", &args, &servers);
        let mut work = Work {
            world,
            produce,
            members,
        };
        work.settles(AFTER);
        work
    }

    /// Waits until so many more events are acknowledged.
    fn acknowledges(&mut self, events: f64) {
        let name = "citystream_events_produced_total";
        let before = self.produce.metrics()[name];
        wait_for("more events to be acknowledged", || {
            assert!(!self.produce.has_ended(), "{}", self.produce.err());
            (self.produce.metrics()[name] >= before + events).then_some(())
        });
    }

    /// Waits until the members have settled so many more records.
    fn settles(&mut self, records: f64) {
        let settled = |members: &mut [Role]| members.iter_mut().map(Role::settled).sum::<f64>();
        let before = settled(&mut self.members);
        wait_for("the members to settle more records", || {
            (settled(&mut self.members) >= before + records).then_some(())
        });
    }

    /// Ends the work. Each acknowledged event must be in the log once and be counted once.
    fn ends_exactly(mut self) -> usize {
        let (code, _) = self.produce.terminate();
        let told = self.produce.err();
        assert_eq!(code, Some(0), "{told}");
        let [sent, failed, undelivered] = ["sent", "failed", "undelivered"].map(|what| {
            let number = told.rsplit_once(&format!("{what} ")).unwrap().1;
            let end = number.find([';', '\n']).unwrap();
            let number = number[..end].split(", ").next().unwrap().replace(',', "");
            number.parse::<usize>().unwrap()
        });
        assert_eq!((failed, undelivered), (0, 0), "{told}");
        let world = self.world;
        world.is_caught_up(&mut self.members);
        for member in &mut self.members {
            assert_eq!(member.terminate().0, Some(0), "{}", member.err());
        }
        assert_eq!(world.log().len(), sent, "each event is in the log once");
        let expected = world.tables_are_exact();
        assert_eq!(usize::try_from(expected.valid).unwrap(), sent);
        assert_eq!(world.events_counted(), sent);
        world.start("verify", &[]).ends_with(0);
        sent
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn links_that_are_slow_cut_or_dead_in_one_direction_lose_no_acknowledged_event() {
    let (links, world) = (links(), World::on(three_brokers(), "links", true));
    let mut work = Work::begin(&world, links);
    let slow = Mode::Slow(Duration::from_millis(200));
    let modes = [slow, Mode::Cut, Mode::NoRequests, Mode::NoAnswers];
    let rounds = rounds(1, 5);
    for _ in 0..rounds {
        for mode in modes {
            for node in 1..=3 {
                links.set(node, mode);
                links.disturbs(node, 1);
                // The leaders on the other brokers acknowledge events meanwhile.
                work.acknowledges(DURING);
                links.set(node, Mode::Open);
                work.settles(AFTER);
            }
        }
    }
    let faults = rounds * modes.len() * 3;
    let events = work.ends_exactly();
    eprintln!("links: {faults} faults of links, {events} events acknowledged; 0 differences");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_killed_leader_coordinator_and_controller_lose_no_acknowledged_event() {
    let services = three_brokers();
    let (links, world) = (links(), World::on(services, "killed-brokers", true));
    let mut work = Work::begin(&world, links);
    let leader = || log::leader(services, world.name, 0);
    let coordinator = || coordinator(services, world.name);
    let controller = || controller(services);
    let roles: [(&str, &dyn Fn() -> usize); 3] = [
        ("the partition to have another leader", &leader),
        ("the group to have another coordinator", &coordinator),
        ("the cluster to have another controller", &controller),
    ];
    let rounds = rounds(1, 10);
    for _ in 0..rounds {
        for (what, holder) in roles {
            let node = holder();
            services.broker("kill-broker", &node.to_string());
            has_moved(what, node, holder);
            work.acknowledges(DURING);
            work.settles(AFTER);
            services.broker("start-broker", &node.to_string());
            work.settles(AFTER);
        }
    }
    let kills = rounds * roles.len();
    let events = work.ends_exactly();
    eprintln!("killed-brokers: {kills} kills, {events} events acknowledged; 0 differences");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_broker_whose_disk_is_full_loses_no_acknowledged_event() {
    let services = three_brokers();
    let (links, world) = (links(), World::on(services, "full-disk", true));
    let node = "2";
    // Topics that are created later have leaders on this broker.
    let Some(disk) = SmallDisk::mount(services, node) else {
        return skipped("a broker whose disk is full (needs the right to mount a file system)");
    };
    let mut work = Work::begin(&world, links);
    let rounds = rounds(1, 5);
    for _ in 0..rounds {
        disk.fill();
        wait_for("the broker to give up its disk", || {
            (!services.broker_runs(node)).then_some(())
        });
        work.acknowledges(DURING);
        work.settles(AFTER);
        disk.free();
        services.broker("start-broker", node);
        work.settles(AFTER);
    }
    let events = work.ends_exactly();
    eprintln!("full-disk: full {rounds} times, {events} events acknowledged; 0 differences");
}
