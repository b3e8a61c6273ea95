//! The results of what a producer sent, for progress, health and metrics.
//!
//! The sending and the delivering thread update the counts for every event, so they share no lock. Figures that
//! only a reader needs are computed when it reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use rdkafka::error::KafkaError;

use crate::kafka::log_limit::LogLimit;
use crate::produce::latency::{LatencyHistogram, LatencySummary};
use crate::telemetry::Metrics;

/// The role is not ready when records have waited for this long without an acknowledgement.
const STALL: Duration = Duration::from_secs(10);

/// A counter on its own cache line. The sending thread writes it for each event, and the delivering thread writes
/// the others.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// The results of all records so far.
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
    /// The number of settled events at the last change, and when a reader noticed the change. A moment at which no
    /// event waits counts as a change. Readers keep it, because the two writing threads would pay for reading each
    /// other's counters with every event.
    last_change: Mutex<(u64, Instant)>,
    trouble: Mutex<Trouble>,
    produced_metric: IntCounter,
    failed_metric: IntCounter,
    ack_metric: Histogram,
}

/// The last error, and the limit of the log lines about failed events.
#[derive(Debug, Default)]
struct Trouble {
    last: Option<String>,
    log_limit: LogLimit,
}

/// The counts of [`Deliveries`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliveryCounts {
    /// Events handed to librdkafka.
    pub sent: u64,
    /// Events that Kafka acknowledged.
    pub acknowledged: u64,
    /// Events that were refused, or whose outcome is unknown.
    pub failed: u64,
    /// Lines of the input that are not events.
    pub bad: u64,
    /// Heartbeats handed to librdkafka.
    pub heartbeats: u64,
    /// Time from sending to acknowledgement.
    pub latency: LatencySummary,
    /// Time since the producer was created.
    pub uptime: Duration,
}

impl DeliveryCounts {
    /// Returns the number of events that are neither acknowledged nor failed.
    pub fn undelivered(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged + self.failed)
    }

    /// Returns acknowledged events per second since the producer was created.
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
            latency: LatencyHistogram::new(),
            last_change: Mutex::new((0, Instant::now())),
            trouble: Mutex::default(),
            produced_metric: metrics.events_produced.clone(),
            failed_metric: metrics.events_failed.clone(),
            ack_metric: metrics.produce_ack_seconds.clone(),
        }
    }

    /// Returns the current counts.
    pub fn counts(&self) -> DeliveryCounts {
        // Reads `sent` last, so that the number of undelivered events is never too small.
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

    /// Returns why events do not reach Kafka now. Callers ask at least once a second, as progress displays do,
    /// because the time of a stall is measured between two calls.
    ///
    /// # Errors
    /// A sentence for operators: Kafka was not reached yet, the topic is missing, or Kafka acknowledges nothing.
    pub fn check_flow(&self) -> Result<(), String> {
        let with_trouble = |text: String| match self.trouble() {
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

    /// Like [`Deliveries::check_flow`], but `Ok` until Kafka is reached. The producer logs that wait itself.
    ///
    /// # Errors
    /// A sentence for operators.
    pub fn check_flow_once_connected(&self) -> Result<(), String> {
        if self.connected.load(Ordering::Relaxed) {
            self.check_flow()
        } else {
            Ok(())
        }
    }

    /// Returns how long events have waited without any being settled.
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

    /// Returns the time since the producer was created, in µs.
    pub(super) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble
            .lock()
            .expect("no panic is possible while the lock is held")
    }

    /// Returns the last error, unless it is over.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock_trouble().last.clone()
    }

    /// Sets the last error.
    pub(super) fn set_trouble(&self, trouble: String) {
        self.lock_trouble().last = Some(trouble);
    }

    /// Notes that Kafka was reached and has the topic.
    pub(super) fn set_connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.lock_trouble().last = None;
    }

    /// Notes that the topic of a record does not exist.
    pub(super) fn set_topic_missing(&self, topic: &str) {
        self.set_trouble(format!("no topic {topic}"));
        self.topic_missing.store(true, Ordering::Relaxed);
    }

    /// Counts a line of the input that is not an event.
    pub fn count_bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event handed to librdkafka.
    pub(super) fn count_sent(&self) {
        self.sent.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a heartbeat handed to librdkafka.
    pub(super) fn count_heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an acknowledged event that was sent at `sent_us`. The topic exists again if it was missing.
    pub(super) fn count_acknowledged(&self, sent_us: u64) {
        let us = self.elapsed_us().saturating_sub(sent_us);
        self.latency.record(us);
        #[allow(clippy::cast_precision_loss)] // 2^53 µs are 285 years
        self.ack_metric.observe(us as f64 / 1_000_000.0);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
        self.produced_metric.inc();
        // The load is cheap for every event. Only the first event after an outage pays for the swap.
        if self.topic_missing.load(Ordering::Relaxed)
            && self.topic_missing.swap(false, Ordering::Relaxed)
        {
            self.lock_trouble().last = None;
            tracing::info!("the topic takes records again");
        }
    }

    /// Counts an event that was refused, or whose outcome is unknown.
    pub(super) fn count_failed(&self, error: &KafkaError) {
        self.failed.fetch_add(1, Ordering::AcqRel);
        self.failed_metric.inc();
        let mut trouble = self.lock_trouble();
        trouble.last = Some(error.to_string());
        if trouble.log_limit.allow() {
            drop(trouble);
            tracing::error!(%error, "failed to deliver an event");
        }
    }
}
