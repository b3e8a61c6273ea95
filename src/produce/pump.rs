//! From a source of events to the producer: pace, count, heartbeats, flow control.
//!
//! [`run`] is the whole of `produce` but its surroundings, and `dev` uses it too. It blocks, so it
//! belongs on a blocking thread of a Tokio runtime. It ends with the source, with the count, or when
//! stopping is asked for; settling what was sent is [`EventProducer::finish`].
//!
//! Heartbeats go to every partition, the number of which is asked anew for each round. Their value
//! is now for synthetic events; for an input it is the largest event time sent so far, and one more
//! round ends the input, so that its last windows can become final.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::core::murmur2::partition_of;
use crate::core::parse::Reject;
use crate::core::patch::replace_member;
use crate::core::replay::Replay;
use crate::core::time::format_millis;
use crate::core::trial::{Made, Stream};
use crate::produce::credit::Credit;
use crate::produce::input::{Input, InputError, NextBatch};
use crate::produce::producer::{EventProducer, ProducerError};
use crate::settings::Rate;
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;

/// The longest delay that a steady rate catches up.
const CATCH_UP_US: f64 = 1_000_000.0;
/// Longest wait for input before heartbeats and the request to stop are looked at again.
const INPUT_WAIT: Duration = Duration::from_millis(100);
/// A pause before a consumer is asked again whether it came nearer.
const CREDIT_PAUSE: Duration = Duration::from_millis(1);
/// A heartbeat round asks for the number of partitions at most this long; the old number serves else.
const PARTITIONS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why events stopped.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The input cannot be read on.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Nothing can be sent any more.
    #[error(transparent)]
    Producer(#[from] ProducerError),
}

/// Where events come from.
#[derive(Debug)]
pub enum EventSource {
    /// Made up, with the time of sending as event time.
    Synthetic(Stream),
    /// Read, and sent as they stand but for their times if those are moved.
    Input(Input, Replay),
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How fast.
    pub rate: Rate,
    /// How many events at most.
    pub count: Option<u64>,
    /// Time between two heartbeats; `None` for no heartbeats at all.
    pub heartbeat_ms: Option<i64>,
    /// Brokers that refuse the login are waited for.
    pub patient: bool,
    /// How far a consumer may be behind; `None` for a broker that keeps its log.
    pub credit: Option<Credit>,
}

/// What was made up to be trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Events sent late.
    pub late: u64,
    /// Events sent broken.
    pub bad: u64,
}

/// Sends until the source ends, the plan's count is reached or stopping is asked for.
///
/// Waits for Kafka first. Lines of the input that are no events go to `on_bad` with their number and
/// are counted in the tally. Whatever comes back, call [`EventProducer::finish`] then.
///
/// # Errors
/// [`PumpError`]; events sent before remain sent.
///
/// # Panics
/// Outside a Tokio runtime, or on one of its async threads.
pub fn run(
    source: EventSource,
    producer: &EventProducer,
    plan: &Plan,
    shutdown: &Shutdown,
    on_bad: &mut dyn FnMut(u64, &Reject),
) -> Result<FaultCounts, PumpError> {
    let Some(partitions) = producer.wait_for_topic(shutdown, plan.patient)? else {
        return Ok(FaultCounts::default());
    };
    let started = Instant::now();
    let heartbeat_every = plan
        .heartbeat_ms
        .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(1)));
    let mut pump = Pump {
        producer,
        plan,
        shutdown,
        partitions,
        started,
        pace: Pace::new(plan.rate),
        heartbeat_every,
        heartbeat_at: heartbeat_every.map(|every| started + every),
        heartbeat_value: match &source {
            EventSource::Synthetic(_) => HeartbeatValue::Now,
            EventSource::Input(..) => HeartbeatValue::Largest(None),
        },
        left: plan.count,
        trouble: FaultCounts::default(),
    };
    match source {
        EventSource::Synthetic(stream) => pump.synthetic(stream)?,
        EventSource::Input(input, replay) => pump.input(&input, replay, on_bad)?,
    }
    Ok(pump.trouble)
}

struct Pump<'a> {
    producer: &'a EventProducer,
    plan: &'a Plan,
    shutdown: &'a Shutdown,
    partitions: i32,
    started: Instant,
    pace: Pace,
    heartbeat_every: Option<Duration>,
    heartbeat_at: Option<Instant>,
    heartbeat_value: HeartbeatValue,
    left: Option<u64>,
    trouble: FaultCounts,
}

