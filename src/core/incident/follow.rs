//! Finds the incidents that changed between two reads of their table.
//!
//! A reader repeatedly lists the newest open incidents and the newest resolved incidents. An incident may disappear
//! from the open list without appearing in the resolved list, if many newer incidents exist. The reader then reads the
//! incident by its name.

use std::collections::BTreeMap;

use super::owner::Name;

/// The incidents that a reader found in its last read. `T` is the type in which the reader shows an incident.
#[derive(Clone, Debug)]
pub struct Follower<T> {
    open: BTreeMap<Name, T>,
    resolved: BTreeMap<Name, T>,
    is_new: bool,
}

impl<T> Default for Follower<T> {
    fn default() -> Follower<T> {
        Follower {
            open: BTreeMap::new(),
            resolved: BTreeMap::new(),
            is_new: true,
        }
    }
}

/// The differences between a read of the table and the previous read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// The incidents that are new or have changed, with resolved incidents before open incidents.
    pub changed: Vec<T>,
    /// The incidents that were open in the previous read and are in neither list now, in their previous state. The
    /// reader reads each of these incidents by its name.
    pub missing: Vec<(Name, T)>,
}

impl<T: Clone + PartialEq> Follower<T> {
    /// Compares a read with the previous read. The parameters are the newest open incidents and the newest resolved
    /// incidents. The first call does not report resolved incidents, because these incidents ended before the reader
    /// began.
    pub fn take(&mut self, open: Vec<(Name, T)>, resolved: Vec<(Name, T)>) -> Step<T> {
        let open: BTreeMap<Name, T> = open.into_iter().collect();
        let resolved: BTreeMap<Name, T> = resolved.into_iter().collect();
        let mut step = Step {
            changed: Vec::new(),
            missing: Vec::new(),
        };
        if !self.is_new {
            let is_known = |(name, one): &(&Name, &T)| self.resolved.get(*name) == Some(one);
            let ended = resolved.iter().filter(|one| !is_known(one));
            step.changed.extend(ended.map(|(_, one)| one.clone()));
        }
        self.is_new = false;
        let changed = open
            .iter()
            .filter(|(name, one)| self.open.get(*name) != Some(*one));
        step.changed.extend(changed.map(|(_, one)| one.clone()));
        let listed = |name: &Name| open.contains_key(name) || resolved.contains_key(name);
        let missing = self.open.iter().filter(|(name, _)| !listed(name));
        let missing = missing.map(|(name, one)| (name.clone(), one.clone()));
        step.missing.extend(missing);
        self.open = open;
        self.resolved = resolved;
        step
    }

    /// Marks an incident as still open although neither list contained the incident. The caller uses this method if the
    /// incident is still open or could not be read by its name.
    pub fn keep_open(&mut self, name: Name, one: T) {
        self.open.insert(name, one);
    }

    /// Returns true if nothing was read from the table yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, u32)]) -> Vec<(Name, u32)> {
        let row = |(id, n): &(&str, u32)| (("rule".into(), (*id).into()), *n);
        rows.iter().map(row).collect()
    }

    fn step(changed: &[u32], missing: &[(&str, u32)]) -> Step<u32> {
        Step {
            changed: changed.to_vec(),
            missing: rows(missing),
        }
    }

    #[test]
    fn the_first_read_shows_what_is_open() {
        let mut follower = Follower::default();
        let first = follower.take(rows(&[("b", 1)]), rows(&[("a", 2)]));
        assert_eq!(first, step(&[1], &[]));
        let again = follower.take(rows(&[("b", 1)]), rows(&[("a", 2)]));
        assert_eq!(again, step(&[], &[]));
    }

    #[test]
    fn a_change_is_shown_once_and_an_end_before_a_beginning() {
        let mut follower = Follower::default();
        follower.take(rows(&[("a", 1)]), rows(&[]));
        let grown = follower.take(rows(&[("a", 2)]), rows(&[]));
        assert_eq!(grown, step(&[2], &[]));
        let ended = follower.take(rows(&[("b", 4)]), rows(&[("a", 3)]));
        assert_eq!(ended, step(&[3, 4], &[]));
        // The delivery of a message also changes a resolved incident.
        let delivered = follower.take(rows(&[("b", 4)]), rows(&[("a", 5)]));
        assert_eq!(delivered, step(&[5], &[]));
    }

    #[test]
    fn an_incident_that_opened_and_ended_between_two_reads_is_shown() {
        let mut follower = Follower::default();
        follower.take(rows(&[]), rows(&[("a", 1)]));
        let both = follower.take(rows(&[]), rows(&[("a", 1), ("b", 2)]));
        assert_eq!(both, step(&[2], &[]));
    }

    #[test]
    fn an_open_incident_that_no_list_contains_is_read_by_its_name() {
        let mut follower = Follower::default();
        follower.take(rows(&[("a", 1), ("b", 2)]), rows(&[]));
        let next = follower.take(rows(&[("c", 3)]), rows(&[]));
        assert_eq!(next, step(&[3], &[("a", 1), ("b", 2)]));
        follower.keep_open(("rule".into(), "b".into()), 2);
        let next = follower.take(rows(&[("c", 3)]), rows(&[]));
        assert_eq!(next, step(&[], &[("b", 2)]));
    }
}
