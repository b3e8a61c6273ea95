//! Tests with three brokers, which are stopped or killed one after another and come back. Other tests with three
//! brokers use the helpers.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::log;
use crate::role::wait_for;
use crate::services::{Services, three_brokers};
use crate::world::{World, file_lines};

/// Partitions of the topic in which Kafka keeps the offsets of groups, as `scripts/real-services` sets them.
const OFFSETS_PARTITIONS: i32 = 4;
/// What a small disk has left for new records before it is filled, in KiB.
const SPARE_KIB: u64 = 64 << 10;

/// Returns the broker that coordinates a group, from 1: it leads the group's partition of Kafka's own topic.
pub(crate) fn coordinator(services: &Services, group: &str) -> usize {
    // Java's `String.hashCode`.
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let partition = (hash & i32::MAX) % OFFSETS_PARTITIONS;
    let partition = usize::try_from(partition).unwrap();
    log::leader(services, "__consumer_offsets", partition)
}

/// Returns the controller that is active, from 1.
pub(crate) fn controller(services: &Services) -> usize {
    let tool = "org.apache.kafka.tools.MetadataQuorumCommand";
    let told = services.tool(tool, &["describe", "--status"]);
    let line = told.lines().find_map(|line| line.strip_prefix("LeaderId:"));
    line.unwrap().trim().parse().unwrap()
}

/// A small file system that holds the data of a broker. The data returns to the usual disk when it is dropped.
pub(crate) struct SmallDisk {
    services: &'static Services,
    node: &'static str,
    data: PathBuf,
}

fn run(command: &mut Command) -> bool {
    let output = command.output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

fn copy(from: &Path, to: &Path) -> bool {
    run(Command::new("cp")
        .args(["-a", "--sparse=always", "-T"])
        .args([from, to]))
}

impl SmallDisk {
    /// Moves the data of a broker to a small disk and restarts the broker. Returns `None` if this machine does not
    /// allow mounts.
    pub(crate) fn mount(services: &'static Services, node: &'static str) -> Option<SmallDisk> {
        let data = services
            .folder()
            .join("services/data")
            .join(format!("kafka-{node}"));
        let aside = data.with_extension("aside");
        services.broker("stop-broker", node);
        std::fs::rename(&data, &aside).unwrap();
        std::fs::create_dir(&data).unwrap();
        let used = Command::new("du").arg("-sk").arg(&aside).output().unwrap();
        let used = String::from_utf8(used.stdout).unwrap();
        let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
        let size = format!("size={}k", used + SPARE_KIB);
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "citystream"])
            .arg(&data));
        if mounted {
            assert!(copy(&aside, &data), "the data fits onto the disk");
            std::fs::remove_dir_all(&aside).unwrap();
        } else {
            std::fs::remove_dir(&data).unwrap();
            std::fs::rename(&aside, &data).unwrap();
        }
        services.broker("start-broker", node);
        mounted.then_some(SmallDisk {
            services,
            node,
            data,
        })
    }

    /// Fills the disk with a file until no byte is free.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        for piece in [1 << 20, 4 << 10, 1] {
            let piece = vec![b'x'; piece];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Removes the file, so that the disk has room again.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.services.broker("stop-broker", self.node);
        drop(std::fs::remove_file(self.filler()));
        let aside = self.data.with_extension("aside");
        let copied = copy(&self.data, &aside);
        let unmounted = run(Command::new("umount").arg(&self.data));
        if copied && unmounted {
            std::fs::remove_dir(&self.data).unwrap();
            std::fs::rename(&aside, &self.data).unwrap();
            self.services.broker("start-broker", self.node);
        }
    }
}

/// Waits until `now` no longer is the broker that it was.
pub(crate) fn has_moved(what: &str, from: usize, now: impl Fn() -> usize) {
    wait_for(what, || (now() != from).then_some(()));
}

#[test]
#[ignore = "needs scripts/test-real"]
fn brokers_that_stop_die_and_return_one_after_another_lose_no_event() {
    let services = three_brokers();
    let world = World::on(services, "three-brokers", true);
    world
        .start("init-tables", &["--replication", "3"])
        .ends_with(0);
    let mut members = [world.consume(&[]), world.consume(&[])];
    let lines = file_lines();
    let mut pieces = lines[..9_000].chunks(1_000);
    let mut send = || world.produce(pieces.next().unwrap());
    send();
    world.is_caught_up(&mut members);
    // Each broker goes once, so that each leader and the group's coordinator move at least once. Two brokers stop,
    // one is killed.
    for (node, how) in [
        ("1", "stop-broker"),
        ("2", "kill-broker"),
        ("3", "stop-broker"),
    ] {
        services.broker(how, node);
        send();
        world.is_caught_up(&mut members);
        services.broker("start-broker", node);
        send();
        world.is_caught_up(&mut members);
    }
    for member in &mut members {
        member.is_ready(200, "");
        assert_eq!(member.get("/livez").unwrap().0, 200);
        let metrics = member.metrics();
        assert_eq!(metrics["citystream_consumer_stalls_total"], 0.0);
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    world.tables_are_exact();
}