#[derive(Clone, Copy, Debug)]
enum HeartbeatValue {
    Now,
    Largest(Option<i64>),
}

impl Pump<'_> {
    fn synthetic(&mut self, mut stream: Stream) -> Result<(), ProducerError> {
        let mut value = Vec::new();
        while self.left != Some(0) && self.wait_for_turn(self.started)? {
            let (city, made) = stream.next_event(unix_ms(), &mut value);
            if !self.send(city, &value)? {
                break;
            }
            match made {
                Made::Fine => {}
                Made::Late => self.trouble.late += 1,
                Made::Bad => self.trouble.bad += 1,
            }
        }
        Ok(())
    }

    fn input(
        &mut self,
        input: &Input,
        mut replay: Replay,
        on_bad: &mut dyn FnMut(u64, &Reject),
    ) -> Result<(), PumpError> {
        let tally = self.producer.tally();
        while self.left != Some(0) {
            if self.shutdown.is_triggered() {
                return Ok(());
            }
            self.beat_if_due()?;
            let until = self
                .heartbeat_at
                .map(|at| at.saturating_duration_since(Instant::now()));
            let batch = match input.next_batch(until.map_or(INPUT_WAIT, |u| u.min(INPUT_WAIT)))? {
                NextBatch::Lines(batch) => batch,
                NextBatch::Nothing => continue,
                NextBatch::End => break,
            };
            for line in &batch.lines {
                let event = match &line.outcome {
                    Ok(event) => event,
                    Err(reject) => {
                        tally.count_bad();
                        on_bad(line.number, reject);
                        continue;
                    }
                };
                if self.left == Some(0) {
                    break;
                }
                let due_ms = u64::try_from(replay.due_ms(event.time_ms)).unwrap_or(0);
                if !self.wait_for_turn(self.started + Duration::from_millis(due_ms))? {
                    return Ok(());
                }
                let moved_ms = replay.moved_ms(event.time_ms);
                let (city, value) = (batch.city(event), batch.value(event));
                let taken = match moved_ms.and_then(|ms| moved(value, ms)) {
                    Some(moved) => self.send(city, moved.as_bytes())?,
                    None => self.send(city, value)?,
                };
                if !taken {
                    return Ok(());
                }
                if let HeartbeatValue::Largest(largest) = &mut self.heartbeat_value {
                    *largest = (*largest).max(Some(moved_ms.unwrap_or(event.time_ms)));
                }
            }
        }
        if self.heartbeat_every.is_some() {
            self.beat()?;
        }
        Ok(())
    }

    /// Waits until the next event is due, by the rate and not before `from`, sending heartbeats
    /// meanwhile; false once to stop.
    fn wait_for_turn(&mut self, from: Instant) -> Result<bool, ProducerError> {
        loop {
            if self.shutdown.is_triggered() {
                return Ok(false);
            }
            self.beat_if_due()?;
            let by_rate = self.pace.due_us().map(Duration::from_micros);
            if by_rate.is_none() && from <= self.started {
                // At full speed, a look at the clock for each event is a twentieth of the time.
                return Ok(true);
            }
            let due = by_rate.map_or(from, |us| from.max(self.started + us));
            let now = Instant::now();
            if due <= now {
                let us = now.duration_since(self.started).as_micros();
                self.pace.take(u64::try_from(us).unwrap_or(u64::MAX));
                return Ok(true);
            }
            self.sleep_until(self.heartbeat_at.map_or(due, |at| at.min(due)));
        }
    }

    /// Sends one event as soon as there is credit for it; false once to stop.
    fn send(&mut self, city: &str, value: &[u8]) -> Result<bool, ProducerError> {
        if let Some(credit) = &self.plan.credit {
            let partition = partition_of(city.as_bytes(), self.partitions);
            if !self.wait_for_credit(credit, partition, city.len() + value.len()) {
                return Ok(false);
            }
        }
        let taken = self.producer.send(city, value, self.shutdown)?;
        if taken {
            self.left = self.left.map(|left| left - 1);
        }
        Ok(taken)
    }

    fn wait_for_credit(&self, credit: &Credit, partition: i32, bytes: usize) -> bool {
        while !credit.try_take(partition, bytes) {
            if self.shutdown.is_triggered() {
                return false;
            }
            std::thread::sleep(CREDIT_PAUSE);
        }
        true
    }

    fn beat_if_due(&mut self) -> Result<(), ProducerError> {
        let (Some(every), Some(at)) = (self.heartbeat_every, self.heartbeat_at) else {
            return Ok(());
        };
        let now = Instant::now();
        if now < at {
            return Ok(());
        }
        // A round that could not go in time is not made up for.
        self.heartbeat_at = Some((at + every).max(now));
        self.beat()
    }

    /// Sends one round of heartbeats, to every partition.
    fn beat(&mut self) -> Result<(), ProducerError> {
        let time_ms = match self.heartbeat_value {
            HeartbeatValue::Now => unix_ms(),
            HeartbeatValue::Largest(Some(ms)) => ms,
            HeartbeatValue::Largest(None) => return Ok(()),
        };
        if let Ok(Some(count)) = self.producer.partition_count(PARTITIONS_TIMEOUT) {
            self.partitions = count;
        }
        for partition in 0..self.partitions {
            let credit = self.plan.credit.as_ref();
            if credit.is_some_and(|credit| !self.wait_for_credit(credit, partition, 0))
                || !self.producer.heartbeat(partition, time_ms, self.shutdown)?
            {
                break;
            }
        }
        Ok(())
    }

    fn sleep_until(&self, until: Instant) {
        let sleep = tokio::time::sleep_until(until.into());
        Handle::current().block_on(async {
            tokio::select! {
                () = sleep => {}
                () = self.shutdown.wait() => {}
            }
        });
    }
}

