//! Decodes the items of the tables for the API. The decoders ignore attributes that `docs/TABLES.md` does not describe.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::core::event::Severity;
use crate::core::keys::{FENCE_NEXT, SUMS, split_series};
use crate::store::attributes::{
    CITY, DESCRIPTION, EVENT_COUNT, EVENT_ID, EVENT_TIME, EVENT_TYPE, EXTRA, FUTURE, INCIDENT,
    Item, LAST_UPDATED, LATE, LATE_COUNT, PARTITION_KEY, PROCESSING_TIME, RULE, SERIES, SEVERITIES,
    SEVERITY, SEVERITY_COUNTS, SHARD, SOURCE, TIMESTAMP, TTL, WINDOW_END, WINDOW_START,
    checked_number, number, text,
};
use crate::store::incidents::{StoredIncident, stored_incident};
use crate::telemetry::LogLimit;

/// Limits how often the readers log warnings about damaged rows. Without this limit, a client that repeatedly reads a
/// damaged row would fill the log.
static DAMAGE: LogLimit = LogLimit::every(Duration::from_secs(60));

/// A raw event as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventItem {
    /// The id that the producer gave the event, or `<topic>-<partition>-<offset>`.
    pub event_id: String,
    /// The event time, in the form `2013-01-01T06:00:00.000Z`.
    pub timestamp: String,
    /// The name of the city in the spelling of the producers.
    pub city: String,
    /// The event type, in lower case.
    pub event_type: String,
    /// The severity: `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// The producer's description of the event, or an empty string.
    pub description: String,
    /// The time at which a consumer wrote the item, as UTC text.
    pub processing_time: String,
    /// The time at which the item expires, in Unix seconds.
    pub ttl: i64,
    /// True if the event is late.
    pub late: bool,
    /// True if the event time is too far ahead of the record's Kafka timestamp.
    pub future: bool,
    /// The position of the event's record: `<topic>/<partition>/<offset>`.
    pub source: Option<String>,
    /// The unknown fields of the record, as the text of a JSON object.
    pub extra: Option<String>,
}

/// An alert as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertItem {
    /// The id that the producer gave the event, or `<topic>-<partition>-<offset>`.
    pub event_id: String,
    /// The event time, in the form `2013-01-01T06:00:00.000Z`.
    pub event_time: String,
    /// The name of the city in the spelling of the producers.
    pub city: String,
    /// The event type, in lower case.
    pub event_type: String,
    /// The severity: `high` or `critical`.
    pub severity: String,
    /// The producer's description of the event, or an empty string.
    pub description: String,
    /// The time at which a consumer wrote the item, as UTC text.
    pub processing_time: String,
    /// True if the event is late.
    pub late: bool,
}

/// A window of a series as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregationItem {
    /// The key of the row: `city#event_type#window_start`.
    pub partition_key: String,
    /// The first instant of the window, in the form `2013-01-01T06:00:00Z`.
    pub window_start: String,
    /// The first instant after the window.
    pub window_end: String,
    /// The name of the city in the spelling of the producers.
    pub city: String,
    /// The event type, in lower case.
    pub event_type: String,
    /// Number of events that the window counts.
    pub event_count: u64,
    /// The severities that occur in the window, ordered from low to critical.
    pub severities: Vec<String>,
    /// Number of events of each severity, indexed by [`Severity::index`].
    pub severity_counts: [u64; 4],
    /// The time at which a consumer last wrote the row.
    pub last_updated: String,
    /// True if the watermark has passed the window. The window then gets no more events.
    pub is_final: bool,
}

/// The totals of a series as the API shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalItem {
    /// The name of the city in the spelling of the producers.
    pub city: String,
    /// The event type, in lower case.
    pub event_type: String,
    /// Number of events that windows count.
    pub event_count: u64,
    /// Number of late events, which no window counts.
    pub late_count: u64,
    /// Number of events of each severity, late events included, indexed by [`Severity::index`].
    pub severity_counts: [u64; 4],
}

impl TotalItem {
    /// Returns the number of all events of the series, late events included.
    pub fn events(&self) -> u64 {
        self.event_count.saturating_add(self.late_count)
    }

    /// Returns the totals in an item. A damaged attribute gives an empty value or zero.
    pub fn from_item(item: &Item) -> TotalItem {
        let series = text(item, SERIES);
        let (city, event_type) = split_series(series).unwrap_or((series, ""));
        TotalItem {
            city: city.to_owned(),
            event_type: event_type.to_owned(),
            event_count: count_of(item, EVENT_COUNT),
            late_count: count_of(item, LATE_COUNT),
            severity_counts: severity_counts(item),
        }
    }

    /// Works like [`TotalItem::from_item`], but also logs a warning if a count is damaged.
    pub(super) fn from_table(table: &str, item: &Item) -> TotalItem {
        warn_of_damage(&DAMAGE, table, &[SHARD, SERIES], item, &SUMS);
        TotalItem::from_item(item)
    }
}

impl EventItem {
    /// Returns the event in an item. A damaged attribute gives an empty value or zero.
    pub fn from_item(item: &Item) -> EventItem {
        let optional = |name: &str| item.get(name).and_then(|value| value.as_s().ok().cloned());
        EventItem {
            event_id: owned(item, EVENT_ID),
            timestamp: owned(item, TIMESTAMP),
            city: owned(item, CITY),
            event_type: owned(item, EVENT_TYPE),
            severity: owned(item, SEVERITY),
            description: owned(item, DESCRIPTION),
            processing_time: owned(item, PROCESSING_TIME),
            ttl: number(item, TTL).unwrap_or_default(),
            late: flag(item, LATE),
            future: flag(item, FUTURE),
            source: optional(SOURCE),
            extra: optional(EXTRA),
        }
    }

