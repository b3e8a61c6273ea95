//! The recent counts of one row, for the charts and rates of the live screen.
//!
//! A history contains counts by severity for event-time windows of four lengths. A history also contains one snapshot
//! of the counts for each of the last few seconds. A history does not read a clock, because
//! [`Board`](super::board::Board) decides when to store a snapshot.

/// Counts by severity, from low to critical. For dead letters, which have no severity, only the first of the four
/// counts is used.
pub(super) type SeverityCounts = [u64; 4];
use crate::core::clock::UnixMs;

/// The window lengths that the live screen can show. Each entry consists of a length in milliseconds and a name for the
/// length.
pub(super) const LENGTHS: [(i64, &str); 4] = [
    (60_000, "minute"),
    (300_000, "5 minutes"),
    (3_600_000, "hour"),
    (86_400_000, "day"),
];
/// The index of the window length that the live screen shows at its start. The window length of five minutes is also
/// the default of the DynamoDB tables.
pub(super) const LENGTH_DEFAULT: usize = 1;
/// Number of windows of each length that a history keeps.
pub(super) const WINDOWS: usize = 96;
const WINDOWS_I64: i64 = WINDOWS as i64;
/// Number of snapshots of the counts that a history keeps, one per second. A snapshot is called a mark, and a rate
/// covers the ten seconds between the oldest and the newest mark.
pub(super) const MARKS: usize = 11;

/// The newest windows of one length, kept in a ring buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WindowRing {
    /// The number of the newest window. Window 0 starts at the Unix epoch.
    newest: Option<i64>,
    /// The counts of the windows. Window `n` is at index `n mod WINDOWS`.
    windows: Box<[[u32; 4]; WINDOWS]>,
}

impl Default for WindowRing {
    fn default() -> WindowRing {
        WindowRing {
            newest: None,
            windows: Box::new([[0; 4]; WINDOWS]),
        }
    }
}

fn ring_index(window: i64) -> usize {
    usize::try_from(window.rem_euclid(WINDOWS_I64)).expect("the remainder is small")
}

impl WindowRing {
    fn add(&mut self, window: i64, severity: usize) {
        let newest = *self.newest.get_or_insert(window);
        if window > newest {
            // The ring buffer reuses the indices of old windows, so the loop sets the counts of all windows after
            // `newest` to zero.
            for empty in (newest + 1).max(window - WINDOWS_I64 + 1)..=window {
                self.windows[ring_index(empty)] = [0; 4];
            }
            self.newest = Some(window);
        } else if window <= newest - WINDOWS_I64 {
            return;
        }
        let count = &mut self.windows[ring_index(window)][severity];
        *count = count.saturating_add(1);
    }

    fn get(&self, window: i64) -> [u32; 4] {
        match self.newest {
            Some(newest) if window <= newest && window > newest - WINDOWS_I64 => {
                self.windows[ring_index(window)]
            }
            _ => [0; 4],
        }
    }
}

/// The recent counts of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RowHistory {
    rings: [WindowRing; LENGTHS.len()],
    marks: [SeverityCounts; MARKS],
}

impl RowHistory {
    /// Counts an event in one window of each of the four lengths.
    pub(super) fn add(&mut self, time_ms: UnixMs, severity: usize) {
        for (ring, (length_ms, _)) in self.rings.iter_mut().zip(LENGTHS) {
            ring.add(time_ms.0.div_euclid(length_ms), severity);
        }
    }

    /// Returns the counts of one window. `length` is an index into [`LENGTHS`], and `window` is the number of windows
    /// of this length since the Unix epoch.
    pub(super) fn window(&self, length: usize, window: i64) -> [u32; 4] {
        self.rings[length].get(window)
    }

    /// Stores a snapshot of the counts at the index `at`.
    pub(super) fn mark(&mut self, at: usize, counts: SeverityCounts) {
        self.marks[at] = counts;
    }

    /// Returns the snapshot of the counts at the index `at`. If the snapshot is older than the row's first event, all
    /// its counts are 0.
    pub(super) fn marked(&self, at: usize) -> SeverityCounts {
        self.marks[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the ring buffer with a plain list of all windows.
    #[test]
    fn a_ring_keeps_the_newest_windows_and_forgets_the_others() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut ring = WindowRing::default();
        let mut all = std::collections::BTreeMap::new();
        let mut base = -50;
        for _ in 0..20_000 {
            base += [0, 0, 0, 0, 1, 1, 2, 7, 150][random.usize(..9)];
            let window = base - [0, 0, 1, 3, 50, 95, 96, 200][random.usize(..8)];
            let newest = all.keys().next_back().copied();
            ring.add(window, 2);
            // The ring buffer ignores events of windows that it has already dropped, so the test also ignores these
            // events.
            if newest.is_none_or(|newest| window > newest - 96) {
                *all.entry(window).or_insert(0) += 1;
            }
            let newest = *all.keys().next_back().unwrap();
            for shown in newest - 99..=newest + 2 {
                let want = if shown > newest - 96 {
                    all.get(&shown).copied().unwrap_or(0)
                } else {
                    0
                };
                assert_eq!(ring.get(shown), [0, 0, want, 0], "{shown} of {newest}");
            }
        }
    }

    #[test]
    fn an_event_counts_in_a_window_of_each_length() {
        let mut history = RowHistory::default();
        history.add(UnixMs(86_399_999), 0);
        history.add(UnixMs(86_400_000), 3);
        for (length, (length_ms, _)) in LENGTHS.iter().enumerate() {
            let first = 86_400_000 / length_ms - 1;
            assert_eq!(history.window(length, first), [1, 0, 0, 0]);
            assert_eq!(history.window(length, first + 1), [0, 0, 0, 1]);
        }
    }
}