/// The event with another time; an event has been read from it, so it has one.
fn moved(value: &[u8], time_ms: i64) -> Option<String> {
    let time = format!("\"{}\"", format_millis(time_ms));
    replace_member(std::str::from_utf8(value).ok()?, "timestamp", &time)
}

/// When the next event is due, in µs since the start.
#[derive(Debug)]
struct Pace {
    step_us: Option<f64>,
    due_us: f64,
}

impl Pace {
    fn new(rate: Rate) -> Pace {
        Pace {
            step_us: match rate {
                Rate::Max => None,
                Rate::PerSecond(n) => Some(1_000_000.0 / n),
            },
            due_us: 0.0,
        }
    }

    /// `None`: at once, always.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn due_us(&self) -> Option<u64> {
        // Never negative, and 2^53 µs are 285 years.
        self.step_us.map(|_| self.due_us as u64)
    }

    /// Notes that an event went at `now_us`. A short delay is caught up, a long one forgotten: an
    /// hour's outage must not end in an hour's events at once.
    #[allow(clippy::cast_precision_loss)]
    fn take(&mut self, now_us: u64) {
        let now_us = now_us as f64;
        if self.due_us + CATCH_UP_US < now_us {
            self.due_us = now_us;
        }
        self.due_us += self.step_us.unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events that go between `from_us` and `to_us` when asked every millisecond.
    fn count(pace: &mut Pace, from_us: u64, to_us: u64) -> u64 {
        let mut count = 0;
        for now_us in (from_us..to_us).step_by(1_000) {
            while pace.due_us().is_some_and(|due| due <= now_us) {
                pace.take(now_us);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn the_rate_is_kept_whatever_the_grain_of_the_timer() {
        for rate in [1.0, 7.0, 999.0, 1_000.0, 123_456.0] {
            let mut pace = Pace::new(Rate::PerSecond(rate));
            let sent = count(&mut pace, 0, 10_000_000);
            let want = rate * 10.0;
            #[allow(clippy::cast_precision_loss)]
            let off = (sent as f64 - want).abs();
            assert!(off <= 1.0 + rate / 500.0, "{rate}/s: {sent}");
        }
    }

    #[test]
    fn only_a_short_delay_is_caught_up() {
        let mut pace = Pace::new(Rate::PerSecond(100.0));
        assert_eq!(count(&mut pace, 0, 1_000_000), 100);
        assert_eq!(count(&mut pace, 1_500_000, 2_000_000), 100);
        assert_eq!(count(&mut pace, 3_600_000_000, 3_601_000_000), 100);
        let mut pace = Pace::new(Rate::PerSecond(0.2));
        assert_eq!(count(&mut pace, 0, 1_000_000), 1);
        assert_eq!(count(&mut pace, 60_000_000, 63_000_000), 1);
    }

    #[test]
    fn at_most_speed_nothing_waits() {
        assert_eq!(Pace::new(Rate::Max).due_us(), None);
    }
}
