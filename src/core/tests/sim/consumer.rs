//! One consumer: the real pipeline, and the requests it waits for.

use std::collections::{BTreeMap, BTreeSet};

use citystream_core::batch::Batch;
use citystream_core::gap::Gap;
use citystream_core::pipeline::{CommitPart, Halt, Options, Output, Pipeline, Publish, Report};
use citystream_core::plan::{Put, PutTable, RowUpdate, Ticket};
use citystream_core::worker::Rejected;

/// How long a partition may stand still.
const STALL_MS: i64 = 2_000;

/// A request that a consumer has sent.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Put(Batch),
    Update(RowUpdate),
    Reject(Ticket, Box<Rejected>),
    Refused(PutTable, Put),
    Create(Publish),
    Publish(Publish),
    Locate(i32, u64),
    CheckTopic,
    ReadTables,
    /// Creates a progress item again after it was deleted.
    Restore(Publish),
    /// A write to tables that are gone: the answer says so, or there is none.
    Gone(Box<Request>),
    /// A move of a progress item, sent before the tables were made again.
    StalePublish(Publish),
    /// partition, assignment
    CheckGap(i32, u64, Gap),
    Commit(Vec<CommitPart>),
}

/// A write of a consumer that died or lost its reply: it may still land.
#[derive(Clone, Debug)]
pub(crate) enum Float {
    Put(Batch),
    Update(RowUpdate),
    Commit(Vec<CommitPart>),
    Publish(Publish),
}

impl Request {
    /// Returns the write that may land without its sender.
    pub(crate) fn float(self) -> Option<Float> {
        match self {
            Request::Put(batch) => Some(Float::Put(batch)),
            Request::Update(update) => Some(Float::Update(update)),
            Request::Commit(parts) => Some(Float::Commit(parts)),
            Request::Publish(publish) => Some(Float::Publish(publish)),
            Request::Reject(..)
            | Request::Refused(..)
            | Request::Create(_)
            | Request::Locate(..)
            | Request::CheckGap(..)
            | Request::ReadTables
            | Request::Restore(_)
            | Request::Gone(_)
            | Request::StalePublish(_)
            | Request::CheckTopic => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) pipeline: Pipeline,
    pub(crate) requests: Vec<Request>,
    /// partition → assignment, next offset to deliver
    pub(crate) reading: BTreeMap<i32, (u64, usize)>,
    /// partition, assignment → the topic it was told of
    pub(crate) topics: BTreeMap<(i32, u64), usize>,
    /// partitions that were given to somebody else without a word
    pub(crate) zombie: Vec<i32>,
    /// partitions that its client reads no further
    pub(crate) stuck: BTreeSet<i32>,
    /// partitions that it gave up with its client, and wants again
    pub(crate) rejoins: Vec<i32>,
    /// it has stopped, because its tables are gone
    pub(crate) halted: bool,
    /// when it asked for the ends of the logs
    pub(crate) looked_ms: i64,
}

impl Consumer {
    pub(crate) fn new(row_interval_ms: i64) -> Consumer {
        Consumer {
            pipeline: Pipeline::new(Options {
                topic: "city-events".into(),
                row_interval_ms,
                continue_on_loss: false,
                requests_max: 8,
                stall_ms: STALL_MS,
            }),
            requests: Vec::new(),
            reading: BTreeMap::new(),
            topics: BTreeMap::new(),
            zombie: Vec::new(),
            stuck: BTreeSet::new(),
            rejoins: Vec::new(),
            halted: false,
            looked_ms: 0,
        }
    }

    pub(crate) fn has(&self, partition: i32) -> bool {
        self.pipeline.partitions().any(|p| p == partition)
    }

    /// Lets time pass and takes what the pipeline wants done. Returns the restart points of
    /// partitions that it gives up, which are committed at once, and what happened since the last
    /// time.
    pub(crate) fn pump(
        &mut self,
        now_ms: i64,
        boot_ms: i64,
    ) -> Result<(Vec<CommitPart>, Report), String> {
        // Memory is short now and then.
        if now_ms % 3 == 0 {
            self.pipeline.make_room();
        }
        self.pipeline.pump(now_ms, boot_ms);
        let (mut leaves, mut released) = (Vec::new(), Vec::new());
        while let Some(output) = self.pipeline.poll_output() {
            match output {
                Output::Released {
                    partition,
                    commit,
                    publish,
                } => {
                    released.push(partition);
                    leaves.extend(commit);
                    self.requests.extend(publish.map(Request::Publish));
                }
                Output::ReplaceClient { .. } => {
                    self.stuck.clear();
                    self.reading.clear();
                    self.rejoins.append(&mut released);
                }
                other => self.take(other)?,
            }
        }
        let report = self.pipeline.report();
        if !report.ledger.balances() {
            return Err(format!("INV-7: {:?}", report.ledger));
        }
        Ok((leaves, report))
    }

    /// Turns an output into a request, or follows it.
    fn take(&mut self, output: Output) -> Result<(), String> {
        let request = match output {
            Output::Put(batch) => Request::Put(batch),
            Output::Update(update) => Request::Update(update),
            Output::Reject(ticket, rejected) => Request::Reject(ticket, rejected),
            Output::Refused(table, put) => Request::Refused(table, put),
            Output::CreateProgress(publish) => Request::Create(publish),
            Output::Publish(publish) => Request::Publish(publish),
            Output::Locate {
                partition,
                assignment,
                ..
            } => Request::Locate(partition, assignment),
            Output::CheckTopic => Request::CheckTopic,
            Output::CheckGap {
                partition,
                assignment,
                gap,
                ..
            } => Request::CheckGap(partition, assignment, gap),
            Output::Commit(parts) => Request::Commit(parts),
            Output::ReadTables => Request::ReadTables,
            Output::RestoreProgress(publish) => Request::Restore(publish),
            Output::Skipped { .. } => return Ok(()),
            Output::Begin {
                partition,
                assignment,
                next,
            } => {
                let from = (assignment, next.0 as usize);
                self.reading.insert(partition, from);
                return Ok(());
            }
            Output::Hold { partition } => {
                self.reading.remove(&partition);
                return Ok(());
            }
            Output::Halt(Halt::TableMissing { .. } | Halt::TablesReplaced { .. }) => {
                self.halted = true;
                return Ok(());
            }
            other => return Err(format!("unexpected {other:?}")),
        };
        self.requests.push(request);
        Ok(())
    }
}
