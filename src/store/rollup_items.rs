//! Encodes and decodes the DynamoDB items of rollup rows and of the rollup mark. `docs/TABLES.md` describes both items.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::core::clock::UnixMs;
use crate::core::keys::TableNames;
use crate::core::rollup::{
    Cells, DayHours, Grain, MARK_PK, MARK_SK, RollupMark, RollupRow, RollupSeries, SeverityCounts,
    pack, parse_start, unpack,
};
use crate::core::time::{format_millis, format_seconds};
use crate::store::attributes::{
    EVENT_COUNT, Item, LAST_UPDATED, SERIES, SEVERITY_COUNTS, SHARD, TABLES, TOPIC_ID, WINDOW_END,
    WINDOW_START, number, string, text,
};
use crate::store::error::StoreError;

/// The attribute of a day row that contains the counts of the day's 24 hours.
pub(super) const HOURS: &str = "hours";
/// The attribute of the rollup mark that contains the end of the last rolled-up hour, in Unix milliseconds.
const UNTIL: &str = "until";
/// The attribute of the rollup mark that lists the idle partitions.
const IDLE: &str = "idle";
/// The attribute of the rollup mark that contains the mark's version. Each write of the rollup mark increases the
/// version by one.
pub(super) const VERSION: &str = "version";

/// Returns the key of the rollup mark.
pub(super) fn mark_key() -> Item {
    Item::from([
        (SHARD.to_owned(), string(MARK_PK)),
        (SERIES.to_owned(), string(MARK_SK)),
    ])
}

