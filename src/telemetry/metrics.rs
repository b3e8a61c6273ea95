//! The definitions of all metrics of the program.
//!
//! The table at the end of this file declares each metric once: its help text, field, type, name, labels and buckets. A
//! process has one [`Metrics`] value. Every role registers all metrics, so that a dashboard finds the same names
//! everywhere. Dashboards and alert rules depend on the names and the labels of the metrics. Each label has a closed
//! set of values, so the number of time series is bounded.

use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::core::ledger::Ledger;
use crate::core::parse::Reason;

/// Histogram buckets for the duration of one request to DynamoDB or to the API, in seconds.
const REQUEST_S: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Histogram buckets for the time until Kafka acknowledges an event, in seconds. An acknowledgement can take as long as
/// the delivery timeout.
const ACK_S: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Histogram buckets for the time from a record's timestamp until its counts are durable, in seconds. The largest
/// bucket is one hour.
const LATENCY_S: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
];

/// Defines [`Metrics`] and its function `new` from a table of metrics.
///
/// Each entry of the table has the following form. The doc comment of an entry is also the help text of the metric.
///
/// ```text
/// field: Type("name", [labels], buckets)
/// ```
macro_rules! metrics {
    ($(#[doc = $help:literal] $vis:vis $field:ident: $type:ident($name:literal $(, [$($label:literal),+])? $(, $buckets:ident)?);)+) => {
        /// All metrics of the program. Clones share the values.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            /// The ledger, which counts what happened to each record that the consumer has read. At each update, the
            /// consumer stores a new copy of the whole ledger.
            pub ledger: Arc<Mutex<Ledger>>,
            $(#[doc = $help] $vis $field: $type,)+
        }

        impl Metrics {
            /// Creates and registers all metrics.
            pub fn new() -> Metrics {
                let registry = Registry::new();
                let metrics = Metrics {
                    ledger: Arc::default(),
                    $($field: declare(&registry, $name, $help, &[$($($label),+)?], &[$($buckets)?]),)+
                    registry,
                };
                // The alert counter has the label values `high` and `critical` from the start. If a label value
                // appeared only with its first alert, a rate over the metric would miss that alert.
                for severity in ["high", "critical"] {
                    metrics.alerts.with_label_values(&[severity]).inc_by(0);
                }
                metrics
            }
        }
    };
}

/// Creates a metric and registers it.
fn declare<M: MetricType>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[&[f64]],
) -> M {
    let buckets = buckets.concat();
    let metric = M::create(Opts::new(name, help.trim()), labels, buckets)
        .expect("the table has valid names and labels");
    let registered = registry.register(Box::new(metric.clone()));
    registered.expect("the table has each name once");
    metric
}

/// A Prometheus metric type that the table of metrics can declare.
trait MetricType: Collector + Clone + Sized + 'static {
    fn create(opts: Opts, labels: &[&str], buckets: Vec<f64>) -> prometheus::Result<Self>;
}

macro_rules! metric_types {
    ($($type:ident: $create:expr;)+) => {$(
        impl MetricType for $type {
            fn create(opts: Opts, labels: &[&str], buckets: Vec<f64>) -> prometheus::Result<$type> {
                let create: fn(Opts, &[&str], Vec<f64>) -> prometheus::Result<$type> = $create;
                create(opts, labels, buckets)
            }
        }
    )+};
}

metric_types! {
    IntCounter: |opts, _, _| IntCounter::with_opts(opts);
    IntCounterVec: |opts, labels, _| IntCounterVec::new(opts, labels);
    CounterVec: |opts, labels, _| CounterVec::new(opts, labels);
    Gauge: |opts, _, _| Gauge::with_opts(opts);
    GaugeVec: |opts, labels, _| GaugeVec::new(opts, labels);
    IntGauge: |opts, _, _| IntGauge::with_opts(opts);
    IntGaugeVec: |opts, labels, _| IntGaugeVec::new(opts, labels);
    Histogram: |opts, _, buckets| Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets));
    HistogramVec: |opts, labels, buckets| HistogramVec::new(HistogramOpts::from(opts).buckets(buckets), labels);
}

