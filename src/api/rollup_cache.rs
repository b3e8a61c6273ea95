//! Caches rollups for later requests. Rolled-up hours do not change, so a page that requests a long range again and
//! again causes only one read of the rolled-up hours in the range.

use std::collections::BTreeMap;
use std::sync::Arc;

use moka::sync::Cache;

use crate::core::clock::UnixMs;
use crate::core::rollup::{DAY_MS, HOUR_MS, RollupSeries, SeverityCounts, day_start};
use crate::store::error::StoreError;
use crate::store::reads::{Range, Reads, RolledUp};

/// Maximum length of a `Piece` in milliseconds. The server reads and caches only whole pieces, so that requests for
/// different ranges can use the same pieces.
pub(crate) const PIECE_MS: i64 = 32 * DAY_MS;
/// Maximum number of hours in the cache. Each hour takes about 40 bytes.
const HOURS_MAX: u64 = 1_500_000;
/// Maximum number of series whose rollups are read together.
const SERIES_PER_READ: usize = 25;

/// For one series and one [`Piece`], the start and the counts of each hour that has events.
type Hours = Arc<Vec<(UnixMs, SeverityCounts)>>;

/// A cache of hours. The key of an entry consists of a series, the generation of the rollups (the field `generation` of
/// `RolledUp`), and the start and end of a `Piece`.
#[derive(Clone)]
pub(crate) struct RollupCache(Cache<(RollupSeries, u32, UnixMs, UnixMs), Hours>);

impl RollupCache {
    pub(crate) fn new() -> RollupCache {
        let cache = Cache::builder()
            .max_capacity(HOURS_MAX)
            .weigher(|_, hours: &Hours| u32::try_from(hours.len() + 4).unwrap_or(u32::MAX));
        RollupCache(cache.build())
    }

