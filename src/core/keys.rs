//! Builds the names and keys of all items in the tables, as docs/TABLES.md defines them.
//!
//! The keys of an event's items depend only on the event and its position in the log. A change of the shard hash must
//! increase [`crate::RULES`], because the hash decides which item counts an event.

use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};
use crate::time::{format_millis, format_seconds};

/// The name suffixes of the four tables that store events and counts. The name of a table consists of the value of
/// `--table-prefix`, a dash and the suffix.
pub const TABLES: [&str; 4] = ["raw-events", "aggregations", "alerts", "totals"];
/// Index of the raw events table in [`TABLES`].
pub const RAW: usize = 0;
/// Index of the aggregations table in [`TABLES`].
pub const AGGREGATIONS: usize = 1;
/// Index of the alerts table in [`TABLES`].
pub const ALERTS: usize = 2;
/// Index of the totals table in [`TABLES`].
pub const TOTALS: usize = 3;
/// Index of the incidents table, which is one more than the last index in [`TABLES`].
pub const INCIDENTS: usize = TABLES.len();
/// The name of the index that lists the raw events of a city by time.
pub const CITY_INDEX: &str = "city-timestamp-index";
/// The name of the index that lists the windows of a series by start. The index contains only keys.
pub const SERIES_INDEX: &str = "series-window-index";
/// The name of the index that lists the alerts of a severity by time.
pub const SEVERITY_INDEX: &str = "severity-timestamp-index";
/// The name of the index that lists the incidents of a state by opening time.
pub const STATE_INDEX: &str = "state-opened-index";
/// Number of shards over which the totals rows are spread.
pub const TOTALS_SHARDS: u32 = 16;
/// Maximum number of index shards for a city or a severity that a config item may set.
pub const SHARDS_MAX: u32 = 64;
/// The partition key of the config item in the totals table.
pub const CONFIG_PK: &str = "config";
/// The sort key of the config item in the totals table.
pub const CONFIG_SK: &str = "tables";
/// The partition key of all progress items in the totals table.
pub const PROGRESS_PK: &str = "progress";
/// The suffix of the name of the incidents table. Only the `notify` command writes to the incidents table.
pub const INCIDENTS_TABLE: &str = "incidents";
/// The partition key of all checkpoints in the incidents table. No rule of `notify` can have this name.
pub const CHECKPOINT_PK: &str = "#checkpoint";
/// The partition key of all silences in the incidents table.
pub const SILENCE_PK: &str = "#silence";
/// The attributes of a progress item that hold its sums, in the order of [`Sum::numbers`].
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
/// The attribute of a progress item that contains the offset below which its sums count. If `sums_next` and `next`
/// differ, the sums are unknown: a consumer of an older version has advanced `next` without the sums.
pub const SUMS_NEXT: &str = "sums_next";
/// The prefix of the names of fence attributes. A fence is the offset after the last record that the row counts.
pub const FENCE_NEXT: &str = "next#";
/// The prefix of the names of attributes that contain the offset of the first record that the row counts. Such an
/// attribute never changes after it is set.
pub const FENCE_FIRST: &str = "first#";

/// The names of all tables that share one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    /// The table with one item per event.
    pub raw: String,
    /// The table with one item per city, event type and window.
    pub aggregations: String,
    /// The table with one item per event of high or critical severity.
    pub alerts: String,
    /// The table with the totals by city and event type, the config item and the progress items.
    pub totals: String,
    /// The table with one item per incident. Only the `notify` command writes to the incidents table.
    pub incidents: String,
}

impl TableNames {
    /// Returns the names of the tables with the prefix `prefix`.
    pub fn new(prefix: &str) -> TableNames {
        let name = |suffix: &str| format!("{prefix}-{suffix}");
        TableNames {
            raw: name(TABLES[RAW]),
            aggregations: name(TABLES[AGGREGATIONS]),
            alerts: name(TABLES[ALERTS]),
            totals: name(TABLES[TOTALS]),
            incidents: name(INCIDENTS_TABLE),
        }
    }

    /// Returns the names of the four tables of events and counts, in the order of [`TABLES`].
    pub fn all(&self) -> [&str; 4] {
        [&self.raw, &self.aggregations, &self.alerts, &self.totals]
    }

    /// Returns the name of the table with the index `table` in [`TABLES`], or of the incidents table for [`INCIDENTS`].
    pub fn of(&self, table: usize) -> &str {
        match table {
            INCIDENTS => &self.incidents,
            _ => self.all()[table],
        }
    }
}

