//! Tests of `tail` on a broker that indexes records by time.

use crate::log::committed;
use crate::role::wait_for;
use crate::world::{World, file_lines};
use citystream::core::clock::UnixMs;

fn now_ms() -> UnixMs {
    citystream::telemetry::unix_ms()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_range_of_time_is_found_by_the_brokers_times_and_leaves_no_group() {
    let world = World::new("tail-range");
    world.init();
    let lines = file_lines();
    let pause = || {
        // The broker's clock is this host's clock, so a millisecond here is a millisecond there.
        let begin = now_ms();
        wait_for("the clock", || (now_ms() > begin + 1).then_some(now_ms()))
    };
    world.produce(&lines[..300]);
    let first = pause();
    world.produce(&lines[300..1_000]);
    let second = pause();
    world.produce(&lines[1_000..1_100]);
    pause();
    let time = citystream::core::time::format_millis;
    let (first, second) = (time(first), time(second));
    for (args, count) in [
        (vec!["--from", "beginning"], 1_100),
        (vec!["--from", "-1h"], 1_100),
        (vec!["--from", &first], 800),
        (vec!["--from", &second], 100),
        (vec!["--from", &first, "--until", &second], 700),
        (vec!["--from", "beginning", "--until", &first], 300),
        (vec!["--from", "end"], 0),
        (vec!["--from", &first, "-n", "5"], 5),
        (
            vec![
                "--from", &first, "--city", "NYC", "--city", "LA", "--type", "traffic",
            ],
            0,
        ),
    ] {
        let all = [&args[..], &["--exit-at-end", "--output", "json"]].concat();
        let mut tail = world.start("tail", &all);
        tail.ends_with(0);
        let out = tail.out();
        let shown = out.lines().count();
        if args.contains(&"--city") {
            let want = lines[300..1_100].iter().filter(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                ["NYC", "LA"].contains(&value["city"].as_str().unwrap())
                    && value["event_type"] == "traffic"
            });
            assert_eq!(shown, want.count(), "{args:?}");
        } else {
            assert_eq!(shown, count, "{args:?}");
        }
        assert_eq!(tail.err(), "", "{args:?}");
    }
    let mut turned = world.start("tail", &["--from", &second, "--until", &first]);
    turned.ends_with(2);
    assert!(turned.err().contains("--from must be before --until"));
    for partition in 0..6 {
        let (offset, _) = committed(world.services, "citystream-tail", world.name, partition);
        assert_eq!(offset, None, "{partition}");
    }
}
