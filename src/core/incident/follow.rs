//! Finds the incidents that changed between two reads of their table.
//!
//! A reader repeatedly lists the newest open incidents and the newest resolved incidents. If many newer incidents
//! exist, an incident may disappear from the open list without appearing in the resolved list. The reader then reads
//! this incident by its name.

use std::collections::{BTreeMap, BTreeSet};

use super::owner::IncidentName;

/// The incidents that a reader found in its last read. The type parameter `T` is the reader's representation of an
/// incident.
#[derive(Clone, Debug)]
pub struct Follower<T> {
    open: BTreeMap<IncidentName, T>,
    resolved: BTreeMap<IncidentName, T>,
    is_new: bool,
    /// The last incident that the reader had to read by its name.
    last_asked: Option<IncidentName>,
}

/// The incidents that were open in the previous read and are now in neither list. Each is in its previous state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing<T> {
    /// The incidents that the reader must read by their names now.
    pub asked: Vec<(IncidentName, T)>,
    /// The incidents that the reader does not read by name this time. The follower treats them as unchanged.
    pub later: Vec<(IncidentName, T)>,
}

impl<T> Default for Follower<T> {
    fn default() -> Follower<T> {
        Follower {
            open: BTreeMap::new(),
            resolved: BTreeMap::new(),
            is_new: true,
            last_asked: None,
        }
    }
}

impl<T: Clone + PartialEq> Follower<T> {
    /// Returns the incidents that were open in the previous read and are now in neither list. The reader must read at
    /// most `max` of them by name. The next call continues with the next names, so that the reader reads every missing
    /// incident after a few calls.
    pub fn missing(
        &mut self,
        open: &[(IncidentName, T)],
        resolved: &[(IncidentName, T)],
        max: usize,
    ) -> Missing<T> {
        let listed: BTreeSet<&IncidentName> =
            open.iter().chain(resolved).map(|(name, _)| name).collect();
        let missing = self.open.iter().filter(|(name, _)| !listed.contains(name));
        let (mut asked, before): (Vec<_>, Vec<_>) = missing
            .map(|(name, one)| (name.clone(), one.clone()))
            .partition(|(name, _)| self.last_asked.as_ref() < Some(name));
        asked.extend(before);
        let later = asked.split_off(asked.len().min(max));
        if let Some((name, _)) = asked.last() {
            self.last_asked = Some(name.clone());
        }
        Missing { asked, later }
    }

    /// Compares the current read of the table with the previous read. `open` contains the newest open incidents, and
    /// `resolved` contains the newest resolved incidents. Returns the incidents that are new or have changed, with
    /// resolved incidents before open incidents. The first call returns no resolved incidents, because they ended
    /// before the reader began.
    pub fn take(
        &mut self,
        open: Vec<(IncidentName, T)>,
        resolved: Vec<(IncidentName, T)>,
    ) -> Vec<T> {
        let open: BTreeMap<IncidentName, T> = open.into_iter().collect();
        let resolved: BTreeMap<IncidentName, T> = resolved.into_iter().collect();
        let mut changed = Vec::new();
        if !self.is_new {
            changed.extend(differing(&resolved, &self.resolved));
        }
        changed.extend(differing(&open, &self.open));
        (self.open, self.resolved, self.is_new) = (open, resolved, false);
        changed
    }

    /// Returns true if the reader has not read the table yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Returns the incidents in `now` that are missing from `before` or have another state there.
fn differing<T: Clone + PartialEq>(
    now: &BTreeMap<IncidentName, T>,
    before: &BTreeMap<IncidentName, T>,
) -> impl Iterator<Item = T> {
    let changed = now
        .iter()
        .filter(|(name, one)| before.get(*name) != Some(*one));
    changed.map(|(_, one)| one.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, u32)]) -> Vec<(IncidentName, u32)> {
        let row = |(id, n): &(&str, u32)| (("rule".into(), (*id).into()), *n);
        rows.iter().map(row).collect()
    }

    #[test]
    fn the_first_read_shows_what_is_open() {
        let mut follower = Follower::default();
        let first = follower.take(rows(&[("b", 1)]), rows(&[("a", 2)]));
        assert_eq!(first, [1]);
        let again = follower.take(rows(&[("b", 1)]), rows(&[("a", 2)]));
        assert_eq!(again, [0_u32; 0]);
    }

    #[test]
    fn a_change_is_shown_once_and_an_end_before_a_beginning() {
        let mut follower = Follower::default();
        follower.take(rows(&[("a", 1)]), rows(&[]));
        let grown = follower.take(rows(&[("a", 2)]), rows(&[]));
        assert_eq!(grown, [2]);
        let ended = follower.take(rows(&[("b", 4)]), rows(&[("a", 3)]));
        assert_eq!(ended, [3, 4]);
        // The row of a resolved incident also changes when a message about the incident is delivered.
        let delivered = follower.take(rows(&[("b", 4)]), rows(&[("a", 5)]));
        assert_eq!(delivered, [5]);
    }

    #[test]
    fn an_incident_that_opened_and_ended_between_two_reads_is_shown() {
        let mut follower = Follower::default();
        follower.take(rows(&[]), rows(&[("a", 1)]));
        let both = follower.take(rows(&[]), rows(&[("a", 1), ("b", 2)]));
        assert_eq!(both, [2]);
    }

    #[test]
    fn an_open_incident_that_no_list_contains_is_read_by_its_name() {
        let mut follower = Follower::default();
        follower.take(rows(&[("a", 1), ("b", 2)]), rows(&[]));
        let open = rows(&[("c", 3)]);
        let missing = follower.missing(&open, &[], 10);
        assert_eq!(missing.asked, rows(&[("a", 1), ("b", 2)]));
        assert_eq!(missing.later, []);
        // The reader finds that `a` has ended, and that `b` is still open.
        let next = follower.take(rows(&[("c", 3), ("b", 2)]), rows(&[("a", 7)]));
        assert_eq!(next, [7, 3]);
        assert_eq!(follower.missing(&open, &[], 10).asked, rows(&[("b", 2)]));
    }

    #[test]
    fn every_missing_incident_gets_its_turn() {
        let mut follower = Follower::default();
        let mut open = rows(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]);
        follower.take(open.clone(), rows(&[]));
        let mut turns = Vec::new();
        for _ in 0..4 {
            let missing = follower.missing(&[], &[], 2);
            assert_eq!(missing.asked.len() + missing.later.len(), open.len());
            for (name, _) in missing.asked {
                turns.push(name.1.to_string());
                // The reader finds that `c` has ended.
                open.retain(|(other, _)| *other != name || &*name.1 != "c");
            }
            follower.take(open.clone(), rows(&[]));
        }
        assert_eq!(turns, ["a", "b", "c", "d", "e", "a", "b", "d"]);
    }
}
