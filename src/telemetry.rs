//! Logs and metrics: how lines look, and every metric the program has.
//!
//! One [`Metrics`] value is made per process and handed to the roles; each registers all series, so
//! a dashboard finds the same names everywhere. Names and labels are fixed by the contract; labels
//! come from closed sets.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tracing_subscriber::EnvFilter;

use crate::core::ledger::Ledger;
use crate::core::parse::Reason;
use crate::failure::Failure;
use crate::settings::LogFormat;

/// What is logged where `RUST_LOG` does not say.
const FILTER: &str = "info,aws_config=error,hyper=warn,rdkafka=off,dynoxide=warn";

/// Starts logging to standard error. Later calls change nothing.
///
/// Text on a terminal and JSON elsewhere, unless `format` says so; `RUST_LOG` filters.
///
/// # Errors
/// A sentence for people where `RUST_LOG` cannot be read.
pub fn start_logging(format: Option<LogFormat>) -> Result<(), Failure> {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = if asked.is_empty() {
        EnvFilter::new(FILTER)
    } else {
        EnvFilter::builder().parse(&asked).map_err(|error| {
            Failure::new(format!("RUST_LOG={asked}"))
                .with_why(error.to_string())
                .with_remedy("give a level such as debug, or info,aws_config=debug")
        })?
    };
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LineOut)
        .with_target(false);
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A second start in one process, as in tests, keeps the first.
    let started = match format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(())
}

/// Most log lines that wait while a screen is up; the oldest give way.
const HELD_MAX: usize = 200;
/// Log lines that wait.
static HELD: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);

/// Lets log lines wait until [`release_lines`], so that they do not write over a full screen. Where
/// standard error is no terminal they go on as ever.
pub fn hold_lines() {
    if std::io::stderr().is_terminal() {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert_default();
    }
}

/// Writes the log lines that waited, and lets others go on.
pub fn release_lines() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    for line in held.into_iter().flatten() {
        write_line(&line);
    }
}

/// Writes to standard error, or lets it wait with the log lines.
pub fn write_line(line: &[u8]) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *held {
        Some(held) => {
            if held.len() == HELD_MAX {
                held.pop_front();
            }
            held.push_back(line.to_vec());
        }
        None => {
            // A log that cannot be written cannot be told of either.
            drop(std::io::stderr().write_all(line));
        }
    }
}

/// Says something to people on standard error, beside the log. Nobody there to read it is no reason to
/// stop, so this cannot fail.
pub fn say(text: &str) {
    write_line(format!("{text}\n").as_bytes());
}

/// Shows people something on standard output that a role goes on without, such as its address. What a
/// command is run for is written with errors instead.
pub fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "failed to write to standard output");
    }
}

/// Where log lines go; each comes as one write.
struct LineOut;

