//! Decides how the requests of the simulated consumers end.

use citystream_core::batch::{Batch, BatchOutcome};
use citystream_core::gap::SecondRead;
use citystream_core::keys;
use citystream_core::pipeline::{CommitPart, Publish};
use citystream_core::plan::{RowUpdate, Shown, Ticket, UpdateOutcome};

use super::World;
use crate::consumer::{Float, Request};
use crate::draw::topic_id;

/// Returns the outcome that the core computes from the correct answer of the table to a row update.
fn judge(update: &RowUpdate, outcome: UpdateOutcome) -> UpdateOutcome {
    let shown = |fence| Shown {
        same_row: true,
        fence: Some(fence),
    };
    match outcome {
        UpdateOutcome::Counted => update.judge_success(shown(update.next)),
        UpdateOutcome::Fenced(fence) => update.judge_refusal(shown(fence)),
        UpdateOutcome::Unknown | UpdateOutcome::Refused => outcome,
    }
}

/// Returns the outcome that the core computes from the answer to another row update. The update that the consumer sent
/// has not reached the table.
fn judge_wrong(update: &RowUpdate, fate: usize) -> UpdateOutcome {
    let shown = |same_row, fence| Shown {
        same_row,
        fence: Some(fence),
    };
    match fate {
        12 => update.judge_success(shown(false, update.next)),
        13 => update.judge_success(shown(true, update.first)),
        14 => update.judge_refusal(shown(false, update.next)),
        _ => update.judge_refusal(shown(true, update.first)),
    }
}

impl World {
    /// Ends a randomly chosen request of a consumer in a random way.
    pub(super) fn answer(&mut self, who: usize) -> Result<(), String> {
        let Some(c) = &self.consumers[who] else {
            return Ok(());
        };
        if c.requests.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(c.requests.len());
        let publish = matches!(c.requests[at], Request::Publish(_));
        // At a random time, a write of a progress item is rarely in flight. Therefore, the simulation may also replace
        // the tables just before it answers such a write.
        if publish && self.faults && self.rng.one_in(6) {
            self.remake_tables();
        }
        let request = self.consumer(who).requests.swap_remove(at);
        let fate = if self.faults { self.rng.below(16) } else { 11 };
        let chance = self.rng.next() as u32;
        match request {
            Request::Put(batch) => self.answer_put(who, batch, fate, chance)?,
            Request::Update(update) => self.answer_update(who, &update, fate, chance),
            Request::Reject(..) | Request::Refused(..) => self.answer_letter(who, request, fate),
            Request::Create(publish) => {
                self.durable.create(&publish);
                let locate = Request::Locate(publish.partition, publish.assignment);
                self.consumer(who).requests.push(locate);
            }
            Request::Restore(publish) => {
                self.durable.restore(&publish);
                let now = self.now_ms;
                self.consumer(who).pipeline.published(now, &publish);
            }
            Request::StalePublish(publish) => self.answer_stale_publish(who, publish)?,
            Request::Publish(publish) => self.answer_publish(who, publish, fate)?,
            Request::Commit(parts) => self.answer_commit(who, parts, fate)?,
            Request::Gone(request) => self.answer_gone(who, *request, fate),
            Request::Locate(..)
            | Request::CheckTopic
            | Request::ReadTables
            | Request::CheckGap(..) => self.answer_question(who, &request, fate),
        }
        self.follow(who);
        Ok(())
    }

    fn answer_put(
        &mut self,
        who: usize,
        batch: Batch,
        fate: usize,
        chance: u32,
    ) -> Result<(), String> {
        let outcome = match fate {
            0 => {
                self.seen.throttled += 1;
                BatchOutcome::Failed { throttled: true }
            }
            1 => {
                self.durable.store(&batch, &[])?;
                self.seen.lost_replies += 1;
                BatchOutcome::Failed { throttled: false }
            }
            2 => {
                self.floats.push(Float::Put(batch.clone()));
                BatchOutcome::Failed { throttled: false }
            }
            3 => {
                let all = 0..batch.puts.len();
                let left: Vec<usize> = all.filter(|_| self.rng.one_in(3)).collect();
                self.seen.unprocessed += left.len() as u64;
                self.durable.store(&batch, &left)?
            }
            12 | 13 => self.answer_wrongly(who, fate, &batch)?,
            _ => self.durable.store(&batch, &[])?,
        };
        let c = self.consumers[who].as_mut().expect("it has sent the batch");
        c.watch
            .batch_answered(&self.durable.trace, &c.pipeline, &batch, &outcome);
        c.pipeline
            .batch_answered(self.now_ms, batch, &outcome, chance);
        Ok(())
    }

