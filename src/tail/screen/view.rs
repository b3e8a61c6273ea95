//! How the board is looked at: filter, order, window, choice of a record, and what each key does.
//!
//! A pure value; keys go in, and what only the screen itself can do comes out as an [`Act`].

use std::cmp::Ordering;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::query::Query;
use super::record_list;
use crate::tail::board::{Board, Seen, sum};
use crate::tail::counts::Row;
use crate::tail::history::{LENGTH_DEFAULT, LENGTHS, Tally};

/// How long a message stays.
const MESSAGE_MS: i64 = 6_000;
/// Longest filter in characters.
const QUERY_CHARS_MAX: usize = 80;
/// Rows that a page key moves.
const PAGE: usize = 10;

/// What the screen is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events, by city and type.
    Events,
    /// Dead letters, by reason.
    Letters,
}

impl Kind {
    /// Returns what people call them.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Events => "events",
            Kind::Letters => "rejected records",
        }
    }
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Most events first.
    Total,
    /// Fastest first.
    Rate,
    /// Most critical first, then most high.
    Alerts,
    /// By city and type, or by reason.
    Name,
}

impl Sort {
    /// Returns the order behind this one.
    const fn next(self, kind: Kind) -> Sort {
        match (self, kind) {
            (Sort::Total, _) => Sort::Rate,
            (Sort::Rate, Kind::Events) => Sort::Alerts,
            (Sort::Rate, Kind::Letters) | (Sort::Alerts, _) => Sort::Name,
            (Sort::Name, _) => Sort::Total,
        }
    }

    /// Returns what people call it.
    pub(super) const fn name(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Sort::Total, _) => "total",
            (Sort::Rate, _) => "rate",
            (Sort::Alerts, _) => "alerts",
            (Sort::Name, Kind::Events) => "name",
            (Sort::Name, Kind::Letters) => "reason",
        }
    }
}

/// What lies over the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    Nothing,
    /// The list of keys.
    Help,
    /// A filter is being typed; the one before.
    Typing(String),
    /// A record in full, and the line it is scrolled to.
    Record(Arc<Seen>, u16),
}

/// What a key asks for that only the screen can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// No more than to draw again.
    Draw,
    /// To leave.
    Quit,
    /// To stop the process until it is continued.
    Stop,
    /// To write what is shown into a file.
    Export,
    /// To draw everything anew: something else has written on the terminal.
    Anew,
}

/// A row as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    /// City, or reason.
    pub(super) city: &'a str,
    /// Event type; empty beside a reason.
    pub(super) event_type: &'a str,
    /// Events of the severities that are shown, or all rejected records.
    pub(super) tally: Tally,
    /// Their sum.
    pub(super) total: u64,
    /// Events or rejected records a second.
    pub(super) rate: f64,
    /// The row itself.
    pub(super) row: &'a Row,
}

/// How the board is looked at.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// What the screen is about.
    pub(super) kind: Kind,
    /// What lies over the board.
    pub(super) over: Over,
    /// What is shown.
    pub(super) query: Query,
    /// In which order.
    pub(super) sort: Sort,
    /// The length of windows, a place in [`LENGTHS`].
    pub(super) length: usize,
    /// All records are listed, not only alerts.
    pub(super) all_records: bool,
    /// The number of the chosen record.
    pub(super) chosen: Option<u64>,
    /// The first row that is shown.
    pub(super) scroll: usize,
    /// The board as it was when it was frozen.
    pub(super) frozen: Option<Box<Board>>,
    /// What to tell, whether it is an error, and until when.
    message: Option<(String, bool, i64)>,
}

impl View {
    /// Returns the view to begin with.
    pub(super) fn of(kind: Kind) -> View {
        View {
            kind,
            over: Over::Nothing,
            query: Query::parse("", kind),
            sort: Sort::Total,
            length: LENGTH_DEFAULT,
            all_records: kind == Kind::Letters,
            chosen: None,
            scroll: 0,
            frozen: None,
            message: None,
        }
    }

