//! What goes into a pipeline once, and what comes out of it: plain data, decided elsewhere.

use std::sync::Arc;

use crate::batch::Batch;
use crate::event::Offset;
use crate::gap::Gap;
use crate::ledger::Ledger;
use crate::plan::{Keep, Put, PutTable, RowUpdate, Ticket};
use crate::restart::Boundary;
use crate::window::Rules;
use crate::worker::{Rejected, Tally};

/// What a pipeline is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Least time between two updates of one row.
    pub row_interval_ms: i64,
    /// Go on behind lost records instead of stopping.
    pub continue_on_loss: bool,
    /// Most requests in flight per table.
    pub requests_max: u32,
    /// How long a partition with lag may stand still, in milliseconds.
    pub stall_ms: i64,
}

/// What the tables' config item says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The fixed rules.
    pub rules: Rules,
    /// Which events get a raw row.
    pub keep: Keep,
}

/// A restart point offered for commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    /// The partition.
    pub partition: i32,
    /// Which assignment of it.
    pub assignment: u64,
    /// The offset to commit, and the largest event time below it.
    pub boundary: Boundary,
    /// What stands beside the offset.
    pub metadata: String,
}

/// A progress item to move forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The partition.
    pub partition: i32,
    /// Which assignment of it.
    pub assignment: u64,
    /// `<topic id>#<partition>`.
    pub log_key: Arc<str>,
    /// Of which tables it speaks.
    pub tables_id: String,
    /// What it shall say.
    pub boundary: Boundary,
    /// The watermark at the boundary.
    pub watermark_ms: Option<i64>,
}

/// Why the consumer must stop; only a person can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The group's commit at this offset was not made by this program.
    Unreadable {
        /// The partition.
        partition: i32,
        /// The committed offset.
        next: Offset,
        /// The progress item, where the partition would go on.
        progress: Option<Boundary>,
    },
    /// Records `[from, to)` are gone from the log's beginning.
    Expired {
        /// The partition.
        partition: i32,
        /// First lost offset.
        from: Offset,
        /// Where the log begins now.
        to: Offset,
    },
    /// A table, or the config item, is missing while partitions count into it.
    TableMissing {
        /// Its place in [`crate::keys::TABLES`].
        table: usize,
    },
    /// The tables were made again while partitions count into them.
    TablesReplaced {
        /// The id of the tables that the partitions count into.
        was: String,
        /// The id that the config item holds.
        is: String,
    },
    /// The log ends at `end`, below the restart point.
    Truncated {
        /// The partition.
        partition: i32,
        /// The restart point.
        from: Offset,
        /// Where the log ends now.
        end: Offset,
    },
}

/// What the shell must do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Find the facts of a start, not before `not_before_ms`: [`Pipeline::located`] or
    /// [`Pipeline::not_located`].
    Locate {
        /// The partition.
        partition: i32,
        /// Which assignment of it.
        assignment: u64,
        /// When to begin.
        not_before_ms: i64,
    },
    /// Create the progress item if there is none, then [`Output::Locate`] again by itself.
    CreateProgress(Publish),
    /// Stop reading this partition until [`Output::Begin`].
    Hold {
        /// The partition.
        partition: i32,
    },
    /// Read this partition from here.
    Begin {
        /// The partition.
        partition: i32,
        /// Which assignment of it; records carry it.
        assignment: u64,
        /// The first record wanted.
        next: Offset,
    },
    /// Read this range a second time, with a client that shares no state with the first, not before
    /// `not_before_ms`: [`Pipeline::gap_checked`].
    CheckGap {
        /// The partition.
        partition: i32,
        /// Which assignment of it.
        assignment: u64,
        /// The range that the client passed over.
        gap: Gap,
        /// When to begin.
        not_before_ms: i64,
    },
    /// The client skipped records, and the partition starts over before them.
    Skipped {
        /// The partition.
        partition: i32,
        /// The range that the client passed over.
        gap: Gap,
        /// The first record in it.
        found: Offset,
    },
    /// Write a batch: [`Pipeline::batch_answered`].
    Put(Batch),
    /// Write a row update: [`Pipeline::update_answered`].
    Update(RowUpdate),
    /// Send a dead letter: [`Pipeline::reject_done`].
    Reject(Ticket, Box<Rejected>),
    /// Send a record to the dead-letter topic because the table refused its item:
    /// [`Pipeline::refused_done`].
    Refused(PutTable, Put),
    /// Ask Kafka for the topic's id: [`Pipeline::topic_checked`].
    CheckTopic,
    /// Commit: [`Pipeline::commit_done`].
    Commit(Vec<CommitPart>),
    /// Move a progress item: [`Pipeline::published`] or [`Pipeline::progress_missing`].
    Publish(Publish),
    /// Create a progress item again after it was deleted: [`Pipeline::published`].
    RestoreProgress(Publish),
    /// Read the tables' id: [`Pipeline::tables_read`], [`Pipeline::table_missing`] or
    /// [`Pipeline::tables_unread`].
    ReadTables,
    /// These partitions do not move although there is something to read: replace the Kafka client. The pipeline has
    /// given up all of its partitions.
    ReplaceClient {
        /// The partitions that stand still.
        stalled: Vec<i32>,
    },
    /// A revoked partition is done; commit this and give it up.
    Released {
        /// The partition.
        partition: i32,
        /// What may still be committed, if it moved.
        commit: Option<CommitPart>,
        /// What to publish; durable, so it need not wait for the commit.
        publish: Option<Publish>,
    },
    /// Records `[from, to)` are lost; the consumer goes on behind them.
    Lost {
        /// The partition.
        partition: i32,
        /// First lost offset.
        from: Offset,
        /// First offset that is there again.
        to: Offset,
    },
    /// Stop with an error.
    Halt(Halt),
}

/// What happened, for logs and metrics.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All counts since the start.
    pub ledger: Ledger,
    /// What happened since the last report; its ledger is empty.
    pub tally: Tally,
}
