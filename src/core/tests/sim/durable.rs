//! What outlives every consumer: tables with their fences, progress items, the group's commits.
//!
//! Whatever is written here is checked at once: INV-1 and INV-4 on each restart point, INV-2 on each update.

use std::collections::BTreeMap;
use std::sync::Arc;

use citystream_core::batch::{Batch, BatchOutcome};
use citystream_core::event::Offset;
use citystream_core::gap::{Gap, SecondRead};
use citystream_core::keys;
use citystream_core::pipeline::{CommitPart, Publish};
use citystream_core::plan::{Put, PutTable, RowUpdate, UpdateOutcome};
use citystream_core::restart::{Boundary, Commit, Metadata};
use citystream_core::watermark::MaxTime;

use crate::draw::topic_id;
use crate::reference::{self, Found, Logged, POISON, RowName, Said, Tables};

/// The logs of every topic of the name there will be, with what a fold finds in them.
#[derive(Debug)]
pub(crate) struct Logs {
    /// topic → partition → records
    pub(crate) records: Vec<Vec<Vec<Logged>>>,
    truth: Vec<Vec<Found>>,
}

impl Logs {
    pub(crate) fn new(records: Vec<Vec<Vec<Logged>>>) -> Arc<Logs> {
        let truth = |(topic, logs): (usize, &Vec<Vec<Logged>>)| {
            let folded = logs
                .iter()
                .zip(0..)
                .map(|(log, p)| reference::fold(&mut Tables::default(), &topic_id(topic), p, log));
            folded.collect()
        };
        Arc::new(Logs {
            truth: records.iter().enumerate().map(truth).collect(),
            records,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) logs: Arc<Logs>,
    /// Whether raw items and alerts are kept.
    pub(crate) items: bool,
    /// Which of the topics exists now.
    pub(crate) topic: usize,
    /// How often the tables were made.
    pub(crate) tables_made: usize,
    pub(crate) tables: Tables,
    pub(crate) fences: BTreeMap<(RowName, String), Offset>,
    /// per log key
    pub(crate) progress: BTreeMap<String, Boundary>,
    /// per partition, whatever the topic
    pub(crate) commits: BTreeMap<i32, Commit>,
    /// A consumer of an older version, which knows no sums, owned a partition for a while.
    pub(crate) older: bool,
    /// per partition of the current topic: offset of the oldest record
    pub(crate) starts: Vec<usize>,
}

impl Durable {
    pub(crate) fn new(logs: Arc<Logs>) -> Durable {
        Durable {
            starts: vec![0; logs.records[0].len()],
            logs,
            items: true,
            topic: 0,
            tables_made: 0,
            tables: Tables::default(),
            fences: BTreeMap::new(),
            progress: BTreeMap::new(),
            commits: BTreeMap::new(),
            older: false,
        }
    }

    pub(crate) fn log(&self, partition: i32) -> &[Logged] {
        &self.logs.records[self.topic][partition as usize]
    }

    /// Returns what a read from the beginning of `gap` finds first.
    pub(crate) fn second_read(&self, partition: i32, gap: Gap) -> SecondRead {
        let (log, from) = (self.log(partition), gap.from.0 as usize);
        if from < self.starts[partition as usize] || from > log.len() {
            return SecondRead::OutOfRange;
        }
        let records = log.iter().enumerate().skip(from);
        let mut records = records.filter(|(_, logged)| !matches!(logged.said, Said::Control));
        let next = records.next().map_or(log.len(), |(at, _)| at);
        SecondRead::Next(Offset(next as i64))
    }

    pub(crate) fn log_key(&self, partition: i32) -> String {
        keys::log_key(&topic_id(self.topic), partition)
    }

    pub(crate) fn tables_id(&self) -> String {
        format!("tables-{}", self.tables_made)
    }

    /// Writes a batch, but for the puts at the places in `except`.
    pub(crate) fn store(
        &mut self,
        batch: &Batch,
        except: &[usize],
    ) -> Result<BatchOutcome, String> {
        for (at, put) in batch.puts.iter().enumerate() {
            // The id and the time are the key of a raw item, and with the city that of an alert; one
            // id has one city here.
            let key = (&put.event.event_id, put.event.event.time_ms);
            if batch.puts[..at]
                .iter()
                .any(|p| (&p.event.event_id, p.event.event.time_ms) == key)
            {
                return Err("a batch holds two puts of one key".to_owned());
            }
        }
        if batch.puts.iter().any(|p| &*p.event.event.city == POISON) {
            return Ok(BatchOutcome::Invalid);
        }
        for (at, put) in batch.puts.iter().enumerate() {
            if except.contains(&at) {
                continue;
            }
            let e = &put.event;
            let (id, time_ms) = (e.event_id.to_string(), e.event.time_ms);
            match batch.table {
                PutTable::Raw => drop(self.tables.raw.insert((id, time_ms))),
                PutTable::Alerts => {
                    let city = e.event.city.to_string();
                    self.tables.alerts.insert((city, time_ms, id));
                }
            }
        }
        Ok(BatchOutcome::Stored {
            unprocessed: except.to_vec(),
        })
    }

    /// Notes that the dead-letter topic has what the table refused.
    pub(crate) fn refuse(&mut self, table: PutTable, put: &Put) {
        let at = (put.event.partition, put.event.offset.0 as usize);
        let alert = table == PutTable::Alerts;
        self.tables.refused.insert((at.0, at.1, alert));
    }

    pub(crate) fn update(&mut self, update: &RowUpdate) -> UpdateOutcome {
        let key = (update.row.series.to_string(), update.row.window_start_ms);
        let fence = (key.clone(), update.log_key.to_string());
        if let Some(at) = self.fences.get(&fence)
            && *at > update.first
        {
            return UpdateOutcome::Fenced(*at);
        }
        self.fences.insert(fence, update.next);
        self.tables
            .rows
            .entry(key)
            .or_default()
            .add(&reference::Counts {
                counted: update.sum.event_count,
                late: update.sum.late_count,
                severities: update.sum.severities,
            });
        UpdateOutcome::Counted
    }

    /// Takes a commit and checks INV-1 and INV-4 on it.
    pub(crate) fn commit(&mut self, part: &CommitPart) -> Result<(), String> {
        let ours = format!(
            "topic={};tables={};",
            topic_id(self.topic),
            self.tables_id()
        );
        if part.metadata.contains(&ours) {
            self.check_restart_point(part.partition, part.boundary)?;
            let carried = Metadata::parse(&part.metadata).map(|m| m.sums);
            if carried.is_some_and(|sums| sums != part.boundary.sums) {
                return Err(format!("a commit carries {carried:?} as sums"));
            }
        }
        let commit = Commit {
            next: part.boundary.next,
            metadata: part.metadata.clone(),
        };
        self.commits.insert(part.partition, commit);
        Ok(())
    }

    /// Moves a progress item; returns whether there was one.
    pub(crate) fn publish(&mut self, publish: &Publish) -> Result<bool, String> {
        // The condition of a move: in tables made anew there is nothing to move.
        let log_key = publish.log_key.to_string();
        if !self.progress.contains_key(&log_key) {
            return Ok(false);
        }
        if publish.log_key.starts_with(&topic_id(self.topic)) {
            self.check_restart_point(publish.partition, publish.boundary)?;
        }
        let item = self
            .progress
            .get_mut(&*publish.log_key)
            .expect("it is there");
        let before = item.next;
        if item.next < publish.boundary.next {
            *item = publish.boundary;
        }
        if item.next < before {
            return Err(format!("INV-4: progress of {} went back", publish.log_key));
        }
        Ok(true)
    }

    /// INV-1: every record below the boundary is stored and counted. INV-4: the boundary's maximum is
    /// that of the log.
    fn check_restart_point(&self, partition: i32, at: Boundary) -> Result<(), String> {
        let next = at.next.0 as usize;
        let want = self.logs.truth[self.topic][partition as usize].max_below[next];
        if at.max != MaxTime::new(want) {
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
            // The last record of the row below the boundary must lie below the row's fence.
            let fence = self.fences.get(&(row.clone(), log_key.clone()));
            if fence.is_none_or(|f| f.0 <= last as i64) {
                return Err(format!(
                    "INV-1: partition {partition} at {next}: row {row:?} lacks {last}"
                ));
            }
        }
        Ok(())
    }

    /// The sums of a boundary are those of the log below it, unless nobody knows them.
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

    /// The grand total: the sums of every progress item, those of former topics too, are those of its log.
    pub(crate) fn check_grand_total(&self) -> Result<(), String> {
        for (log_key, item) in &self.progress {
            let (topic, partition) = self.log_of(log_key)?;
            self.check_sums(topic, partition, *item)?;
        }
        Ok(())
    }

    /// An older version moves a progress item and commits: neither says sums any more.
    pub(crate) fn forget_sums(&mut self, partition: i32) {
        self.older = true;
        let log_key = self.log_key(partition);
        if let Some(item) = self.progress.get_mut(&log_key) {
            item.sums = None;
        }
        if let Some(commit) = self.commits.get_mut(&partition)
            && let Some((before, _)) = commit.metadata.split_once(";sums=")
        {
            commit.metadata = before.to_owned();
        }
    }

    fn drop_items(&self, want: &mut Tables) {
        if !self.items {
            want.raw.clear();
            want.alerts.clear();
        }
    }

    /// INV-2: each row holds, of each log, exactly its records below the fence.
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

    /// The tables against the fold over the first `partitions` partitions of the current log. Of an
    /// older log only what its fences say can be there, which [`Durable::check_rows`] checks.
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