    /// Takes a key. `board` is the live one.
    pub(super) fn press(&mut self, key: KeyEvent, board: &Board) -> Act {
        if key.kind == KeyEventKind::Release {
            return Act::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Act::Quit,
                KeyCode::Char('z') => return Act::Stop,
                KeyCode::Char('l') => return Act::Anew,
                KeyCode::Char('u') if matches!(self.over, Over::Typing(_)) => self.filter(""),
                _ => {}
            }
            return Act::Draw;
        }
        self.message = None;
        match self.over.clone() {
            Over::Typing(before) => self.type_key(key.code, &before),
            Over::Help => return self.help_key(key.code),
            Over::Record(seen, line) => return self.record_key(key.code, &seen, line, board),
            Over::Nothing => return self.board_key(key.code, board),
        }
        Act::Draw
    }

    fn board_key(&mut self, code: KeyCode, board: &Board) -> Act {
        match code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Char('e') => return Act::Export,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.over = Over::Help,
            KeyCode::Char(' ') => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(Box::new(board.clone())),
                }
            }
            KeyCode::Char('/') => self.over = Over::Typing(self.query.text.clone()),
            KeyCode::Char('s') => {
                self.sort = self.sort.next(self.kind);
                self.scroll = 0;
            }
            KeyCode::Char('w') => self.length = (self.length + 1) % LENGTHS.len(),
            KeyCode::Char('a') if self.kind == Kind::Events => {
                self.all_records = !self.all_records;
                self.chosen = None;
            }
            KeyCode::Esc => {
                self.chosen = None;
                self.scroll = 0;
                self.filter("");
            }
            KeyCode::Up | KeyCode::Char('k') => self.choose(board, -1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(board, 1),
            KeyCode::Enter => self.open(board),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown => {
                let rows = self.lines(self.shown(board)).len();
                self.scroll = (self.scroll + PAGE).min(rows.saturating_sub(1));
            }
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        Act::Draw
    }

    fn help_key(&mut self, code: KeyCode) -> Act {
        if code == KeyCode::Char('q') {
            return Act::Quit;
        }
        self.over = Over::Nothing;
        Act::Draw
    }

    fn record_key(&mut self, code: KeyCode, seen: &Arc<Seen>, line: u16, board: &Board) -> Act {
        let to = |line| Over::Record(Arc::clone(seen), line);
        match code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Esc | KeyCode::Enter => self.over = Over::Nothing,
            KeyCode::Down | KeyCode::Char('j') => self.over = to(line.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.over = to(line.saturating_sub(1)),
            // The neighbours in the list.
            KeyCode::Left | KeyCode::Char('p') => {
                self.choose(board, -1);
                self.open(board);
            }
            KeyCode::Right | KeyCode::Char('n') => {
                self.choose(board, 1);
                self.open(board);
            }
            _ => {}
        }
        Act::Draw
    }

    fn type_key(&mut self, code: KeyCode, before: &str) {
        match code {
            KeyCode::Enter => self.over = Over::Nothing,
            KeyCode::Esc => {
                self.over = Over::Nothing;
                self.filter(before);
            }
            KeyCode::Backspace => {
                let mut text = self.query.text.clone();
                if text.pop().is_none() {
                    self.over = Over::Nothing;
                }
                self.filter(&text);
            }
            KeyCode::Char(c) if self.query.text.chars().count() < QUERY_CHARS_MAX => {
                let text = format!("{}{c}", self.query.text);
                self.filter(&text);
            }
            _ => {}
        }
    }

    fn filter(&mut self, text: &str) {
        self.query = Query::parse(text, self.kind);
        self.scroll = 0;
    }

    /// Returns the board that is shown: the live one, or as it was when it was frozen.
    pub(super) fn shown<'a>(&'a self, board: &'a Board) -> &'a Board {
        self.frozen.as_deref().unwrap_or(board)
    }

    /// Returns the rows of a board that pass, in their order. Rejected records are counted by reason
    /// alone, so there no row can tell how many of its records have a word: all of them pass.
    pub(super) fn lines<'a>(&self, board: &'a Board) -> Vec<Line<'a>> {
        let severities = self.query.severities;
        let rows = board.counts.rows();
        let rows = rows.filter(|(city, event_type, _)| {
            self.kind == Kind::Letters || self.query.takes_row(city, event_type)
        });
        let mut lines: Vec<Line<'_>> = rows
            .map(|(city, event_type, row)| {
                let mut tally = row.severities;
                for (count, shown) in tally.iter_mut().zip(severities) {
                    *count = if shown { *count } else { 0 };
                }
                Line {
                    city,
                    event_type,
                    tally,
                    total: sum(tally, [true; 4]),
                    rate: board.rate(row, severities),
                    row,
                }
            })
            .filter(|line| line.total > 0)
            .collect();
        // Stable: equal rows stay in the order of their names.
        lines.sort_by(|a, b| match self.sort {
            Sort::Total => b.total.cmp(&a.total),
            Sort::Rate => b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total)),
            Sort::Alerts => (b.tally[3], b.tally[2]).cmp(&(a.tally[3], a.tally[2])),
            Sort::Name => Ordering::Equal,
        });
        lines
    }

    /// Returns the records of a board that pass, the newest first.
    pub(super) fn records<'a>(
        &'a self,
        board: &'a Board,
    ) -> impl Iterator<Item = &'a Arc<Seen>> + 'a {
        record_list::list(board, &self.query, self.all_records)
    }

    /// Moves the choice by one record; the first is that at the top.
    fn choose(&mut self, board: &Board, by: i64) {
        let numbers: Vec<u64> = self
            .records(self.shown(board))
            .map(|seen| seen.number)
            .collect();
        let at = self.chosen.map(|chosen| {
            // One that is out of the list has become the last.
            let at = numbers.iter().position(|number| *number <= chosen);
            at.unwrap_or(numbers.len().saturating_sub(1))
        });
        let next = match (at, by) {
            (None, _) => 0,
            (Some(at), by) if by > 0 => (at + 1).min(numbers.len().saturating_sub(1)),
            (Some(at), _) => at.saturating_sub(1),
        };
        self.chosen = numbers.get(next).copied();
    }

    /// Opens the chosen record, or the newest.
    fn open(&mut self, board: &Board) {
        let records: Vec<&Arc<Seen>> = self.records(self.shown(board)).collect();
        let found = match self.chosen {
            None => records.first(),
            // One that is out of the list has become the last.
            Some(chosen) => {
                let found = records.iter().find(|seen| seen.number <= chosen);
                found.or(records.last())
            }
        };
        let Some(seen) = found.map(|seen| Arc::clone(seen)) else {
            self.tell("no record to show", true, board.now_ms);
            return;
        };
        self.chosen = Some(seen.number);
        self.over = Over::Record(seen, 0);
    }

    /// Tells something for a few seconds.
    pub(super) fn tell(&mut self, text: &str, is_error: bool, now_ms: i64) {
        self.message = Some((text.to_owned(), is_error, now_ms + MESSAGE_MS));
    }

    /// Returns what there is to tell at a time, and whether it is an error.
    pub(super) fn message(&self, now_ms: i64) -> Option<(&str, bool)> {
        let told = self
            .message
            .as_ref()
            .filter(|(_, _, until)| now_ms < *until);
        told.map(|(text, is_error, _)| (text.as_str(), *is_error))
    }
}
