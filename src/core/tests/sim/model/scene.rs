//! Applies the actions of the model to a consumer and to the durable state.

use citystream_core::batch::BatchOutcome;
use citystream_core::clock::{BootMs, SteadyMs};
use citystream_core::event::Offset;
use citystream_core::pipeline::Tables as Rules;
use citystream_core::plan::{RawRows, UpdateOutcome};
use citystream_core::restart::StartFacts;
use citystream_core::window;

use super::{ACTION_MS, Fate};
use crate::consumer::{Consumer, Float, Request};
use crate::draw::{self, topic_id};
use crate::durable::Durable;

/// Maximum number of requests that the model answers for a consumer between two actions.
const ASKS_MAX: usize = 100;

/// Mutable access to the parts of a state that an action may change.
pub(super) struct Scene<'a> {
    pub(super) keep: RawRows,
    pub(super) now_ms: SteadyMs,
    pub(super) durable: &'a mut Durable,
}

impl Scene<'_> {
    /// Runs a consumer until all of its requests without an answer are writes. The model immediately answers reads and
    /// requests to create a progress item.
    pub(super) fn settle(&mut self, c: &mut Consumer) -> Result<(), String> {
        for _ in 0..ASKS_MAX {
            for wait_ms in [0, ACTION_MS - 1_000] {
                let waited = c.requests.len();
                let (leaves, _) = c.pump(self.now_ms + wait_ms, BootMs(0))?;
                let trace = &self.durable.trace;
                c.watch.sent(trace, &c.requests[waited..], &leaves);
                for part in leaves {
                    self.durable.commit(&part)?;
                }
            }
            let asks = |r: &Request| {
                matches!(
                    r,
                    Request::Locate(..)
                        | Request::CheckTopic
                        | Request::CheckGap(..)
                        | Request::Create(_)
                )
            };
            let Some(at) = c.requests.iter().position(asks) else {
                return Ok(());
            };
            match c.requests.swap_remove(at) {
                Request::Create(publish) => {
                    self.durable.create(&publish);
                    self.locate(c, publish.assignment);
                }
                Request::Locate(_, assignment) => self.locate(c, assignment),
                Request::CheckGap(partition, assignment, gap) => {
                    let second = self.durable.second_read(partition, gap);
                    c.pipeline
                        .gap_checked(self.now_ms, partition, assignment, gap, second);
                }
                _ => c.pipeline.topic_checked(self.now_ms, Some(&topic_id(0))),
            }
            c.watch.follow(&self.durable.trace, &c.pipeline);
        }
        Err(format!("a consumer asks more than {ASKS_MAX} times"))
    }

    fn locate(&mut self, c: &mut Consumer, assignment: u64) {
        let d = &*self.durable;
        let facts = StartFacts {
            progress: d.progress.get(&d.log_key(0)).copied(),
            topic_id: topic_id(0),
            tables_id: d.tables_id(),
            tables_read_ms: BootMs(0),
            commit: d.commits.get(&0).cloned(),
            log: (Offset(0), Offset(d.log(0).len() as i64)),
            replaced_from: None,
        };
        let tables = Rules {
            rules: window::Rules::default(),
            keep: self.keep,
        };
        let trace = &mut self.durable.trace;
        trace.claim(&facts.tables_id, 0);
        c.pipeline
            .located(self.now_ms, 0, assignment, &facts, &tables);
        c.watch.located(trace, &c.pipeline, assignment, &facts);
    }

    pub(super) fn deliver(&self, c: &mut Consumer) {
        let Some((&partition, &(assignment, at))) = c.reading.first_key_value() else {
            return;
        };
        if let Some(logged) = self.durable.log(partition).get(at) {
            c.reading.insert(partition, (assignment, at + 1));
            let records = draw::record(0, partition, at, logged).into_iter().collect();
            c.watch.given(assignment, std::iter::once(at as i64));
            c.pipeline
                .records(self.now_ms, partition, assignment, records);
            c.watch.follow(&self.durable.trace, &c.pipeline);
        }
    }

    /// Makes a write take effect. Returns the outcome of a row update, or `None` for other writes.
    pub(super) fn apply(&mut self, float: &Float) -> Result<Option<UpdateOutcome>, String> {
        match float {
            Float::Put(batch) => drop(self.durable.store(batch, &[])?),
            Float::Update(update) => {
                let outcome = self.durable.update(update);
                self.durable.check_rows()?;
                return Ok(Some(outcome));
            }
            Float::Commit(parts) => {
                for part in parts {
                    self.durable.commit(part)?;
                }
            }
            Float::Publish(publish) => drop(self.durable.publish(publish)?),
        }
        Ok(None)
    }

    pub(super) fn answer(
        &mut self,
        c: &mut Consumer,
        request: Request,
        fate: Fate,
    ) -> Result<(), String> {
        let now_ms = self.now_ms;
        let effects = match fate {
            Fate::Done | Fate::ReplyLost => 1,
            Fate::Twice => 2,
            Fate::Lost | Fate::Delayed => 0,
        };
        let known = matches!(fate, Fate::Done | Fate::Twice);
        let mut outcome = None;
        if let Some(float) = request.clone().float() {
            for _ in 0..effects {
                outcome = self.apply(&float)?;
            }
        }
        match request {
            Request::Update(update) => {
                let outcome = outcome.filter(|_| known).unwrap_or(UpdateOutcome::Unknown);
                c.watch
                    .update_answered(&self.durable.trace, &c.pipeline, &update, outcome);
                c.pipeline.update_answered(now_ms, &update, outcome, 0);
            }
            Request::Put(batch) => {
                let outcome = if known {
                    BatchOutcome::Stored {
                        unprocessed: Vec::new(),
                    }
                } else {
                    BatchOutcome::Failed { throttled: false }
                };
                c.watch
                    .batch_answered(&self.durable.trace, &c.pipeline, &batch, &outcome);
                c.pipeline.batch_answered(now_ms, batch, &outcome, 0);
            }
            Request::Commit(_) => c.pipeline.commit_done(now_ms, known),
            Request::Publish(publish) if known => c.pipeline.published(now_ms, &publish),
            Request::Reject(ticket, rejected) => {
                self.durable.reject(&rejected);
                let (trace, offset) = (&self.durable.trace, rejected.offset.0);
                c.watch
                    .letter_answered(trace, &c.pipeline, ticket, offset, None);
                c.pipeline.reject_done(ticket);
            }
            // The model does not report failed publications. A retry of a publication would be due at each action of
            // the model, so the number of states would grow without bound.
            Request::Refused(..)
            | Request::Publish(_)
            | Request::Create(_)
            | Request::Locate(..)
            | Request::CheckGap(..)
            | Request::CheckTopic => {}
            // The boot clock of the model stands still, so a consumer never needs to read the tables' id again.
            Request::ReadTables
            | Request::Restore(_)
            | Request::Gone(_)
            | Request::StalePublish(_) => unreachable!("{request:?}"),
        }
        c.watch.follow(&self.durable.trace, &c.pipeline);
        Ok(())
    }
}
