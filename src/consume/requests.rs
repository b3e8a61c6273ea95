//! Sends the pipeline's requests to DynamoDB and Kafka. Each request runs as a separate task, which sends the result to
//! the shell as a [`Done`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::blocking::run_blocking;
use crate::consume::answers::{Answer, Answers, Done};
use crate::consume::locate::{ANSWER_TIMEOUT, Locator, Unlocated};
use crate::consume::trouble::dynamodb;
use crate::core::batch::Batch;
use crate::core::gap::Gap;
use crate::core::keys;
use crate::core::parse::Reason;
use crate::core::pipeline::{CommitPart, Pipeline, Publish};
use crate::core::plan::{Put, PutTable, RowUpdate, Ticket};
use crate::core::worker::Rejected;
use crate::kafka::consumer::Inquiry;
use crate::kafka::dlq::DeadLetters;
use crate::kafka::second_read::SecondReader;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::write::Writer;
use crate::sys;
use crate::telemetry::unix_ms;

/// Maximum number of offset gaps that are read a second time in parallel.
const SECOND_READS_MAX: usize = 8;

/// The clients and settings that the requests use.
pub(super) struct Requests {
    writer: Writer,
    locator: Locator,
    dead_letters: DeadLetters,
    second_reader: Arc<SecondReader>,
    pub(super) answers: Answers,
    /// The topic's id at the time when the consumer last started reading a partition.
    topic_id: String,
    /// The tasks that send dead letters, by partition and assignment number.
    letters: BTreeMap<(i32, u64), JoinSet<()>>,
    /// A semaphore that lets only one task at a time read a record from Kafka again, because each of these reads opens
    /// a separate Kafka client.
    reads_again: Arc<Semaphore>,
    second_reads: Arc<Semaphore>,
}

impl Requests {
    pub(super) fn new(
        writer: Writer,
        locator: Locator,
        dead_letters: DeadLetters,
        second_reader: SecondReader,
        done: UnboundedSender<Done>,
    ) -> Requests {
        Requests {
            writer,
            locator,
            dead_letters,
            second_reader: Arc::new(second_reader),
            answers: Answers::new(done),
            topic_id: String::new(),
            letters: BTreeMap::new(),
            reads_again: Arc::new(Semaphore::new(1)),
            second_reads: Arc::new(Semaphore::new(SECOND_READS_MAX)),
        }
    }

    /// Makes all further requests use a new Kafka client. The shell then ignores the results of the former Kafka
    /// client.
    pub(super) fn use_client(&mut self, inquiry: Inquiry) {
        self.answers.begin_generation();
        self.locator = self.locator.renewed(inquiry);
    }

    /// Sets the topic id that later dead letters contain.
    pub(super) fn set_topic_id(&mut self, topic_id: &str) {
        topic_id.clone_into(&mut self.topic_id);
    }

    /// Returns the topic's id at the time when the consumer last started reading a partition.
    pub(super) fn topic_id(&self) -> &str {
        &self.topic_id
    }

    pub(super) fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Returns a sender that passes the results of requests to the shell.
    pub(super) fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// Sends a batch of put requests to DynamoDB.
    pub(super) fn put(&self, batch: Batch) {
        let (writer, answers) = (self.writer.clone(), self.answers());
        tokio::spawn(async move {
            let (outcome, error) = writer.put(&batch, unix_ms()).await;
            answers.send(Done::Batch(batch, outcome, error));
        });
    }

    /// Sends a row update to DynamoDB.
    ///
    /// If the outcome is unknown, the pipeline sends the same update again, and the row's fence rejects an update that
    /// was already applied (INV-2). The AWS SDK does not retry the update, because all requests share the SDK's retry
    /// budget, and concurrent requests would exhaust this budget.
    pub(super) fn update(&self, update: RowUpdate) {
        let (writer, answers) = (self.writer.clone(), self.answers());
        tokio::spawn(async move {
            let result = writer.update(&update, unix_ms()).await;
            answers.send(Done::Update(update, result));
        });
    }

