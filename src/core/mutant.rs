//! Planted bugs, so that the simulation can show that it finds bugs.
//!
//! Each is one a builder of this protocol would make by mistake. Without the feature `sim` none can
//! be switched on and the compiler removes every trace; with it a test switches one on for its own
//! thread, without a rebuild.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A refused update counts as done, whatever the fence says.
    ConflictIsDone,
    /// After a refused update the record at the fence is dropped too.
    FenceInclusive,
    /// A fence ends at the last record instead of after it.
    NextIsLast,
    /// An unknown outcome counts as success.
    UnknownIsDone,
    /// After an unknown outcome the next stretch of the row goes first.
    RowOrderLost,
    /// One success counts for every update under way.
    OneForAll,
    /// The end of the last completed record is committed, holes below it or not.
    CommitLargest,
    /// The position is committed.
    CommitPosition,
    /// A dead letter counts as durable before it is acknowledged.
    DeadLetterNotAwaited,
    /// A put counts as durable before it is stored.
    PutNotAwaited,
    /// A commit carries the maximum of the position.
    MaxAhead,
    /// A commit carries the maximum before its last record.
    MaxBehind,
    /// A commit carries the sums of the position: what is in flight counts twice after a restart.
    SumsAhead,
    /// The sums leave out what a fence refused as counted before.
    SumsWithoutAlready,
    /// The sums survive a re-assignment, whatever the log.
    SumsKept,
    /// Unknown sums are taken for zero.
    UnknownSumsAreZero,
    /// A commit carries no metadata.
    MetadataMissing,
    /// The watermark survives a re-assignment.
    WatermarkKept,
    /// Answers of an earlier assignment are taken.
    LateAnswersTaken,
    /// Lateness is judged by the watermark before the batch.
    LatenessPerBatch,
    /// An event too far ahead of its record moves the watermark.
    FutureBelieved,
    /// No commit is taken for a new log.
    NoCommitIsNewLog,
    /// The fence does not name the topic's id.
    FenceWithoutTopic,
    /// A commit of another topic is believed.
    OtherTopicBelieved,
    /// A commit of other tables is believed.
    OtherTablesBelieved,
    /// Progress is published before it is durable.
    ProgressEarly,
    /// What a table did not process counts as stored.
    UnprocessedDropped,
    /// What a table refuses counts as stored before its dead letter is acknowledged.
    RefusedNotAwaited,
    /// Two puts of one key share a batch.
    DuplicateKeys,
    /// A record is taken whatever its offset.
    GapUnseen,
    /// A gap counts as real whatever the second read found.
    GapBelieved,
    /// An answer of success counts, whatever it shows of the row.
    SuccessBelieved,
    /// A refusal counts, whatever it shows of the row.
    RefusalBelieved,
    /// One refusal of a lone put gives it up.
    OneRefusalEnough,
    /// In the table: the condition is `fence < first`.
    TableFenceStrict,
    /// In the table: there is no condition.
    TableNoCondition,
    /// In the table: progress may move back.
    TableProgressBack,
    /// In the table: moving progress makes the item where there is none.
    TableProgressMade,
}

impl Mutant {
    /// Every planted bug.
    pub const ALL: [Mutant; 38] = [
        Mutant::ConflictIsDone,
        Mutant::FenceInclusive,
        Mutant::NextIsLast,
        Mutant::UnknownIsDone,
        Mutant::RowOrderLost,
        Mutant::OneForAll,
        Mutant::CommitLargest,
        Mutant::CommitPosition,
        Mutant::DeadLetterNotAwaited,
        Mutant::PutNotAwaited,
        Mutant::MaxAhead,
        Mutant::MaxBehind,
        Mutant::SumsAhead,
        Mutant::SumsWithoutAlready,
        Mutant::SumsKept,
        Mutant::UnknownSumsAreZero,
        Mutant::MetadataMissing,
        Mutant::WatermarkKept,
        Mutant::LateAnswersTaken,
        Mutant::LatenessPerBatch,
        Mutant::FutureBelieved,
        Mutant::NoCommitIsNewLog,
        Mutant::FenceWithoutTopic,
        Mutant::OtherTopicBelieved,
        Mutant::OtherTablesBelieved,
        Mutant::ProgressEarly,
        Mutant::UnprocessedDropped,
        Mutant::RefusedNotAwaited,
        Mutant::DuplicateKeys,
        Mutant::GapUnseen,
        Mutant::GapBelieved,
        Mutant::SuccessBelieved,
        Mutant::RefusalBelieved,
        Mutant::OneRefusalEnough,
        Mutant::TableFenceStrict,
        Mutant::TableNoCondition,
        Mutant::TableProgressBack,
        Mutant::TableProgressMade,
    ];
}

#[cfg(feature = "sim")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches a planted bug on for this thread, or all off.
    pub fn set(mutant: Option<Mutant>) {
        ON.set(mutant);
    }

    /// Tells whether this planted bug is on.
    pub fn on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }
}

#[cfg(feature = "sim")]
pub use switch::{on, set};

/// Tells whether this planted bug is on: never, in this build.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}
