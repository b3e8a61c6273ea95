//! Writes the steps of one consumer's workers to the trace. This module derives the steps from the inputs and outputs
//! of the consumer's pipeline.

use std::collections::{BTreeMap, BTreeSet};

use citystream_core::batch::{Batch, BatchOutcome};
use citystream_core::pipeline::{CommitPart, Pipeline, Publish};
use citystream_core::plan::{PutTable, RowUpdate, Ticket, UpdateOutcome};
use citystream_core::restart::{Boundary, Metadata, StartFacts};

use crate::consumer::Request;
use crate::trace::{Held, Point, Step, Trace, into, log_name};

/// The worker of an assignment, with the part of its state that the trace contains.
#[derive(Clone, Debug)]
struct Watched {
    /// The number that identifies the worker in the trace.
    worker: u64,
    /// The offset that the worker had reached at its last step in the trace.
    position: i64,
    durable: i64,
    /// The offsets of the records that the pipeline has, but that the worker has not taken yet.
    given: BTreeSet<i64>,
}

/// The workers of one consumer, by assignment. Workers that have ended are included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    workers: BTreeMap<u64, Watched>,
}

impl Watch {
    /// Adds the worker of the assignment to the trace, if the pipeline has started this worker from `facts`.
    pub(crate) fn located(
        &mut self,
        trace: &mut Trace,
        pipeline: &Pipeline,
        assignment: u64,
        facts: &StartFacts,
    ) {
        let mut workers = pipeline.workers();
        let begun = workers.find(|w| w.place().assignment == assignment);
        let Some(begun) = begun.filter(|_| trace.is_on()) else {
            return;
        };
        let (worker, at) = (trace.new_worker(), begun.durable());
        let tables = facts.tables_id.clone();
        let of = begun.place().log_key.to_string();
        let at_progress = facts.progress == Some(at) && facts.own_commit() != Some(at);
        trace.step(|| match at_progress {
            true => Step::StartAtProgress { worker, tables, of },
            false => Step::StartAtCommit {
                worker,
                at: Point::new(tables, of, at),
            },
        });
        let watched = Watched {
            worker,
            position: at.next.0,
            durable: at.next.0,
            given: BTreeSet::new(),
        };
        self.workers.insert(assignment, watched);
    }

    /// Notes the offsets of records that are passed to the pipeline for a worker.
    pub(crate) fn given(&mut self, assignment: u64, offsets: impl Iterator<Item = i64>) {
        if let Some(watched) = self.workers.get_mut(&assignment) {
            watched.given.extend(offsets);
        }
    }

    /// Writes the new steps of every running worker to the trace. An offset that the worker has passed without a record
    /// is a skipped offset in the trace.
    pub(crate) fn follow(&mut self, trace: &Trace, pipeline: &Pipeline) {
        for now in pipeline.workers().filter(|_| trace.is_on()) {
            let Some(watched) = self.workers.get_mut(&now.place().assignment) else {
                continue;
            };
            let worker = watched.worker;
            for offset in watched.position..now.position().0 {
                let read = watched.given.remove(&offset);
                trace.step(|| match read {
                    true => Step::Read { worker },
                    false => Step::Skip { worker },
                });
            }
            for _ in watched.durable..now.durable().next.0 {
                trace.step(|| Step::Settle { worker });
            }
            watched.position = now.position().0;
            watched.durable = now.durable().next.0;
        }
    }

    /// Writes the new requests of the pipeline, and the commits of released partitions, to the trace.
    pub(crate) fn sent(&self, trace: &Trace, requests: &[Request], leaves: &[CommitPart]) {
        if !trace.is_on() {
            return;
        }
        for request in requests {
            match request {
                Request::Update(update) => self.sent_update(trace, update),
                Request::Put(batch) => {
                    for put in &batch.puts {
                        let offset = put.event.offset.0;
                        let held = self.held(put.ticket, offset, batch.table);
                        trace.step(|| Step::Put(held));
                    }
                }
                Request::Commit(parts) => self.offered(trace, parts),
                Request::Publish(publish) => self.published(trace, publish),
                _ => {}
            }
        }
        self.offered(trace, leaves);
    }

    fn sent_update(&self, trace: &Trace, update: &RowUpdate) {
        let worker = self.worker(update.assignment);
        trace.step(|| Step::Send {
            worker,
            row: (&update.row).into(),
            first: update.first.0,
            next: update.next.0,
        });
    }

