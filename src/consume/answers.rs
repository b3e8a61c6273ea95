//! The results of requests to DynamoDB and Kafka, and the channel through which the shell gets these results.

use tokio::sync::mpsc::UnboundedSender;

use crate::consume::locate::{Found, Unlocated};
use crate::consume::trouble::Trouble;
use crate::core::batch::{Batch, BatchOutcome};
use crate::core::clock::BootMs;
use crate::core::event::Offset;
use crate::core::gap::{Gap, SecondRead};
use crate::core::pipeline::Publish;
use crate::core::plan::{PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::exit::SettingsError;
use crate::store::error::StoreError;

/// The result of a request to DynamoDB or Kafka.
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
    /// The consumer could not create the progress item of a partition.
    NotCreated(Unlocated),
    Published(Publish),
    /// The request to advance a progress item has failed, or its outcome is unknown.
    PublishFailed(Publish),
    /// The request to advance a progress item has failed, because the item does not exist. The [`BootMs`] is the time
    /// at which the request began.
    ProgressMissing(BootMs, Publish),
    /// The random id of the tables from the config item. The [`BootMs`] is the time at which the read began.
    TablesRead(String, BootMs),
    /// The read of the tables' random id has failed.
    TablesUnread(Trouble),
    /// A table or the config item does not exist. The field contains the index of the table in
    /// [`crate::core::keys::TABLES`].
    TableMissing(usize),
    GapRead {
        partition: i32,
        assignment: u64,
        gap: Gap,
        second: SecondRead,
    },
    /// The result of a request to Kafka, with the generation number of the Kafka client that sent the request. The
    /// shell ignores the results of former Kafka clients.
    Kafka(u64, Answer),
}

/// The result of a request to Kafka.
pub(super) enum Answer {
    Located(Result<Found, SettingsError>),
    /// The id of the topic. The shell requests it before each commit.
    Topic(Option<String>),
    Committed(bool),
    Looked(Looked),
    /// The read positions at which the Kafka client may have stopped reading.
    Unreadable(Vec<ReadPosition>),
    /// No broker has returned the offset range of some log, so the shell must check the read positions again.
    RangesUnknown,
    /// The number of records that the group must still commit before `consume --stop-at-end` exits. The field is `None`
    /// if the shell did not request this number, or if Kafka did not answer.
    AtEnd(Option<u64>),
}

/// The next offset that the consumer reads in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadPosition {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    pub(super) next: Offset,
}

/// Sends the results of requests to the shell.
#[derive(Clone)]
pub(super) struct Answers {
    done: UnboundedSender<Done>,
    generation: u64,
}

impl Answers {
    /// Returns a sender for the results of the first Kafka client.
    pub(super) fn new(done: UnboundedSender<Done>) -> Answers {
        Answers {
            done,
            generation: 0,
        }
    }

    /// Begins a new generation of results after the consumer has replaced its Kafka client. The shell then ignores the
    /// results of all former Kafka clients.
    pub(super) fn begin_generation(&mut self) {
        self.generation += 1;
    }

    /// Returns true if a result comes from the current Kafka client.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        generation == self.generation
    }

    /// Sends a result of the current Kafka client to the shell.
    pub(super) fn kafka(&self, answer: Answer) {
        self.send(Done::Kafka(self.generation, answer));
    }

    pub(super) fn send(&self, done: Done) {
        // Sending fails only after the shell has ended, and then no task needs the result.
        if self.done.send(done).is_err() {
            tracing::trace!("a request outlived the role");
        }
    }
}

/// The topic's current id, and the end offset of each partition's log if the shell requested the end offsets.
pub(super) struct Looked {
    pub(super) topic: TopicNow,
    pub(super) ends: Option<Vec<(i32, Offset)>>,
}

/// The state of the topic, as the brokers report it.
pub(super) enum TopicNow {
    Is(String),
    Missing,
    Unknown,
}
