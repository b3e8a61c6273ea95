//! Describes the writes to the tables as values: puts of raw events and alerts, and conditional updates of rows.
//!
//! A put stores a whole item. The consumer may repeat a put, because the key of the item depends only on the record. An
//! update adds counts, so a repeated update could count records twice. DynamoDB rejects a repeated update, because its
//! condition compares the update's offsets with the row's fence (see [`crate::stretch`]).

use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};
use crate::keys;
use crate::stretch::Sum;

/// The setting in the config item that decides which events get a raw row and an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawRows {
    /// Every event gets a raw row, and events of high and critical severity also get an alert.
    #[default]
    All,
    /// Only events of high and critical severity get a raw row and an alert.
    Alerts,
    /// No event gets a raw row or an alert.
    None,
}

impl RawRows {
    /// Every value of the setting.
    pub const VALUES: [RawRows; 3] = [RawRows::All, RawRows::Alerts, RawRows::None];

    /// Returns the value with the name `name`.
    pub fn from_name(name: &str) -> Option<RawRows> {
        RawRows::VALUES.into_iter().find(|rows| rows.name() == name)
    }

    /// Returns the text of this value in the config item and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            RawRows::All => "all",
            RawRows::Alerts => "alerts",
            RawRows::None => "none",
        }
    }

    /// Returns true if an event of this severity gets a raw row.
    pub const fn raw(self, severity: Severity) -> bool {
        match self {
            RawRows::All => true,
            RawRows::Alerts => severity.is_alert(),
            RawRows::None => false,
        }
    }

    /// Returns true if an event of this severity gets an alert.
    pub const fn alert(self, severity: Severity) -> bool {
        match self {
            RawRows::All | RawRows::Alerts => severity.is_alert(),
            RawRows::None => false,
        }
    }
}

/// Identifies a record of an assignment. When a write is complete, the shell passes the ticket of its record to the
/// pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The number that identifies this assignment of the partition to the consumer. The pipeline ignores completed
    /// writes of earlier assignments.
    pub assignment: u64,
    /// The sequence number of the record within the assignment.
    pub seq: u64,
}

/// An event with all data for its raw item and its alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event that the items store.
    pub event: Event,
    /// The id that the producer gave the event, or the default id, which consists of topic, partition and offset.
    pub event_id: Box<str>,
    /// The [`keys::hash`] of the event id. The hash selects the shards in which the indexes store the event.
    pub id_hash: u32,
    /// The topic of the event's record.
    pub topic: Arc<str>,
    /// The partition of the event's record.
    pub partition: i32,
    /// The offset of the event's record.
    pub offset: Offset,
    /// True if the event is late.
    pub late: bool,
    /// True if the event is a future event, which does not move the watermark.
    pub future: bool,
}

impl StoredEvent {
    /// Returns the stored event, and computes its event id and the hash of this id.
    pub fn new(
        event: Event,
        topic: Arc<str>,
        partition: i32,
        offset: Offset,
        late: bool,
        future: bool,
    ) -> StoredEvent {
        let event_id = keys::event_id(&event, &topic, partition, offset).into_boxed_str();
        StoredEvent {
            id_hash: keys::hash(&event_id),
            event_id,
            event,
            topic,
            partition,
            offset,
            late,
            future,
        }
    }
}

/// The two tables into which the consumer puts items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PutTable {
    /// The table with one item per event.
    Raw,
    /// The table with one item per event of high or critical severity.
    Alerts,
}

/// A put of one item. A repeated put changes nothing.
#[derive(Clone, Debug)]
pub struct Put {
    /// The ticket of the record that contains the event.
    pub ticket: Ticket,
    /// The event to store in the item.
    pub event: Arc<StoredEvent>,
}

/// A fingerprint of a put's key, computed from the event id and the event time. Puts with the same key have the same
/// fingerprint, because every key contains the id and the time. The queue sends puts with the same fingerprint in
/// different batches. Two different keys may have the same fingerprint by chance, which only makes a batch smaller.
/// Comparing the full keys instead of fingerprints took an eighth of the consumer's run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPrint(u64);

