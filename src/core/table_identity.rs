//! Decides whether a consumer may write to its tables.
//!
//! The tables have a random id, which the `init-tables` command writes into the config item as its last step. A
//! consumer repeats each row update until the update succeeds. If the table is deleted and created again in the
//! meantime, a repeated update sets a fence above records that the new table has never counted (INV-2). Therefore, a
//! consumer writes to the tables only if it has read their id within the last [`TRUST_MS`] milliseconds. A consumer
//! stops if a table is missing or if the tables' id has changed:
//!
//! | the consumer sees | it |
//! |---|---|
//! | the known id | continues |
//! | no id for [`TRUST_MS`], because the host slept or had no network | pauses its writes until it has read the id |
//! | another id, a missing table or no config item | writes nothing more and stops with [`crate::pipeline::Halt`] |
//!
//! This module assumes that it takes longer than [`TRUST_MS`] milliseconds to delete and recreate tables. On AWS, this
//! is the case.

use crate::clock::BootMs;

/// Time for which a consumer may write to the tables after it began to read their id, in milliseconds.
pub const TRUST_MS: i64 = 10_000;
/// Time between two reads of the tables' id, in milliseconds. Each read costs half a DynamoDB read unit.
pub const READ_INTERVAL_MS: i64 = 5_000;
/// Wait before a failed read of the tables' id is repeated, in milliseconds.
pub const READ_AGAIN_MS: i64 = 1_000;

/// Tracks the id of a consumer's tables, and the time at which the consumer last read the id.
#[derive(Clone, Debug, Default)]
pub struct TableIdentity {
    known: Option<Known>,
    reading: bool,
    next_read_ms: BootMs,
}

#[derive(Clone, Debug)]
struct Known {
    id: String,
    /// The time at which the latest read that returned `id` began.
    asked_ms: BootMs,
}

/// The outcome of reading the tables' id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablesSeen {
    /// The id has not changed, or the result was ignored because it comes from a read that began before the latest
    /// known one.
    Same,
    /// The tables were deleted and created again.
    Replaced {
        /// The id of the former tables.
        was: String,
    },
}

impl TableIdentity {
    /// Returns true if the consumer has read the tables' id recently enough to write to the tables.
    pub fn is_trusted(&self, now_ms: BootMs) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| now_ms - known.asked_ms <= TRUST_MS)
    }

    /// Returns true if the caller must read the tables' id now. After the read, the caller calls
    /// [`TableIdentity::read`] or [`TableIdentity::read_failed`].
    pub fn begin_read(&mut self, now_ms: BootMs) -> bool {
        let due = !self.reading && now_ms >= self.next_read_ms;
        self.reading |= due;
        due
    }

    /// Schedules the next read of the tables' id for `now_ms`. If a read is in progress, its end replaces this
    /// schedule.
    pub fn read_soon(&mut self, now_ms: BootMs) {
        self.next_read_ms = self.next_read_ms.min(now_ms);
    }

    /// Notes that a read of the tables' id failed.
    pub fn read_failed(&mut self, now_ms: BootMs) {
        self.reading = false;
        self.next_read_ms = now_ms + READ_AGAIN_MS;
    }

    /// Processes the tables' id that a read has returned. The read began at `asked_ms`.
    pub fn read(&mut self, id: &str, asked_ms: BootMs) -> TablesSeen {
        self.reading = false;
        let Some(known) = &mut self.known else {
            self.learn(id, asked_ms);
            return TablesSeen::Same;
        };
        if asked_ms < known.asked_ms {
            return TablesSeen::Same;
        }
        if known.id != id {
            return TablesSeen::Replaced {
                was: known.id.clone(),
            };
        }
        self.learn(id, asked_ms);
        TablesSeen::Same
    }

    /// Returns true if `id` is the known id of the tables.
    pub fn is(&self, id: &str) -> bool {
        self.known.as_ref().is_some_and(|known| known.id == id)
    }

    /// Forgets the known id of the tables, so that the next partition may start with other tables. The consumer must
    /// not write to the tables at this time.
    pub fn forget(&mut self) {
        self.known = None;
    }

    fn learn(&mut self, id: &str, asked_ms: BootMs) {
        self.known = Some(Known {
            id: id.to_owned(),
            asked_ms,
        });
        self.next_read_ms = asked_ms + READ_INTERVAL_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> TableIdentity {
        let mut identity = TableIdentity::default();
        assert!(!identity.is_trusted(BootMs(1_000)), "nothing is known");
        assert_eq!(identity.read("A", BootMs(1_000)), TablesSeen::Same);
        identity
    }

    #[test]
    fn writes_are_trusted_for_ten_seconds_after_the_read_began() {
        let mut identity = known();
        assert!(identity.is_trusted(BootMs(1_000 + TRUST_MS)));
        assert!(!identity.is_trusted(BootMs(1_001 + TRUST_MS)));
        assert_eq!(identity.read("A", BootMs(20_000)), TablesSeen::Same);
        assert!(identity.is_trusted(BootMs(20_000 + TRUST_MS)));
    }

    #[test]
    fn one_read_at_a_time_begins_after_the_interval() {
        let mut identity = known();
        assert!(!identity.begin_read(BootMs(1_000 + READ_INTERVAL_MS - 1)));
        assert!(identity.begin_read(BootMs(1_000 + READ_INTERVAL_MS)));
        assert!(!identity.begin_read(BootMs(60_000)), "one is under way");
        identity.read_failed(BootMs(60_000));
        assert!(!identity.begin_read(BootMs(60_000 + READ_AGAIN_MS - 1)));
        assert!(identity.begin_read(BootMs(60_000 + READ_AGAIN_MS)));
        assert_eq!(identity.read("A", BootMs(61_000)), TablesSeen::Same);
        identity.read_soon(BootMs(61_001));
        assert!(identity.begin_read(BootMs(61_001)));
    }

    #[test]
    fn another_id_replaces_the_tables_unless_its_read_is_older() {
        let mut identity = known();
        assert_eq!(identity.read("B", BootMs(999)), TablesSeen::Same);
        let replaced = TablesSeen::Replaced {
            was: "A".to_owned(),
        };
        assert_eq!(identity.read("B", BootMs(1_000)), replaced);
        assert!(identity.is_trusted(BootMs(1_000)), "the caller stops");
        assert!(identity.is("A") && !identity.is("B"));
        identity.forget();
        assert!(!identity.is("A"), "nothing is known");
        assert_eq!(identity.read("B", BootMs(1_000)), TablesSeen::Same);
        assert!(identity.is("B"));
    }
}
