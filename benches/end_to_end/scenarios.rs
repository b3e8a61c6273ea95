//! The measurements, their order, and the figure that each is compared with.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::drain::{Drained, drain};
use crate::growth;
use crate::live;
use crate::process::{Server, get, machine_load, metric, peak_mib_of, program, run};
use crate::report::Row;
use crate::world::{Found, Log, Shape, World};

/// The size of a run.
pub(crate) struct Size {
    pub(crate) events: u64,
    pub(crate) rounds: u32,
}

/// Requests in flight, in the ceilings and in the product.
const IN_FLIGHT: &str = "64";

/// One group of measurements, and its name for `--only`.
type Scenario = (&'static str, fn(&World, &Size) -> anyhow::Result<Vec<Row>>);

/// All groups.
pub(crate) const ALL: [Scenario; 10] = [
    ("drain", drains),
    ("delay", delayed),
    ("counting", counting),
    ("local", local),
    ("live", live::rows),
    ("memory", memory),
    ("members", members),
    ("cities", cities),
    ("produce", produce),
    ("growth", growth::rows),
];

fn thousands(rate: f64) -> String {
    format!("{:.1} k/s", rate / 1_000.0)
}

pub(crate) fn shown(d: &Drained) -> String {
    format!(
        "{}, {:.1} µs, {:.0} MiB",
        thousands(d.rate),
        d.cpu_us,
        d.peak_mib
    )
}

pub(crate) fn emptied(w: &World, log: &Log, prefix: &str, sink: &str) -> anyhow::Result<Drained> {
    w.init(prefix, &log.topic, &[])?;
    drain(log.count, 1, || w.consumer(log, prefix, sink))
}

/// Returns the better of two, because disturbances only make a run slower.
fn better(a: Found, b: Found) -> Found {
    Found {
        rate: a.rate.max(b.rate),
        cpu_us: if a.cpu_us > 0.0 {
            a.cpu_us.min(b.cpu_us)
        } else {
            b.cpu_us
        },
    }
}

fn drains(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("drain", Shape::plain(size.events))?;
    let sink = w.sink(0)?;
    let n = log.count.to_string();
    let (mut read, mut typed, mut buffer) = (Found::default(), Found::default(), Found::default());
    let mut best = Drained::default();
    let mut ratio: f64 = 0.0;
    for round in 0..size.rounds {
        read = better(read, w.found(&["read", w.brokers(), &log.topic, &n])?);
        let write = ["write", &sink.url, "ceiling", &n, IN_FLIGHT];
        typed = better(typed, w.found(&[&write[..], &["--typed"]].concat())?);
        let ceiling = w.found(&write)?;
        buffer = better(buffer, ceiling);
        let d = emptied(w, &log, &format!("drain-{round}"), &sink.url)?;
        // The two runs follow each other, so that both have the same machine.
        ratio = ratio.max(d.rate / ceiling.rate);
        let cpu_us = if best.rate > 0.0 {
            best.cpu_us.min(d.cpu_us)
        } else {
            d.cpu_us
        };
        best.take_round(d);
        best.cpu_us = cpu_us;
    }
    let ceiling = |f: Found| format!("{}, {:.1} µs", thousands(f.rate), f.cpu_us);
    Ok(vec![
        Row::new("ceiling: read and parse", ceiling(read), ""),
        Row::new(
            "ceiling: write the same items, the SDK's types",
            ceiling(typed),
            "",
        ),
        Row::new(
            "ceiling: write the same items, one buffer",
            ceiling(buffer),
            "",
        ),
        Row::new(
            "drain into a sink that only answers",
            shown(&best),
            "≥ 110 k/s, ≤ 12.5 µs",
        ),
        Row::new(
            "… of the best ceiling that writes",
            format!("{ratio:.2}"),
            "≥ 0.65",
        ),
    ])
}

fn delayed(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("delay", Shape::plain(size.events))?;
    let sink = w.sink(10)?;
    let d = emptied(w, &log, "delay", &sink.url)?;
    Ok(vec![Row::new(
        "drain, the sink answers after 10 ms",
        shown(&d),
        "≥ 60 k/s",
    )])
}

fn counting(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("counting", Shape::plain(size.events * 2))?;
    let sink = w.sink(0)?;
    w.init("counting", &log.topic, &["--raw", "none"])?;
    let d = drain(log.count, 1, || w.consumer(&log, "counting", &sink.url))?;
    let row = Row::new(
        "counting alone (`init-tables --raw none`)",
        shown(&d),
        "≥ 500 k/s",
    );
    Ok(vec![row])
}

fn local(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("local", Shape::plain((size.events / 25).max(10_000)))?;
    let n = log.count.to_string();
    w.init("local-loop", &log.topic, &[])?;
    let (mut best, mut ratio) = (0.0f64, 0.0f64);
    let mut shown_best = String::new();
    for round in 0..size.rounds {
        let ceiling = w.found(&["write", w.local(), "local-loop", &n, IN_FLIGHT])?;
        let d = emptied(w, &log, &format!("local-{round}"), w.local())?;
        ratio = ratio.max(d.rate / ceiling.rate);
        if d.rate > best {
            best = d.rate;
            shown_best = format!("{}; the loop {}", shown(&d), thousands(ceiling.rate));
        }
    }
    Ok(vec![
        Row::new("drain into DynamoDB Local", shown_best, ""),
        Row::new(
            "… of a bare loop of the same items",
            format!("{ratio:.2}"),
            "≥ 0.9",
        ),
    ])
}

fn memory(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("memory", Shape::plain(size.events))?;
    w.init("memory", &log.topic, &[])?;
    let sink = w.sink(0)?;
    get(&sink.url, "/stall")?;
    let consumer = Server::start(&mut w.consumer(&log, "memory", &sink.url))?;
    std::thread::sleep(Duration::from_secs(20));
    let peak = peak_mib_of(consumer.pid()).context("the consumer is gone")?;
    let text = get(&consumer.url, "/metrics")?;
    let held = metric(&text, "citystream_events_in_flight");
    let what = "peak memory, the sink stalled, a backlog waiting";
    let value = format!("{peak:.0} MiB, {held:.0} events held");
    drop(consumer);
    // From the start of the process to the first counted event.
    let log = w.log("first", Shape::plain(1))?;
    w.init("first", &log.topic, &[])?;
    let began = Instant::now();
    let consumer = Server::start(&mut w.consumer(&log, "first", w.local()))?;
    let counted =
        || get(&consumer.url, "/metrics").map(|t| metric(&t, "citystream_events_counted_total"));
    while counted()? < 1.0 {
        std::thread::sleep(Duration::from_millis(5));
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(60),
            "no event was counted"
        );
    }
    let first = began.elapsed().as_millis();
    #[allow(clippy::cast_precision_loss)]
    let mib = std::fs::metadata(program())?.len() as f64 / f64::from(1 << 20);
    Ok(vec![
        Row::new(what, value, "≤ 160 MiB"),
        Row::new(
            "start of the process to the first durable event",
            format!("{first} ms"),
            "≤ 1 s",
        ),
        Row::new("release binary", format!("{mib:.1} MiB"), "≤ 35 MiB"),
    ])
}