impl std::io::Write for LineOut {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the wall clock in Unix milliseconds.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Returns a time in milliseconds for distances alone: it begins as the wall clock and only rises, also
/// where somebody puts the clock back.
pub fn steady_ms() -> i64 {
    static BEGAN: OnceLock<(Instant, i64)> = OnceLock::new();
    let (began, began_ms) = BEGAN.get_or_init(|| (Instant::now(), unix_ms()));
    let since_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    began_ms.saturating_add(since_ms)
}

/// Tells whether progress or a screen may be drawn on a stream: a terminal that takes escape codes.
/// Elsewhere roles print a plain line now and then. `NO_COLOR` asks for no colour, and the libraries
/// that draw leave it out then.
pub fn can_draw(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Every metric of the program.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// The consumer's ledger: replaced whole, so that it balances at every scrape (C7).
    pub ledger: Arc<Mutex<Ledger>>,
    /// Events acknowledged by Kafka.
    pub events_produced: IntCounter,
    /// From handing an event over to its acknowledgement by Kafka.
    pub produce_ack_seconds: Histogram,
    /// Events whose delivery failed for good.
    pub events_failed: IntCounter,
    /// Events ahead of their record by more than the allowed skew.
    pub events_future: IntCounter,
    /// Alerts raised, by severity.
    pub alerts: IntCounterVec,
    /// Log end minus position, by topic and partition.
    pub lag_records: IntGaugeVec,
    /// Watermark in Unix seconds, by partition.
    pub watermark_seconds: GaugeVec,
    /// From record timestamp to durable.
    pub event_latency_seconds: Histogram,
    /// DynamoDB requests by operation, table and outcome.
    pub dynamodb_requests: IntCounterVec,
    /// Capacity units by table and operation.
    pub dynamodb_units: CounterVec,
    /// Time of a DynamoDB request, by operation.
    pub dynamodb_seconds: HistogramVec,
    /// Answers of DynamoDB that were not believed, by operation and reason.
    pub answers_refused: IntCounterVec,
    /// Row updates that a fence refused.
    pub fence_conflicts: IntCounter,
    /// Gaps in the offsets that Kafka's client handed on, by what a second read showed.
    pub read_gaps: IntCounterVec,
    /// Records that carried the producer's time instead of the broker's.
    pub producer_time: IntCounter,
    /// Records Kafka no longer had (`--on-data-loss continue`).
    pub records_lost: IntCounter,
    /// Seconds that DynamoDB's clock is ahead of this host's.
    pub clock_skew_seconds: Gauge,
    /// Series in the tables, as `serve` read them last.
    pub table_series: Gauge,
    /// Kafka clients made because partitions stood still.
    pub stalls: IntCounter,
    /// HTTP requests by route and status.
    pub http_requests: IntCounterVec,
    /// Time of an HTTP answer, by route.
    pub http_seconds: HistogramVec,
    /// Bytes between Kafka and DynamoDB.
    pub in_flight_bytes: IntGauge,
}

impl Metrics {
    /// Returns a fresh set of metrics, all registered.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let m = Metrics {
            ledger: Arc::clone(&ledger),
            events_produced: counter(
                "citystream_events_produced_total",
                "Events acknowledged by Kafka",
            ),
            produce_ack_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "citystream_produce_ack_seconds",
                    "From handing an event over to its acknowledgement by Kafka",
                )
                .buckets(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    30.0, 60.0,
                ]),
            )
            .expect("constant name"),
            events_failed: counter(
                "citystream_events_failed_total",
                "Events whose delivery to Kafka failed for good",
            ),
            events_future: counter(
                "citystream_events_future_total",
                "Events ahead of their record by more than the allowed skew",
            ),
            alerts: counters("citystream_alerts_total", "Alerts raised", &["severity"]),
            lag_records: IntGaugeVec::new(
                Opts::new(
                    "citystream_consumer_lag_records",
                    "Records between the position and the end of the log",
                ),
                &["topic", "partition"],
            )
            .expect("constant name"),
            watermark_seconds: GaugeVec::new(
                Opts::new(
                    "citystream_watermark_timestamp_seconds",
                    "Watermark of an owned partition in Unix seconds",
                ),
                &["partition"],
            )
            .expect("constant name"),
            event_latency_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "citystream_event_latency_seconds",
                    "From record timestamp to durable",
                )
                .buckets(vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
                    300.0, 3600.0,
                ]),
            )
            .expect("constant name"),
            dynamodb_requests: counters(
                "citystream_dynamodb_requests_total",
                "DynamoDB requests",
                &["operation", "table", "outcome"],
            ),
            dynamodb_units: CounterVec::new(
                Opts::new(
                    "citystream_dynamodb_consumed_capacity_units_total",
                    "DynamoDB capacity units",
                ),
                &["table", "operation"],
            )
            .expect("constant name"),
            dynamodb_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "citystream_dynamodb_request_seconds",
                    "Time of a DynamoDB request",
                )
                .buckets(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                ]),
                &["operation"],
            )
            .expect("constant name"),
            answers_refused: counters(
                "citystream_dynamodb_answers_refused_total",
                "Answers of DynamoDB that were not believed, their requests sent again",
                &["operation", "why"],
            ),
            fence_conflicts: counter(
                "citystream_fence_conflicts_total",
                "Row updates that a fence refused",
            ),
            read_gaps: counters(
                "citystream_read_gaps_total",
                "Gaps in the offsets of a partition: real, or records that the Kafka client skipped",
                &["outcome"],
            ),
            producer_time: counter(
                "citystream_events_producer_time_total",
                "Records that carry the producer's time",
            ),
            records_lost: counter(
                "citystream_records_lost_total",
                "Records Kafka no longer had",
            ),
            table_series: Gauge::new(
                "citystream_table_series",
                "Pairs of city and event type in the tables, when the totals were read last; serve only.",
            ).expect("constant name"),
            clock_skew_seconds: Gauge::new(
                "citystream_clock_skew_seconds",
                "DynamoDB's clock minus this host's, by the date of its last answer",
            )
            .expect("constant name"),
            stalls: counter(
                "citystream_consumer_stalls_total",
                "Kafka clients made anew because a partition with lag stood still",
            ),
            http_requests: counters(
                "citystream_http_requests_total",
                "HTTP requests",
                &["route", "status"],
            ),
            http_seconds: HistogramVec::new(
                HistogramOpts::new("citystream_http_request_seconds", "Time of an HTTP answer")
                    .buckets(vec![
                        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                    ]),
                &["route"],
            )
            .expect("constant name"),
            in_flight_bytes: IntGauge::new(
                "citystream_in_flight_bytes",
                "Bytes between Kafka and DynamoDB",
            )
            .expect("constant name"),
            registry,
        };
        let collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(LedgerCollector::new(ledger)),
            Box::new(m.events_produced.clone()),
            Box::new(m.produce_ack_seconds.clone()),
            Box::new(m.events_failed.clone()),
            Box::new(m.events_future.clone()),
            Box::new(m.alerts.clone()),
            Box::new(m.lag_records.clone()),
            Box::new(m.watermark_seconds.clone()),
            Box::new(m.event_latency_seconds.clone()),
            Box::new(m.dynamodb_requests.clone()),
            Box::new(m.dynamodb_units.clone()),
            Box::new(m.dynamodb_seconds.clone()),
            Box::new(m.answers_refused.clone()),
            Box::new(m.fence_conflicts.clone()),
            Box::new(m.read_gaps.clone()),
            Box::new(m.producer_time.clone()),
            Box::new(m.records_lost.clone()),
            Box::new(m.stalls.clone()),
            Box::new(m.clock_skew_seconds.clone()),
            Box::new(m.table_series.clone()),
            Box::new(m.http_requests.clone()),
            Box::new(m.http_seconds.clone()),
            Box::new(m.in_flight_bytes.clone()),
        ];
        for c in collectors {
            m.registry
                .register(c)
                .expect("each name is registered once");
        }
        for severity in ["high", "critical"] {
            m.alerts.with_label_values(&[severity]).inc_by(0);
        }
        m
    }

    /// Adds a metric that only one role has.
    ///
    /// # Panics
    /// If its name is taken.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry
            .register(collector)
            .expect("each name is registered once");
    }

    /// Returns how many partitions are owned, and how many records they are behind in all; `None`
    /// for a role that owns none.
    pub fn lag(&self) -> Option<(usize, i64)> {
        let families = self.lag_records.collect();
        let series: Vec<i64> = families
            .iter()
            .flat_map(MetricFamily::get_metric)
            .map(|metric| {
                #[allow(clippy::cast_possible_truncation)] // a gauge of whole numbers
                let value = metric.get_gauge().get_value() as i64;
                value
            })
            .collect();
        (!series.is_empty()).then(|| (series.len(), series.iter().sum()))
    }

    /// Returns the names of all metrics, sorted.
    pub fn names(&self) -> Vec<String> {
        let families = self.registry.gather();
        families
            .iter()
            .map(|family| family.name().to_owned())
            .collect()
    }

    /// Returns the classic Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("constant name")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("constant name")
}