impl Put {
    /// Returns the fingerprint of the put's key.
    pub fn key_print(&self) -> KeyPrint {
        let e = &*self.event;
        KeyPrint(u64::from(e.id_hash) << 32 ^ e.event.time_ms.0.cast_unsigned())
    }
}

/// The key of a row of counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// The series, which is `city#event_type`.
    pub series: Arc<str>,
    /// The start of the window, or `None` for the totals of the series.
    pub window_start_ms: Option<UnixMs>,
}

/// A conditional update of a row of counts. The update adds `sum` to the row and moves the row's fence for the log to
/// `next`, on condition that the fence is absent or `<= first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowUpdate {
    /// The number of the Kafka partition of the counted records.
    pub partition: i32,
    /// The number that identifies this assignment of the partition to the consumer.
    pub assignment: u64,
    /// The number by which the worker identifies the row. The shell passes this number back when it reports the outcome
    /// of the update.
    pub row_id: u32,
    /// The key of the row.
    pub row: RowKey,
    /// The log key `<topic id>#<partition>`, which is part of the name of the row's fence attribute.
    pub log_key: Arc<str>,
    /// The offset of the first record that the update counts.
    pub first: Offset,
    /// The offset after the last record that the update counts.
    pub next: Offset,
    /// The counts that the update adds.
    pub sum: Sum,
}

/// The facts about a row that a response from DynamoDB contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// True if the response contains the row that the request addressed.
    pub same_row: bool,
    /// The row's fence for the requested log, or `None` if the row has no fence for this log.
    pub fence: Option<Offset>,
}

impl RowUpdate {
    /// Returns the outcome of an update that DynamoDB reports as successful. The outcome is `Counted` if the row's
    /// fence in the response is `next`, and `Unknown` otherwise.
    pub fn judge_success(&self, shown: Shown) -> UpdateOutcome {
        if shown.same_row && shown.fence == Some(self.next) {
            UpdateOutcome::Counted
        } else {
            UpdateOutcome::Unknown
        }
    }

    /// Returns the outcome of an update that DynamoDB reports as refused. The outcome is `Fenced` if the row's fence in
    /// the response is above `first`, and `Unknown` otherwise.
    pub fn judge_refusal(&self, shown: Shown) -> UpdateOutcome {
        match shown.fence {
            Some(fence) if shown.same_row && fence > self.first => UpdateOutcome::Fenced(fence),
            _ => UpdateOutcome::Unknown,
        }
    }
}

/// The outcome of a [`RowUpdate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The update took effect.
    Counted,
    /// The row's fence refused the update. The field contains the offset of the fence.
    Fenced(Offset),
    /// The update may or may not have taken effect, so the worker sends the same update again.
    Unknown,
    /// The table throttled the request, so the update had no effect, and the worker sends it again.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_proves_only_what_it_shows_of_this_row() {
        use UpdateOutcome::{Counted, Fenced, Unknown};
        let update = RowUpdate {
            partition: 0,
            assignment: 1,
            row_id: 0,
            row: RowKey {
                series: "NYC#traffic".into(),
                window_start_ms: None,
            },
            log_key: "T#0".into(),
            first: Offset(7),
            next: Offset(12),
            sum: Sum::default(),
        };
        for (same_row, fence, success, refusal) in [
            (true, Some(12), Counted, Fenced(Offset(12))),
            (true, Some(13), Unknown, Fenced(Offset(13))),
            (true, Some(8), Unknown, Fenced(Offset(8))),
            (true, Some(7), Unknown, Unknown),
            (true, None, Unknown, Unknown),
            (false, Some(12), Unknown, Unknown),
            (false, None, Unknown, Unknown),
        ] {
            let fence = fence.map(Offset);
            let shown = Shown { same_row, fence };
            assert_eq!(update.judge_success(shown), success, "{shown:?}");
            assert_eq!(update.judge_refusal(shown), refusal, "{shown:?}");
        }
    }
}