fn members(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let shape = Shape {
        cities: 1_000,
        partitions: 12,
        // More than the memory of one consumer holds.
        ..Shape::plain(size.events / 2)
    };
    let log = w.log("members", shape)?;
    let sink = w.sink(200)?;
    let mut rates = Vec::new();
    for consumers in [1, 3] {
        let prefix = format!("members-{consumers}");
        w.init(&prefix, &log.topic, &[])?;
        rates.push(
            drain(log.count, consumers, || {
                w.consumer(&log, &prefix, &sink.url)
            })?
            .rate,
        );
    }
    let value = format!(
        "{:.2} ({} → {})",
        rates[1] / rates[0],
        thousands(rates[0]),
        thousands(rates[1])
    );
    Ok(vec![Row::new(
        "1 → 3 consumers, the sink answers after 200 ms",
        value,
        "≥ 2.7",
    )])
}

fn cities(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let sink = w.sink(0)?;
    let plain = w.log("cities-plain", Shape::plain(size.events))?;
    let many = |topic: &str, step_us: i64| {
        let shape = Shape {
            cities: 10_000,
            step_us,
            ..Shape::plain(size.events)
        };
        w.log(topic, shape)
    };
    let window = many("cities-window", 0)?;
    let (mut best, mut ratio) = (Drained::default(), 0.0f64);
    for round in 0..size.rounds {
        // The two runs follow each other, so that both have the same machine.
        let few = emptied(w, &plain, &format!("cities-plain-{round}"), &sink.url)?;
        let d = emptied(w, &window, &format!("cities-window-{round}"), &sink.url)?;
        ratio = ratio.max(d.rate / few.rate);
        best.take_round(d);
    }
    let hour_us = 3_600_000_000 / i64::try_from(size.events)?;
    let hour = many("cities-hour", hour_us)?;
    let hour = emptied(w, &hour, "cities-hour", &sink.url)?;
    Ok(vec![
        Row::new(
            "10,000 cities × 4 types within one window",
            shown(&best),
            "≤ 160 MiB",
        ),
        Row::new("… of the drain of 6 cities", format!("{ratio:.2}"), "≥ 0.5"),
        Row::new(
            "10,000 cities × 4 types over an hour",
            shown(&hour),
            "≤ 160 MiB",
        ),
    ])
}

#[allow(clippy::cast_precision_loss)]
fn produce(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let log = w.log("produce", Shape::plain(size.events))?;
    let file = w.file("events.ndjson");
    let own = Instant::now();
    w.produce(&log.topic, &file)?;
    let own = log.count as f64 / own.elapsed().as_secs_f64();
    let other = Instant::now();
    let kcat = Command::new("kcat")
        .args([
            "-P",
            "-q",
            "-b",
            w.brokers(),
            "-t",
            &log.topic,
            "-X",
            "acks=all",
            "-l",
        ])
        .arg(&file)
        .stdout(Stdio::null())
        .status();
    let what = "`produce --input` at full speed, its start included";
    if !kcat.is_ok_and(|status| status.success()) {
        return Ok(vec![Row::new(
            what,
            format!("{}; no kcat here", thousands(own)),
            "≥ 0.7 of kcat",
        )]);
    }
    let other = log.count as f64 / other.elapsed().as_secs_f64();
    let value = format!(
        "{}, {:.2} of kcat's {}",
        thousands(own),
        own / other,
        thousands(other)
    );
    Ok(vec![Row::new(what, value, "≥ 0.7 of kcat")])
}

/// Returns the machine and the versions of the measurement.
pub(crate) fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let busy = machine_load() * 100.0;
    let version = run(Command::new(program()).arg("--version")).unwrap_or_default();
    format!(
        "{}, {cpus} cores ({model}), busy with other things at the start: {busy:.0} %",
        version.trim()
    )
}
