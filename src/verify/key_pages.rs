//! Pages of keys, so that `verify` reads rows by key in bounded memory.

use crate::core::audit::Key;

/// Rows that are read by key together. The limit keeps their memory small.
const KEYS_AT_ONCE: usize = 1_000;

/// Pages through keys, [`KEYS_AT_ONCE`] at a time.
#[derive(Default)]
pub(super) struct KeyPages {
    /// The last key of the page before.
    after: Option<Key>,
}

impl KeyPages {
    /// Returns the next page, or `None` at the end. `find` returns the keys after the given one.
    pub(super) fn next(
        &mut self,
        find: impl FnOnce(Option<&Key>, usize) -> Vec<Key>,
    ) -> Option<Vec<Key>> {
        let keys = find(self.after.as_ref(), KEYS_AT_ONCE);
        self.after = Some(keys.last()?.clone());
        Some(keys)
    }
}
