//! The user's view of the live screen, and the effect of each key on the view.
//!
//! A view holds the user's choices: the filter, the sort order, the window length and the chosen record. The view
//! handles most keys itself. For all other keys, the view returns a [`KeyAction`] that the screen must perform.

use std::cmp::Ordering;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::query::Query;
use super::record_kind::RecordKind;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::tail::board::{Board, ListedRecord, sum};
use crate::tail::counts::CountRow;
use crate::tail::history::{LENGTH_DEFAULT, LENGTHS, SeverityCounts};

/// Time for which the screen shows a message, in milliseconds.
const MESSAGE_MS: i64 = 6_000;
/// Maximum number of characters of a filter that the user types.
const QUERY_CHARS_MAX: usize = 80;
/// Number of rows by which the keys Page Up and Page Down move.
const PAGE: usize = 10;

/// The order of the rows in the table of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// The row with the most records comes first.
    Total,
    /// The row with the highest rate comes first.
    Rate,
    /// The row with the most critical events comes first. Among rows with equally many critical events, the row with
    /// the most events of severity high comes first.
    Alerts,
    /// The rows are sorted by city and event type, or by reject reason.
    Name,
}

impl Sort {
    /// Returns the sort order that follows this sort order when the user presses the key `s`.
    const fn next(self, kind: RecordKind) -> Sort {
        match (self, kind) {
            (Sort::Total, _) => Sort::Rate,
            (Sort::Rate, RecordKind::Events) => Sort::Alerts,
            (Sort::Rate, RecordKind::DeadLetters) | (Sort::Alerts, _) => Sort::Name,
            (Sort::Name, _) => Sort::Total,
        }
    }

    /// Returns the name that the screen shows for this sort order.
    pub(super) const fn name(self, kind: RecordKind) -> &'static str {
        match (self, kind) {
            (Sort::Total, _) => "total",
            (Sort::Rate, _) => "rate",
            (Sort::Alerts, _) => "alerts",
            (Sort::Name, RecordKind::Events) => "name",
            (Sort::Name, RecordKind::DeadLetters) => "reason",
        }
    }
}

/// The overlay that covers the screen, or the state of a filter that the user is typing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    Nothing,
    /// The overlay shows the list of keys.
    Help,
    /// The user is typing a filter. The string is the previous filter, which the key Esc restores.
    Typing(String),
    /// The overlay shows a complete record, scrolled down by the given number of lines.
    Record(Arc<ListedRecord>, u16),
}

/// The list in which the arrow keys move the selection: the records or the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Records,
    Rows,
}

/// The action that the screen must perform after a key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    /// The screen must be drawn again, because the view may have changed.
    Draw,
    /// The live screen must end.
    Quit,
    /// The process must be suspended until it receives SIGCONT.
    Suspend,
    /// The content of the screen must be exported to a file.
    Export,
    /// The terminal must be cleared and drawn again completely, for example after another program has written to the
    /// terminal.
    Redraw,
}

/// A row of counts that passes the filter.
#[derive(Clone, Debug)]
pub(super) struct VisibleRow<'a> {
    /// The city or the reject reason of the row.
    pub(super) city: &'a str,
    /// The event type of the row, or an empty string if the row is for a reject reason.
    pub(super) event_type: &'a str,
    /// The number of events for each severity. If the filter hides a severity, the number for this severity is 0.
    pub(super) severities: SeverityCounts,
    /// The sum of the counts in `severities`.
    pub(super) total: u64,
    /// The number of records per second, counting only the severities that the filter shows.
    pub(super) rate: f64,
    /// The unfiltered row, with the counts of all severities.
    pub(super) row: &'a CountRow,
}