impl Metrics {
    /// Registers a metric that only one role uses.
    ///
    /// # Panics
    /// Panics if a metric with the same name already exists.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry
            .register(collector)
            .expect("each name is registered once");
    }

    /// Returns the number of partitions that this process owns, and the sum of their lags in records.
    ///
    /// Returns `None` if the role does not own partitions.
    pub fn lag(&self) -> Option<(usize, i64)> {
        let families = self.lag_records.collect();
        let series: Vec<i64> = families
            .iter()
            .flat_map(MetricFamily::get_metric)
            .map(|metric| {
                #[allow(clippy::cast_possible_truncation)] // the gauge holds whole numbers
                let value = metric.get_gauge().get_value() as i64;
                value
            })
            .collect();
        (!series.is_empty()).then(|| (series.len(), series.iter().sum()))
    }

    /// Returns the names of all metrics, sorted.
    pub fn names(&self) -> Vec<String> {
        let families = self.gather();
        let names = families.iter().map(|family| family.name().to_owned());
        names.collect()
    }

    /// Returns all metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn gather(&self) -> Vec<MetricFamily> {
        // Each scrape must show one consistent state of the ledger (INV-7). The code holds the lock on the ledger until
        // all values are read, because another scrape at the same time would overwrite some of the values.
        let ledger = self.ledger.lock().expect("no panic holds the ledger");
        let set = |counter: &IntCounter, value| {
            counter.reset();
            counter.inc_by(value);
        };
        set(&self.events_consumed, ledger.consumed);
        set(&self.events_counted, ledger.counted);
        set(&self.events_late, ledger.late);
        set(&self.events_already_counted, ledger.already_counted);
        set(&self.heartbeats, ledger.heartbeats);
        set(&self.events_given_up, ledger.given_up);
        for (reason, count) in Reason::ALL.iter().zip(ledger.rejected) {
            let rejected = self.events_rejected.with_label_values(&[reason.name()]);
            set(&rejected, count);
        }
        let in_flight = i64::try_from(ledger.in_flight).unwrap_or(i64::MAX);
        self.events_in_flight.set(in_flight);
        self.registry.gather()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

