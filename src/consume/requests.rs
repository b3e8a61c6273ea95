//! Starts what the pipeline asks for: each request in a task of its own, which reports back as a
//! [`Done`]. Nothing here decides anything; what fails is told to the pipeline, which tries again.

use std::sync::Arc;
use std::time::Duration;

use crate::consume::locate::{Unlocated, blocking, dynamodb};
use crate::consume::shell::{ANSWER_TIMEOUT, Answer, Done, GapRead, Shell, send};
use crate::core::gap::{Gap, Verdict};
use crate::core::keys;
use crate::core::parse::Reason;
use crate::core::pipeline::{CommitPart, Halt, Output, Publish};
use crate::core::plan::{Put, PutTable, Ticket};
use crate::core::worker::Rejected;
use crate::exit::SettingsError;
use crate::kafka::second_read::report;
use crate::store::error::StoreErrorKind;
use crate::sys;
use crate::telemetry::steady_ms;
use crate::telemetry::unix_ms;

impl Shell {
    pub(super) fn start(&mut self, output: Output) {
        let (writer, done) = (self.p.writer.clone(), self.done_in.clone());
        match output {
            Output::Put(batch) => {
                tokio::spawn(async move {
                    let (outcome, error) = writer.put(&batch, unix_ms()).await;
                    send(&done, Done::Batch(batch, outcome, error));
                });
            }
            Output::Update(update) => {
                tokio::spawn(async move {
                    let result = writer.update(&update, unix_ms()).await;
                    send(&done, Done::Update(update, result));
                });
            }
            Output::Reject(ticket, rejected) => {
                let letters = self.p.dead_letters.clone();
                let topic_id = self.topic_id.clone();
                self.send_letter(ticket, async move {
                    letters
                        .send(&rejected, &topic_id, || fastrand::u32(..))
                        .await;
                    send(&done, Done::Rejected(ticket));
                });
            }
            Output::Refused(table, put) => self.refused(table, put),
            Output::CreateProgress(publish) => {
                let (partition, assignment) = (publish.partition, publish.assignment);
                let not_created = move |why| {
                    Done::NotCreated(Unlocated {
                        partition,
                        assignment,
                        why,
                    })
                };
                if self.doubt.is_open() {
                    // They may be others by the time it is made.
                    return send(&done, not_created("the tables".to_owned()));
                }
                tokio::spawn(async move {
                    let what = match writer.create_progress(&publish).await {
                        Ok(()) => Done::Created {
                            partition,
                            assignment,
                        },
                        Err(error) => {
                            if error.kind() == StoreErrorKind::NotFound {
                                send(&done, Done::NoTables);
                            }
                            not_created(dynamodb(&error))
                        }
                    };
                    send(&done, what);
                });
            }
            Output::Publish(publish) => self.publish(publish),
            Output::Hold { partition } => {
                tracing::info!(partition, "partition starts over");
                self.forget(partition);
                self.p.consumer.hold(partition);
            }
            Output::Begin {
                partition,
                assignment,
                next,
            } => {
                tracing::info!(partition, %next, "partition begins");
                self.p.consumer.begin(partition, assignment, next);
            }
            Output::CheckTopic => {
                let (inquiry, generation) = (self.p.locator.inquiry(), self.generation);
                tokio::spawn(async move {
                    let topic = blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
                    let id = topic.ok().flatten().map(|t| t.id.to_string());
                    send(&done, Done::Answer(generation, Answer::Topic(id)));
                });
            }
            Output::Commit(parts) => self.commit(parts),
            Output::Released {
                partition,
                commit,
                publish,
            } => self.released(partition, commit, publish),
            Output::Lost {
                partition,
                from,
                to,
            } => {
                let lost = to.0 - from.0;
                tracing::error!(
                    partition, %from, %to, lost,
                    "records are lost; counts across this range are not exact"
                );
                self.p.host.metrics.records_lost.inc_by(lost.unsigned_abs());
            }
            Output::Halt(halt) => self.end = Some(Err(self.explain(&halt).into())),
            Output::Skipped {
                partition,
                gap,
                found,
            } => report(partition, gap, Verdict::Skipped { found }),
            Output::CheckGap {
                partition,
                assignment,
                gap,
                not_before_ms,
            } => {
                let wait = u64::try_from(not_before_ms - steady_ms()).unwrap_or(0);
                self.read_gap(partition, assignment, gap, Duration::from_millis(wait));
            }
            Output::Locate { .. } => {
                unreachable!("gathered by the caller")
            }
        }
    }