/// The user's view of the board.
#[derive(Clone, Debug)]
pub(super) struct ScreenView {
    pub(super) kind: RecordKind,
    pub(super) overlay: Overlay,
    pub(super) query: Query,
    pub(super) sort: Sort,
    /// The length of the windows, as an index into [`LENGTHS`].
    pub(super) length: usize,
    /// True if the list shows all events, and false if it shows only alerts.
    pub(super) all_records: bool,
    pub(super) focus: Focus,
    /// The row that the user has chosen. The first text is a city or a reject reason, and the second text is an event
    /// type.
    chosen_row: Option<(String, String)>,
    /// The number of the record that the user has chosen. Records are numbered in the order of arrival.
    pub(super) chosen: Option<u64>,
    /// The index of the first row that is visible.
    pub(super) scroll: usize,
    /// A copy of the board from the moment at which the user froze the screen.
    pub(super) frozen: Option<Box<Board>>,
    /// The text of a message, whether the message is an error, and the time at which the message expires.
    message: Option<(String, bool, UnixMs)>,
}

impl ScreenView {
    /// Returns the view with which the screen starts.
    pub(super) fn new(kind: RecordKind) -> ScreenView {
        ScreenView {
            kind,
            overlay: Overlay::Nothing,
            query: Query::parse("", kind),
            sort: Sort::Total,
            length: LENGTH_DEFAULT,
            all_records: kind == RecordKind::DeadLetters,
            focus: Focus::Records,
            chosen_row: None,
            chosen: None,
            scroll: 0,
            frozen: None,
            message: None,
        }
    }