    /// Calls `take` for each hour in `range` that has events, for one series after the other. The first argument of
    /// `take` is the index of the series in `series`. `range` must consist of whole rolled-up hours.
    ///
    /// # Errors
    /// Returns the error of a failed read. Before the error is returned, `take` is called with all hours of each series
    /// that was read completely.
    pub(crate) async fn read(
        &self,
        reads: &dyn Reads,
        series: &[RollupSeries],
        range: Range,
        rolled_up: RolledUp,
        mut take: impl FnMut(usize, UnixMs, SeverityCounts),
    ) -> Result<(), StoreError> {
        let pieces = pieces(range, rolled_up.until_ms);
        for (nth, chunk) in series.chunks(SERIES_PER_READ).enumerate() {
            let read = self.read_chunk(reads, chunk, &pieces, rolled_up).await?;
            for (n, hours) in read.iter().enumerate() {
                for (start_ms, counts) in hours.iter().flat_map(|piece| piece.iter()) {
                    if (range.from_ms..range.to_ms).contains(start_ms) {
                        take(nth * SERIES_PER_READ + n, *start_ms, *counts);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the hours that have events, as one list for each series and each piece.
    async fn read_chunk(
        &self,
        reads: &dyn Reads,
        series: &[RollupSeries],
        pieces: &[Piece],
        rolled_up: RolledUp,
    ) -> Result<Vec<Vec<Hours>>, StoreError> {
        let key = |one: &RollupSeries, piece: &Piece| {
            (
                one.clone(),
                rolled_up.generation,
                piece.from_ms,
                piece.to_ms,
            )
        };
        let mut found = Vec::new();
        // A Query can read only consecutive pieces. For each series, the server therefore reads all pieces from the
        // first piece that the cache lacks to the last piece.
        let mut missing = BTreeMap::<usize, Vec<RollupSeries>>::new();
        for one in series {
            let cached: Vec<Option<Hours>> = pieces
                .iter()
                .map(|piece| self.0.get(&key(one, piece)))
                .collect();
            if let Some(first) = cached.iter().position(Option::is_none) {
                missing.entry(first).or_default().push(one.clone());
            }
            found.push(cached);
        }
        let mut read = BTreeMap::<(RollupSeries, usize), Vec<(UnixMs, SeverityCounts)>>::new();
        for (first, series) in missing {
            for one in &series {
                for place in first..pieces.len() {
                    read.insert((one.clone(), place), Vec::new());
                }
            }
            let hours = read_pieces(reads, series, &pieces[first..], rolled_up).await?;
            for (one, start_ms, counts) in hours {
                let place = pieces.iter().position(|piece| piece.contains(start_ms));
                let hours = place.and_then(|place| read.get_mut(&(one, place)));
                hours
                    .into_iter()
                    .for_each(|hours| hours.push((start_ms, counts)));
            }
        }
        for ((one, place), mut hours) in read {
            hours.sort_unstable_by_key(|(start_ms, _)| *start_ms);
            let hours = Arc::new(hours);
            self.0.insert(key(&one, &pieces[place]), Arc::clone(&hours));
            let at = series
                .iter()
                .position(|known| *known == one)
                .expect("it was asked for");
            found[at][place] = Some(hours);
        }
        let whole = found
            .into_iter()
            .map(|series| series.into_iter().flatten().collect());
        Ok(whole.collect())
    }
}

/// A time range whose rollups are read and cached together. The cache has one entry for each series and each piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from_ms: UnixMs,
    to_ms: UnixMs,
    /// True if the counts of the piece are read from rows that cover a day, and false if they are read from rows that
    /// cover an hour.
    has_days: bool,
}

impl Piece {
    fn contains(&self, time_ms: UnixMs) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }
}

/// Returns the pieces that cover a range of rolled-up hours. Most pieces are 32 days long. A shorter piece contains the
/// remaining whole days, and the last piece contains the hours of the incomplete day before `until_ms`.
fn pieces(range: Range, until_ms: UnixMs) -> Vec<Piece> {
    let days_end_ms = day_start(until_ms);
    let mut pieces = Vec::new();
    let mut from_ms = UnixMs(range.from_ms.0.div_euclid(PIECE_MS) * PIECE_MS);
    while range.from_ms < days_end_ms && from_ms < days_end_ms.min(range.to_ms) {
        let to_ms = (from_ms + PIECE_MS).min(days_end_ms);
        pieces.push(Piece {
            from_ms,
            to_ms,
            has_days: true,
        });
        from_ms = to_ms;
    }
    if range.to_ms > days_end_ms && until_ms > days_end_ms {
        pieces.push(Piece {
            from_ms: days_end_ms,
            to_ms: until_ms,
            has_days: false,
        });
    }
    pieces
}

/// Reads all hours in which the given series have events. `pieces` must be consecutive.
async fn read_pieces(
    reads: &dyn Reads,
    series: Vec<RollupSeries>,
    pieces: &[Piece],
    rolled_up: RolledUp,
) -> Result<Vec<(RollupSeries, UnixMs, SeverityCounts)>, StoreError> {
    let span = |has_days| {
        let mut own = pieces.iter().filter(|piece| piece.has_days == has_days);
        let first = own.next()?;
        let last = own.next_back().unwrap_or(first);
        Some(Range {
            from_ms: first.from_ms,
            to_ms: last.to_ms,
        })
    };
    let mut hours = Vec::new();
    if let Some(range) = span(true) {
        for day in reads.days(series.clone(), range, rolled_up).await? {
            let starts = (0..).map(|hour| day.start_ms + hour * HOUR_MS);
            for (start_ms, counts) in starts.zip(day.hours) {
                if counts != SeverityCounts::default() {
                    hours.push((day.series.clone(), start_ms, counts));
                }
            }
        }
    }
    if let Some(range) = span(false) {
        let found = reads.hours(series, range, rolled_up).await?;
        hours.extend(
            found
                .into_iter()
                .map(|hour| (hour.series, hour.start_ms, hour.counts)),
        );
    }
    Ok(hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(from: i64, to: i64, until: i64) -> Vec<(i64, i64, bool)> {
        let range = Range {
            from_ms: UnixMs(from * HOUR_MS),
            to_ms: UnixMs(to * HOUR_MS),
        };
        let pieces = pieces(range, UnixMs(until * HOUR_MS));
        pieces
            .iter()
            .map(|p| (p.from_ms.0 / HOUR_MS, p.to_ms.0 / HOUR_MS, p.has_days))
            .collect()
    }

    #[test]
    fn pieces_do_not_depend_on_the_range_where_they_can() {
        let month = 32 * 24;
        // `third` is the end of the tenth day in the third piece, in hours.
        let third = 2 * month + 10 * 24;
        assert_eq!(
            spans(5, third + 3, third + 5),
            [
                (0, month, true),
                (month, 2 * month, true),
                (2 * month, third, true),
                (third, third + 5, false)
            ]
        );
        // If a range lies within one complete piece, the server reads only that piece.
        assert_eq!(spans(30, 40, third), [(0, month, true)]);
        // If a range lies within the last, incomplete day, the server reads no rows of whole days.
        assert_eq!(
            spans(third + 1, third + 2, third + 5),
            [(third, third + 5, false)]
        );
        // The last rolled-up hour can also be the last hour of a day.
        assert_eq!(spans(third - 1, third, third), [(2 * month, third, true)]);
        assert_eq!(spans(0, 0, 0), []);
    }
}