/// A counter without labels, and the field of the ledger that it shows.
type PlainCounter = (IntCounter, fn(&Ledger) -> u64);

/// Renders the ledger in one piece.
struct LedgerCollector {
    ledger: Arc<Mutex<Ledger>>,
    plain: Vec<PlainCounter>,
    rejected: IntCounterVec,
    in_flight: IntGauge,
}

impl LedgerCollector {
    fn new(ledger: Arc<Mutex<Ledger>>) -> LedgerCollector {
        LedgerCollector {
            ledger,
            plain: vec![
                (
                    counter(
                        "citystream_events_consumed_total",
                        "Records taken from Kafka",
                    ),
                    |l| l.consumed,
                ),
                (
                    counter(
                        "citystream_events_counted_total",
                        "Events counted in a window",
                    ),
                    |l| l.counted,
                ),
                (
                    counter("citystream_events_late_total", "Events counted as late"),
                    |l| l.late,
                ),
                (
                    counter(
                        "citystream_events_already_counted_total",
                        "Events that the tables had counted before",
                    ),
                    |l| l.already_counted,
                ),
                (
                    counter("citystream_heartbeats_total", "Heartbeats taken"),
                    |l| l.heartbeats,
                ),
                (
                    counter(
                        "citystream_events_given_up_total",
                        "Records dropped with their partition, read again by its next owner",
                    ),
                    |l| l.given_up,
                ),
            ],
            rejected: counters(
                "citystream_events_rejected_total",
                "Records sent to the dead-letter topic",
                &["reason"],
            ),
            in_flight: IntGauge::new("citystream_events_in_flight", "Records not yet durable")
                .expect("constant name"),
        }
    }
}

impl Collector for LedgerCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut out: Vec<&Desc> = self.plain.iter().flat_map(|(c, _)| c.desc()).collect();
        out.extend(self.rejected.desc());
        out.extend(self.in_flight.desc());
        out
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let ledger = self
            .ledger
            .lock()
            .expect("no panic holds the ledger")
            .clone();
        let mut out = Vec::new();
        for (metric, value) in &self.plain {
            metric.reset();
            metric.inc_by(value(&ledger));
            out.extend(metric.collect());
        }
        for (reason, count) in Reason::ALL.iter().zip(ledger.rejected) {
            let metric = self.rejected.with_label_values(&[reason.name()]);
            metric.reset();
            metric.inc_by(count);
        }
        out.extend(self.rejected.collect());
        self.in_flight
            .set(i64::try_from(ledger.in_flight).unwrap_or(i64::MAX));
        out.extend(self.in_flight.collect());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_names_are_rendered() {
        let metrics = Metrics::new();
        {
            let mut ledger = metrics.ledger.lock().expect("not poisoned");
            ledger.consumed = 3;
            ledger.counted = 2;
            ledger.rejected[3] = 1;
            assert!(ledger.balances());
        }
        metrics
            .lag_records
            .with_label_values(&["city-events", "0"])
            .set(7);
        let text = metrics.render();
        for line in [
            "citystream_events_consumed_total 3",
            "citystream_events_counted_total 2",
            "citystream_events_rejected_total{reason=\"not_json\"} 1",
            "citystream_events_in_flight 0",
            "citystream_alerts_total{severity=\"critical\"} 0",
            "citystream_consumer_lag_records{partition=\"0\",topic=\"city-events\"} 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(metrics.render(), text);
    }
}