    fn answer_update(&mut self, who: usize, update: &RowUpdate, fate: usize, chance: u32) {
        let outcome = match fate {
            0 => {
                self.seen.throttled += 1;
                UpdateOutcome::Refused
            }
            1 | 2 => {
                self.durable.update(update);
                self.seen.lost_replies += 1;
                UpdateOutcome::Unknown
            }
            3 => {
                self.floats.push(Float::Update(update.clone()));
                UpdateOutcome::Unknown
            }
            4 => {
                self.seen.lost_requests += 1;
                UpdateOutcome::Unknown
            }
            5 => {
                // A software layer below the consumer, such as the SDK, sends the update twice.
                self.durable.update(update);
                judge(update, self.durable.update(update))
            }
            12..=15 => {
                self.seen.wrong_answers += 1;
                judge_wrong(update, fate)
            }
            _ => judge(update, self.durable.update(update)),
        };
        let conflict = matches!(outcome, UpdateOutcome::Fenced(_));
        self.seen.conflicts += u64::from(conflict);
        let c = self.consumers[who]
            .as_mut()
            .expect("it has sent the update");
        self.seen.zombie_writes += u64::from(!c.zombie.is_empty());
        c.watch
            .update_answered(&self.durable.trace, &c.pipeline, update, outcome);
        c.pipeline
            .update_answered(self.now_ms, update, outcome, chance);
    }

    /// Acknowledges a dead letter, or makes the Kafka client send the same dead letter again.
    fn answer_letter(&mut self, who: usize, request: Request, fate: usize) {
        if fate == 0 {
            self.consumer(who).requests.push(request);
            return;
        }
        let c = self.consumers[who]
            .as_mut()
            .expect("it has sent the record");
        match request {
            Request::Reject(ticket, rejected) => {
                self.durable.reject(&rejected);
                let (trace, offset) = (&self.durable.trace, rejected.offset.0);
                c.watch
                    .letter_answered(trace, &c.pipeline, ticket, offset, None);
                c.pipeline.reject_done(ticket);
            }
            Request::Refused(table, put) => {
                self.seen.refused += 1;
                self.durable.refuse(table, &put);
                let (trace, offset) = (&self.durable.trace, put.event.offset.0);
                c.watch
                    .letter_answered(trace, &c.pipeline, put.ticket, offset, Some(table));
                c.pipeline.refused_done(table, put.ticket);
            }
            other => unreachable!("{other:?} is no dead letter"),
        }
    }

    fn answer_publish(&mut self, who: usize, publish: Publish, fate: usize) -> Result<(), String> {
        if fate == 0 {
            let now = self.now_ms;
            let pipeline = &mut self.consumer(who).pipeline;
            pipeline.publish_failed(now, &publish);
            self.floats.push(Float::Publish(publish));
            return Ok(());
        }
        let moved = self.durable.publish(&publish)?;
        let (now, boot_ms) = (self.now_ms, self.boot_ms());
        let pipeline = &mut self.consumer(who).pipeline;
        if moved {
            pipeline.published(now, &publish);
        } else {
            pipeline.progress_missing(boot_ms, publish);
        }
        Ok(())
    }

    fn answer_stale_publish(&mut self, who: usize, publish: Publish) -> Result<(), String> {
        self.seen.stale_publishes += 1;
        // A write for the former tables would take effect if the new tables already contained the progress item. The
        // simulation does not let such a write reach an existing progress item, because operators must stop all
        // consumers before they recreate tables.
        let made = self.durable.progress.contains_key(&*publish.log_key);
        if !made && !self.durable.publish(&publish)? {
            let boot_ms = self.boot_ms();
            let pipeline = &mut self.consumer(who).pipeline;
            pipeline.progress_missing(boot_ms, publish);
        }
        Ok(())
    }

