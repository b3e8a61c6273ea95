//! The events of the benchmarks. Half of them raise an alert, and all have the same length.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use citystream::core::clock::UnixMs;
use citystream::core::time::push_millis;

const TYPES: [&str; 4] = ["traffic", "weather", "incident", "construction"];
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];

/// An endless stream of events, the same in every run.
pub(crate) struct Events {
    chance: fastrand::Rng,
    cities: u32,
    bytes: usize,
    time_ms: i64,
    step_us: i64,
    passed_us: i64,
}

impl Events {
    /// Makes events of `bytes` bytes in `cities` cities, the first at `time_ms`, `step_us` apart.
    pub(crate) fn new(cities: u32, bytes: usize, time_ms: i64, step_us: i64) -> Events {
        Events {
            chance: fastrand::Rng::with_seed(7),
            cities,
            bytes,
            time_ms,
            step_us,
            passed_us: 0,
        }
    }

    /// Writes the next event.
    pub(crate) fn next(&mut self, out: &mut String) {
        out.clear();
        let city = self.chance.u32(..self.cities);
        let kind = TYPES[self.chance.usize(..4)];
        let severity = SEVERITIES[self.chance.usize(..4)];
        out.push_str("{\"timestamp\":\"");
        push_millis(out, UnixMs(self.time_ms + self.passed_us / 1_000));
        self.passed_us += self.step_us;
        write!(
            out,
            "\",\"city\":\"City-{city:05}\",\"event_type\":\"{kind}\",\"severity\":\"{severity}\",\"description\":\""
        )
        .expect("writing to memory does not fail");
        let words = "congestion on the ring road, expect delays; ";
        let left = self.bytes.saturating_sub(out.len() + 2);
        let whole = left.min(4_096);
        out.extend(words.chars().cycle().take(whole));
        if left > whole {
            // A description has a maximum length. The remaining bytes are in another field.
            out.push_str("\",\"more\":\"");
            let more = self.bytes.saturating_sub(out.len() + 2);
            out.extend(words.chars().cycle().take(more));
        }
        out.push_str("\"}");
    }

    /// Writes `count` events to a file, one per line.
    pub(crate) fn write(mut self, count: u64, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut line = String::new();
        for _ in 0..count {
            self.next(&mut line);
            line.push('\n');
            file.write_all(line.as_bytes())?;
        }
        file.flush()
    }
}
