//! Sends the events of a source, and controls the rate, the number of events and the heartbeats.
//!
//! If the events come from HTTP requests, the tasks that handle these requests send the events. While HTTP requests
//! supply the events, the pump only sends heartbeats and resends events that librdkafka returned.
//!
//! The commands `produce` and `dev` use [`run`], which blocks and must therefore run on a Tokio thread for blocking
//! calls. [`run`] ends when the source has no more events, when the requested number of events is sent, or when a stop
//! is requested. After [`run`] returns, [`EventProducer::finish`] waits for the acknowledgements.
//!
//! A round of heartbeats consists of one heartbeat for every partition. Before each round of heartbeats, the pump
//! requests the number of partitions again. If the events come from an input, a heartbeat carries the largest event
//! time that was sent so far. If the events are synthetic or come from HTTP requests, a heartbeat carries the current
//! time. At the end of an input, the pump sends one more round of heartbeats, so that the last windows of the input can
//! become final.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::core::clock::UnixMs;
use crate::core::murmur2::partition_of;
use crate::core::parse::Reject;
use crate::core::patch::replace_member;
use crate::core::replay::Replay;
use crate::core::synth_faults::{Made, Stream};
use crate::core::time::format_millis;
use crate::produce::credit::Credit;
use crate::produce::input::{Input, InputError, NextBatch};
use crate::produce::producer::{EventProducer, ProducerError};
use crate::settings::Rate;
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;

/// Maximum delay in microseconds for which the pump catches up by sending events faster. After a delay above this
/// maximum, the pump continues at the normal rate.
const CATCH_UP_US: f64 = 1_000_000.0;
/// Maximum wait for input before the pump checks whether heartbeats are due or a stop was requested.
const INPUT_WAIT: Duration = Duration::from_millis(100);
/// Pause before the pump checks again whether the embedded broker has room for an event.
const CREDIT_PAUSE: Duration = Duration::from_millis(1);
/// Time between two checks for due heartbeats and returned events, if HTTP requests supply the events.
const ATTEND_EVERY: Duration = Duration::from_millis(250);
/// Maximum wait for Kafka's answer with the number of partitions. If Kafka does not answer in time, the pump sends
/// heartbeats to the partitions that it already knows.
const PARTITIONS_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why the pump stopped.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The rest of the input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The producer can send no more events.
    #[error(transparent)]
    Producer(#[from] ProducerError),
}

/// The source of the events that the pump sends.
#[derive(Debug)]
pub enum EventSource {
    /// Synthetic events. The event time of a synthetic event is the time of sending, unless the generator moves it into
    /// the past.
    Synthetic(Stream),
    /// The events of an input, such as a file. The pump sends the events of an input unchanged, unless the `Replay`
    /// changes their event times.
    Input(Input, Replay),
    /// The events in HTTP requests, which other tasks send until a stop is requested.
    Requests,
}

/// The settings that control how the pump sends events.
#[derive(Clone, Debug)]
pub struct SendPlan {
    /// The rate at which the pump sends events.
    pub rate: Rate,
    /// Maximum number of events to send, or `None` if there is no maximum.
    pub count: Option<u64>,
    /// Time between two heartbeats in milliseconds, or `None` if no heartbeats are sent.
    pub heartbeat_ms: Option<i64>,
    /// True if the pump keeps waiting for Kafka while the brokers refuse the login.
    pub patient: bool,
    /// The limit on how far the producer may be ahead of the consumer, or `None` if the broker keeps its log on disk.
    pub credit: Option<Credit>,
}

/// Counts the synthetic events that the generator has made late or invalid on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Number of synthetic events that the generator made late on purpose.
    pub late: u64,
    /// Number of synthetic events that the generator made invalid on purpose.
    pub bad: u64,
}

/// The outcome of a run of the pump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// The synthetic events that were made late or invalid on purpose.
    pub faults: FaultCounts,
    /// True if the pump sent all events of the source, or the planned number of events. False if a request to stop
    /// ended the run early.
    pub is_complete: bool,
}

