//! Simulates a consumer. A simulated consumer consists of the real pipeline and the requests that have no answer yet.

use std::collections::{BTreeMap, BTreeSet};

use citystream_core::batch::Batch;
use citystream_core::clock::{BootMs, SteadyMs};
use citystream_core::gap::Gap;
use citystream_core::pipeline::{CommitPart, Halt, Options, Output, Pipeline, Publish, Report};
use citystream_core::plan::{Put, PutTable, RowUpdate, Ticket};
use citystream_core::worker::Rejected;

use crate::watch::Watch;

/// Time after which a partition without progress counts as stalled, in milliseconds.
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
    /// Recreates a deleted progress item.
    Restore(Publish),
    /// A request to tables that no longer exist. The answer is that the tables are missing, or there is no answer.
    Gone(Box<Request>),
    /// A write of a progress item that a consumer sent to the former tables, but that reaches the new tables.
    StalePublish(Publish),
    /// A second read of a gap in the offsets, with the partition, the assignment and the gap.
    CheckGap(i32, u64, Gap),
    Commit(Vec<CommitPart>),
}

/// A write that may still take effect after its consumer has crashed or has lost the answer.
#[derive(Clone, Debug)]
pub(crate) enum Float {
    Put(Batch),
    Update(RowUpdate),
    Commit(Vec<CommitPart>),
    Publish(Publish),
}

impl Request {
    /// Returns the write that may still take effect after the sender of the request has crashed, or `None` if there is
    /// none.
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
    /// For each partition, the assignment and the offset of the next record to deliver.
    pub(crate) reading: BTreeMap<i32, (u64, usize)>,
    /// The number of the topic that existed at the start of an assignment, by partition and assignment.
    pub(crate) topics: BTreeMap<(i32, u64), usize>,
    /// The partitions that this consumer has lost to another consumer without a notification.
    pub(crate) zombie: Vec<i32>,
    /// The partitions on which the Kafka client is stuck.
    pub(crate) stuck: BTreeSet<i32>,
    /// The partitions that the consumer released when it replaced its Kafka client. The simulation must assign the
    /// released partitions to the consumer again.
    pub(crate) rejoins: Vec<i32>,
    /// True if the consumer has stopped because its tables are gone.
    pub(crate) halted: bool,
    /// The time at which the consumer last learned the ends of the logs.
    pub(crate) looked_ms: SteadyMs,
    pub(crate) watch: Watch,
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
            looked_ms: SteadyMs(0),
            watch: Watch::default(),
        }
    }

    pub(crate) fn has(&self, partition: i32) -> bool {
        self.pipeline.partitions().any(|p| p == partition)
    }

    /// Advances the pipeline to `now_ms` and collects its requests. Returns the restart points of the released
    /// partitions, and the pipeline's report since the last call. The caller must commit the restart points at once.
    pub(crate) fn pump(
        &mut self,
        now_ms: SteadyMs,
        boot_ms: BootMs,
    ) -> Result<(Vec<CommitPart>, Report), String> {
        // From time to time, the simulated consumer frees memory as if memory were short.
        if now_ms.0 % 3 == 0 {
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

    /// Adds a request for an output of the pipeline, or handles the output at once if it needs no request.
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
