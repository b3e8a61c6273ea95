//! Tests of the whole screen. Each test presses keys and compares the drawn screen with an expected picture.
//!
//! The expected pictures are in `tests/golden/tail`. The command `UPDATE_GOLDEN=1 cargo test --lib tail` replaces the
//! expected pictures with the current pictures. Check the changed picture files before you commit the files.
#![allow(clippy::unwrap_used)]

mod keys;

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::picture::Heading;
use super::record_kind::RecordKind;
use super::view::{KeyAction, Overlay, ScreenView};
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::parse::Reason;
use crate::tail::QUIET_HINT;
use crate::tail::board::tests::{event, letter};
use crate::tail::board::{Board, ReadState};
use crate::tail::classify::Classified;
use crate::tail::printable::width;

const NOW_MS: UnixMs = UnixMs(1_357_027_200_000);

fn heading() -> Heading {
    Heading {
        quiet_hint: None,
        topic: "city-events".to_owned(),
        from: "from the beginning".to_owned(),
        filter: String::new(),
    }
}

/// Returns a board that contains three hours of events. Every call of this function returns the same events.
fn board() -> Board {
    let mut random = fastrand::Rng::with_seed(7);
    let mut board = Board::new(true, NOW_MS);
    let cities = [
        "NYC",
        "NYC",
        "NYC",
        "São Paulo",
        "東京",
        "Llanfairpwllgwyngyll",
    ];
    for n in 0..3_000 {
        let city = cities[random.usize(..cities.len())];
        let kind = ["traffic", "traffic", "weather", "construction"][random.usize(..4)];
        let severity = match random.u32(..100) {
            0..70 => Severity::Low,
            70..88 => Severity::Medium,
            88..96 => Severity::High,
            _ => Severity::Critical,
        };
        let busy = 2_400 + 1_200 * i64::from((n / 300) % 2);
        let mut event = event(city, kind, severity, i64::from(n) * busy);
        event.late = n % 40 == 0;
        event.offset.0 = i64::from(n);
        board.add(Classified::Event(event));
        if n % 1_000 == 0 {
            board.add(Classified::Rejected(Reason::NotJson));
        }
    }
    board.state = ReadState::Reading(0);
    board.tick(NOW_MS);
    board.tick(NOW_MS + 60_000);
    board
}

/// Returns a board that contains 90 minutes of dead letters. Every call of this function returns the same dead letters.
fn dead_letter_board() -> Board {
    let mut random = fastrand::Rng::with_seed(7);
    let mut board = Board::new(false, NOW_MS);
    let reasons = [
        "not_json",
        "not_json",
        "not_json",
        "bad_timestamp",
        "bad_city",
    ];
    for n in 0..1_200 {
        let partition = random.i32(0..6);
        let (reason, value) = match n {
            1_190 => ("empty", None),
            1_196 => (
                "refused_by_table",
                Some("{\"city\":\"東京\",\"event_type\":\"traffic\"}"),
            ),
            _ => {
                let value = "{\"city\":\"NYC\",\r\n\"event_type\":\u{1b}[2Jtraffic, a long one that goes on and on";
                (reasons[random.usize(..reasons.len())], Some(value))
            }
        };
        let offset = i64::from(n) * 4 + i64::from((n / 300) % 2) * 300;
        let mut letter = letter(reason, partition, offset, value.map(str::as_bytes));
        // Each dead letter gets a different topic id, because two dead letters with the same topic id, partition and
        // offset would count as repeats.
        let topic_id = letter
            .headers
            .iter_mut()
            .find(|(name, _)| name == "source_topic_id");
        topic_id.unwrap().1 = n.to_string();
        board.add(Classified::DeadLetter(letter));
    }
    board.state = ReadState::Reading(0);
    board.tick(NOW_MS);
    board.tick(NOW_MS + 60_000);
    board
}

fn picture(columns: u16, lines: u16, board: &Board, view: &ScreenView) -> Buffer {
    let mut buf = Buffer::empty(Rect::new(0, 0, columns, lines));
    let mut heading = heading();
    if view.kind == RecordKind::DeadLetters {
        heading.topic.push_str("-dlq");
    }
    draw(&mut buf, &heading, board, view);
    buf
}

