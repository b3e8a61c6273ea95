//! Decides which hour rows and day rows a comparison covers, and rereads the rows that seem to differ from the log.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::core::audit::{FoundRow, Key, Slice};
use crate::core::clock::UnixMs;
use crate::core::keys::split_series;
use crate::core::rollup::RollupMark;
use crate::store::reads::audit::{AuditView, RollupView};
use crate::verify::compare::{Claims, Facts};
use crate::verify::key_pages::KeyPages;

impl Facts {
    /// Reads the rollup mark, which says which hours are rolled up. The caller must read the mark before the claims of
    /// the consumers, so that the claims include all events of the rolled-up hours. A claim is the offset below which a
    /// consumer has stored all records.
    pub(super) async fn mark(&self) -> anyhow::Result<Option<RollupMark>> {
        let mark = self.audit.mark(&self.config.tables_id, &self.topic_id);
        mark.await.context("failed to read the mark of the rollups")
    }

    /// Returns which hour rows and day rows can be compared with the log.
    pub(super) async fn rollups(
        &self,
        mark: Option<RollupMark>,
        claims: &Claims,
    ) -> anyhow::Result<RollupView> {
        let Some(mark) = mark else {
            return Ok(RollupView::default());
        };
        let counted = |partition: i32| {
            let points = claims.sums.iter().filter(|(p, ..)| *p == partition);
            match points.max_by_key(|(_, next, _)| *next) {
                Some((.., sums)) => sums.map(|sums| sums.events()),
                None => Some(0),
            }
        };
        let mut event_types = BTreeSet::new();
        let collect = |series: &str| {
            event_types.extend(split_series(series).map(|(_, kind)| kind.to_owned()));
            false
        };
        let reading = self.audit.series(collect);
        reading.await.context("failed to read the series")?;
        Ok(RollupView {
            until_ms: mark.whole_until_ms(counted),
            event_types: event_types.into_iter().collect(),
        })
    }

    /// Rereads the hour rows and day rows that seem to differ from the log.
    pub(super) async fn look_at_rollups(
        &self,
        slice: &mut Slice,
        view: &AuditView,
    ) -> anyhow::Result<()> {
        if view.rollups.until_ms == UnixMs(0) {
            return Ok(());
        }
        let is_whole = |mark: &RollupMark| mark.until_ms >= view.rollups.until_ms;
        if !self.mark().await?.as_ref().is_some_and(is_whole) {
            // Since the mark was read, an idle partition has counted an event, so the counts of rolled-up hours may
            // have changed.
            slice.forget_rollups();
            return Ok(());
        }
        let mut pages = KeyPages::default();
        while let Some(suspects) = pages.next(|after, max| slice.suspect_rollups(after, max)) {
            let mut now = self.audit.rows(suspects.clone(), view).await?;
            for key in suspects {
                if !slice.look_at_rollup(&key, now.remove(&key)) {
                    continue;
                }
                let found = self.parts(&key, view).await?;
                if key.place.city().is_empty() {
                    slice.look_at_series(&key, found.iter());
                } else {
                    slice.look_at_windows(&key, found.iter());
                }
            }
        }
        Ok(())
    }

    /// Reads the rows whose counts add up to an hour row or a day row. If the row belongs to one series, the function
    /// reads the window rows of the series. If the row belongs to all cities together, the function reads the hour rows
    /// or day rows of each city.
    async fn parts(&self, key: &Key, view: &AuditView) -> anyhow::Result<Vec<FoundRow>> {
        let keys = if key.place.city().is_empty() {
            let (grain, kind) = key.grain().context("the key is that of an hour or a day")?;
            let is_of_kind =
                |series: &str| split_series(series).is_some_and(|(_, own)| own == kind);
            let series = self.audit.series(is_of_kind).await?;
            let cities = series.iter().filter_map(|series| split_series(series));
            let row = |(city, _): (&str, &str)| Key::rollup(city, kind, grain, key.place.time_ms);
            cities.map(row).collect()
        } else {
            key.windows(view.window_ms)
        };
        Ok(self.audit.rows(keys, view).await?.into_values().collect())
    }
}
