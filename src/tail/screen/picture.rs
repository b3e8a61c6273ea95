//! Everything that a picture depends on.

use super::view::{ScreenView, VisibleRow};
use crate::tail::board::Board;

/// What does not change while the screen is up.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    pub(super) topic: String,
    /// Where reading began, such as `from the beginning`.
    pub(super) from: String,
    /// The filter of the command line; empty if all events pass.
    pub(super) filter: String,
}

/// The board and how the user looks at it. One picture or export is a function of this value.
pub(super) struct Picture<'a> {
    pub(super) heading: &'a Heading,
    /// The board that the reader fills.
    pub(super) live: &'a Board,
    /// The board that is shown: the live one, or a frozen copy.
    pub(super) board: &'a Board,
    pub(super) view: &'a ScreenView,
    /// The rows that pass the filter, in the chosen order.
    pub(super) rows: Vec<VisibleRow<'a>>,
}

impl<'a> Picture<'a> {
    /// Returns the picture of this moment.
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
