//! Defines the settings of a pipeline, and its outputs, which the shell carries out.

use std::sync::Arc;

use crate::batch::Batch;
use crate::clock::{SteadyMs, UnixMs};
use crate::event::Offset;
use crate::gap::Gap;
use crate::ledger::Ledger;
use crate::plan::{Put, PutTable, RawRows, RowUpdate, Ticket};
use crate::restart::Boundary;
use crate::window::Rules;
use crate::worker::{Rejected, Tally};

/// The settings of a pipeline, which do not change while the pipeline runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Minimum time between two updates of one row, in milliseconds.
    pub row_interval_ms: i64,
    /// True if the consumer continues after lost records instead of stopping.
    pub continue_on_loss: bool,
    /// Maximum number of requests in flight. This limit applies separately to raw events, to alerts and to row updates.
    pub requests_max: u32,
    /// Time after which a partition with lag and without progress counts as stalled, in milliseconds.
    pub stall_ms: i64,
}

/// The content of the config item in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The tables' fixed rules for windows, lateness and future events.
    pub rules: Rules,
    /// The setting that decides which events get a raw row and an alert.
    pub keep: RawRows,
}

/// A restart point of one partition that the shell must commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The number that identifies this assignment of the partition to the consumer.
    pub assignment: u64,
    /// The restart point to commit.
    pub boundary: Boundary,
    /// The metadata that Kafka stores with the offset.
    pub metadata: String,
}

/// A request to advance a progress item to a new restart point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The number that identifies this assignment of the partition to the consumer.
    pub assignment: u64,
    /// The log key, which is `<topic id>#<partition>`.
    pub log_key: Arc<str>,
    /// The id of the tables that contain the progress item.
    pub tables_id: String,
    /// The restart point to write into the progress item.
    pub boundary: Boundary,
    /// The watermark at the boundary.
    pub watermark_ms: Option<UnixMs>,
}

/// The reason why the consumer must stop. An operator must fix the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Another program has committed the group's offset for the partition.
    Unreadable {
        /// The number of the Kafka partition.
        partition: i32,
        /// The committed offset.
        next: Offset,
        /// The restart point in the progress item. The partition would start here if there were no commit.
        progress: Option<Boundary>,
    },
    /// Retention removed the records `[from, to)` from the beginning of the log.
    Expired {
        /// The number of the Kafka partition.
        partition: i32,
        /// The offset of the first lost record.
        from: Offset,
        /// The offset at which the log begins now.
        to: Offset,
    },
    /// A table or the config item is missing while the consumer has running partitions.
    TableMissing {
        /// The index of the table in [`crate::keys::TABLES`].
        table: usize,
    },
    /// The tables were deleted and created again while the consumer had running partitions.
    TablesReplaced {
        /// The id of the deleted tables, to which the consumer has written.
        was: String,
        /// The id that the config item now contains.
        is: String,
    },
    /// The log now ends at an offset below the restart point.
    Truncated {
        /// The number of the Kafka partition.
        partition: i32,
        /// The restart point, which is beyond the end of the log.
        from: Offset,
        /// The offset at which the log ends now.
        end: Offset,
    },
    /// The log lost records below the restart point, and new records now have the offsets of the lost records.
    Replaced {
        /// The number of the Kafka partition.
        partition: i32,
        /// The restart point.
        from: Offset,
        /// The first offset at which the log now contains another record.
        since: Offset,
    },
}

