//! What became of the records that a producer sent: counts that anybody may read at any time, for progress,
//! health and metrics.
//!
//! The sending and the delivering thread write them with every event, so they share no lock, and what only
//! those who look need is worked out by them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use rdkafka::error::KafkaError;

use crate::kafka::NOTICE_EVERY;
use crate::produce::latency::{LatencyHistogram, LatencySummary};
use crate::telemetry::Metrics;

/// Without an acknowledgement for so long, records that wait for one make the role not ready.
const STALL: Duration = Duration::from_secs(10);

/// A counter on a cache line of its own: the sending thread writes it for each event, and the
/// delivering thread the others.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// What became of the records so far.
#[derive(Debug)]
pub struct Deliveries {
    started: Instant,
    connected: AtomicBool,
    /// The topic was not there when a record was last to go to it.
    missing: AtomicBool,
    sent: Padded,
    acked: AtomicU64,
    failed: AtomicU64,
    bad: AtomicU64,
    heartbeats: AtomicU64,
    latency: LatencyHistogram,
    /// The settled events at the last look at which anything had moved or nothing waited, and when
    /// that was. Kept by those who look, since the sending and the delivering thread would pay for
    /// reading each other's counters with every event.
    moved: Mutex<(u64, Instant)>,
    /// The last thing that went wrong, and when a failed delivery was last told.
    trouble: Mutex<(Option<String>, Option<Instant>)>,
    produced_metric: IntCounter,
    failed_metric: IntCounter,
    ack_metric: Histogram,
}

/// The counts of a [`Deliveries`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliveryCounts {
    /// Events handed to librdkafka.
    pub sent: u64,
    /// Events acknowledged by Kafka.
    pub acked: u64,
    /// Events refused for good.
    pub failed: u64,
    /// Lines of the input that were no events.
    pub bad: u64,
    /// Heartbeat records handed to librdkafka.
    pub heartbeats: u64,
    /// From handing over to acknowledgement.
    pub latency: LatencySummary,
    /// Since the producer was made.
    pub uptime: Duration,
}

impl DeliveryCounts {
    /// Returns how many events are neither acknowledged nor refused.
    pub fn undelivered(&self) -> u64 {
        self.sent.saturating_sub(self.acked + self.failed)
    }

    /// Returns acknowledged events a second, over the whole time.
    #[allow(clippy::cast_precision_loss)]
    pub fn per_second(&self) -> f64 {
        let seconds = self.uptime.as_secs_f64();
        if seconds > 0.0 {
            self.acked as f64 / seconds
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
            missing: AtomicBool::new(false),
            sent: Padded(AtomicU64::new(0)),
            acked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            latency: LatencyHistogram::new(),
            moved: Mutex::new((0, Instant::now())),
            trouble: Mutex::new((None, None)),
            produced_metric: metrics.events_produced.clone(),
            failed_metric: metrics.events_failed.clone(),
            ack_metric: metrics.produce_ack_seconds.clone(),
        }
    }

    /// Returns the counts as they stand.
    pub fn counts(&self) -> DeliveryCounts {
        // Settled before sent, so that undelivered is never below the truth.
        let (acked, failed) = (
            self.acked.load(Ordering::Acquire),
            self.failed.load(Ordering::Acquire),
        );
        DeliveryCounts {
            sent: self.sent.0.load(Ordering::Acquire),
            acked,
            failed,
            bad: self.bad.load(Ordering::Relaxed),
            heartbeats: self.heartbeats.load(Ordering::Relaxed),
            latency: self.latency.summary(),
            uptime: self.started.elapsed(),
        }
    }

    /// DeliveryCounts a line of the input that was no event.
    pub fn count_bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells why events do not reach Kafka at the moment. To be asked about once a second or more
    /// often, as progress displays do: a stall is counted between two looks.
    ///
    /// # Errors
    /// A sentence for people: Kafka was not reached yet, or acknowledges nothing.
    pub fn flowing(&self) -> Result<(), String> {
        let words = |text: String| match &self.trouble().0 {
            Some(trouble) => format!("{text} ({trouble})"),
            None => text,
        };
        if !self.connected.load(Ordering::Relaxed) {
            return Err(words("waiting for Kafka".to_owned()));
        }
        if self.missing.load(Ordering::Relaxed) {
            return Err(words("waiting for the topic".to_owned()));
        }
        let stalled = self.stalled();
        if stalled >= STALL {
            let text = format!("Kafka has acknowledged nothing for {} s", stalled.as_secs());
            return Err(words(text));
        }
        Ok(())
    }

    /// As [`Deliveries::flowing`], but fine before Kafka was first reached: that wait is told elsewhere.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn stalling(&self) -> Result<(), String> {
        if self.connected.load(Ordering::Relaxed) {
            self.flowing()
        } else {
            Ok(())
        }
    }

    /// How long records have waited without any being settled.
    fn stalled(&self) -> Duration {
        let settled = self.acked.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire);
        let waiting = settled < self.sent.0.load(Ordering::Acquire);
        let mut moved = self
            .moved
            .lock()
            .expect("no panic is possible while the lock is held");
        if !waiting || settled != moved.0 {
            *moved = (settled, Instant::now());
        }
        moved.1.elapsed()
    }

    /// Returns the time since the producer was made, in µs.
    pub(super) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, (Option<String>, Option<Instant>)> {
        self.trouble
            .lock()
            .expect("no panic is possible while the lock is held")
    }

    /// Notes that Kafka was reached and has the topic.
    pub(super) fn reached(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.trouble().0 = None;
    }

    /// Returns the last thing that went wrong, or nothing.
    pub(super) fn last_trouble(&self) -> Option<String> {
        self.trouble().0.clone()
    }

    /// Notes the last thing that went wrong.
    pub(super) fn note(&self, trouble: impl Into<String>) {
        self.trouble().0 = Some(trouble.into());
    }

    /// Notes that there is no topic for a record.
    pub(super) fn miss(&self, topic: &str) {
        self.note(format!("no topic {topic}"));
        self.missing.store(true, Ordering::Relaxed);
    }

    /// DeliveryCounts an event handed to librdkafka.
    pub(super) fn count_sent(&self) {
        self.sent.0.fetch_add(1, Ordering::AcqRel);
    }

    /// DeliveryCounts a heartbeat handed to librdkafka.
    pub(super) fn count_heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// DeliveryCounts an acknowledged event that was sent at `sent_us`: the topic takes records.
    pub(super) fn count_acked(&self, sent_us: u64) {
        let us = self.elapsed_us().saturating_sub(sent_us);
        self.latency.record(us);
        #[allow(clippy::cast_precision_loss)] // 2^53 µs are 285 years
        self.ack_metric.observe(us as f64 / 1_000_000.0);
        self.acked.fetch_add(1, Ordering::AcqRel);
        self.produced_metric.inc();
        if self.missing.load(Ordering::Relaxed) && self.missing.swap(false, Ordering::Relaxed) {
            self.trouble().0 = None;
            tracing::info!("the topic takes records again");
        }
    }

    /// DeliveryCounts an event that was refused for good.
    pub(super) fn count_failed(&self, error: &KafkaError) {
        self.failed.fetch_add(1, Ordering::AcqRel);
        self.failed_metric.inc();
        let mut trouble = self.trouble();
        trouble.0 = Some(error.to_string());
        if trouble.1.is_none_or(|told| told.elapsed() >= NOTICE_EVERY) {
            trouble.1 = Some(Instant::now());
            drop(trouble);
            tracing::error!(%error, "kafka refused an event for good");
        }
    }
}