    fn answer_commit(
        &mut self,
        who: usize,
        parts: Vec<CommitPart>,
        fate: usize,
    ) -> Result<(), String> {
        match fate {
            0 => self.seen.lost_commits += 1,
            1 => self.floats.push(Float::Commit(parts)),
            _ => {
                for part in &parts {
                    self.durable.commit(part)?;
                }
            }
        }
        let now = self.now_ms;
        self.consumer(who).pipeline.commit_done(now, fate > 1);
        Ok(())
    }

    /// Answers a request that only reads, and therefore changes nothing outside of the consumer.
    fn answer_question(&mut self, who: usize, request: &Request, fate: usize) {
        let (now, boot_ms) = (self.now_ms, self.boot_ms());
        match *request {
            Request::Locate(partition, assignment) => self.locate(who, partition, assignment),
            Request::ReadTables => {
                let id = self.durable.tables_id();
                let pipeline = &mut self.consumer(who).pipeline;
                match fate {
                    0 => pipeline.tables_unread(boot_ms),
                    _ => pipeline.tables_read(&id, boot_ms),
                }
            }
            Request::CheckGap(partition, assignment, gap) => {
                let topic = self.consumer(who).topics.get(&(partition, assignment));
                let of_this_log = topic.copied() == Some(self.durable.topic);
                let second = if fate == 0 || !of_this_log {
                    SecondRead::NoAnswer
                } else {
                    self.durable.second_read(partition, gap)
                };
                let pipeline = &mut self.consumer(who).pipeline;
                pipeline.gap_checked(now, partition, assignment, gap, second);
            }
            Request::CheckTopic => {
                let id = (fate != 0).then(|| topic_id(self.durable.topic));
                let pipeline = &mut self.consumer(who).pipeline;
                pipeline.topic_checked(now, id.as_deref());
            }
            _ => unreachable!("{request:?} is no question"),
        }
    }

    /// Ends a request that was sent to tables that no longer exist.
    fn answer_gone(&mut self, who: usize, request: Request, fate: usize) {
        let (now, boot_ms) = (self.now_ms, self.boot_ms());
        let pipeline = &mut self.consumer(who).pipeline;
        if fate.is_multiple_of(2) {
            pipeline.table_missing(keys::TOTALS);
        }
        match request {
            Request::Put(batch) => {
                let failed = BatchOutcome::Failed { throttled: false };
                pipeline.batch_answered(now, batch, &failed, 0);
            }
            Request::Update(update) => {
                pipeline.update_answered(now, &update, UpdateOutcome::Unknown, 0);
            }
            Request::Create(publish) => {
                pipeline.not_located(now, publish.partition, publish.assignment);
            }
            Request::ReadTables => pipeline.tables_unread(boot_ms),
            Request::Restore(_) => {}
            other => unreachable!("{other:?} meets no table"),
        }
    }

    /// Gives a wrong answer to a batch. Either the table stores all puts and the answer reports them as unprocessed, or
    /// the answer is the refusal of another batch.
    fn answer_wrongly(
        &mut self,
        who: usize,
        fate: usize,
        batch: &Batch,
    ) -> Result<BatchOutcome, String> {
        let name = |ticket: Ticket| Ticket {
            // Different consumers may use the same assignment number, so the number here includes the index of the
            // consumer.
            assignment: ticket.assignment * 64 + who as u64,
            ..ticket
        };
        let mut names = batch.puts.iter().map(|put| (batch.table, name(put.ticket)));
        if fate == 13 && !names.any(|put| self.refused_wrongly.contains(&put)) {
            self.seen.wrong_answers += 1;
            let names = batch.puts.iter().map(|put| (batch.table, name(put.ticket)));
            self.refused_wrongly.extend(names);
            return Ok(BatchOutcome::Invalid);
        }
        Ok(match self.durable.store(batch, &[])? {
            BatchOutcome::Stored { .. } if fate == 12 => {
                self.seen.wrong_answers += 1;
                let unprocessed = (0..batch.puts.len()).collect();
                BatchOutcome::Stored { unprocessed }
            }
            other => other,
        })
    }
}
