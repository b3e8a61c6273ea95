//! Divides keys into pages, so that `verify` reads rows by key in bounded memory.

use crate::core::audit::Key;

/// Maximum number of rows that are read by key at the same time, which limits the memory for the rows.
const KEYS_AT_ONCE: usize = 1_000;

/// Divides keys into pages of at most [`KEYS_AT_ONCE`] keys.
#[derive(Default)]
pub(super) struct KeyPages {
    /// The last key of the previous page.
    after: Option<Key>,
}

impl KeyPages {
    /// Returns the next page, or `None` after the last page. `find` takes a key and a maximum number, and returns at
    /// most that many keys after the given key.
    pub(super) fn next(
        &mut self,
        find: impl FnOnce(Option<&Key>, usize) -> Vec<Key>,
    ) -> Option<Vec<Key>> {
        let keys = find(self.after.as_ref(), KEYS_AT_ONCE);
        self.after = Some(keys.last()?.clone());
        Some(keys)
    }
}