/// A task that the shell must carry out.
#[derive(Clone, Debug)]
pub enum Output {
    /// Look up the facts that decide where a partition starts. Report the facts to `Pipeline::located`, or a failure
    /// to `Pipeline::not_located`.
    Locate {
        /// The number of the Kafka partition.
        partition: i32,
        /// The number that identifies this assignment of the partition to the consumer.
        assignment: u64,
        /// The earliest time at which the shell may begin the lookup.
        not_before_ms: SteadyMs,
    },
    /// Create the progress item of a partition unless the item exists. Then look up the facts that decide where the
    /// partition starts, as for [`Output::Locate`].
    CreateProgress(Publish),
    /// Stop reading this partition until the pipeline returns [`Output::Begin`].
    Hold {
        /// The number of the Kafka partition.
        partition: i32,
    },
    /// Start reading this partition at the offset `next`.
    Begin {
        /// The number of the Kafka partition.
        partition: i32,
        /// The number that identifies this assignment of the partition to the consumer. The shell passes this number to
        /// the pipeline together with the records.
        assignment: u64,
        /// The offset of the first record to read.
        next: Offset,
    },
    /// Read a range of offsets a second time, with a separate Kafka client that shares no state with the first client.
    /// Report the result to `Pipeline::gap_checked`.
    CheckGap {
        /// The number of the Kafka partition.
        partition: i32,
        /// The number that identifies this assignment of the partition to the consumer.
        assignment: u64,
        /// The range of offsets that the client did not deliver.
        gap: Gap,
        /// The earliest time at which the shell may begin the second read.
        not_before_ms: SteadyMs,
    },
    /// Log a warning that the Kafka client has skipped records. The partition restarts before the skipped records.
    Skipped {
        /// The number of the Kafka partition.
        partition: i32,
        /// The range of offsets that the client did not deliver.
        gap: Gap,
        /// The offset of the first record that the client skipped.
        found: Offset,
    },
    /// Write a batch of puts. Report the outcome to `Pipeline::batch_answered`.
    Put(Batch),
    /// Write a row update. Report the outcome to `Pipeline::update_answered`.
    Update(RowUpdate),
    /// Send a rejected record to the dead-letter topic. Report the acknowledgement to `Pipeline::reject_done`.
    Reject(Ticket, Box<Rejected>),
    /// Send a record to the dead-letter topic because the table refused its item. Report the acknowledgement to
    /// `Pipeline::refused_done`.
    Refused(PutTable, Put),
    /// Request the topic's id from Kafka. Report the answer to `Pipeline::topic_checked`.
    CheckTopic,
    /// Commit these restart points. Report the answer to `Pipeline::commit_done`.
    Commit(Vec<CommitPart>),
    /// Move a progress item forward. Report the result to `Pipeline::published`, or to `Pipeline::progress_missing`
    /// if the item does not exist.
    Publish(Publish),
    /// Create a deleted progress item again. Report the result to `Pipeline::published`.
    RestoreProgress(Publish),
    /// Read the tables' id. Report the result to `Pipeline::tables_read`, `Pipeline::table_missing` or
    /// `Pipeline::tables_unread`.
    ReadTables,
    /// Replace the Kafka client, because some partitions have unread records but make no progress. The pipeline has
    /// already released all partitions of the consumer.
    ReplaceClient {
        /// The partitions that make no progress.
        stalled: Vec<i32>,
    },
    /// Commit the restart point of a revoked partition, and then release the partition.
    Released {
        /// The number of the Kafka partition.
        partition: i32,
        /// The restart point to commit, or `None` if everything is already committed.
        commit: Option<CommitPart>,
        /// The request to advance the progress item, if one is due. The shell may advance the progress item before the
        /// commit succeeds, because all records below the restart point are durable.
        publish: Option<Publish>,
    },
    /// Log an error that the records `[from, to)` are lost. The consumer continues after the lost records.
    Lost {
        /// The number of the Kafka partition.
        partition: i32,
        /// The offset of the first lost record.
        from: Offset,
        /// The first offset after the lost records.
        to: Offset,
    },
    /// Stop the consumer with an error.
    Halt(Halt),
}

/// The counts that a pipeline reports for logs and metrics.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All counts since the start of the pipeline.
    pub ledger: Ledger,
    /// The counts since the last report. The field `ledger` of this tally is always empty.
    pub tally: Tally,
}