    /// Creates the progress item of a partition, unless the item already exists.
    pub(super) fn create_progress(&self, publish: Publish) {
        let (writer, answers) = (self.writer.clone(), self.answers());
        tokio::spawn(async move {
            let (partition, assignment) = (publish.partition, publish.assignment);
            let done = match writer.create_progress(&publish).await {
                Ok(()) => Done::Created {
                    partition,
                    assignment,
                },
                Err(error) => {
                    if error.kind() == StoreErrorKind::NotFound {
                        answers.send(Done::TableMissing(keys::TOTALS));
                    }
                    Done::NotCreated(Unlocated {
                        partition,
                        assignment,
                        why: dynamodb(&error),
                    })
                }
            };
            answers.send(done);
        });
    }

    /// Moves a progress item forward. If the request fails, the pipeline requests the move again.
    ///
    /// The condition of the write prevents a progress item from moving back (INV-4), so a late request of the
    /// partition's former owner changes nothing.
    pub(super) fn publish(&self, publish: Publish) {
        let (writer, answers) = (self.writer.clone(), self.answers());
        tokio::spawn(async move {
            let asked_ms = sys::boot_ms();
            match writer.publish_progress(&publish).await {
                Ok(true) => answers.send(Done::Published(publish)),
                Ok(false) => answers.send(Done::ProgressMissing(asked_ms, publish)),
                Err(error) => answers.publish_failed(publish, &error),
            }
        });
    }

    /// Creates a progress item again after it was deleted from the table.
    pub(super) fn restore_progress(&self, publish: Publish) {
        tracing::warn!(key = %publish.log_key, "a progress item was deleted, restoring it");
        let (writer, answers) = (self.writer.clone(), self.answers());
        tokio::spawn(async move {
            match writer.create_progress(&publish).await {
                Ok(()) => answers.send(Done::Published(publish)),
                Err(error) => answers.publish_failed(publish, &error),
            }
        });
    }

    /// Reads the random id of the tables.
    pub(super) fn read_tables(&self) {
        let (tables, answers) = (self.locator.tables(), self.answers());
        tokio::spawn(async move {
            let asked_ms = sys::boot_ms();
            answers.send(match tables.id().await {
                Ok(Some(id)) => Done::TablesRead(id, asked_ms),
                Ok(None) => Done::TableMissing(keys::TOTALS),
                Err(trouble) => Done::TablesUnread(trouble),
            });
        });
    }

    /// Requests the topic's current id before a commit.
    ///
    /// If the topic was recreated, the pipeline does not commit the restart points of the former log. These restart
    /// points are wrong for the new log, because the records of the new log below their offsets are not durable
    /// (INV-1).
    pub(super) fn check_topic(&self) {
        let (inquiry, answers) = (self.locator.inquiry(), self.answers());
        tokio::spawn(async move {
            let topic = run_blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
            let id = topic.ok().flatten().map(|t| t.id.to_string());
            answers.kafka(Answer::Topic(id));
        });
    }

    /// Commits restart points to the consumer group. All records before a restart point are durable (INV-1).
    ///
    /// The commit runs on a thread for blocking calls. The consumer thread cannot run it, because the consumer thread
    /// must poll Kafka while the commit waits for the group coordinator (INV-5).
    pub(super) fn commit(&self, parts: Vec<CommitPart>) {
        let (inquiry, answers) = (self.locator.inquiry(), self.answers());
        tokio::spawn(async move {
            let result = run_blocking(move || inquiry.commit(&parts)).await;
            if let Err(error) = &result {
                // A commit usually fails because a rebalance is in progress. A failed commit is harmless, because the
                // next commit contains the same restart points or later ones.
                tracing::debug!(%error, "failed to commit, trying again");
            }
            answers.kafka(Answer::Committed(result.is_ok()));
        });
    }