/// Returns a drawn screen as the text that a terminal would show.
fn text(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buf.area.height {
        let (mut line, mut x) = (String::new(), 0);
        while x < buf.area.width {
            let symbol = buf[(x, y)].symbol();
            line.push_str(symbol);
            // The second half of a wide character occupies a separate cell of the buffer.
            x += u16::try_from(width(symbol)).unwrap().max(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn golden(name: &str, found: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tail");
    let path = folder.join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(path, found).unwrap();
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == found, "{name} should be\n{want}\nand is\n{found}");
}

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn press(view: &mut ScreenView, board: &Board, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '→' => KeyCode::Right,
            '⇟' => KeyCode::PageDown,
            '⇞' => KeyCode::PageUp,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        assert_eq!(view.press(key(code), board), KeyAction::Draw, "{c}");
    }
}

#[test]
fn pictures_at_three_widths() {
    let board = board();
    for (width, height) in [(40, 20), (80, 24), (200, 45)] {
        let picture = picture(width, height, &board, &ScreenView::new(RecordKind::Events));
        golden(&format!("live-{width}x{height}.txt"), &text(&picture));
    }
}

#[test]
fn pictures_of_overlays_and_filters() {
    let board = board();
    for (name, keys, size) in [
        ("help-80x24", "?", (80, 24)),
        ("help-40x20", "?", (40, 20)),
        ("record-80x24", "↓↓↓\n", (80, 24)),
        ("record-40x20", "a\n", (40, 20)),
        ("filter-80x24", "/paulo crit", (80, 24)),
        ("filtered-80x24", "/paulo crit\nssw", (80, 24)),
        ("nothing-80x24", "/nowhere\n", (80, 24)),
        ("events-80x24", "asww↓↓", (80, 24)),
        ("rows-80x24", "\t↓↓", (80, 24)),
    ] {
        let mut view = ScreenView::new(RecordKind::Events);
        press(&mut view, &board, keys);
        let picture = picture(size.0, size.1, &board, &view);
        golden(&format!("{name}.txt"), &text(&picture));
    }
}

#[test]
fn a_city_that_no_event_has_brings_a_suggestion() {
    let mut board = Board::new(true, NOW_MS);
    board.state = ReadState::Reading(0);
    board.hint = Some("city nyc: none so far; did you mean NYC?".to_owned());
    let picture = picture(40, 20, &board, &ScreenView::new(RecordKind::Events));
    golden("hint-40x20.txt", &text(&picture));
}

#[test]
fn pictures_of_dead_letters() {
    let board = dead_letter_board();
    for (name, keys, size) in [
        ("live-80x24", "", (80, 24)),
        ("live-40x20", "", (40, 20)),
        ("live-200x45", "", (200, 45)),
        // Dead letters have no alerts, so the key `a` does nothing.
        ("help-80x24", "a?", (80, 24)),
        ("help-40x20", "a?", (40, 20)),
        ("record-80x24", "↓↓↓↓↓\n", (80, 24)),
        ("record-40x20", "\n", (40, 20)),
        ("filtered-80x24", "/refused 東京\nssw", (80, 24)),
    ] {
        let mut view = ScreenView::new(RecordKind::DeadLetters);
        press(&mut view, &board, keys);
        let picture = picture(size.0, size.1, &board, &view);
        golden(&format!("dlq-{name}.txt"), &text(&picture));
    }
}

#[test]
fn pictures_of_an_empty_log_and_of_waiting() {
    let mut board = Board::new(false, NOW_MS);
    let view = ScreenView::new(RecordKind::Events);
    let check = |name, width, height, board: &Board| {
        golden(name, &text(&picture(width, height, board, &view)));
    };
    check("waiting-80x24.txt", 80, 24, &board);
    board.state = ReadState::Waiting(
        "there is no topic city-events; citystream init-tables creates it".to_owned(),
    );
    check("missing-60x10.txt", 60, 10, &board);
    board.state = ReadState::Reading(0);
    check("empty-80x24.txt", 80, 24, &board);
    let quiet = Heading {
        from: "from now on".to_owned(),
        quiet_hint: Some(QUIET_HINT),
        ..heading()
    };
    let mut buf = Buffer::empty(Rect::new(0, 0, 80, 24));
    draw(&mut buf, &quiet, &board, &view);
    assert!(text(&buf).contains("--from beginning"));
}

/// Checks screens of every size: drawing does not panic, no line is too wide, and the counts are visible.
#[test]
fn the_screen_can_be_drawn_at_every_size() {
    for (kind, board, sum, row) in [
        (RecordKind::Events, board(), "3,000 events", "NYC"),
        (
            RecordKind::DeadLetters,
            dead_letter_board(),
            "1,200 rejected",
            "not_json",
        ),
    ] {
        let mut views = vec![ScreenView::new(kind)];
        for keys in ["?", "\n", "a\n", "/nyc", " ", "↓↓⇟"] {
            let mut view = ScreenView::new(kind);
            press(&mut view, &board, keys);
            views.push(view);
        }
        for columns in (1..=60).chain([79, 80, 81, 100, 120, 149, 150, 151, 200, 300]) {
            for lines in (1..=30).chain([40, 60, 100]) {
                for view in &views {
                    let shown = text(&picture(columns, lines, &board, view));
                    let widest = shown.lines().map(width).max().unwrap();
                    assert!(widest <= usize::from(columns), "{columns}×{lines}");
                    let roomy = columns >= 40 && lines >= 7;
                    if roomy && view.query.is_empty() && matches!(view.overlay, Overlay::Nothing) {
                        assert!(shown.contains(sum), "{columns}×{lines}\n{shown}");
                        let top = view.scroll > 0 || shown.contains(row);
                        assert!(top, "{columns}×{lines}\n{shown}");
                    }
                }
            }
        }
    }
}

#[test]
fn severities_have_colors_and_the_chosen_record_is_reversed() {
    let board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "↓↓");
    let buf = picture(80, 50, &board, &view);
    let shown = text(&buf);
    let (mut critical, mut inverse) = (0, 0);
    for (y, line) in (0..).zip(shown.lines()) {
        let at = line.find("critical ").filter(|_| y > 3);
        if let Some(at) = at.map(|at| u16::try_from(at).unwrap()) {
            assert_eq!(buf[(at, y)].fg, Color::Red, "{line}");
            critical += 1;
        }
        inverse += u32::from(buf[(0, y)].modifier.contains(Modifier::REVERSED));
    }
    assert!(critical > 0, "{shown}");
    assert_eq!(inverse, 1);
}
