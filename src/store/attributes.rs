//! The names of all attributes in the DynamoDB tables, and functions that read attribute values.
//!
//! `docs/TABLES.md` describes which item has which attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::core::keys;

/// A DynamoDB item, in the representation of the AWS SDK.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Defines a constant for each attribute name.
macro_rules! names {
    ($($constant:ident = $name:literal;)*) => {
        $(#[doc = concat!("The attribute `", $name, "`.")] pub const $constant: &str = $name;)*
    };
}

names! {
    CITY = "city";
    CITY_SHARD = "city_shard";
    DESCRIPTION = "description";
    EVENT_ID = "event_id";
    EVENT_TIME = "event_time";
    EVENT_TYPE = "event_type";
    EXTRA = "extra";
    FUTURE = "future";
    INCIDENT = "incident";
    LAST_UPDATED = "last_updated";
    LATE = "late";
    LATENESS_MS = "lateness_ms";
    MAX = "max";
    NEXT = "next";
    OPENED_AT = "opened_at";
    PARTITION_KEY = "partition_key";
    PROCESSING_TIME = "processing_time";
    RAW = "raw";
    RULE = "rule";
    RULES = "rules";
    SERIES = "series";
    SEVERITIES = "severities";
    SEVERITY = "severity";
    SEVERITY_SHARD = "severity_shard";
    SHARD = "shard";
    SHARDS = "shards";
    SKEW_MS = "skew_ms";
    SOURCE = "source";
    STATE = "state";
    TABLES = "tables";
    TIMESTAMP = "timestamp";
    TOPIC = "topic";
    TOPIC_ID = "topic_id";
    TTL = "ttl";
    WATERMARK = "watermark";
    WINDOW_END = "window_end";
    WINDOW_MS = "window_ms";
    WINDOW_START = "window_start";
}

/// The attribute that contains the number of events that windows count, without late events.
pub const EVENT_COUNT: &str = keys::SUMS[0];
/// The attribute that contains the number of late events.
pub const LATE_COUNT: &str = keys::SUMS[1];
/// The attributes that contain the numbers of events of the four severities, in the order of [`Severity::index`].
///
/// [`Severity::index`]: crate::core::event::Severity::index
pub const SEVERITY_COUNTS: [&str; 4] = [keys::SUMS[2], keys::SUMS[3], keys::SUMS[4], keys::SUMS[5]];

/// The error for an attribute that exists but is not a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

/// Converts a string to an attribute value of the AWS SDK.
pub(super) fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// Returns the string in an attribute, or an empty string if the attribute is missing or is not a string.
pub(super) fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.map_or("", String::as_str)
}

/// Returns true if an attribute contains the expected string `wanted`.
pub(super) fn is_text(item: &Item, name: &str, wanted: &str) -> bool {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.map(String::as_str) == Some(wanted)
}

/// Returns the whole number in an attribute, or `None` if the attribute is missing.
///
/// # Errors
/// Returns [`NotANumber`] if the value of the attribute is not a whole number.
pub(super) fn checked_number(item: &Item, name: &str) -> Result<Option<i64>, NotANumber> {
    let parse = |value: &AttributeValue| value.as_n().ok()?.parse().ok();
    let value = item.get(name);
    value
        .map(|value| parse(value).ok_or(NotANumber))
        .transpose()
}

/// Returns the whole number in an attribute. Returns `None` if the attribute is missing or is not a whole number.
pub(super) fn number(item: &Item, name: &str) -> Option<i64> {
    checked_number(item, name).ok().flatten()
}
