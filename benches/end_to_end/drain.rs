//! A consumer that drains a topic, observed from outside.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::process::{Server, cpu_seconds_of, get, metric, peak_mib_of};

/// The share of events at the start and at the end that a measurement leaves out.
const EDGE: f64 = 0.05;
/// Time between two samples.
const LOOK: Duration = Duration::from_millis(40);

/// The result of draining a topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drained {
    /// Events per second, without the start and the end.
    pub(crate) rate: f64,
    /// CPU time per event without the start and the end, over all consumers, in µs.
    pub(crate) cpu_us: f64,
    /// The peak of the largest consumer, in MiB.
    pub(crate) peak_mib: f64,
    /// DynamoDB's write units for all events.
    pub(crate) units: f64,
}

impl Drained {
    /// Merges another round: keeps the faster one, because disturbances only make a run slower, and the larger peak.
    pub(crate) fn take_round(&mut self, other: Drained) {
        let peak_mib = self.peak_mib.max(other.peak_mib);
        if other.rate > self.rate {
            *self = other;
        }
        self.peak_mib = peak_mib;
    }
}

/// Drains a topic of `count` events with the given consumers, which `command` has configured.
pub(crate) fn drain(
    count: u64,
    consumers: usize,
    command: impl Fn() -> Command,
) -> anyhow::Result<Drained> {
    let mut servers = Vec::new();
    for _ in 0..consumers {
        servers.push(Server::start(&mut command())?);
    }
    watch(count, &mut servers)
}

#[allow(clippy::cast_precision_loss)]
fn watch(count: u64, servers: &mut [Server]) -> anyhow::Result<Drained> {
    let mut first: Option<(Instant, f64, f64)> = None;
    let mut last: Option<(Instant, f64, f64)> = None;
    let mut drained = Drained::default();
    let mut moved = (0.0, Instant::now());
    loop {
        std::thread::sleep(LOOK);
        let (mut done, mut cpu, mut units) = (0.0, 0.0, 0.0);
        let now = Instant::now();
        for server in servers.iter_mut() {
            if let Some(status) = server.child.try_wait()? {
                bail!("a consumer ended: {status}");
            }
            let text = get(&server.url, "/metrics")?;
            done += metric(&text, "citystream_events_counted_total");
            done += metric(&text, "citystream_events_late_total");
            units += metric(&text, "citystream_dynamodb_consumed_capacity_units_total");
            cpu += cpu_seconds_of(server.pid()).context("the consumer is gone")?;
            let peak = peak_mib_of(server.pid()).unwrap_or_default();
            drained.peak_mib = drained.peak_mib.max(peak);
        }
        if done > moved.0 {
            moved = (done, now);
        } else if moved.1.elapsed() > Duration::from_secs(60) {
            bail!("no event was counted for 60 s; {done} of {count} were");
        }
        drained.units = units;
        let share = done / count as f64;
        if share >= EDGE && first.is_none() {
            first = Some((now, done, cpu));
        }
        if share >= 1.0 - EDGE && last.is_none() {
            last = Some((now, done, cpu));
        }
        if share >= 1.0 {
            break;
        }
    }
    let ((t0, n0, c0), (t1, n1, c1)) = first.zip(last).context("nothing was measured")?;
    if n1 <= n0 {
        bail!("too few events for a measurement");
    }
    drained.rate = (n1 - n0) / (t1 - t0).as_secs_f64();
    drained.cpu_us = (c1 - c0) * 1e6 / (n1 - n0);
    Ok(drained)
}