metrics! {
    /// Events that Kafka acknowledged.
    pub events_produced: IntCounter("citystream_events_produced_total");
    /// Time from handing an event to the Kafka client until Kafka acknowledged it.
    pub produce_ack_seconds: Histogram("citystream_produce_ack_seconds", ACK_S);
    /// Events that the Kafka client could not deliver.
    pub events_failed: IntCounter("citystream_events_failed_total");
    /// HTTP requests that carry events, by response status.
    pub ingest_requests: IntCounterVec("citystream_ingest_requests_total", ["status"]);
    /// Events in requests to `produce --accept`: accepted, rejected, unknown or not_sent.
    pub ingest_events: IntCounterVec("citystream_ingest_events_total", ["outcome"]);
    /// Duration of a request to `produce --accept`, from its head to its response.
    pub ingest_seconds: Histogram("citystream_ingest_request_seconds", ACK_S);
    /// Events whose event time is ahead of their record's timestamp by more than the allowed skew.
    pub events_future: IntCounter("citystream_events_future_total");
    /// Events of severity high or critical.
    pub alerts: IntCounterVec("citystream_alerts_total", ["severity"]);
    /// Records between the position of the consumer and the end of the log.
    pub lag_records: IntGaugeVec("citystream_consumer_lag_records", ["topic", "partition"]);
    /// Watermark of each partition that this process owns, in Unix seconds.
    pub watermark_seconds: GaugeVec("citystream_watermark_timestamp_seconds", ["partition"]);
    /// Time from the record timestamp of an event until its counts were durable.
    pub event_latency_seconds: Histogram("citystream_event_latency_seconds", LATENCY_S);
    /// Requests to DynamoDB.
    pub dynamodb_requests: IntCounterVec("citystream_dynamodb_requests_total", ["operation", "table", "outcome"]);
    /// Capacity units that DynamoDB reported as consumed.
    pub dynamodb_units: CounterVec("citystream_dynamodb_consumed_capacity_units_total", ["table", "operation"]);
    /// Duration of a request to DynamoDB.
    pub dynamodb_seconds: HistogramVec("citystream_dynamodb_request_seconds", ["operation"], REQUEST_S);
    /// Responses from DynamoDB that failed a check. The requests were sent again.
    pub answers_refused: IntCounterVec("citystream_dynamodb_answers_refused_total", ["operation", "why"]);
    /// Row updates that were refused because of a fence.
    pub fence_conflicts: IntCounter("citystream_fence_conflicts_total");
    /// Gaps in the offsets of a partition: real gaps, and records that the Kafka client skipped.
    pub read_gaps: IntCounterVec("citystream_read_gaps_total", ["outcome"]);
    /// Records whose timestamp was set by the producer and not by the broker.
    pub producer_time: IntCounter("citystream_events_producer_time_total");
    /// Records that Kafka deleted before the consumer read them.
    pub records_lost: IntCounter("citystream_records_lost_total");
    /// Event time before which all hours are rolled up, in Unix seconds. The value is 0 in a consumer that does not roll up.
    pub rollups_until_seconds: IntGauge("citystream_rollups_until_seconds");
    /// Rows of hours and days that were written.
    pub rollup_rows: IntCounter("citystream_rollup_rows_total");
    /// Attempts to roll up hours that failed.
    pub rollup_failures: IntCounter("citystream_rollup_failures_total");
    /// Incidents that are open in the partitions of this process.
    pub notify_open: IntGauge("citystream_incidents_open");
    /// Incidents that are open or have a message to deliver, in the partitions of this process.
    pub notify_live: IntGauge("citystream_incidents_live");
    /// Incidents with a message that could not be delivered yet and will be sent again.
    pub notify_waiting: IntGaugeVec("citystream_notify_waiting", ["receiver"]);
    /// Incidents that were not opened because their rule had reached `open_max`.
    pub notify_left_out: IntGauge("citystream_incidents_left_out");
    /// Attempts to send a message to a receiver: sent, refused, silenced or failed.
    pub notify_attempts: IntCounterVec("citystream_notify_attempts_total", ["receiver", "outcome"]);
    /// DynamoDB's clock minus this host's clock, from the date of the last response.
    pub clock_skew_seconds: Gauge("citystream_clock_skew_seconds");
    /// Number of pairs of city and event type when the API last read the totals.
    pub table_series: Gauge("citystream_table_series");
    /// Kafka clients that were replaced because a partition with lag made no progress.
    pub stalls: IntCounter("citystream_consumer_stalls_total");
    /// HTTP requests.
    pub http_requests: IntCounterVec("citystream_http_requests_total", ["route", "status"]);
    /// Duration of an HTTP request.
    pub http_seconds: HistogramVec("citystream_http_request_seconds", ["route"], REQUEST_S);
    /// Bytes of records that were read from Kafka and are not yet durable in DynamoDB.
    pub in_flight_bytes: IntGauge("citystream_in_flight_bytes");

    // The fields without `pub` are metrics that show the numbers of the ledger. The function `gather` sets the metrics
    // of the ledger before each scrape.

    /// Records that were read from Kafka.
    events_consumed: IntCounter("citystream_events_consumed_total");
    /// Events that were counted in a window.
    events_counted: IntCounter("citystream_events_counted_total");
    /// Late events, which count in the totals but not in a window.
    events_late: IntCounter("citystream_events_late_total");
    /// Events that were read again after the tables had counted them.
    events_already_counted: IntCounter("citystream_events_already_counted_total");
    /// Heartbeats that were read.
    heartbeats: IntCounter("citystream_heartbeats_total");
    /// Records that were dropped with their revoked partition. The next owner reads them again.
    events_given_up: IntCounter("citystream_events_given_up_total");
    /// Records that were sent to the dead-letter topic.
    events_rejected: IntCounterVec("citystream_events_rejected_total", ["reason"]);
    /// Records that were read and are not yet durable.
    events_in_flight: IntGauge("citystream_events_in_flight");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_and_the_labels_are_rendered() {
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
