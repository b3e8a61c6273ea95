//! A consumer that empties a topic, watched from outside.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::process::{Server, cpu_seconds_of, get, metric, peak_mib_of};

/// What share of the events is left out at the start and at the end of a measurement.
const EDGE: f64 = 0.05;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(40);

/// How a topic was emptied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drained {
    /// Events a second between the edges.
    pub(crate) rate: f64,
    /// CPU time per event between the edges, all consumers together, in µs.
    pub(crate) cpu_us: f64,
    /// The largest consumer's peak, in MiB.
    pub(crate) peak_mib: f64,
    /// DynamoDB's write units for all events.
    pub(crate) units: f64,
}

impl Drained {
    /// Takes another round: the better one, since whatever disturbs a run only makes it slower, with the
    /// larger peak of both.
    pub(crate) fn take_round(&mut self, other: Drained) {
        let peak_mib = self.peak_mib.max(other.peak_mib);
        if other.rate > self.rate {
            *self = other;
        }
        self.peak_mib = peak_mib;
    }
}

/// Empties a topic of `count` events with the given consumers, already configured by `command`.
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
