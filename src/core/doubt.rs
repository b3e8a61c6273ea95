//! Whether the tables may be written to: they must be known to be the same still.
//!
//! An update of a row is repeated until it succeeds, and must not succeed in a table that was made anew: the
//! fence it leaves there would say that all below was counted. So nothing is written
//!
//! - from the first missing table on, until that table is there and the config item, which is written last, was
//!   read after it. If the tables have their old id then, the table may have been restored, or the config item
//!   may stand in a table that is about to go: the id must stay for [`SETTLE_MS`];
//! - where the tables' id was not read for [`SURE_MS`], until it was: this process may have slept, or been cut
//!   off, for as long as it takes to make tables.
//!
//! All times are in milliseconds of one clock that goes on while the host sleeps.

use std::collections::BTreeSet;

/// How long it may be since the tables' id was asked for, in milliseconds.
pub const SURE_MS: i64 = 10_000;
/// How long tables of which one was missing must have their old id, in milliseconds; AWS deletes a table in less.
pub const SETTLE_MS: i64 = 30_000;

/// What a consumer knows of its tables.
#[derive(Clone, Debug, Default)]
pub struct Doubt {
    /// Their id, and when it was asked for.
    id: Option<(String, i64)>,
    /// Tables that were missing, by their places in [`crate::keys::TABLES`].
    missing: BTreeSet<usize>,
    /// Since when all of these are there again, under the old id.
    back_since_ms: Option<i64>,
    /// The id was not read for too long.
    stale: bool,
}

/// What to do about an answer of tables that were in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask at once: another table was missing meanwhile.
    Ask,
    /// Ask again in a moment: the tables have their old id, and must keep it for a while.
    Wait,
    /// They may be written to.
    Write,
}

impl Doubt {
    /// Tells whether nothing may be written now.
    pub fn is_open(&self) -> bool {
        self.stale || !self.missing.is_empty()
    }

    /// Returns the tables that were missing and are to be asked.
    pub fn missing(&self) -> &BTreeSet<usize> {
        &self.missing
    }

    /// Notes that a table is missing, and tells whether that begins the doubt: then the tables are to be asked.
    pub fn miss(&mut self, table: usize) -> bool {
        let begins = !self.is_open();
        self.missing.insert(table);
        begins
    }

    /// Looks at the time, and tells whether it begins the doubt.
    pub fn lapse(&mut self, now_ms: i64) -> bool {
        let too_long = |(_, asked_ms): &(String, i64)| now_ms - asked_ms > SURE_MS;
        let begins = !self.is_open() && self.id.as_ref().is_some_and(too_long);
        self.stale |= begins;
        begins
    }

    /// Takes an answer: whether all tables that were `asked` are there, and the id that was read after them.
    pub fn answered(&mut self, now_ms: i64, asked: &BTreeSet<usize>, id: Option<&str>) -> Next {
        let Some(id) = id else {
            self.back_since_ms = None;
            return Next::Wait;
        };
        if *asked != self.missing {
            return Next::Ask;
        }
        let is_old = self.id.as_ref().is_some_and(|(old, _)| old == id);
        if is_old && !asked.is_empty() {
            let since_ms = *self.back_since_ms.get_or_insert(now_ms);
            if now_ms - since_ms < SETTLE_MS {
                return Next::Wait;
            }
        }
        self.missing.clear();
        self.back_since_ms = None;
        self.stale = false;
        Next::Write
    }

    /// Takes the tables' id as it was given to who asked at `asked_ms`, and tells whether it is news: not of an
    /// older question than the last.
    pub fn read(&mut self, id: &str, asked_ms: i64) -> bool {
        let known = self.id.as_ref();
        if known.is_some_and(|(_, known_ms)| *known_ms > asked_ms) {
            return false;
        }
        // While they are in doubt, what is known is what was before.
        if !self.is_open() {
            self.id = Some((id.to_owned(), asked_ms));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{AGGREGATIONS, RAW};

    fn known() -> Doubt {
        let mut doubt = Doubt::default();
        assert!(
            !doubt.is_open() && !doubt.lapse(i64::MAX),
            "nothing is known"
        );
        assert!(doubt.read("A", 1_000));
        doubt
    }

    #[test]
    fn a_missing_table_is_waited_for_and_new_ones_are_written_to_at_once() {
        let mut doubt = known();
        assert!(doubt.miss(AGGREGATIONS) && doubt.is_open());
        assert!(!doubt.miss(AGGREGATIONS), "it is asked for already");
        let asked = doubt.missing().clone();
        assert_eq!(doubt.answered(2_000, &asked, None), Next::Wait);
        assert_eq!(doubt.answered(9_000, &asked, Some("B")), Next::Write);
        assert!(!doubt.is_open());
        assert!(doubt.read("B", 8_900));
        assert!(!doubt.read("A", 8_000), "an older question's");
    }

    #[test]
    fn under_the_old_id_a_table_must_stay_for_a_while() {
        let mut doubt = known();
        doubt.miss(AGGREGATIONS);
        let asked = doubt.missing().clone();
        assert_eq!(doubt.answered(2_000, &asked, Some("A")), Next::Wait);
        // Gone again: from the beginning.
        assert_eq!(doubt.answered(3_000, &asked, None), Next::Wait);
        assert_eq!(doubt.answered(4_000, &asked, Some("A")), Next::Wait);
        let last = 4_000 + SETTLE_MS;
        assert_eq!(doubt.answered(last - 1, &asked, Some("A")), Next::Wait);
        assert!(doubt.read("A", last - 1) && doubt.is_open());
        assert_eq!(doubt.answered(last, &asked, Some("A")), Next::Write);
    }

    #[test]
    fn a_second_missing_table_is_asked_too() {
        let mut doubt = known();
        doubt.miss(AGGREGATIONS);
        let asked = doubt.missing().clone();
        assert!(!doubt.miss(RAW));
        assert_eq!(doubt.answered(2_000, &asked, Some("B")), Next::Ask);
        let asked = doubt.missing().clone();
        assert_eq!(doubt.answered(2_000, &asked, Some("B")), Next::Write);
    }

    #[test]
    fn who_has_not_looked_for_long_looks_before_the_next_write() {
        let mut doubt = known();
        assert!(!doubt.lapse(1_000 + SURE_MS));
        assert!(doubt.lapse(1_001 + SURE_MS) && doubt.is_open());
        assert!(!doubt.lapse(1_002 + SURE_MS), "it is asked for already");
        // Nothing was missing, so the old id is as good as a new one.
        let none = BTreeSet::new();
        assert_eq!(doubt.answered(12_000, &none, Some("A")), Next::Write);
        assert!(doubt.read("A", 11_900) && !doubt.lapse(12_000));
        // Unless a late answer of a write tells more.
        assert!(doubt.lapse(40_000) && !doubt.miss(RAW));
        assert_eq!(doubt.answered(40_100, &none, Some("A")), Next::Ask);
    }
}
