//! What is written, as plain data: puts of raw events and alerts, and conditional updates of rows.
//!
//! A put may be repeated: its key comes from the record. An update counts, so it carries the
//! offsets that its fence compares (see [`crate::core::stretch`]).

use std::sync::Arc;

use crate::core::event::{Event, Offset, Severity};
use crate::core::keys;
use crate::core::stretch::Sum;

/// Which events get a raw row, from the config item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Every event.
    #[default]
    All,
    /// Events of high and critical severity.
    Alerts,
    /// No event, and no alerts either.
    None,
}

impl Keep {
    /// Tells whether an event of this severity gets a raw row.
    pub const fn raw(self, severity: Severity) -> bool {
        match self {
            Keep::All => true,
            Keep::Alerts => severity.is_alert(),
            Keep::None => false,
        }
    }

    /// Tells whether an event of this severity raises an alert.
    pub const fn alert(self, severity: Severity) -> bool {
        match self {
            Keep::All | Keep::Alerts => severity.is_alert(),
            Keep::None => false,
        }
    }
}

/// One record of one assignment of one partition; completions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The partition.
    pub partition: i32,
    /// Which assignment of it; completions of an earlier one are ignored.
    pub assignment: u64,
    /// The record's number within the assignment.
    pub seq: u64,
}

/// An event with all that its items need; its raw item and its alert share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// Its own id, or the one made of its position.
    pub event_id: Box<str>,
    /// [`keys::hash`] of the id: the shards of its items come from it.
    pub id_hash: u32,
    /// The topic it came from.
    pub topic: Arc<str>,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: Offset,
    /// Its window was already behind the watermark.
    pub late: bool,
    /// It lies too far ahead of its record to move the watermark.
    pub future: bool,
}

impl StoredEvent {
    /// Returns the event with its identity.
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

/// The two tables that take puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PutTable {
    /// One item per event.
    Raw,
    /// One item per event of high or critical severity.
    Alerts,
}

/// One item to put; repeating it changes nothing.
#[derive(Clone, Debug)]
pub struct Put {
    /// The record it belongs to.
    pub ticket: Ticket,
    /// What to store.
    pub event: Arc<StoredEvent>,
}

/// What two puts have in common if they have one key in their table: id and time are part of every
/// key. Others may share it by chance, which only keeps them out of one batch; comparing the keys
/// themselves took an eighth of a consumer's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPrint(u64);

impl Put {
    /// Returns what is the same for all puts of one key.
    pub fn key_print(&self) -> KeyPrint {
        let e = &*self.event;
        KeyPrint(u64::from(e.id_hash) << 32 ^ e.event.time_ms.cast_unsigned())
    }
}

/// A row that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// `city#event_type`.
    pub series: Arc<str>,
    /// The start of the window, or `None` for the series' totals.
    pub window_start_ms: Option<i64>,
}

/// One conditional update: adds `sum` if the row's fence for this log is absent or `<= first`, and
/// moves the fence to `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowUpdate {
    /// The partition it comes from.
    pub partition: i32,
    /// Which assignment of it.
    pub assignment: u64,
    /// The worker's number for the row; the outcome names it.
    pub row_id: u32,
    /// Which row.
    pub row: RowKey,
    /// `<topic id>#<partition>`, the log whose fence is compared.
    pub log_key: Arc<str>,
    /// Offset of the first record of the stretch.
    pub first: Offset,
    /// Offset after its last record.
    pub next: Offset,
    /// What it adds.
    pub sum: Sum,
}

/// What became of a [`RowUpdate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It took effect.
    Counted,
    /// The row's fence refused it and stands at this offset.
    Fenced(Offset),
    /// It may or may not have taken effect: the same update is sent again.
    Unknown,
    /// It certainly took no effect (throttled): the same update is sent again.
    Refused,
}
