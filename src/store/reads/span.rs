//! Finds the event times of a city's first and last event.
//!
//! A raw row contains the exact event time, but DynamoDB deletes expired raw rows. Window rows never expire, but
//! contain only the start of the window. The functions in this file read raw rows and window rows from indexes, which
//! may lag behind their tables by about a second.

use super::Range;
use super::aggregations::index_keys;
use super::db::{Db, KeyNames, project, read_together};
use crate::core::clock::UnixMs;
use crate::core::keys::CITY_INDEX;
use crate::core::time::{TIME_MS_END, format_millis, format_seconds, parse_timestamp};
use crate::store::attributes::{CITY_SHARD, TIMESTAMP, WINDOW_START, text};
use crate::store::error::StoreError;

/// Returns the event times of a city's first event (`from_ms`) and last event (`to_ms`). If the raw row of an event has
/// expired, the result contains the start of the event's window instead.
pub(super) async fn of_city(
    db: &Db,
    city: &str,
    shards: u32,
    series: Vec<String>,
) -> Result<Option<Range>, StoreError> {
    let window_ms = db.config().await?.rules.window_ms;
    let (raw, windows) = tokio::try_join!(raw_ends(db, city, shards), window_ends(db, series))?;
    Ok(join(raw, windows, window_ms))
}

fn join(raw: Option<Range>, windows: Option<Range>, window_ms: i64) -> Option<Range> {
    let (Some(raw), Some(windows)) = (raw, windows) else {
        return raw.or(windows);
    };
    // If the first remaining raw row is after the first window, the raw row of the first event has expired.
    let is_first = raw.from_ms < windows.from_ms + window_ms;
    Some(Range {
        from_ms: if is_first {
            raw.from_ms
        } else {
            windows.from_ms
        },
        to_ms: raw.to_ms.max(windows.to_ms),
    })
}

/// Returns the event times of a city's first and last raw rows.
async fn raw_ends(db: &Db, city: &str, shards: u32) -> Result<Option<Range>, StoreError> {
    let keys = KeyNames {
        table: db.names.raw.clone(),
        index: Some(CITY_INDEX),
        pk: CITY_SHARD,
        sk: TIMESTAMP,
    };
    let (lower, upper) = (format_millis(UnixMs(0)), format_millis(TIME_MS_END - 1));
    let ends = (0..shards).flat_map(|n| [true, false].map(|is_forward| (n, is_forward)));
    let queries = ends.map(|(n, is_forward)| {
        let query = db.query_keys(&keys, &format!("{city}#{n}"), &lower, Some(&upper));
        let query = project(query, [CITY_SHARD, TIMESTAMP]);
        let query = query.scan_index_forward(is_forward).limit(1);
        let db = db.clone();
        async move { Ok(db.query_page(query).await?.0) }
    });
    let found = read_together(queries.collect()).await?;
    let items = found.iter().flatten();
    Ok(ends_of(
        items.filter_map(|item| parse_timestamp(text(item, TIMESTAMP))),
    ))
}

/// Returns the earliest and the latest window start among all windows of the given series.
async fn window_ends(db: &Db, series: Vec<String>) -> Result<Option<Range>, StoreError> {
    let (lower, upper) = (format_seconds(UnixMs(0)), format_seconds(TIME_MS_END - 1));
    let ends = series
        .iter()
        .flat_map(|series| [true, false].map(|is_forward| (series, is_forward)));
    let queries = ends.map(|(series, is_forward)| {
        let query = db
            .query_keys(&index_keys(db), series, &lower, Some(&upper))
            .scan_index_forward(is_forward)
            .limit(1);
        let db = db.clone();
        async move { Ok(db.query_page(query).await?.0) }
    });
    let found = read_together(queries.collect()).await?;
    let starts = found.iter().flatten();
    Ok(ends_of(starts.filter_map(|item| {
        parse_timestamp(text(item, WINDOW_START))
    })))
}

/// Returns the earliest and the latest of the given times, or `None` if there are no times.
fn ends_of(times: impl Iterator<Item = UnixMs>) -> Option<Range> {
    times.fold(None, |ends: Option<Range>, ms| {
        let ends = ends.unwrap_or(Range {
            from_ms: ms,
            to_ms: ms,
        });
        Some(Range {
            from_ms: ends.from_ms.min(ms),
            to_ms: ends.to_ms.max(ms),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn span(from: i64, to: i64) -> Option<Range> {
        Some(Range {
            from_ms: UnixMs(from * MINUTE),
            to_ms: UnixMs(to * MINUTE),
        })
    }

    #[test]
    fn expired_events_are_placed_by_their_windows() {
        for (raw, windows, want) in [
            (None, None, None),
            (None, span(0, 10), span(0, 10)),
            (span(3, 14), None, span(3, 14)),
            (span(3, 14), span(0, 10), span(3, 14)),
            // The raw rows of the first events have expired.
            (span(7, 14), span(0, 10), span(0, 14)),
            // The first event is a late event, which no window counts.
            (span(2, 14), span(5, 10), span(2, 14)),
            // The consumers no longer write raw rows.
            (span(3, 4), span(0, 10), span(3, 10)),
        ] {
            assert_eq!(join(raw, windows, 5 * MINUTE), want, "{raw:?} {windows:?}");
        }
    }
}