    /// Works like [`EventItem::from_item`], but also logs a warning if the `ttl` is damaged.
    pub(super) fn from_table(table: &str, item: &Item) -> EventItem {
        warn_of_damage(&DAMAGE, table, &[EVENT_ID, TIMESTAMP], item, &[TTL]);
        EventItem::from_item(item)
    }
}

impl AlertItem {
    /// Returns the alert in an item. A damaged attribute gives an empty value.
    pub fn from_item(item: &Item) -> AlertItem {
        AlertItem {
            event_id: owned(item, EVENT_ID),
            event_time: owned(item, EVENT_TIME),
            city: owned(item, CITY),
            event_type: owned(item, EVENT_TYPE),
            severity: owned(item, SEVERITY),
            description: owned(item, DESCRIPTION),
            processing_time: owned(item, PROCESSING_TIME),
            late: flag(item, LATE),
        }
    }
}

impl AggregationItem {
    /// Returns the window in a row, and marks it as not final. A damaged attribute gives an empty value or zero.
    pub fn from_item(item: &Item) -> AggregationItem {
        let severities = item.get(SEVERITIES).and_then(|v| v.as_ss().ok());
        let mut severities = severities.cloned().unwrap_or_default();
        severities.sort_by_key(|name| Severity::from_name(name).map_or(4, Severity::index));
        AggregationItem {
            partition_key: owned(item, PARTITION_KEY),
            window_start: owned(item, WINDOW_START),
            window_end: owned(item, WINDOW_END),
            city: owned(item, CITY),
            event_type: owned(item, EVENT_TYPE),
            event_count: count_of(item, EVENT_COUNT),
            severities,
            severity_counts: severity_counts(item),
            last_updated: owned(item, LAST_UPDATED),
            is_final: false,
        }
    }

    /// Works like [`AggregationItem::from_item`], but also logs a warning if a count is damaged.
    pub(super) fn from_table(table: &str, item: &Item) -> AggregationItem {
        warn_of_damage(&DAMAGE, table, &[PARTITION_KEY], item, &SUMS);
        AggregationItem::from_item(item)
    }
}

/// Returns the incident in a row. For a damaged row, logs a warning and returns `None`, so that the API still shows the
/// other rows. A rate limit may suppress the warning.
pub(super) fn incident_from_table(table: &str, item: &Item) -> Option<StoredIncident> {
    let found = stored_incident(item);
    if found.is_none() && DAMAGE.allows() {
        let key = [RULE, INCIDENT].map(|name| text(item, name)).join("/");
        tracing::warn!(table, key, "omitting a damaged incident from a list");
    }
    found
}

/// Returns the log keys (`<topic id>#<partition>`) of all partitions that have a fence in the row.
pub(super) fn fences(item: &Item) -> impl Iterator<Item = &str> {
    item.keys().filter_map(|name| name.strip_prefix(FENCE_NEXT))
}

/// Logs a warning if a number attribute is damaged. The API shows a damaged number as zero. The rate limit `limit` may
/// suppress the warning.
fn warn_of_damage(
    limit: &LogLimit,
    table: &str,
    key: &[&str],
    item: &Item,
    numbers: &[&'static str],
) {
    let Some(attribute) = damaged_number(item, numbers) else {
        return;
    };
    if limit.allows() {
        let key: Vec<&str> = key.iter().map(|name| text(item, name)).collect();
        tracing::warn!(
            table,
            key = key.join("/"),
            attribute,
            "showing a damaged attribute as zero"
        );
    }
}

/// Returns the first attribute in `names` that exists but is not a nonnegative whole number.
fn damaged_number(item: &Item, names: &[&'static str]) -> Option<&'static str> {
    let is_damaged = |name: &str| match checked_number(item, name) {
        Ok(number) => number.is_some_and(|number| number < 0),
        Err(_) => true,
    };
    names.iter().copied().find(|name| is_damaged(name))
}

fn owned(item: &Item, name: &str) -> String {
    text(item, name).to_owned()
}

fn count_of(item: &Item, name: &str) -> u64 {
    number(item, name)
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or_default()
}

fn flag(item: &Item, name: &str) -> bool {
    matches!(item.get(name), Some(AttributeValue::Bool(true)))
}

fn severity_counts(item: &Item) -> [u64; 4] {
    SEVERITY_COUNTS.map(|name| count_of(item, name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log writer that collects the log lines of a test.
    #[derive(Clone, Default)]
    struct LogLines(Arc<Mutex<Vec<u8>>>);

    impl Write for LogLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_count_that_is_no_number_is_shown_as_zero_and_logged_once_in_a_while() {
        let good = |text: &str| AttributeValue::N(text.to_owned());
        let mut item = Item::from([
            ("shard".to_owned(), AttributeValue::S("totals#1".to_owned())),
            ("series".to_owned(), AttributeValue::S("a#b".to_owned())),
            ("event_count".to_owned(), good("7")),
            ("late_count".to_owned(), good("0")),
        ]);
        assert_eq!(damaged_number(&item, &SUMS), None);
        for wrong in [
            AttributeValue::S("many".to_owned()),
            good("1.5"),
            good("-1"),
        ] {
            item.insert("event_count".to_owned(), wrong);
            assert_eq!(damaged_number(&item, &SUMS), Some("event_count"));
            assert_eq!(TotalItem::from_item(&item).event_count, 0);
        }
        let (lines, limit) = (
            LogLines::default(),
            LogLimit::every(Duration::from_secs(60)),
        );
        let out = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || out.clone());
        tracing::subscriber::with_default(log.with_ansi(false).finish(), || {
            for _ in 0..3 {
                warn_of_damage(&limit, "t-totals", &["shard", "series"], &item, &SUMS);
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        for word in ["WARN", "t-totals", "totals#1/a#b", "event_count"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
