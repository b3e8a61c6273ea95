//! Names and keys of everything in the tables, as the contract fixes them.
//!
//! Pure functions from an event to the strings under which it is stored. The shard hash is part of
//! [`crate::RULES`]: it decides in which item a total is counted.

use crate::event::{Event, Offset, Severity};
use crate::time::{format_millis, format_seconds};

/// Suffixes of the four tables, behind `--table-prefix` and a dash.
pub const TABLES: [&str; 4] = ["raw-events", "aggregations", "alerts", "totals"];
/// Place of the raw events' table in [`TABLES`].
pub const RAW: usize = 0;
/// Place of the aggregations' table in [`TABLES`].
pub const AGGREGATIONS: usize = 1;
/// Place of the alerts' table in [`TABLES`].
pub const ALERTS: usize = 2;
/// Place of the totals' table in [`TABLES`].
pub const TOTALS: usize = 3;
/// Index of raw events by city shard and time.
pub const CITY_INDEX: &str = "city-timestamp-index";
/// Index of aggregations by series and window start; keys only.
pub const SERIES_INDEX: &str = "series-window-index";
/// Index of alerts by severity shard and sort key.
pub const SEVERITY_INDEX: &str = "severity-timestamp-index";
/// Number of items over which the totals are spread.
pub const TOTALS_SHARDS: u32 = 16;
/// Most shards of cities and severities a config item may ask for.
pub const SHARDS_MAX: u32 = 64;
/// Partition key of the config item in the totals table.
pub const CONFIG_PK: &str = "config";
/// Sort key of the config item in the totals table.
pub const CONFIG_SK: &str = "tables";
/// Partition key of all progress items in the totals table.
pub const PROGRESS_PK: &str = "progress";
/// Attributes of a progress item with its sums, in the order of [`Sum::numbers`].
///
/// [`Sum::numbers`]: crate::stretch::Sum::numbers
pub const SUMS: [&str; 6] = [
    "event_count",
    "late_count",
    "severity_low",
    "severity_medium",
    "severity_high",
    "severity_critical",
];
/// Attribute of a progress item: the offset below which its sums count. They are unknown where it is not
/// the item's `next`: a consumer of an older version moves `next` and leaves the sums behind.
pub const SUMS_NEXT: &str = "sums_next";
/// Prefix of the attribute that holds a fence: the offset after the last record counted.
pub const FENCE_NEXT: &str = "next#";
/// Prefix of the attribute that holds the offset of the first record counted; set once.
pub const FENCE_FIRST: &str = "first#";

/// The names of the four tables under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    /// One item per event.
    pub raw: String,
    /// One item per city, type and window.
    pub aggregations: String,
    /// One item per event of high or critical severity.
    pub alerts: String,
    /// Totals by city and type, the config item and the progress items.
    pub totals: String,
}

impl TableNames {
    /// Returns the names under `prefix`.
    pub fn new(prefix: &str) -> TableNames {
        let name = |suffix: &str| format!("{prefix}-{suffix}");
        TableNames {
            raw: name(TABLES[RAW]),
            aggregations: name(TABLES[AGGREGATIONS]),
            alerts: name(TABLES[ALERTS]),
            totals: name(TABLES[TOTALS]),
        }
    }

    /// Returns all four, in the order of [`TABLES`].
    pub fn all(&self) -> [&str; 4] {
        [&self.raw, &self.aggregations, &self.alerts, &self.totals]
    }
}

