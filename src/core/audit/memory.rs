//! Limits the memory of a slice. A slice drops its last rows if not all of its rows fit into memory.

use super::{AuditName, AuditRow, Fence, HourCounts, Key, RowPlace, Slice, SliceEntry};

impl Slice {
    /// Makes the slice end directly before `hi`, and drops all rows at or after `hi`.
    pub fn end_at(&mut self, hi: RowPlace) {
        if self.hi.as_ref().is_none_or(|old| hi < *old) {
            let cut = Key {
                place: hi.clone(),
                name: AuditName::Totals("".into()),
            };
            drop(self.entries.split_off(&cut));
            self.bytes = self.entries.iter().map(|(k, e)| bytes(k, e)).sum();
            self.hi = Some(hi);
        }
    }

    /// Returns true if the rows from the tables use at least three quarters of the slice's memory. The last quarter of the
    /// memory is reserved for rows that the log requires but the tables lack.
    pub fn is_full(&self) -> bool {
        self.bytes > self.scope.bytes_max / 4 * 3
    }

    /// Returns the largest number of bytes that the slice's rows have used at any time.
    pub fn bytes_peak(&self) -> usize {
        self.bytes_peak
    }

    /// Adds an entry if its key is in the range of the slice. If the entries then need too much memory, the slice drops
    /// its last entries.
    pub(super) fn insert(&mut self, key: Key, entry: SliceEntry) {
        if !self.holds(&key.place) {
            return;
        }
        self.bytes += bytes(&key, &entry);
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.bytes -= bytes(&key, &old);
        }
        self.bytes_peak = self.bytes_peak.max(self.bytes);
        if self.bytes > self.scope.bytes_max {
            self.cut();
        }
    }

    /// Drops the second half of the rows, so that the caller compares them with the next slice. All rows with the same
    /// city and time stay in the same slice.
    fn cut(&mut self) {
        let first = self.entries.keys().next().map(|key| key.place.clone());
        let middle = self.entries.keys().nth(self.entries.len() / 2);
        let mut behind = self.entries.keys().rev().map(|key| &key.place);
        let at = match (first, middle) {
            (Some(first), Some(middle)) if middle.place > first => Some(middle.place.clone()),
            (Some(first), _) => behind.next().filter(|last| **last > first).cloned(),
            (None, _) => None,
        };
        if let Some(at) = at {
            self.end_at(at);
        }
    }
}

/// Returns the number of bytes that an entry of the slice's map uses. The result includes a share of the map's nodes
/// and the heap data of the entry.
fn bytes(key: &Key, entry: &SliceEntry) -> usize {
    let rest = match entry {
        SliceEntry::Row(row) => {
            let found = row.found.as_ref().map_or(0, |found| {
                found.fences.len() * (size_of::<Fence>() + 3)
                    + found.odd.as_ref().map_or(0, |text| text.len())
            });
            // The entry of a day row has two sets of hour counts: one from the log and one from the tables.
            let hours = match key.name {
                AuditName::Day(_) => 2 * size_of::<HourCounts>(),
                _ => 0,
            };
            size_of::<AuditRow>() + found + hours
        }
        SliceEntry::Put(_) => 0,
    };
    // The number 32 is the overhead of the heap allocations of the key's two strings. The nodes of a `BTreeMap` are two
    // thirds full on average.
    (size_of::<Key>() + size_of::<SliceEntry>()) * 3 / 2 + key.bytes() + 32 + rest
}
