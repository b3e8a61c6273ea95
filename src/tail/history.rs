//! The recent past of one row: what was counted, by severity, in windows of event time of four lengths, and the
//! counts of the last seconds, from which rates come.
//!
//! Pure values without a clock; [`Board`](super::board::Board) says when a second is over.

/// Events by severity, in rising order; rejected records are all in the first place.
pub(super) type Tally = [u64; 4];

/// The lengths that windows can be shown in: milliseconds, and how people say it.
pub(super) const LENGTHS: [(i64, &str); 4] = [
    (60_000, "minute"),
    (300_000, "5 minutes"),
    (3_600_000, "hour"),
    (86_400_000, "day"),
];
/// The one to begin with: that of the windows in the tables.
pub(super) const LENGTH_DEFAULT: usize = 1;
/// Windows kept of each length.
pub(super) const WINDOWS: usize = 96;
/// Places for counts of the past, a second apart: rates are those of the last ten seconds.
pub(super) const MARKS: usize = 11;

/// The newest windows of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ring {
    /// Number of the newest window since 1970, if there is any.
    newest: Option<i64>,
    /// Window `n` lies at `n mod WINDOWS`.
    bins: Box<[[u32; 4]; WINDOWS]>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring {
            newest: None,
            bins: Box::new([[0; 4]; WINDOWS]),
        }
    }
}

/// The place of a window in a ring.
fn place(window: i64) -> usize {
    let count = i64::try_from(WINDOWS).expect("a small constant");
    usize::try_from(window.rem_euclid(count)).expect("below a small constant")
}

impl Ring {
    fn add(&mut self, window: i64, at: usize) {
        let count = i64::try_from(WINDOWS).expect("a small constant");
        let newest = *self.newest.get_or_insert(window);
        if window > newest {
            // What lies between has had no events.
            for empty in (newest + 1).max(window - count + 1)..=window {
                self.bins[place(empty)] = [0; 4];
            }
            self.newest = Some(window);
        } else if window <= newest - count {
            return;
        }
        let bin = &mut self.bins[place(window)][at];
        *bin = bin.saturating_add(1);
    }

    fn get(&self, window: i64) -> [u32; 4] {
        let count = i64::try_from(WINDOWS).expect("a small constant");
        let known = self
            .newest
            .is_some_and(|newest| window <= newest && window > newest - count);
        if known {
            self.bins[place(window)]
        } else {
            [0; 4]
        }
    }
}

/// The recent past of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    rings: [Ring; LENGTHS.len()],
    marks: [Tally; MARKS],
}

impl History {
    /// Counts one at place `at` of the tallies of its windows.
    pub(super) fn add(&mut self, time_ms: i64, at: usize) {
        for (ring, (length_ms, _)) in self.rings.iter_mut().zip(LENGTHS) {
            ring.add(time_ms.div_euclid(length_ms), at);
        }
    }

    /// Returns what happened in a window of one length, by its number since 1970.
    pub(super) fn window(&self, length: usize, window: i64) -> [u32; 4] {
        self.rings[length].get(window)
    }

    /// Notes counts.
    pub(super) fn mark(&mut self, at: usize, tally: Tally) {
        self.marks[at] = tally;
    }

    /// Returns noted counts; 0 before the row's first event.
    pub(super) fn marked(&self, at: usize) -> Tally {
        self.marks[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring against a plain list of all windows ever seen.
    #[test]
    fn a_ring_keeps_the_newest_windows_and_forgets_the_others() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut ring = Ring::default();
        let mut all = std::collections::BTreeMap::new();
        let mut base = -50;
        for _ in 0..20_000 {
            base += [0, 0, 0, 0, 1, 1, 2, 7, 150][random.usize(..9)];
            let window = base - [0, 0, 1, 3, 50, 95, 96, 200][random.usize(..8)];
            let newest = all.keys().next_back().copied();
            ring.add(window, 2);
            // An event of a window that is out of sight is not shown, and must not come back.
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
        let mut history = History::default();
        history.add(86_399_999, 0);
        history.add(86_400_000, 3);
        for (length, (length_ms, _)) in LENGTHS.iter().enumerate() {
            let first = 86_400_000 / length_ms - 1;
            assert_eq!(history.window(length, first), [1, 0, 0, 0]);
            assert_eq!(history.window(length, first + 1), [0, 0, 0, 1]);
        }
    }
}
