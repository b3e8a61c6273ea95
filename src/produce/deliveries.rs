//! Counts the outcomes of the records that a producer has sent, for progress, health and metrics.
//!
//! The sending thread and the thread of the delivery callbacks update the counts for every event, so the counts use no
//! lock. Rates and other derived values are computed only when a caller reads the counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use rdkafka::error::KafkaError;

use crate::produce::latency::{LatencyHistogram, LatencySummary};
use crate::telemetry::{LogLimit, Metrics};

/// Time without an acknowledgement after which a role with unacknowledged events no longer counts as ready.
const STALL: Duration = Duration::from_secs(10);

/// A counter on its own cache line. The sending thread and the thread of the delivery callbacks each write a different
/// counter for every event. With separate cache lines, the two threads do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// The counts and latencies of all records that a producer has sent so far.
#[derive(Debug)]
pub struct Deliveries {
    started: Instant,
    connected: AtomicBool,
    topic_missing: AtomicBool,
    sent: Padded,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    bad: AtomicU64,
    heartbeats: AtomicU64,
    latency: LatencyHistogram,
    /// The number of acknowledged and failed events, and the time at which a call of `stall_time` first found this
    /// number. While no event waits for an acknowledgement, each call of `stall_time` sets the time to the current
    /// time. The threads that count events do not update `last_change`, because each thread would have to read the
    /// counters of the other thread for every event.
    last_change: Mutex<(u64, Instant)>,
    last_error: Mutex<LastError>,
    produced_metric: IntCounter,
    failed_metric: IntCounter,
    ack_metric: Histogram,
}

/// The last error of the producer, and the limit on how often failed events are logged.
#[derive(Debug, Default)]
struct LastError {
    last: Option<String>,
    log_limit: LogLimit,
}

/// The counts of [`Deliveries`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliveryCounts {
    /// Number of events that were passed to librdkafka.
    pub sent: u64,
    /// Number of events that Kafka acknowledged.
    pub acknowledged: u64,
    /// Number of events that Kafka refused or whose outcome is unknown.
    pub failed: u64,
    /// Number of input lines that are not events.
    pub bad: u64,
    /// Number of heartbeats that were passed to librdkafka.
    pub heartbeats: u64,
    /// The latencies of all acknowledged events. A latency is the time from the sending of an event to its
    /// acknowledgement.
    pub latency: LatencySummary,
    /// The time since the producer was created.
    pub uptime: Duration,
}

impl DeliveryCounts {
    /// Returns the number of events that are neither acknowledged nor failed yet.
    pub fn undelivered(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged + self.failed)
    }

    /// Returns the number of acknowledged events per second since the producer was created.
    #[allow(clippy::cast_precision_loss)]
    pub fn per_second(&self) -> f64 {
        let seconds = self.uptime.as_secs_f64();
        if seconds > 0.0 {
            self.acknowledged as f64 / seconds
        } else {
            0.0
        }
    }
}

impl Deliveries {
    pub(super) fn new(metrics: &Metrics) -> Deliveries {
        Deliveries {
            started: Instant::now(),
            connected: AtomicBool::new(false),
            topic_missing: AtomicBool::new(false),
            sent: Padded(AtomicU64::new(0)),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            latency: LatencyHistogram::default(),
            last_change: Mutex::new((0, Instant::now())),
            last_error: Mutex::default(),
            produced_metric: metrics.events_produced.clone(),
            failed_metric: metrics.events_failed.clone(),
            ack_metric: metrics.produce_ack_seconds.clone(),
        }
    }

    /// Returns the current counts.
    pub fn counts(&self) -> DeliveryCounts {
        // `sent` is read last, so that the number of undelivered events is never too low.
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        DeliveryCounts {
            sent: self.sent.0.load(Ordering::Acquire),
            acknowledged,
            failed,
            bad: self.bad.load(Ordering::Relaxed),
            heartbeats: self.heartbeats.load(Ordering::Relaxed),
            latency: self.latency.summary(),
            uptime: self.started.elapsed(),
        }
    }