/// The shard hash: CRC-32 (IEEE, as zlib) of the UTF-8 bytes.
pub fn hash(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// Returns `<city>#<event_type>`. Neither part can hold a `#`.
pub fn series(city: &str, event_type: &str) -> String {
    let mut out = String::with_capacity(city.len() + 1 + event_type.len());
    out.push_str(city);
    out.push('#');
    out.push_str(event_type);
    out
}

/// Tells whether `series` is the one of this city and event type.
pub fn is_series(series: &str, city: &str, event_type: &str) -> bool {
    series.len() == city.len() + 1 + event_type.len()
        && series.starts_with(city)
        && series.ends_with(event_type)
        && series.as_bytes()[city.len()] == b'#'
}

/// Returns city and event type of a series.
pub fn split_series(series: &str) -> Option<(&str, &str)> {
    series.split_once('#')
}

/// Returns [`hash`] of the series of a city and an event type.
pub fn series_hash(city: &str, event_type: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(city.as_bytes());
    hasher.update(b"#");
    hasher.update(event_type.as_bytes());
    hasher.finalize()
}

/// Returns the `shard` of a series in the totals table: `totals#<n>`.
pub fn totals_shard(series: &str) -> String {
    format!("totals#{}", hash(series) % TOTALS_SHARDS)
}

/// Returns every `shard` that holds totals.
pub fn totals_shards() -> impl Iterator<Item = String> {
    (0..TOTALS_SHARDS).map(|n| format!("totals#{n}"))
}

/// Returns the `partition_key` of a window's row: `<series>#<window start>`.
pub fn window_key(series: &str, window_start_ms: i64) -> String {
    format!("{series}#{}", format_seconds(window_start_ms))
}

/// Returns the event's id, or `<topic>-<partition>-<offset>` where the producer gave none.
pub fn event_id(event: &Event, topic: &str, partition: i32, offset: Offset) -> String {
    let Some(id) = &event.event_id else {
        let mut id = String::with_capacity(topic.len() + 22);
        let mut digits = itoa::Buffer::new();
        id.push_str(topic);
        id.push('-');
        id.push_str(digits.format(partition));
        id.push('-');
        id.push_str(digits.format(offset.0));
        return id;
    };
    id.to_string()
}

/// Returns the sort key of an alert: `<event time>#<event id>`.
pub fn alert_sk(time_ms: i64, event_id: &str) -> String {
    format!("{}#{event_id}", format_millis(time_ms))
}

/// Returns `<city>#<n>`, the partition key in [`CITY_INDEX`].
pub fn city_shard(city: &str, event_id: &str, shards: u32) -> String {
    format!("{city}#{}", hash(event_id) % shards)
}

/// Returns `<severity>#<n>`, the partition key in [`SEVERITY_INDEX`].
pub fn severity_shard(severity: Severity, event_id: &str, shards: u32) -> String {
    format!("{severity}#{}", hash(event_id) % shards)
}

/// Returns `<topic id>#<partition>`: the sort key of a progress item, and what follows
/// [`FENCE_NEXT`] and [`FENCE_FIRST`] in a fence's name.
pub fn log_key(topic_id: &str, partition: i32) -> String {
    format!("{topic_id}#{partition}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_one_city_are_spread_over_its_shards() {
        // A city lies in one partition, so its ids differ by the offset alone; 2,000 are a busy second.
        for shards in [2, 3, 4, 8, 9, 16] {
            for first in (1_000_000..1_020_000).step_by(2_000) {
                let mut held = std::collections::BTreeMap::<String, u32>::new();
                for offset in first..first + 2_000 {
                    let id = format!("city-events-3-{offset}");
                    *held.entry(city_shard("NYC", &id, shards)).or_default() += 1;
                }
                let most = held.values().max().unwrap();
                assert!(
                    most * shards <= 2_000 * 3 / 2,
                    "{most} of 2000 in one of {shards}"
                );
            }
        }
    }

    #[test]
    fn the_hash_is_the_contracts() {
        assert_eq!(hash("NYC#traffic"), 4_065_496_510);
        assert_eq!(hash("São Paulo#incident"), 4_032_233_575);
        assert_eq!(hash("city-events-0-0") % 4, 3);
        assert_eq!(totals_shard("NYC#traffic"), "totals#14");
        assert_eq!(totals_shard("São Paulo#incident"), "totals#7");
    }

    #[test]
    fn keys_are_the_contracts() {
        let series = series("NYC", "traffic");
        assert_eq!(
            window_key(&series, 1_357_020_000_000),
            "NYC#traffic#2013-01-01T06:00:00Z"
        );
        assert_eq!(split_series(&series), Some(("NYC", "traffic")));
        assert_eq!(
            alert_sk(1_357_020_000_000, "e#1"),
            "2013-01-01T06:00:00.000Z#e#1"
        );
        assert_eq!(city_shard("NYC", "city-events-0-0", 4), "NYC#3");
        assert_eq!(
            severity_shard(Severity::High, "city-events-0-0", 4),
            "high#3"
        );
        assert_eq!(TableNames::new("citystream").totals, "citystream-totals");
    }
}