    /// Waits for the duration `wait`, and then requests the facts that the consumer needs to start reading the given
    /// partitions.
    pub(super) fn locate(&self, wanted: Vec<(i32, u64)>, wait: Duration) {
        let (locator, answers) = (self.locator.clone(), self.answers());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let located = locator.locate(wanted).await;
            answers.kafka(Answer::Located(located));
        });
    }

    /// Waits for the duration `wait`, and then reads the missing offsets of `gap` a second time.
    ///
    /// A separate Kafka client reads the missing offsets, because the consumer's Kafka client may have skipped records.
    /// A commit of an offset after skipped records would lose these records (INV-6).
    pub(super) fn read_gap(&self, partition: i32, assignment: u64, gap: Gap, wait: Duration) {
        let (reader, answers) = (Arc::clone(&self.second_reader), self.answers());
        let turn = Arc::clone(&self.second_reads);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _turn = turn.acquire().await;
            let second = run_blocking(move || reader.read(partition, gap)).await;
            answers.send(Done::GapRead {
                partition,
                assignment,
                gap,
                second,
            });
        });
    }

    /// Sends a rejected record to the dead-letter topic.
    pub(super) fn reject(&mut self, ticket: Ticket, rejected: Box<Rejected>) {
        let (letters, answers) = (self.dead_letters.clone(), self.answers());
        let topic_id = self.topic_id.clone();
        self.spawn_letter(ticket, async move {
            letters
                .send(&rejected, &topic_id, || fastrand::u32(..))
                .await;
            answers.send(Done::Rejected(ticket));
        });
    }

    /// Sends a record to the dead-letter topic because DynamoDB has permanently refused its raw item or its alert. The
    /// counts still include this record.
    pub(super) fn refuse(&mut self, table: PutTable, put: Put) {
        let (letters, answers) = (self.dead_letters.clone(), self.answers());
        let (topic_id, inquiry) = (self.topic_id.clone(), self.locator.inquiry());
        let turn = Arc::clone(&self.reads_again);
        let (partition, offset) = (put.event.partition, put.event.offset);
        tracing::error!(
            partition, offset = offset.0, event_id = %put.event.event_id,
            "the table refused an item, its record goes to the dead-letter topic"
        );
        self.spawn_letter(put.ticket, async move {
            let turn = turn.acquire_owned().await;
            let read = run_blocking(move || inquiry.read_one(partition, offset, ANSWER_TIMEOUT));
            let found = read.await;
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
            answers.send(Done::Refused(table, put.ticket));
        });
    }

    /// Runs a task that sends a dead letter. The consumer aborts the task when the assignment of the record's partition
    /// ends. Otherwise, the task would keep the record in memory for as long as Kafka refuses the dead letter. The next
    /// owner of the partition reads the rejected record again and sends the dead letter.
    fn spawn_letter(&mut self, ticket: Ticket, sending: impl Future<Output = ()> + Send + 'static) {
        let letters = self.letters.entry((ticket.partition, ticket.assignment));
        letters.or_default().spawn(sending);
    }

    /// Aborts the tasks that send dead letters for partitions whose assignment has ended.
    pub(super) fn end_former_letters(&mut self, pipeline: &Pipeline) {
        self.letters.retain(|(partition, assignment), letters| {
            while letters.try_join_next().is_some() {}
            // Dropping a `JoinSet` aborts the tasks that still run in it.
            !letters.is_empty() && pipeline.has(*partition, *assignment)
        });
    }
}

impl Answers {
    fn publish_failed(&self, publish: Publish, error: &StoreError) {
        if error.kind() == StoreErrorKind::NotFound {
            return self.send(Done::TableMissing(keys::TOTALS));
        }
        tracing::warn!(%error, "failed to publish progress, trying again in ten seconds or at the next commit");
        self.send(Done::PublishFailed(publish));
    }
}

/// The reasons why the consumer cannot start reading some partitions yet.
#[derive(Default)]
pub(super) struct WaitingStarts {
    why: BTreeMap<i32, String>,
}

impl WaitingStarts {
    pub(super) fn wait(&mut self, partition: i32, why: String) {
        self.why.insert(partition, why);
    }

    /// Removes a partition from the waiting partitions. Returns true if the partition was waiting.
    pub(super) fn end(&mut self, partition: i32) -> bool {
        self.why.remove(&partition).is_some()
    }

    /// Returns the reason why the first waiting partition waits, or `None` if no partition waits.
    pub(super) fn first(&self) -> Option<&str> {
        self.why.values().next().map(String::as_str)
    }
}