    pub(super) fn locate(&self, wanted: Vec<(i32, u64)>, wait: Duration) {
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        let generation = self.generation;
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let located = locator.locate(wanted).await;
            send(&done, Done::Answer(generation, Answer::Located(located)));
        });
    }

    /// Reads a range that the client passed over a second time.
    pub(super) fn read_gap(&self, partition: i32, assignment: u64, gap: Gap, wait: Duration) {
        let (reader, done) = (Arc::clone(&self.p.second_reader), self.done_in.clone());
        let turn = Arc::clone(&self.second_reads);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _turn = turn.acquire().await;
            let second = blocking(move || reader.read(partition, gap)).await;
            send(
                &done,
                Done::GapRead(GapRead {
                    partition,
                    assignment,
                    gap,
                    second,
                }),
            );
        });
    }

    pub(super) fn publish(&self, publish: Publish) {
        if self.doubt.is_open() {
            // It may speak of tables that are gone; in new ones it would hide what they lack.
            return;
        }
        let (writer, done) = (self.p.writer.clone(), self.done_in.clone());
        let tables = self.p.locator.tables();
        tokio::spawn(async move {
            let asked_ms = sys::boot_ms();
            match writer.publish_progress(&publish).await {
                Ok(true) => send(&done, Done::Published(publish)),
                Ok(false) => match tables.id().await {
                    // It begins at their start, once this is known.
                    Ok(Some(id)) if publish.tables_id != id => {
                        send(&done, Done::Tables(id, asked_ms))
                    }
                    Ok(Some(_)) => {
                        tracing::warn!(
                            key = %publish.log_key,
                            "somebody deleted a progress item, making it again"
                        );
                        match writer.create_progress(&publish).await {
                            Ok(()) => send(&done, Done::Published(publish)),
                            Err(error) => tracing::warn!(%error, "failed to publish progress"),
                        }
                    }
                    // Missing tables are noticed elsewhere; the next commit tries again.
                    Ok(None) | Err(_) => {}
                },
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    send(&done, Done::NoTables)
                }
                // The next commit tries again.
                Err(error) => tracing::warn!(%error, "failed to publish progress"),
            }
        });
    }

    /// A table refused an item for good: its record goes to the dead-letter topic and stays counted.
    fn refused(&mut self, table: PutTable, put: Put) {
        let (letters, done) = (self.p.dead_letters.clone(), self.done_in.clone());
        let (topic_id, inquiry) = (self.topic_id.clone(), self.p.locator.inquiry());
        let turn = Arc::clone(&self.rereading);
        tracing::error!(
            partition = put.event.partition, offset = %put.event.offset, event_id = %put.event.event_id,
            "the table refused an item, its record goes to the dead-letter topic"
        );
        self.send_letter(put.ticket, async move {
            let (partition, offset) = (put.event.partition, put.event.offset);
            let turn = turn.acquire_owned().await;
            let found = blocking(move || inquiry.read_one(partition, offset, ANSWER_TIMEOUT)).await;
            drop(turn);
            let mut rejected = found.unwrap_or_else(|| Rejected {
                reason: Reason::RefusedByTable,
                detail: String::new(),
                key: None,
                value: None,
                headers: Vec::new(),
                partition,
                offset,
                timestamp_ms: None,
            });
            rejected.reason = Reason::RefusedByTable;
            rejected.detail = match table {
                PutTable::Raw => "DynamoDB refused the raw item".to_owned(),
                PutTable::Alerts => "DynamoDB refused the alert".to_owned(),
            };
            letters
                .send(&rejected, &topic_id, || fastrand::u32(..))
                .await;
            send(&done, Done::Refused(table, put.ticket));
        });
    }

    /// Runs what sends a dead letter until it ends, or the assignment of its record does: whoever has the
    /// partition then sends it as well, and this one would hold its record for as long as the topic refuses it.
    fn send_letter(&mut self, ticket: Ticket, sending: impl Future<Output = ()> + Send + 'static) {
        let letters = self.letters.entry((ticket.partition, ticket.assignment));
        letters.or_default().spawn(sending);
    }

    /// Ends the letters of former assignments.
    pub(super) fn mind_letters(&mut self) {
        let pipeline = &self.p.pipeline;
        self.letters.retain(|(partition, assignment), letters| {
            while letters.try_join_next().is_some() {}
            // Dropped, it ends what still runs.
            !letters.is_empty() && pipeline.has(*partition, *assignment)
        });
    }

    fn commit(&self, parts: Vec<CommitPart>) {
        let (inquiry, done) = (self.p.locator.inquiry(), self.done_in.clone());
        let generation = self.generation;
        tokio::spawn(async move {
            let result = blocking(move || inquiry.commit(&parts)).await;
            if let Err(error) = &result {
                // A rebalance under way is the usual reason; the next commit covers it.
                tracing::debug!(%error, "failed to commit, trying again");
            }
            let taken = Answer::Committed(result.is_ok());
            send(&done, Done::Answer(generation, taken));
        });
    }

    /// Returns what a person must know and do.
    pub(super) fn explain(&self, halt: &Halt) -> SettingsError {
        let (topic, group) = (&self.p.topic, &self.p.group);
        SettingsError(match halt {
            Halt::Unreadable {
                partition,
                next,
                progress,
            } => {
                let there = match progress {
                    Some(at) => format!(
                        "offset {} (progress item {})",
                        at.next,
                        keys::log_key(&self.topic_id, *partition)
                    ),
                    None => "the log's beginning".to_owned(),
                };
                format!(
                    "group {group} has offset {next} committed for {topic} partition {partition} without this program's metadata, as offset-reset tools leave it, and counting from there would not be exact; stop all members, run kafka-consumer-groups --delete-offsets --group {group} --topic {topic}, and start again: it then goes on at {there}"
                )
            }
            Halt::Expired {
                partition,
                from,
                to,
            } => format!(
                "{topic} partition {partition}: records {from} to {to} (exclusive) were removed by retention before they were read, {} records; --on-data-loss continue counts them as lost and goes on at {to}",
                to.0 - from.0
            ),
            Halt::Truncated {
                partition,
                from,
                end,
            } => format!(
                "{topic} partition {partition}: the log ends at {end}, below offset {from} where reading would go on, so records {end} to {from} (exclusive) were cut off its end; --on-data-loss continue waits for the log to grow past {from} and counts them as lost"
            ),
        })
    }
}
