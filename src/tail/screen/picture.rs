//! The values that determine a picture of the screen.

use super::view::{ScreenView, VisibleRow};
use crate::tail::board::Board;

/// The parts of a picture that never change while the screen is shown.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    pub(super) topic: String,
    /// The position where reading began, such as `from the beginning`.
    pub(super) from: String,
    /// The hint for a user who sees no record, or `None` if older records are shown too.
    pub(super) quiet_hint: Option<&'static str>,
    /// The filter of the command line as text, or an empty string if all events pass the filter.
    pub(super) filter: String,
}

/// The board, together with the user's view of the board. Drawing and exporting depend only on a `Picture`.
pub(super) struct Picture<'a> {
    pub(super) heading: &'a Heading,
    /// The board to which the reader adds records.
    pub(super) live: &'a Board,
    /// The board that is shown: either the live board or a frozen copy.
    pub(super) board: &'a Board,
    pub(super) view: &'a ScreenView,
    /// The rows that pass the filter, in the order that the user chose.
    pub(super) rows: Vec<VisibleRow<'a>>,
}

impl<'a> Picture<'a> {
    /// Returns the picture for the current moment.
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
