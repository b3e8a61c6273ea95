//! What is written, as plain data: puts of raw events and alerts, and conditional updates of rows.
//!
//! A put may be repeated: its key comes from the record. An update counts, so it carries the
//! offsets that its fence compares (see [`crate::stretch`]).

use std::sync::Arc;

use crate::event::{Event, Offset, Severity};
use crate::keys;
use crate::stretch::Sum;

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

/// What an answer shows of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// It is the row of the request.
    pub same_row: bool,
    /// The row's fence for the log of the request, if it has one.
    pub fence: Option<Offset>,
}

impl RowUpdate {
    /// Returns what an answer of success proves: it must show this row, with the fence where this
    /// update leaves it.
    pub fn judge_success(&self, shown: Shown) -> UpdateOutcome {
        if shown.same_row && shown.fence == Some(self.next) {
            UpdateOutcome::Counted
        } else {
            UpdateOutcome::Unknown
        }
    }

    /// Returns what a refusal proves: it must show this row, with a fence that this update cannot pass.
    pub fn judge_refusal(&self, shown: Shown) -> UpdateOutcome {
        match shown.fence {
            Some(fence) if shown.same_row && fence > self.first => UpdateOutcome::Fenced(fence),
            _ => UpdateOutcome::Unknown,
        }
    }
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