/// Returns the shard hash: the CRC-32 (IEEE, as in zlib) of the text's UTF-8 bytes.
pub fn hash(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// Returns the series `<city>#<event_type>`. Neither part can contain `#`.
pub fn series(city: &str, event_type: &str) -> String {
    let mut out = String::with_capacity(city.len() + 1 + event_type.len());
    out.push_str(city);
    out.push('#');
    out.push_str(event_type);
    out
}

/// Returns true if `series` consists of the given city and event type.
pub fn is_series(series: &str, city: &str, event_type: &str) -> bool {
    series.len() == city.len() + 1 + event_type.len()
        && series.starts_with(city)
        && series.ends_with(event_type)
        && series.as_bytes()[city.len()] == b'#'
}

/// Returns the city and the event type of a series, or `None` if the text is not a series.
pub fn split_series(series: &str) -> Option<(&str, &str)> {
    series.split_once('#')
}

/// Returns the [`hash`] of the series of a city and an event type.
pub fn series_hash(city: &str, event_type: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(city.as_bytes());
    hasher.update(b"#");
    hasher.update(event_type.as_bytes());
    hasher.finalize()
}

/// Returns the partition key of a series in the totals table, which has the form `totals#<n>`.
pub fn totals_shard(series: &str) -> String {
    format!("totals#{}", hash(series) % TOTALS_SHARDS)
}

/// Returns all partition keys that totals rows can have.
pub fn totals_shards() -> impl Iterator<Item = String> {
    (0..TOTALS_SHARDS).map(|n| format!("totals#{n}"))
}

/// Returns the value `<series>#<window start>` of the attribute `partition_key` of a window row.
pub fn window_key(series: &str, window_start_ms: UnixMs) -> String {
    format!("{series}#{}", format_seconds(window_start_ms))
}

/// Returns the event's id, or `<topic>-<partition>-<offset>` if the producer set no id.
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

/// Returns the sort key of an alert, which is `<event time>#<event id>`.
pub fn alert_sk(time_ms: UnixMs, event_id: &str) -> String {
    format!("{}#{event_id}", format_millis(time_ms))
}

/// Returns the partition key of an event in [`CITY_INDEX`], which has the form `<city>#<n>`.
pub fn city_shard(city: &str, event_id: &str, shards: u32) -> String {
    format!("{city}#{}", hash(event_id) % shards)
}

/// Returns the partition key of an alert in [`SEVERITY_INDEX`], which has the form `<severity>#<n>`.
pub fn severity_shard(severity: Severity, event_id: &str, shards: u32) -> String {
    format!("{severity}#{}", hash(event_id) % shards)
}

/// Returns the log key `<topic id>#<partition>`. A progress item has the log key as its sort key. The name of a fence
/// attribute consists of [`FENCE_NEXT`] or [`FENCE_FIRST`], followed by the log key.
pub fn log_key(topic_id: &str, partition: i32) -> String {
    format!("{topic_id}#{partition}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_one_city_are_spread_over_its_shards() {
        // All events of a city are in one partition, so their default ids differ only in the offset. In this test, a
        // city has 2,000 events in a busy second.
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
            window_key(&series, UnixMs(1_357_020_000_000)),
            "NYC#traffic#2013-01-01T06:00:00Z"
        );
        assert_eq!(split_series(&series), Some(("NYC", "traffic")));
        assert_eq!(
            alert_sk(UnixMs(1_357_020_000_000), "e#1"),
            "2013-01-01T06:00:00.000Z#e#1"
        );
        assert_eq!(city_shard("NYC", "city-events-0-0", 4), "NYC#3");
        assert_eq!(
            severity_shard(Severity::High, "city-events-0-0", 4),
            "high#3"
        );
    }

    #[test]
    fn every_table_has_the_prefix_and_its_own_name() {
        let tables = TableNames::new("p");
        for (table, name) in [
            (RAW, "p-raw-events"),
            (AGGREGATIONS, "p-aggregations"),
            (ALERTS, "p-alerts"),
            (TOTALS, "p-totals"),
            (INCIDENTS, "p-incidents"),
        ] {
            assert_eq!(tables.of(table), name);
        }
        let all = ["p-raw-events", "p-aggregations", "p-alerts", "p-totals"];
        assert_eq!(tables.all(), all);
    }

    #[test]
    fn every_series_is_in_a_shard_of_the_totals() {
        let shards: Vec<String> = totals_shards().collect();
        assert_eq!(shards.len(), 16);
        assert_eq!((&*shards[0], &*shards[15]), ("totals#0", "totals#15"));
        for n in 0..100 {
            let shard = totals_shard(&format!("NYC#type{n}"));
            assert!(shards.contains(&shard), "{shard}");
        }
    }

    #[test]
    fn a_series_is_a_city_and_an_event_type() {
        for (city, event_type, is_it) in [
            ("NYC", "traffic", true),
            ("LA", "traffic", false),
            ("NYC", "weather", false),
            ("NYC#", "traffic", false),
            ("NYC", "#traffic", false),
            ("NYC#t", "raffic", false),
            ("NY", "Ctraffic", false),
            ("", "", false),
        ] {
            let found = is_series("NYC#traffic", city, event_type);
            assert_eq!(found, is_it, "{city:?} {event_type:?}");
        }
        let text = series("São Paulo", "incident");
        assert_eq!(series_hash("São Paulo", "incident"), hash(&text));
    }
}