    /// Checks whether events currently reach Kafka. Callers must call this function at least once a second, because the
    /// function detects a stall by comparing the counts of two calls.
    ///
    /// # Errors
    /// Returns a sentence for the operator if the producer has not reached Kafka yet, the topic is missing, or Kafka
    /// acknowledges no events.
    pub fn check_flow(&self) -> Result<(), String> {
        let with_trouble = |text: String| match self.last_error() {
            Some(trouble) => format!("{text} ({trouble})"),
            None => text,
        };
        if !self.connected.load(Ordering::Relaxed) {
            return Err(with_trouble("waiting for Kafka".to_owned()));
        }
        if self.topic_missing.load(Ordering::Relaxed) {
            return Err(with_trouble("waiting for the topic".to_owned()));
        }
        let stalled = self.stall_time();
        if stalled >= STALL {
            let text = format!("Kafka has acknowledged nothing for {} s", stalled.as_secs());
            return Err(with_trouble(text));
        }
        Ok(())
    }

    /// Works like [`Deliveries::check_flow`], but returns `Ok` until the producer has reached Kafka. While the producer
    /// connects to Kafka for the first time, the producer itself logs the wait.
    ///
    /// # Errors
    /// Returns a sentence for the operator that says why events do not reach Kafka.
    pub fn check_flow_once_connected(&self) -> Result<(), String> {
        if self.connected.load(Ordering::Relaxed) {
            self.check_flow()
        } else {
            Ok(())
        }
    }

    /// Returns the time since an event was last acknowledged or failed. If no event waits for an acknowledgement, the
    /// result is almost zero.
    fn stall_time(&self) -> Duration {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let settled = acknowledged + self.failed.load(Ordering::Acquire);
        let waiting = settled < self.sent.0.load(Ordering::Acquire);
        let mut last_change = self
            .last_change
            .lock()
            .expect("no panic is possible while the lock is held");
        if !waiting || settled != last_change.0 {
            *last_change = (settled, Instant::now());
        }
        last_change.1.elapsed()
    }

    /// Returns the time since the producer was created, in microseconds.
    pub(super) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock_last_error(&self) -> MutexGuard<'_, LastError> {
        self.last_error
            .lock()
            .expect("no panic is possible while the lock is held")
    }

    /// Returns the last error of the producer, or `None` if the cause of that error no longer exists.
    pub(super) fn last_error(&self) -> Option<String> {
        self.lock_last_error().last.clone()
    }

    /// Sets the last error to `error`.
    pub(super) fn set_last_error(&self, error: String) {
        self.lock_last_error().last = Some(error);
    }

    /// Remembers that the producer has reached Kafka and that the topic exists.
    pub(super) fn set_connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.lock_last_error().last = None;
    }

    /// Remembers that the topic of a record does not exist.
    pub(super) fn set_topic_missing(&self, topic: &str) {
        self.set_last_error(format!("no topic {topic}"));
        self.topic_missing.store(true, Ordering::Relaxed);
    }

    /// Counts an input line that is not an event.
    pub fn count_bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that was passed to librdkafka.
    pub(super) fn count_sent(&self) {
        self.sent.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a heartbeat that was passed to librdkafka.
    pub(super) fn count_heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an acknowledged event. `sent_us` is the time at which the event was sent, in microseconds since the
    /// producer was created. If the topic was missing, the acknowledgement shows that the topic exists again.
    pub(super) fn count_acknowledged(&self, sent_us: u64) {
        let us = self.elapsed_us().saturating_sub(sent_us);
        self.latency.record(us);
        #[allow(clippy::cast_precision_loss)] // 2^53 µs are 285 years
        self.ack_metric.observe(us as f64 / 1_000_000.0);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
        self.produced_metric.inc();
        // An atomic load is cheap enough to run for every event. Only the first event after an outage needs the more
        // expensive atomic swap.
        if self.topic_missing.load(Ordering::Relaxed)
            && self.topic_missing.swap(false, Ordering::Relaxed)
        {
            self.lock_last_error().last = None;
            tracing::info!("the topic accepts records again");
        }
    }

    /// Counts an event that Kafka refused or whose outcome is unknown.
    pub(super) fn count_failed(&self, error: &KafkaError) {
        self.failed.fetch_add(1, Ordering::AcqRel);
        self.failed_metric.inc();
        let mut trouble = self.lock_last_error();
        trouble.last = Some(error.to_string());
        if trouble.log_limit.allows() {
            drop(trouble);
            tracing::error!(%error, "failed to deliver an event");
        }
    }
}
