//! How the user looks at the board: filter, order, window length, chosen record, and what each key does.
//!
//! A view is a plain value. It takes keys, and returns as a [`KeyAction`] what only the screen can do.

use std::cmp::Ordering;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::query::Query;
use crate::tail::board::{Board, ListedRecord, sum};
use crate::tail::counts::CountRow;
use crate::tail::history::{LENGTH_DEFAULT, LENGTHS, SeverityCounts};

/// How long a message is shown.
const MESSAGE_MS: i64 = 6_000;
/// Characters of a filter.
const QUERY_CHARS_MAX: usize = 80;
/// Rows that a page key moves.
const PAGE: usize = 10;

/// The records that the screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// Events, in rows by city and type.
    Events,
    /// Dead letters, in rows by reject reason.
    DeadLetters,
}

impl RecordKind {
    /// Returns the name of the records on the screen.
    pub(super) const fn name(self) -> &'static str {
        match self {
            RecordKind::Events => "events",
            RecordKind::DeadLetters => "rejected records",
        }
    }
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Most records first.
    Total,
    /// Highest rate first.
    Rate,
    /// Most critical events first, then most of severity high.
    Alerts,
    /// By city and type, or by reject reason.
    Name,
}

impl Sort {
    /// Returns the next order in the cycle.
    const fn next(self, kind: RecordKind) -> Sort {
        match (self, kind) {
            (Sort::Total, _) => Sort::Rate,
            (Sort::Rate, RecordKind::Events) => Sort::Alerts,
            (Sort::Rate, RecordKind::DeadLetters) | (Sort::Alerts, _) => Sort::Name,
            (Sort::Name, _) => Sort::Total,
        }
    }

    /// Returns the name of the order on the screen.
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

/// What is drawn on top of the board, or which text is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    Nothing,
    /// The list of keys.
    Help,
    /// The user types a filter. The text is the previous filter.
    Typing(String),
    /// A record in full, scrolled down by a number of lines.
    Record(Arc<ListedRecord>, u16),
}

/// What the screen has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    /// Draw the next picture.
    Draw,
    /// Leave the screen.
    Quit,
    /// Stop the process until it is continued.
    Suspend,
    /// Write what is shown to a file.
    Export,
    /// Clear the terminal and draw everything, because another program has written on it.
    Redraw,
}

/// A row that passes the filter.
#[derive(Clone, Debug)]
pub(super) struct VisibleRow<'a> {
    /// The city, or the reject reason.
    pub(super) city: &'a str,
    /// The event type; empty for a reject reason.
    pub(super) event_type: &'a str,
    /// Events of the shown severities; the others are 0.
    pub(super) severities: SeverityCounts,
    /// The sum of `severities`.
    pub(super) total: u64,
    /// Records per second, of the shown severities.
    pub(super) rate: f64,
    /// The row with all severities.
    pub(super) row: &'a CountRow,
}

/// How the user looks at the board.
#[derive(Clone, Debug)]
pub(super) struct ScreenView {
    pub(super) kind: RecordKind,
    pub(super) overlay: Overlay,
    pub(super) query: Query,
    pub(super) sort: Sort,
    /// The length of the windows, as an index into [`LENGTHS`].
    pub(super) length: usize,
    /// Whether the list shows all events, not only alerts.
    pub(super) all_records: bool,
    /// The number of the chosen record.
    pub(super) chosen: Option<u64>,
    /// The index of the first visible row.
    pub(super) scroll: usize,
    /// A copy of the board from when the user froze the screen.
    pub(super) frozen: Option<Box<Board>>,
    /// A message, whether it is an error, and when it expires.
    message: Option<(String, bool, i64)>,
}

impl ScreenView {
    /// Returns the view at the start.
    pub(super) fn new(kind: RecordKind) -> ScreenView {
        ScreenView {
            kind,
            overlay: Overlay::Nothing,
            query: Query::parse("", kind),
            sort: Sort::Total,
            length: LENGTH_DEFAULT,
            all_records: kind == RecordKind::DeadLetters,
            chosen: None,
            scroll: 0,
            frozen: None,
            message: None,
        }
    }

    /// Handles a key. `live` is the board that is not frozen.
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
                self.set_filter("");
            }
            KeyCode::Up | KeyCode::Char('k') => self.choose(live, -1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(live, 1),
            KeyCode::Enter => self.open_chosen(live),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown => {
                let rows = self.rows(self.shown(live)).len();
                self.scroll = (self.scroll + PAGE).min(rows.saturating_sub(1));
            }
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
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

    /// Returns the board that is shown: the live one, or the frozen copy.
    pub(super) fn shown<'a>(&'a self, live: &'a Board) -> &'a Board {
        self.frozen.as_deref().unwrap_or(live)
    }

    /// Returns the rows of a board that pass the filter, in the chosen order.
    ///
    /// All rows of dead letters pass: they count by reason alone, so a row cannot say how many of its records contain
    /// a word.
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
        // The sort is stable: equal rows stay in the order of their names.
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

    /// Returns the records of a board that pass the filter, newest first.
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

    /// Returns the index of the chosen record. If it has left the list, the last record takes its place.
    pub(super) fn chosen_index(&self, records: &[&Arc<ListedRecord>]) -> Option<usize> {
        let chosen = self.chosen?;
        let at = records.iter().position(|record| record.number <= chosen);
        Some(at.unwrap_or(records.len().saturating_sub(1)))
    }

    /// Moves the choice by one record, or chooses the newest record if none is chosen.
    fn choose(&mut self, live: &Board, by: isize) {
        let records: Vec<_> = self.records(self.shown(live)).collect();
        let at = match self.chosen_index(&records) {
            None => 0,
            Some(at) => at.saturating_add_signed(by),
        };
        let at = at.min(records.len().saturating_sub(1));
        self.chosen = records.get(at).map(|record| record.number);
    }

    /// Opens the chosen record, or the newest one if none is chosen.
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
    pub(super) fn show_message(&mut self, text: &str, is_error: bool, now_ms: i64) {
        self.message = Some((text.to_owned(), is_error, now_ms + MESSAGE_MS));
    }

    /// Returns the message of a time, and whether it is an error.
    pub(super) fn message(&self, now_ms: i64) -> Option<(&str, bool)> {
        let (text, is_error, until_ms) = self.message.as_ref()?;
        (now_ms < *until_ms).then_some((text.as_str(), *is_error))
    }
}