/// Sends events until the source has no more events, the number of events in the plan is reached, or a stop is
/// requested.
///
/// The function first waits until Kafka answers and the topic exists. The function counts each input line that is not
/// an event, and calls `on_bad` with the line's number and the reason. The caller must call [`EventProducer::finish`]
/// after this function, even if the function returns an error.
///
/// # Errors
/// Returns [`PumpError`] if the source or the producer fails. The events that were sent before the error remain sent.
///
/// # Panics
/// Panics if called outside a Tokio runtime, or on a thread that runs the runtime's async tasks.
pub fn run(
    source: EventSource,
    producer: &EventProducer,
    plan: &SendPlan,
    shutdown: &Shutdown,
    on_bad: &mut dyn FnMut(u64, &Reject),
) -> Result<Pumped, PumpError> {
    let Some(partitions) = producer.wait_for_topic(shutdown, plan.patient)? else {
        return Ok(Pumped::default());
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
            EventSource::Synthetic(_) | EventSource::Requests => HeartbeatValue::Now,
            EventSource::Input(..) => HeartbeatValue::Largest(None),
        },
        left: plan.count,
        faults: FaultCounts::default(),
    };
    let is_complete = match source {
        EventSource::Synthetic(stream) => pump.send_synthetic(stream)?,
        EventSource::Input(input, replay) => pump.send_input(&input, replay, on_bad)?,
        EventSource::Requests => pump.attend_requests().map(|()| true)?,
    };
    Ok(Pumped {
        faults: pump.faults,
        is_complete,
    })
}

struct Pump<'a> {
    producer: &'a EventProducer,
    plan: &'a SendPlan,
    shutdown: &'a Shutdown,
    partitions: i32,
    started: Instant,
    pace: Pace,
    heartbeat_every: Option<Duration>,
    heartbeat_at: Option<Instant>,
    heartbeat_value: HeartbeatValue,
    left: Option<u64>,
    faults: FaultCounts,
}

#[derive(Clone, Copy, Debug)]
enum HeartbeatValue {
    Now,
    Largest(Option<UnixMs>),
}

