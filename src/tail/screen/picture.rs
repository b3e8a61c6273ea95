//! The data from which the live screen is drawn.

use super::view::{ScreenView, VisibleRow};
use crate::tail::board::Board;

/// The texts that stay the same while the live screen is shown.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    pub(super) topic: String,
    /// The position where reading began, such as `from the beginning`.
    pub(super) from: String,
    /// The hint for a user who sees no record, or `None` if older records are shown too.
    pub(super) quiet_hint: Option<&'static str>,
    /// The filter from the command line as text, or an empty string if the command line specifies no filter.
    pub(super) filter: String,
}

/// The board, which holds the data of the live screen, together with the user's view of the data. The functions that
/// draw or export the screen use only the data in a `Picture`.
pub(super) struct Picture<'a> {
    pub(super) heading: &'a Heading,
    /// The live board, to which the reader adds records.
    pub(super) live: &'a Board,
    /// The board that the screen shows: either the live board or a frozen copy.
    pub(super) board: &'a Board,
    pub(super) view: &'a ScreenView,
    /// The rows that pass the filter, in the order that the user chose.
    pub(super) rows: Vec<VisibleRow<'a>>,
}

impl<'a> Picture<'a> {
    /// Combines the current data of the board with the user's view of the data.
    pub(super) fn new(heading: &'a Heading, live: &'a Board, view: &'a ScreenView) -> Picture<'a> {
        let board = view.shown(live);
        Picture {
            heading,
            live,
            board,
            view,
            rows: view.rows(board),
        }
    }
}
