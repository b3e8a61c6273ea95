//! Items of the tables → what the API shows of them. Attributes outside the contract are ignored.

use aws_sdk_dynamodb::types::AttributeValue;

use super::Item;
use crate::core::event::Severity;
use crate::core::keys::{FENCE_NEXT, split_series};

/// A raw event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventItem {
    /// Its identity.
    pub event_id: String,
    /// Event time, `2013-01-01T06:00:00.000Z`.
    pub timestamp: String,
    /// Where.
    pub city: String,
    /// What kind.
    pub event_type: String,
    /// How bad.
    pub severity: String,
    /// In words.
    pub description: String,
    /// When it was stored.
    pub processing_time: String,
    /// When it goes, Unix seconds.
    pub ttl: i64,
    /// It came after its window was closed.
    pub late: bool,
    /// It was ahead of its record.
    pub future: bool,
    /// The record's other fields, a JSON object as text.
    pub extra: Option<String>,
}

/// An alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertItem {
    /// The event's identity.
    pub event_id: String,
    /// Event time, `2013-01-01T06:00:00.000Z`.
    pub event_time: String,
    /// Where.
    pub city: String,
    /// What kind.
    pub event_type: String,
    /// How bad.
    pub severity: String,
    /// In words.
    pub description: String,
    /// When it was stored.
    pub processing_time: String,
    /// It came after its window was closed.
    pub late: bool,
}

/// A window of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregationItem {
    /// `city#event_type#window_start`.
    pub partition_key: String,
    /// First instant, `2013-01-01T06:00:00Z`.
    pub window_start: String,
    /// First instant after it.
    pub window_end: String,
    /// Where.
    pub city: String,
    /// What kind.
    pub event_type: String,
    /// Events counted.
    pub event_count: u64,
    /// The distinct severities, low to critical.
    pub severities: Vec<String>,
    /// Events by [`Severity::index`].
    pub severity_counts: [u64; 4],
    /// When the row was last written.
    pub last_updated: String,
    /// It takes no more events.
    pub is_final: bool,
}

/// The total of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalItem {
    /// Where.
    pub city: String,
    /// What kind.
    pub event_type: String,
    /// Events counted in windows.
    pub event_count: u64,
    /// Events that came too late for theirs.
    pub late_count: u64,
    /// Events of both kinds by [`Severity::index`].
    pub severity_counts: [u64; 4],
}

impl TotalItem {
    /// Returns all events of the series.
    pub fn events(&self) -> u64 {
        self.event_count.saturating_add(self.late_count)
    }

    /// Returns what an item says; what is missing or foreign is empty or zero.
    pub fn from_item(item: Item) -> TotalItem {
        let series = text(&item, "series");
        let (city, event_type) = split_series(&series).unwrap_or((&series, ""));
        TotalItem {
            city: city.to_owned(),
            event_type: event_type.to_owned(),
            event_count: count(&item, "event_count"),
            late_count: count(&item, "late_count"),
            severity_counts: severity_counts(&item),
        }
    }
}

impl EventItem {
    /// Returns what an item says; what is missing or foreign is empty or zero.
    pub fn from_item(item: Item) -> EventItem {
        EventItem {
            event_id: text(&item, "event_id"),
            timestamp: text(&item, "timestamp"),
            city: text(&item, "city"),
            event_type: text(&item, "event_type"),
            severity: text(&item, "severity"),
            description: text(&item, "description"),
            processing_time: text(&item, "processing_time"),
            ttl: number(&item, "ttl").unwrap_or_default(),
            late: flag(&item, "late"),
            future: flag(&item, "future"),
            extra: item
                .get("extra")
                .and_then(|v| v.as_s().ok())
                .map(ToOwned::to_owned),
        }
    }
}

impl AlertItem {
    /// Returns what an item says; what is missing or foreign is empty or zero.
    pub fn from_item(item: Item) -> AlertItem {
        AlertItem {
            event_id: text(&item, "event_id"),
            event_time: text(&item, "event_time"),
            city: text(&item, "city"),
            event_type: text(&item, "event_type"),
            severity: text(&item, "severity"),
            description: text(&item, "description"),
            processing_time: text(&item, "processing_time"),
            late: flag(&item, "late"),
        }
    }
}

impl AggregationItem {
    /// Returns the row, not final yet.
    pub fn from_item(item: &Item) -> AggregationItem {
        let mut severities: Vec<String> = item
            .get("severities")
            .and_then(|v| v.as_ss().ok())
            .cloned()
            .unwrap_or_default();
        severities.sort_by_key(|name| Severity::from_name(name).map_or(4, Severity::index));
        AggregationItem {
            partition_key: text(item, "partition_key"),
            window_start: text(item, "window_start"),
            window_end: text(item, "window_end"),
            city: text(item, "city"),
            event_type: text(item, "event_type"),
            event_count: count(item, "event_count"),
            severities,
            severity_counts: severity_counts(item),
            last_updated: text(item, "last_updated"),
            is_final: false,
        }
    }
}

/// Returns the log keys (`<topic id>#<partition>`) of the partitions that have a fence in the row.
pub(super) fn fences(item: &Item) -> impl Iterator<Item = &str> {
    item.keys().filter_map(|name| name.strip_prefix(FENCE_NEXT))
}

/// Returns the text of an attribute, or "".
pub(super) fn text(item: &Item, name: &str) -> String {
    match item.get(name) {
        Some(AttributeValue::S(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Returns the whole number of an attribute.
pub(super) fn number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn count(item: &Item, name: &str) -> u64 {
    number(item, name)
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or_default()
}

fn flag(item: &Item, name: &str) -> bool {
    matches!(item.get(name), Some(AttributeValue::Bool(true)))
}

fn severity_counts(item: &Item) -> [u64; 4] {
    Severity::ALL.map(|severity| count(item, &format!("severity_{severity}")))
}