    /// Writes commits to the trace. The trace contains only the offset and the metadata of a commit, because nothing
    /// else reaches Kafka.
    fn offered(&self, trace: &Trace, parts: &[CommitPart]) {
        for part in parts {
            let worker = self.worker(part.assignment);
            let metadata = Metadata::parse(&part.metadata);
            let boundary = Boundary {
                next: part.boundary.next,
                max: metadata.as_ref().map(|m| m.max).unwrap_or_default(),
                sums: metadata.as_ref().and_then(|m| m.sums),
            };
            let named = metadata.map(|m| (m.tables_id, log_name(&m.topic_id, part.partition)));
            let (tables, of) = named.unzip();
            let at = Point::new(tables, of, boundary);
            trace.step(|| Step::Offer { worker, at });
        }
    }

    fn published(&self, trace: &Trace, publish: &Publish) {
        let worker = self.worker(publish.assignment);
        let (tables, of) = (publish.tables_id.clone(), publish.log_key.to_string());
        let at = Point::new(tables, of, publish.boundary);
        trace.step(|| Step::Offer { worker, at });
    }

    /// Writes the answer to a row update to the trace. The caller must do this just before the pipeline processes the
    /// answer.
    pub(crate) fn update_answered(
        &self,
        trace: &Trace,
        pipeline: &Pipeline,
        update: &RowUpdate,
        outcome: UpdateOutcome,
    ) {
        let Some(worker) = self.taker(pipeline, update.partition, update.assignment) else {
            return;
        };
        let next = update.next.0;
        let row = (&update.row).into();
        match outcome {
            UpdateOutcome::Counted => trace.step(|| Step::Acknowledged { worker, row, next }),
            UpdateOutcome::Fenced(fence) => trace.step(|| Step::Learnt {
                worker,
                row,
                fence: fence.0,
                until: fence.0.min(next),
            }),
            UpdateOutcome::Unknown | UpdateOutcome::Refused => {}
        }
    }

    /// Writes the answer to a batch to the trace. The caller must do this just before the pipeline processes the
    /// answer.
    pub(crate) fn batch_answered(
        &self,
        trace: &Trace,
        pipeline: &Pipeline,
        batch: &Batch,
        outcome: &BatchOutcome,
    ) {
        let BatchOutcome::Stored { unprocessed } = outcome else {
            return;
        };
        for (at, put) in batch.puts.iter().enumerate() {
            let Ticket {
                partition,
                assignment,
                ..
            } = put.ticket;
            if !unprocessed.contains(&at) && self.taker(pipeline, partition, assignment).is_some() {
                let held = self.held(put.ticket, put.event.offset.0, batch.table);
                trace.step(|| Step::PutAcknowledged(held));
            }
        }
    }

    /// Writes the acknowledgement of a dead letter to the trace. The caller must do this just before the pipeline
    /// processes the acknowledgement. `refused_by` is the table that refused the record's item, if any.
    pub(crate) fn letter_answered(
        &self,
        trace: &Trace,
        pipeline: &Pipeline,
        ticket: Ticket,
        offset: i64,
        refused_by: Option<PutTable>,
    ) {
        let Some(worker) = self.taker(pipeline, ticket.partition, ticket.assignment) else {
            return;
        };
        trace.step(|| match refused_by {
            Some(table) => Step::PutGivenUp(self.held(ticket, offset, table)),
            None => Step::LetterAcknowledged { worker, offset },
        });
    }

    /// Returns the number of the worker that an answer belongs to, or `None` if the worker's assignment has ended.
    fn taker(&self, pipeline: &Pipeline, partition: i32, assignment: u64) -> Option<u64> {
        let watched = self.workers.get(&assignment)?;
        pipeline
            .has(partition, assignment)
            .then_some(watched.worker)
    }

    /// Returns the number of an assignment's worker in the trace, or 0 if the assignment has never begun.
    fn worker(&self, assignment: u64) -> u64 {
        self.workers.get(&assignment).map_or(0, |w| w.worker)
    }

    fn held(&self, ticket: Ticket, offset: i64, table: PutTable) -> Held {
        Held {
            worker: self.worker(ticket.assignment),
            offset,
            into: into(table),
        }
    }
}
