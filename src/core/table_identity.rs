//! Decides whether a consumer may write to its tables.
//!
//! The tables have a random id, which `init-tables` writes into the config item last. A consumer repeats the update
//! of a row until it succeeds. In a table that was deleted and made again, that update would leave a fence that claims
//! earlier records, which the new table has never seen (INV-2). So a consumer writes only while it has read the id
//! within the last [`TRUST_MS`], and it stops when a table is missing or the id has changed:
//!
//! | the consumer sees | it |
//! |---|---|
//! | the id that it has | goes on |
//! | no id for [`TRUST_MS`], because it slept or was cut off | holds its writes until it has read the id |
//! | another id, a missing table or no config item | writes nothing more and stops with [`crate::pipeline::Halt`] |
//!
//! The premise is that the tables are not deleted and made again within [`TRUST_MS`]. AWS takes longer. Nothing checks it.
//!
//! All times are in milliseconds of a clock that goes on while the host sleeps.

/// How long an id that was read counts as the tables' id, in milliseconds.
pub const TRUST_MS: i64 = 10_000;
/// Time between two reads of the id, in milliseconds: half a read unit each.
pub const READ_INTERVAL_MS: i64 = 5_000;
/// Time until a read that failed is repeated, in milliseconds.
pub const READ_AGAIN_MS: i64 = 1_000;

/// What a consumer knows of its tables' identity.
#[derive(Clone, Debug, Default)]
pub struct TableIdentity {
    known: Option<Known>,
    reading: bool,
    next_read_ms: i64,
}

#[derive(Clone, Debug)]
struct Known {
    id: String,
    /// When the read began that returned the id.
    asked_ms: i64,
}

/// What an id that was read says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The tables are the same, or the read began before the last one did.
    Same,
    /// The tables were made again: the id was this one.
    Replaced {
        /// The former id.
        was: String,
    },
}

impl TableIdentity {
    /// Returns whether the consumer may write now.
    pub fn is_trusted(&self, now_ms: i64) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| now_ms - known.asked_ms <= TRUST_MS)
    }

    /// Returns whether the id is to be read now. The caller then reports the answer to [`TableIdentity::read`] or
    /// [`TableIdentity::read_failed`].
    pub fn begin_read(&mut self, now_ms: i64) -> bool {
        let due = !self.reading && now_ms >= self.next_read_ms;
        self.reading |= due;
        due
    }

    /// Asks for the id to be read as soon as no other read is under way.
    pub fn read_soon(&mut self, now_ms: i64) {
        self.next_read_ms = self.next_read_ms.min(now_ms);
    }

    /// Takes the end of a read without an answer.
    pub fn read_failed(&mut self, now_ms: i64) {
        self.reading = false;
        self.next_read_ms = now_ms + READ_AGAIN_MS;
    }

    /// Takes the id that a read returned which began at `asked_ms`.
    pub fn read(&mut self, id: &str, asked_ms: i64) -> Seen {
        self.reading = false;
        let Some(known) = &mut self.known else {
            self.learn(id, asked_ms);
            return Seen::Same;
        };
        if asked_ms < known.asked_ms {
            return Seen::Same;
        }
        if known.id != id {
            return Seen::Replaced {
                was: known.id.clone(),
            };
        }
        self.learn(id, asked_ms);
        Seen::Same
    }

    /// Returns whether this is the id that is known.
    pub fn is(&self, id: &str) -> bool {
        self.known.as_ref().is_some_and(|known| known.id == id)
    }

    /// Forgets the id: no partition counts into the tables, so the next one may begin with other tables.
    pub fn forget(&mut self) {
        self.known = None;
    }

    fn learn(&mut self, id: &str, asked_ms: i64) {
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
        assert!(!identity.is_trusted(1_000), "nothing is known");
        assert_eq!(identity.read("A", 1_000), Seen::Same);
        identity
    }

    #[test]
    fn writes_are_trusted_for_ten_seconds_after_the_read_began() {
        let mut identity = known();
        assert!(identity.is_trusted(1_000 + TRUST_MS));
        assert!(!identity.is_trusted(1_001 + TRUST_MS));
        assert_eq!(identity.read("A", 20_000), Seen::Same);
        assert!(identity.is_trusted(20_000 + TRUST_MS));
    }

    #[test]
    fn one_read_at_a_time_begins_after_the_interval() {
        let mut identity = known();
        assert!(!identity.begin_read(1_000 + READ_INTERVAL_MS - 1));
        assert!(identity.begin_read(1_000 + READ_INTERVAL_MS));
        assert!(!identity.begin_read(60_000), "one is under way");
        identity.read_failed(60_000);
        assert!(!identity.begin_read(60_000 + READ_AGAIN_MS - 1));
        assert!(identity.begin_read(60_000 + READ_AGAIN_MS));
        assert_eq!(identity.read("A", 61_000), Seen::Same);
        identity.read_soon(61_001);
        assert!(identity.begin_read(61_001));
    }

    #[test]
    fn another_id_replaces_the_tables_unless_its_read_is_older() {
        let mut identity = known();
        assert_eq!(identity.read("B", 999), Seen::Same);
        let replaced = Seen::Replaced {
            was: "A".to_owned(),
        };
        assert_eq!(identity.read("B", 1_000), replaced);
        assert!(identity.is_trusted(1_000), "the caller stops");
        identity.forget();
        assert_eq!(identity.read("B", 1_000), Seen::Same);
    }
}