impl Pump<'_> {
    /// Returns true if the planned number of events was sent.
    fn send_synthetic(&mut self, mut stream: Stream) -> Result<bool, ProducerError> {
        let mut value = Vec::new();
        while self.left != Some(0) && self.wait_for_turn(self.started)? {
            let (city, made) = stream.next_event(unix_ms(), &mut value);
            if !self.send(city, &value)? {
                break;
            }
            match made {
                Made::Fine => {}
                Made::Late => self.faults.late += 1,
                Made::Bad => self.faults.bad += 1,
            }
        }
        Ok(self.left == Some(0))
    }

    /// Returns true if every event of the input, or the planned number of events, was sent.
    fn send_input(
        &mut self,
        input: &Input,
        mut replay: Replay,
        on_bad: &mut dyn FnMut(u64, &Reject),
    ) -> Result<bool, PumpError> {
        let deliveries = self.producer.deliveries();
        while self.left != Some(0) {
            if self.shutdown.is_triggered() {
                return Ok(false);
            }
            self.send_heartbeats_if_due()?;
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
                        deliveries.count_bad();
                        on_bad(line.number, reject);
                        continue;
                    }
                };
                if self.left == Some(0) {
                    break;
                }
                let due_ms = u64::try_from(replay.due_ms(event.time_ms)).unwrap_or(0);
                if !self.wait_for_turn(self.started + Duration::from_millis(due_ms))? {
                    return Ok(false);
                }
                let moved_ms = replay.moved_ms(event.time_ms);
                let (city, value) = (batch.city(event), batch.value(event));
                let queued = match moved_ms.and_then(|ms| with_time(value, ms)) {
                    Some(moved) => self.send(city, moved.as_bytes())?,
                    None => self.send(city, value)?,
                };
                if !queued {
                    return Ok(false);
                }
                if let HeartbeatValue::Largest(largest) = &mut self.heartbeat_value {
                    *largest = (*largest).max(Some(moved_ms.unwrap_or(event.time_ms)));
                }
            }
        }
        if self.heartbeat_every.is_some() {
            self.send_heartbeats()?;
        }
        Ok(true)
    }

    /// Sends heartbeats, and resends events that librdkafka returned, while HTTP requests supply the events.
    fn attend_requests(&mut self) -> Result<(), ProducerError> {
        while !self.shutdown.is_triggered() {
            self.producer.check_fatal()?;
            self.producer.resend_returned(self.shutdown)?;
            self.send_heartbeats_if_due()?;
            self.sleep_until(Instant::now() + ATTEND_EVERY);
        }
        Ok(())
    }

    /// Waits until the instant `from` has passed and the rate allows the next event. During the wait, the pump sends
    /// all heartbeats that become due. Returns `false` if a stop was requested.
    fn wait_for_turn(&mut self, from: Instant) -> Result<bool, ProducerError> {
        loop {
            if self.shutdown.is_triggered() {
                return Ok(false);
            }
            self.send_heartbeats_if_due()?;
            let by_rate = self.pace.due_us().map(Duration::from_micros);
            if by_rate.is_none() && from <= self.started {
                // Without a rate limit, the pump does not read the clock, because reading the clock for each event
                // would take 5 % of the run time.
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

    /// Sends one event as soon as its partition has room for the event. Returns `false` if a stop was requested.
    fn send(&mut self, city: &str, value: &[u8]) -> Result<bool, ProducerError> {
        if let Some(credit) = &self.plan.credit {
            let partition = partition_of(city.as_bytes(), self.partitions);
            if !self.wait_for_credit(credit, partition, city.len() + value.len()) {
                return Ok(false);
            }
        }
        let queued = self.producer.send(city, value, self.shutdown)?;
        if queued {
            self.left = self.left.map(|left| left - 1);
        }
        Ok(queued)
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

    fn send_heartbeats_if_due(&mut self) -> Result<(), ProducerError> {
        let (Some(every), Some(at)) = (self.heartbeat_every, self.heartbeat_at) else {
            return Ok(());
        };
        let now = Instant::now();
        if now < at {
            return Ok(());
        }
        // If a round of heartbeats is late, the pump sends no additional round to catch up.
        self.heartbeat_at = Some((at + every).max(now));
        self.send_heartbeats()
    }

    /// Sends a heartbeat to every partition.
    fn send_heartbeats(&mut self) -> Result<(), ProducerError> {
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
                || !self
                    .producer
                    .send_heartbeat(partition, time_ms, self.shutdown)?
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

/// Returns the event in `value` with its event time replaced by `time_ms`, or `None` if the event has no timestamp.
pub(crate) fn with_time(value: &[u8], time_ms: UnixMs) -> Option<String> {
    let time = format!("\"{}\"", format_millis(time_ms));
    replace_member(std::str::from_utf8(value).ok()?, "timestamp", &time)
}

/// The pace at which events are sent. All times are in microseconds since the start of the run.
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

    /// Returns the time at which the next event is due. Returns `None` if there is no rate limit, because every event
    /// is then due at once.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn due_us(&self) -> Option<u64> {
        // The due time is never negative. As an `f64`, the due time is exact up to 2^53 µs, which is 285 years.
        self.step_us.map(|_| self.due_us as u64)
    }

    /// Updates the due time of the next event when an event is sent at the time `now_us`.
    ///
    /// After a short delay, the pump sends events at shorter intervals until it has caught up. After a long delay, the
    /// pump does not catch up, because it must not send all the events of an hour's outage at once.
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

    /// Returns the number of events that are sent between `from_us` and `to_us` if the pace is checked every
    /// millisecond.
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
    fn the_rate_does_not_depend_on_the_resolution_of_the_timer() {
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
    fn only_a_short_delay_is_made_up_for() {
        let mut pace = Pace::new(Rate::PerSecond(100.0));
        assert_eq!(count(&mut pace, 0, 1_000_000), 100);
        assert_eq!(count(&mut pace, 1_500_000, 2_000_000), 100);
        assert_eq!(count(&mut pace, 3_600_000_000, 3_601_000_000), 100);
        let mut pace = Pace::new(Rate::PerSecond(0.2));
        assert_eq!(count(&mut pace, 0, 1_000_000), 1);
        assert_eq!(count(&mut pace, 60_000_000, 63_000_000), 1);
    }

    #[test]
    fn events_are_sent_at_once_without_a_rate() {
        assert_eq!(Pace::new(Rate::Max).due_us(), None);
    }
}
