//! Simulates the durable state, which outlives the consumers: the tables with fences and progress items, and the
//! group's committed offsets.
//!
//! Each write of a restart point checks INV-1 and INV-4. `Durable::check_rows` checks INV-2.

mod checks;

use std::collections::BTreeMap;
use std::sync::Arc;

use citystream_core::batch::{Batch, BatchOutcome};
use citystream_core::event::Offset;
use citystream_core::gap::{Gap, SecondRead};
use citystream_core::keys;
use citystream_core::pipeline::{CommitPart, Publish};
use citystream_core::plan::{Put, PutTable, RowUpdate, UpdateOutcome};
use citystream_core::restart::{Boundary, Commit, Metadata};
use citystream_core::worker::Rejected;
use serde_json::{Value, json};

use crate::draw::topic_id;
use crate::reference::{self, Found, Logged, POISON, RowName, Said, Tables};
use crate::trace::{Item, Lines, Point, Row, Step, Stretch, Trace, into, log_name};

/// The logs of all topics of a run, and the results of the fold over each log. Only one topic exists at a time.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The records, by topic and partition.
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
    /// True if raw items and alerts are stored.
    pub(crate) items: bool,
    /// The number of the topic that currently exists.
    pub(crate) topic: usize,
    /// Number of times that the tables were deleted and created again.
    pub(crate) tables_made: usize,
    pub(crate) tables: Tables,
    pub(crate) fences: BTreeMap<(RowName, String), Offset>,
    /// The progress items, by log key.
    pub(crate) progress: BTreeMap<String, Boundary>,
    /// The group's committed offset for each partition, with its metadata. The metadata may name a former topic that no
    /// longer exists.
    pub(crate) commits: BTreeMap<i32, Commit>,
    /// True if a consumer of an older version, which writes no sums, has owned a partition.
    pub(crate) older: bool,
    /// The offset of the oldest record in each partition of the current topic.
    pub(crate) starts: Vec<usize>,
    pub(crate) trace: Trace,
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
            trace: Trace::default(),
        }
    }

    /// Starts a trace. The caller must call `trace_into` before the first action of the run.
    pub(crate) fn trace_into(&mut self, lines: Lines) {
        self.trace.begin(lines);
        self.trace_logs();
        let tables = self.tables_id();
        self.trace.step(|| Step::MakeTables { tables });
    }

    /// Writes the logs of the current topic into the trace.
    pub(crate) fn trace_logs(&self) {
        let records = self.logs.records[self.topic].iter().zip(0..);
        let topic_id = topic_id(self.topic);
        let logs = records.map(|(log, p)| (log_name(&topic_id, p), &**log));
        self.trace.logs(self.topic, logs, self.items);
    }

    /// Writes the current content of the tables into the trace.
    pub(crate) fn trace_state(&self) {
        if !self.trace.is_on() {
            return;
        }
        let row = |(series, start_ms): &RowName| Row::new(series, *start_ms);
        let fences = self.fences.iter();
        let fences: Value = fences
            .map(|((name, log), at)| json!([row(name), log, at.0]))
            .collect();
        let counts = self.tables.rows.iter();
        let counts: Value = counts
            .map(|(name, held)| json!([row(name), held.counted + held.late]))
            .collect();
        let progress = self.progress.iter();
        let progress: Value = progress
            .map(|(log, at)| {
                let sums = at.sums.map(|sums| sums.events());
                json!([log, at.next.0, at.max.max_ms().map(|ms| ms.0), sums])
            })
            .collect();
        self.trace
            .state(&self.tables_id(), &fences, &counts, &progress);
    }

    pub(crate) fn log(&self, partition: i32) -> &[Logged] {
        &self.logs.records[self.topic][partition as usize]
    }

    /// Returns the result of reading the partition again from the first offset of `gap`.
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

    /// Stores the puts of a batch, except for the puts with the indexes in `except`.
    pub(crate) fn store(
        &mut self,
        batch: &Batch,
        except: &[usize],
    ) -> Result<BatchOutcome, String> {
        for (at, put) in batch.puts.iter().enumerate() {
            // The key of a raw item contains the id and the time of the event. The key of an alert also contains the
            // city, but in the simulation, all events with the same id have the same city.
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
            let item = self.item(put, batch.table);
            self.trace.step(|| Step::Store(item));
            let (id, time_ms) = (e.event_id.to_string(), e.event.time_ms.0);
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

    fn item(&self, put: &Put, table: PutTable) -> Item {
        Item {
            tables: self.tables_id(),
            of: log_name(&put.event.event.description, put.event.partition),
            offset: put.event.offset.0,
            into: into(table),
        }
    }

    /// Notes that the dead-letter topic contains a rejected record.
    pub(crate) fn reject(&mut self, rejected: &Rejected) {
        let topic_id = rejected.detail.clone();
        let offset = rejected.offset.0 as usize;
        self.trace.step(|| Step::Letter {
            of: log_name(&topic_id, rejected.partition),
            offset: rejected.offset.0,
        });
        self.tables
            .dead
            .insert((topic_id, rejected.partition, offset));
    }

    /// Notes that the dead-letter topic contains a record whose item the table refused.
    pub(crate) fn refuse(&mut self, table: PutTable, put: &Put) {
        let at = (put.event.partition, put.event.offset.0 as usize);
        let alert = table == PutTable::Alerts;
        let Item { of, offset, .. } = self.item(put, table);
        self.trace.step(|| Step::Letter { of, offset });
        self.tables.refused.insert((at.0, at.1, alert));
    }

    pub(crate) fn update(&mut self, update: &RowUpdate) -> UpdateOutcome {
        let window_start_ms = update.row.window_start_ms.map(|ms| ms.0);
        let key = (update.row.series.to_string(), window_start_ms);
        let fence = (key.clone(), update.log_key.to_string());
        if let Some(at) = self.fences.get(&fence)
            && *at > update.first
        {
            let tables = self.tables_id();
            self.trace
                .step(|| Step::Refused(Stretch::new(tables, update)));
            return UpdateOutcome::Fenced(*at);
        }
        let tables = self.tables_id();
        self.trace.step(|| Step::Land(Stretch::new(tables, update)));
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

    /// Stores a commit, and checks INV-1 and INV-4 for the commit's restart point.
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

    /// Creates the first progress item of a log, unless the item already exists.
    pub(crate) fn create(&mut self, publish: &Publish) {
        let (tables, of) = (self.tables_id(), publish.log_key.to_string());
        let at = publish.boundary;
        let is_first = at == Boundary::begin(at.next);
        if !self.progress.contains_key(&of) {
            self.trace.step(|| match is_first {
                true => Step::Create {
                    tables,
                    of,
                    next: at.next.0,
                },
                false => Step::Restore(Point::new(tables, of, at)),
            });
        }
        let item = self.progress.entry(publish.log_key.to_string());
        item.or_insert(publish.boundary);
    }

    /// Recreates a deleted progress item, unless the item already exists.
    pub(crate) fn restore(&mut self, publish: &Publish) {
        let (tables, of) = (self.tables_id(), publish.log_key.to_string());
        if !self.progress.contains_key(&of) {
            let at = Point::new(tables, of.clone(), publish.boundary);
            self.trace.step(|| Step::Restore(at));
            self.progress.insert(of, publish.boundary);
        }
    }

    /// Moves a progress item. Returns true if the item exists.
    pub(crate) fn publish(&mut self, publish: &Publish) -> Result<bool, String> {
        let was = self.progress.get(&*publish.log_key).copied();
        let moved = self.move_progress(publish);
        if self.progress.get(&*publish.log_key) != was.as_ref() {
            let at = Point::new(
                self.tables_id(),
                publish.log_key.to_string(),
                publish.boundary,
            );
            self.trace.step(|| Step::Publish(at));
        }
        moved
    }

    fn move_progress(&mut self, publish: &Publish) -> Result<bool, String> {
        // If the progress item does not exist, for example because the tables were recreated, the write has no effect.
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

    /// Simulates a consumer of an older version, which writes a progress item and a commit without sums.
    pub(crate) fn forget_sums(&mut self, partition: i32) {
        self.older = true;
        let (tables, of) = (self.tables_id(), self.log_key(partition));
        if let Some(item) = self.progress.get_mut(&of) {
            item.sums = None;
            self.trace.step(|| Step::ForgetProgress {
                tables,
                of: of.clone(),
            });
        }
        let Some(commit) = self.commits.get_mut(&partition) else {
            return;
        };
        let Some((before, _)) = commit.metadata.split_once(";sums=") else {
            return;
        };
        if let Some(Metadata {
            topic_id,
            tables_id,
            max,
            sums,
        }) = Metadata::parse(&commit.metadata)
        {
            let next = commit.next;
            let of = log_name(&topic_id, partition);
            let at = Point::new(tables_id, of, Boundary { next, max, sums });
            self.trace.step(|| Step::Forget(at));
        }
        commit.metadata = before.to_owned();
    }

    /// Removes the records of a partition below `start`, as retention does.
    pub(crate) fn expire(&mut self, partition: i32, start: usize) {
        self.starts[partition as usize] = start;
        let (of, until) = (self.log_key(partition), start);
        self.trace.step(|| Step::Expire { of, until });
    }

    /// Deletes the topic and creates it again with the same name. Like a real broker, the simulation drops the
    /// committed offsets of the deleted topic.
    pub(crate) fn remake_topic(&mut self) {
        self.topic += 1;
        self.starts.fill(0);
        self.commits.clear();
        self.trace.step(|| Step::MakeTopic);
        self.trace_logs();
    }

    /// Deletes the tables and creates them again.
    pub(crate) fn remake_tables(&mut self) {
        self.tables_made += 1;
        self.tables = Tables::default();
        self.fences.clear();
        self.progress.clear();
        let tables = self.tables_id();
        self.trace.step(|| Step::MakeTables { tables });
    }

    /// Deletes a progress item. Returns true if the item existed.
    pub(crate) fn delete_progress(&mut self, partition: i32) -> bool {
        let (tables, of) = (self.tables_id(), self.log_key(partition));
        let was_there = self.progress.remove(&of).is_some();
        if was_there {
            self.trace.step(|| Step::Delete { tables, of });
        }
        was_there
    }
}
