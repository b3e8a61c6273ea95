//! Checks the durable state: the tables and the commits, which outlive the consumers.

use std::collections::BTreeMap;

use citystream_core::clock::UnixMs;
use citystream_core::keys;
use citystream_core::restart::Boundary;
use citystream_core::watermark::MaxTime;

use super::Durable;
use crate::draw::topic_id;
use crate::reference::{self, RowName, Tables};

impl Durable {
    /// Checks that every record below the boundary is stored and counted (INV-1). Also checks that the boundary
    /// contains the largest event time of these records (INV-4).
    pub(super) fn check_restart_point(&self, partition: i32, at: Boundary) -> Result<(), String> {
        let next = at.next.0 as usize;
        let want = self.logs.truth[self.topic][partition as usize].max_below[next];
        if at.max != MaxTime::new(want.map(UnixMs)) {
            let got = at.max;
            return Err(format!(
                "INV-4: partition {partition} at {next}: {got:?}, want {want:?}"
            ));
        }
        self.check_sums(self.topic, partition as usize, at)?;
        let mut need = Tables::default();
        let log = &self.log(partition)[..next];
        let found = reference::fold(&mut need, &topic_id(self.topic), partition, log);
        self.drop_items(&mut need);
        if !self.tables.holds_items_of(&need) {
            return Err(format!(
                "INV-1: partition {partition} at {next}: an item is missing"
            ));
        }
        let log_key = self.log_key(partition);
        for (row, last) in found.last {
            // `last` is the last record of the row below the boundary, so the row's fence must be above it.
            let fence = self.fences.get(&(row.clone(), log_key.clone()));
            if fence.is_none_or(|f| f.0 <= last as i64) {
                return Err(format!(
                    "INV-1: partition {partition} at {next}: row {row:?} lacks {last}"
                ));
            }
        }
        Ok(())
    }

    /// Checks that the sums of a boundary equal the counts of the log below the boundary. The sums may be unknown only
    /// if a consumer of an older version, which writes no sums, has owned a partition.
    fn check_sums(&self, topic: usize, partition: usize, at: Boundary) -> Result<(), String> {
        let next = at.next.0 as usize;
        let want = &self.logs.truth[topic][partition].counted_below[next];
        let known = at.sums.map(|sums| reference::Counts {
            counted: sums.event_count,
            late: sums.late_count,
            severities: sums.severities,
        });
        if known.as_ref() == Some(want) || known.is_none() && self.older {
            return Ok(());
        }
        Err(format!(
            "sums: topic {topic}, partition {partition} at {next}: want {want:?}, got {known:?}"
        ))
    }

    /// Checks that the sums of every progress item equal the counts of the item's log, even for former topics.
    pub(crate) fn check_grand_total(&self) -> Result<(), String> {
        for (log_key, item) in &self.progress {
            let (topic, partition) = self.log_of(log_key)?;
            self.check_sums(topic, partition, *item)?;
        }
        Ok(())
    }

    fn drop_items(&self, want: &mut Tables) {
        if !self.items {
            want.raw.clear();
            want.alerts.clear();
        }
    }

    /// Checks INV-2. Each row must count exactly the records of each log that are below the row's fence.
    pub(crate) fn check_rows(&self) -> Result<(), String> {
        let mut want: BTreeMap<&RowName, reference::Counts> = BTreeMap::new();
        for ((row, log_key), fence) in &self.fences {
            let (topic, partition) = self.log_of(log_key)?;
            let log = &self.logs.records[topic][partition][..fence.0 as usize];
            let mut part = Tables::default();
            reference::fold(&mut part, "", partition as i32, log);
            if let Some(counts) = part.rows.get(row) {
                want.entry(row).or_default().add(counts);
            }
        }
        for (row, counts) in &self.tables.rows {
            if want.get(row) != Some(counts) {
                let want = want.get(row);
                return Err(format!("INV-2: row {row:?}: want {want:?}, got {counts:?}"));
            }
        }
        Ok(())
    }

    fn log_of(&self, log_key: &str) -> Result<(usize, usize), String> {
        let partitions = self.logs.records[0].len();
        let all = (0..self.logs.records.len()).flat_map(|t| (0..partitions).map(move |p| (t, p)));
        let mut all = all.filter(|(t, p)| keys::log_key(&topic_id(*t), *p as i32) == log_key);
        all.next().ok_or_else(|| format!("a fence names {log_key}"))
    }

    /// Compares the tables with the fold over the first `partitions` partitions of the current topic. The rows of
    /// former topics are checked by [`Durable::check_rows`].
    pub(crate) fn compare(&self, partitions: i32) -> Result<(), String> {
        let mut want = Tables::default();
        let mut last = BTreeMap::new();
        for partition in 0..partitions {
            let log = self.log(partition);
            let found = reference::fold(&mut want, &topic_id(self.topic), partition, log);
            let key = self.log_key(partition);
            last.extend(
                found
                    .last
                    .into_iter()
                    .map(|(row, at)| ((row, key.clone()), at)),
            );
        }
        self.drop_items(&mut want);
        self.check_rows()?;
        self.check_grand_total()?;
        if self.topic == 0 {
            return self.tables.differs_from(&want).map_or(Ok(()), Err);
        }
        for (fence, last) in last {
            if self.fences.get(&fence).is_none_or(|at| at.0 <= last as i64) {
                return Err(format!("row {fence:?} lacks {last}"));
            }
        }
        if !self.tables.holds_items_of(&want) {
            return Err("an item of the current topic is missing".to_owned());
        }
        Ok(())
    }
}