    /// Handles a key press. `live` is the live board, to which the reader still adds records.
    pub(super) fn press(&mut self, key: KeyEvent, live: &Board) -> KeyAction {
        if key.kind == KeyEventKind::Release {
            return KeyAction::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return KeyAction::Quit,
                KeyCode::Char('z') => return KeyAction::Suspend,
                KeyCode::Char('l') => return KeyAction::Redraw,
                KeyCode::Char('u') if matches!(self.overlay, Overlay::Typing(_)) => {
                    self.set_filter("");
                }
                _ => {}
            }
            return KeyAction::Draw;
        }
        self.message = None;
        if let Overlay::Typing(before) = &self.overlay {
            let before = before.clone();
            self.press_while_typing(key.code, &before);
            return KeyAction::Draw;
        }
        if key.code == KeyCode::Char('q') {
            return KeyAction::Quit;
        }
        match self.overlay.clone() {
            Overlay::Help => self.overlay = Overlay::Nothing,
            Overlay::Record(record, line) => self.press_in_record(key.code, record, line, live),
            Overlay::Nothing if key.code == KeyCode::Char('e') => return KeyAction::Export,
            Overlay::Nothing | Overlay::Typing(_) => self.press_on_board(key.code, live),
        }
        KeyAction::Draw
    }

    fn press_on_board(&mut self, code: KeyCode, live: &Board) {
        match code {
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Char(' ') => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(Box::new(live.clone())),
                }
            }
            KeyCode::Char('/') => self.overlay = Overlay::Typing(self.query.text.clone()),
            KeyCode::Char('s') => {
                self.sort = self.sort.next(self.kind);
                self.scroll = 0;
            }
            KeyCode::Char('w') => self.length = (self.length + 1) % LENGTHS.len(),
            KeyCode::Char('a') if self.kind == RecordKind::Events => {
                self.all_records = !self.all_records;
                self.chosen = None;
            }
            KeyCode::Esc => {
                self.chosen = None;
                self.chosen_row = None;
                self.focus = Focus::Records;
                self.set_filter("");
            }
            KeyCode::Tab => self.change_focus(live),
            KeyCode::Home => {
                self.chosen_row = None;
                self.scroll = 0;
            }
            _ if self.focus == Focus::Rows => self.press_on_rows(code, live),
            KeyCode::Up | KeyCode::Char('k') => self.choose(live, -1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(live, 1),
            KeyCode::Enter => self.open_chosen(live),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown => {
                let rows = self.rows(self.shown(live)).len();
                self.scroll = (self.scroll + PAGE).min(rows.saturating_sub(1));
            }
            _ => {}
        }
    }

    fn press_on_rows(&mut self, code: KeyCode, live: &Board) {
        let page = isize::try_from(PAGE).unwrap_or(1);
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.choose_row(live, -1),
            KeyCode::Down | KeyCode::Char('j') => self.choose_row(live, 1),
            KeyCode::PageUp => self.choose_row(live, -page),
            KeyCode::PageDown => self.choose_row(live, page),
            KeyCode::Enter => self.filter_by_row(),
            _ => {}
        }
    }

    fn change_focus(&mut self, live: &Board) {
        self.focus = match self.focus {
            Focus::Records => Focus::Rows,
            Focus::Rows => Focus::Records,
        };
        if self.focus == Focus::Rows && self.chosen_row.is_none() {
            self.choose_row(live, 0);
        }
    }

    /// Moves the selection down by `by` rows, or up if `by` is negative.
    fn choose_row(&mut self, live: &Board, by: isize) {
        let rows = self.rows(self.shown(live));
        let at = match self.chosen_row_index(&rows) {
            None => self.scroll,
            Some(at) => at.saturating_add_signed(by),
        };
        let row = rows.get(at.min(rows.len().saturating_sub(1)));
        self.chosen_row = row.map(|row| (row.city.to_owned(), row.event_type.to_owned()));
    }

    /// Returns the index of the chosen row. Returns `None` if no visible row is chosen, or if the arrow keys currently
    /// select records instead of rows.
    pub(super) fn chosen_row_index(&self, rows: &[VisibleRow<'_>]) -> Option<usize> {
        let (city, event_type) = self.chosen_row.as_ref()?;
        let is_chosen = |row: &VisibleRow<'_>| row.city == city && row.event_type == event_type;
        rows.iter()
            .position(is_chosen)
            .filter(|_| self.focus == Focus::Rows)
    }

    /// Sets the filter to the city and the event type of the chosen row, and keeps the severities of the previous
    /// filter.
    fn filter_by_row(&mut self) {
        let Some((city, event_type)) = self.chosen_row.take() else {
            return;
        };
        let severities = match self.query.severities {
            [true, true, true, true] => String::new(),
            chosen => Severity::ALL
                .into_iter()
                .filter(|severity| chosen[severity.index()])
                .map(|severity| format!(" {severity}"))
                .collect(),
        };
        self.focus = Focus::Records;
        self.chosen = None;
        self.set_filter(format!("{city} {event_type}{severities}").trim());
    }

    fn press_in_record(
        &mut self,
        code: KeyCode,
        record: Arc<ListedRecord>,
        line: u16,
        live: &Board,
    ) {
        match code {
            KeyCode::Esc | KeyCode::Enter => self.overlay = Overlay::Nothing,
            KeyCode::Down | KeyCode::Char('j') => {
                self.overlay = Overlay::Record(record, line.saturating_add(1));
            }
            KeyCode::Up | KeyCode::Char('k') => {
                self.overlay = Overlay::Record(record, line.saturating_sub(1));
            }
            KeyCode::Left | KeyCode::Right => {
                self.choose(live, if code == KeyCode::Left { -1 } else { 1 });
                self.open_chosen(live);
            }
            _ => {}
        }
    }

    fn press_while_typing(&mut self, code: KeyCode, before: &str) {
        match code {
            KeyCode::Enter => self.overlay = Overlay::Nothing,
            KeyCode::Esc => {
                self.overlay = Overlay::Nothing;
                self.set_filter(before);
            }
            KeyCode::Backspace => {
                let mut text = self.query.text.clone();
                if text.pop().is_none() {
                    self.overlay = Overlay::Nothing;
                }
                self.set_filter(&text);
            }
            KeyCode::Char(c) if self.query.text.chars().count() < QUERY_CHARS_MAX => {
                let text = format!("{}{c}", self.query.text);
                self.set_filter(&text);
            }
            _ => {}
        }
    }

    fn set_filter(&mut self, text: &str) {
        self.query = Query::parse(text, self.kind);
        self.scroll = 0;
    }

    /// Returns the board that the screen shows: either the live board or the frozen copy.
    pub(super) fn shown<'a>(&'a self, live: &'a Board) -> &'a Board {
        self.frozen.as_deref().unwrap_or(live)
    }

    /// Returns the rows of a board that pass the filter, in the order that the user chose.
    ///
    /// The filter does not hide rows of dead letters. Dead letters are counted only by reject reason, so a row cannot
    /// show how many of its dead letters contain a word of the filter.
    pub(super) fn rows<'a>(&self, board: &'a Board) -> Vec<VisibleRow<'a>> {
        let shown = self.query.severities;
        let rows = board.counts.rows();
        let rows = rows.filter(|(city, event_type, _)| {
            self.kind == RecordKind::DeadLetters || self.query.passes_row(city, event_type)
        });
        let rows = rows.map(|(city, event_type, row)| {
            let mut severities = row.severities;
            for (count, is_shown) in severities.iter_mut().zip(shown) {
                *count *= u64::from(is_shown);
            }
            VisibleRow {
                city,
                event_type,
                severities,
                total: sum(severities, [true; 4]),
                rate: board.rate(row, shown),
                row,
            }
        });
        let mut rows: Vec<VisibleRow<'_>> = rows.filter(|row| row.total > 0).collect();
        // The sort is stable, so rows with equal values stay in the order of their names.
        rows.sort_by(|a, b| match self.sort {
            Sort::Total => b.total.cmp(&a.total),
            Sort::Rate => b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total)),
            Sort::Alerts => {
                let alerts = |row: &VisibleRow<'_>| (row.severities[3], row.severities[2]);
                alerts(b).cmp(&alerts(a))
            }
            Sort::Name => Ordering::Equal,
        });
        rows
    }

    /// Returns the records of a board that pass the filter, with the newest record first.
    pub(super) fn records<'a>(
        &'a self,
        board: &'a Board,
    ) -> impl Iterator<Item = &'a Arc<ListedRecord>> + 'a {
        let records = if self.all_records {
            &board.records
        } else {
            &board.alerts
        };
        records
            .iter()
            .filter(|record| self.query.passes(&record.content))
    }

    /// Returns the index of the chosen record. If the chosen record is no longer in the list, the last record of the
    /// list is chosen instead.
    pub(super) fn chosen_index(&self, records: &[&Arc<ListedRecord>]) -> Option<usize> {
        let chosen = self.chosen?;
        let at = records.iter().position(|record| record.number == chosen);
        Some(at.unwrap_or(records.len().saturating_sub(1)))
    }

    /// Moves the selection down by `by` records, or up if `by` is negative. If no record is chosen, chooses the newest
    /// record.
    fn choose(&mut self, live: &Board, by: isize) {
        let records: Vec<_> = self.records(self.shown(live)).collect();
        let at = match self.chosen_index(&records) {
            None => 0,
            Some(at) => at.saturating_add_signed(by),
        };
        let at = at.min(records.len().saturating_sub(1));
        self.chosen = records.get(at).map(|record| record.number);
    }

    /// Opens the chosen record. If no record is chosen, opens the newest record.
    fn open_chosen(&mut self, live: &Board) {
        let records: Vec<_> = self.records(self.shown(live)).collect();
        let at = self.chosen_index(&records).unwrap_or(0);
        let Some(record) = records.get(at).map(|record| Arc::clone(record)) else {
            self.show_message("no record to show", true, live.now_ms);
            return;
        };
        self.chosen = Some(record.number);
        self.overlay = Overlay::Record(record, 0);
    }

    /// Shows a message for a few seconds.
    pub(super) fn show_message(&mut self, text: &str, is_error: bool, now_ms: UnixMs) {
        self.message = Some((text.to_owned(), is_error, now_ms + MESSAGE_MS));
    }

    /// Returns the message to show at the time `now_ms`, and a flag that is true if the message is an error.
    pub(super) fn message(&self, now_ms: UnixMs) -> Option<(&str, bool)> {
        let (text, is_error, until_ms) = self.message.as_ref()?;
        (now_ms < *until_ms).then_some((text.as_str(), *is_error))
    }
}
