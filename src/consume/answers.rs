//! How requests end: what the shell learns from DynamoDB and Kafka, and how it gets there.

use tokio::sync::mpsc::UnboundedSender;

use crate::consume::locate::{Found, Trouble, Unlocated};
use crate::core::batch::{Batch, BatchOutcome};
use crate::core::event::Offset;
use crate::core::gap::{Gap, SecondRead};
use crate::core::pipeline::Publish;
use crate::core::plan::{PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::exit::SettingsError;
use crate::store::error::StoreError;

/// The end of a request.
pub(super) enum Done {
    Batch(Batch, BatchOutcome, Option<StoreError>),
    Update(
        RowUpdate,
        Result<(UpdateOutcome, Option<StoreError>), StoreError>,
    ),
    Rejected(Ticket),
    Refused(PutTable, Ticket),
    Created {
        partition: i32,
        assignment: u64,
    },
    /// A partition's progress item could not be created.
    NotCreated(Unlocated),
    Published(Publish),
    /// There is no progress item to move. The request began at this time of [`sys::boot_ms`].
    ProgressMissing(i64, Publish),
    /// The tables' id, and when its read began, by [`sys::boot_ms`].
    TablesRead(String, i64),
    /// The tables' id could not be read.
    TablesUnread(Trouble),
    /// This table is missing, or the config item in it.
    TableMissing(usize),
    GapRead {
        partition: i32,
        assignment: u64,
        gap: Gap,
        second: SecondRead,
    },
    /// An answer to the Kafka client of this generation. Answers to a former client mean nothing.
    Kafka(u64, Answer),
}

/// What a question to Kafka brought.
pub(super) enum Answer {
    Located(Result<Found, SettingsError>),
    /// The topic's id, asked for before a commit.
    Topic(Option<String>),
    Committed(bool),
    Looked(Looked),
    /// Positions outside of their logs.
    Outside(Vec<Position>),
    /// Positions for which no broker returned the ends of the log.
    RangesUnknown(Vec<Position>),
    /// The records that are left until the end of `--stop-at-end`; `None` if that was not asked or not answered.
    AtEnd(Option<u64>),
}

/// Where a partition is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    pub(super) next: Offset,
}

/// Brings ends of requests back to the shell.
#[derive(Clone)]
pub(super) struct Answers {
    done: UnboundedSender<Done>,
    generation: u64,
}

impl Answers {
    /// Returns the way back for a first Kafka client.
    pub(super) fn new(done: UnboundedSender<Done>) -> Answers {
        Answers {
            done,
            generation: 0,
        }
    }

    /// Makes answers to the Kafka client so far mean nothing.
    pub(super) fn begin_generation(&mut self) {
        self.generation += 1;
    }

    /// Returns whether an answer belongs to the Kafka client of now.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        generation == self.generation
    }

    /// Sends an answer of the Kafka client.
    pub(super) fn kafka(&self, answer: Answer) {
        self.send(Done::Kafka(self.generation, answer));
    }

    pub(super) fn send(&self, done: Done) {
        // Fails only once the shell is gone, and then no one waits for it.
        if self.done.send(done).is_err() {
            tracing::trace!("a request outlived the role");
        }
    }
}

/// The topic, and the ends of its logs if they were asked for.
pub(super) struct Looked {
    pub(super) topic: TopicNow,
    pub(super) ends: Option<Vec<(i32, Offset)>>,
}

/// What the brokers say about the topic now.
pub(super) enum TopicNow {
    Is(String),
    Missing,
    Unknown,
}