/// Returns the attributes of a rollup mark, except its key. `now_ms` is the time of the write.
pub(super) fn mark_attributes(
    mark: &RollupMark,
    now_ms: UnixMs,
) -> [(&'static str, AttributeValue); 6] {
    let number = |number: i64| AttributeValue::N(number.to_string());
    let idle = mark.idle.iter();
    let idle = idle.map(|(partition, since_ms)| (partition.to_string(), number(since_ms.0)));
    [
        (TOPIC_ID, string(&mark.topic_id)),
        (TABLES, string(&mark.tables_id)),
        (UNTIL, number(mark.until_ms.0)),
        (IDLE, AttributeValue::M(idle.collect())),
        (VERSION, number(mark.version)),
        (LAST_UPDATED, string(format_millis(now_ms))),
    ]
}

/// Decodes the rollup mark.
///
/// # Errors
/// Returns [`StoreError::Corrupt`] if an attribute is missing or has the wrong type.
pub(super) fn decode_mark(names: &TableNames, item: &Item) -> Result<RollupMark, StoreError> {
    let corrupt = |name: &str| StoreError::Corrupt {
        table: names.totals.clone(),
        key: format!("{MARK_PK}/{MARK_SK}"),
        message: format!("{name} is missing or has another type"),
    };
    let text = |name: &str| {
        let found = text(item, name);
        (!found.is_empty())
            .then(|| found.to_owned())
            .ok_or_else(|| corrupt(name))
    };
    let number = |name: &str| number(item, name).ok_or_else(|| corrupt(name));
    let idle = item.get(IDLE).and_then(|value| value.as_m().ok());
    let since = |(partition, since_ms): (&String, &AttributeValue)| {
        let since_ms = since_ms.as_n().ok()?.parse().ok()?;
        Some((partition.parse().ok()?, UnixMs(since_ms)))
    };
    let idle: Option<BTreeMap<i32, UnixMs>> =
        idle.and_then(|idle| idle.iter().map(since).collect());
    Ok(RollupMark {
        topic_id: text(TOPIC_ID)?,
        tables_id: text(TABLES)?,
        until_ms: UnixMs(number(UNTIL)?),
        idle: idle.ok_or_else(|| corrupt(IDLE))?,
        version: number(VERSION)?,
    })
}

/// Returns the DynamoDB item of a rollup row.
pub(super) fn row_item(row: &RollupRow) -> Item {
    let (shard, series) = row.key();
    let counts = row.counts();
    let end_ms = row.start_ms + row.grain().length_ms();
    let number = |count: u64| AttributeValue::N(count.to_string());
    let mut item = Item::from([
        (SHARD.to_owned(), string(shard)),
        (WINDOW_START.to_owned(), string(&series)),
        (SERIES.to_owned(), string(series)),
        (WINDOW_END.to_owned(), string(format_seconds(end_ms))),
        (EVENT_COUNT.to_owned(), number(counts.iter().sum())),
    ]);
    for (name, count) in SEVERITY_COUNTS.into_iter().zip(counts) {
        item.insert(name.to_owned(), number(count));
    }
    if let Cells::Day(hours) = &row.cells {
        item.insert(HOURS.to_owned(), AttributeValue::B(Blob::new(pack(hours))));
    }
    item
}

/// Decodes the key and the counts of a rollup row. Returns `None` if the item does not have the key of a rollup row. A
/// count that is not a number gives zero.
pub(super) fn decode_row(item: &Item) -> Option<(Grain, RollupSeries, UnixMs, SeverityCounts)> {
    let (grain, series) = RollupSeries::parse(text(item, SHARD))?;
    let start_ms = parse_start(grain, text(item, SERIES))?;
    let count = |name| number(item, name).and_then(|count| u64::try_from(count).ok());
    let counts = SEVERITY_COUNTS.map(|name| count(name).unwrap_or_default());
    Some((grain, series, start_ms, counts))
}

/// Decodes the counts of the 24 hours in a day row. Returns `None` if the attribute `hours` is missing or damaged.
pub(super) fn decode_hours(item: &Item) -> Option<DayHours> {
    unpack(item.get(HOURS)?.as_b().ok()?.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of an item by DynamoDB's rules. The size of an attribute name or a string is its number of
    /// UTF-8 bytes. A number takes one byte for every two digits, plus one byte. Source: "DynamoDB item sizes and
    /// formats" in AWS's documentation.
    fn size(item: &Item) -> usize {
        let value = |value: &AttributeValue| match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
            AttributeValue::B(bytes) => bytes.as_ref().len(),
            other => panic!("{other:?}"),
        };
        item.iter().map(|(name, v)| name.len() + value(v)).sum()
    }

    #[test]
    fn a_year_of_four_types_costs_less_than_100_read_units_by_days() {
        let units = |row: &RollupRow, rows: usize| {
            // An eventually consistent Query costs half a read unit for each 4 KB of its items.
            size(&row_item(row)) * rows / 4_096 / 2
        };
        let kinds = ["traffic", "weather", "incident", "construction"];
        // At 1,000 events per second, each of four event types has 900,000 events per hour.
        for (count, hour_bytes, day_bytes, year_by_hours, year_by_days) in
            [(8, 185, 293, 795, 52), (225_000, 195, 495, 838, 88)]
        {
            let mut hours_units = 0;
            let mut days_units = 0;
            for kind in kinds {
                let series = RollupSeries::all_cities(kind);
                let hour = RollupRow::hour(series.clone(), UnixMs(1_357_020_000_000), [count; 4]);
                let day = RollupRow {
                    series,
                    start_ms: UnixMs(1_356_998_400_000),
                    cells: Cells::Day(Box::new([[count; 4]; 24])),
                };
                if kind == "traffic" {
                    assert_eq!(size(&row_item(&hour)), hour_bytes);
                    assert_eq!(size(&row_item(&day)), day_bytes);
                }
                hours_units += units(&hour, 8_760);
                days_units += units(&day, 365);
            }
            assert_eq!((hours_units, days_units), (year_by_hours, year_by_days));
            assert!(days_units <= 100);
        }
    }

    #[test]
    fn marks_and_rows_are_read_as_they_were_written() {
        let names = TableNames::new("p");
        let mark = RollupMark {
            topic_id: "T".to_owned(),
            tables_id: "D".to_owned(),
            until_ms: UnixMs(1_357_020_000_000),
            idle: BTreeMap::from([(2, UnixMs(0)), (11, UnixMs(1_357_020_000_000))]),
            version: 12,
        };
        let mut item = mark_key();
        let attributes = mark_attributes(&mark, UnixMs(5));
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(decode_mark(&names, &item).unwrap(), mark);
        for (name, _) in mark_attributes(&mark, UnixMs(5)) {
            let mut damaged = item.clone();
            damaged.insert(name.to_owned(), AttributeValue::Bool(true));
            let error = decode_mark(&names, &damaged);
            assert_eq!(error.is_err(), name != LAST_UPDATED, "{name}");
        }

        let series = RollupSeries::of("*#traffic").unwrap();
        let mut hours = Box::<DayHours>::default();
        hours[3] = [1, 2, 0, 300];
        let row = RollupRow {
            series: series.clone(),
            start_ms: UnixMs(1_356_998_400_000),
            cells: Cells::Day(hours.clone()),
        };
        let mut item = row_item(&row);
        assert_eq!(text(&item, SHARD), "day#**#traffic");
        assert_eq!(number(&item, EVENT_COUNT), Some(303));
        let found = (Grain::Day, series, row.start_ms, [1, 2, 0, 300]);
        assert_eq!(decode_row(&item), Some(found));
        assert_eq!(decode_hours(&item).as_ref(), Some(&*hours));
        item.insert(HOURS.to_owned(), string("x"));
        assert_eq!(decode_hours(&item), None);
        item.insert(SHARD.to_owned(), string("totals#3"));
        assert_eq!(decode_row(&item), None);
    }
}
