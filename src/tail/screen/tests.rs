//! The screen as a whole: keys in, pictures out.
//!
//! Pictures stand in `tests/golden/tail`; `UPDATE_GOLDEN=1 cargo test --lib tail` writes them anew, to be
//! looked at before they are committed.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::draw::{Heading, draw};
use super::export;
use super::view::{Act, Kind, Over, Sort, View};
use crate::core::event::Severity;
use crate::core::parse::Reason;
use crate::tail::board::tests::{letter, said};
use crate::tail::board::{Board, State};
use crate::tail::classify::Said;

const NOW_MS: i64 = 1_357_027_200_000;

fn heading() -> Heading {
    Heading {
        topic: "city-events".to_owned(),
        from: "from the beginning".to_owned(),
        filter: String::new(),
    }
}

/// Two hours of events, the same at each call.
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
        let Said::Event(mut seen) = said(city, kind, severity, i64::from(n) * busy) else {
            unreachable!("it is an event");
        };
        seen.late = n % 40 == 0;
        seen.offset.0 = i64::from(n);
        board.take(Said::Event(seen));
        if n % 1_000 == 0 {
            board.take(Said::Rejected(Reason::NotJson));
        }
    }
    board.state = State::Reading(0);
    board.tick(NOW_MS);
    board.tick(NOW_MS + 60_000);
    board
}

/// An hour and a half of dead letters, the same at each call.
fn letters() -> Board {
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
        // Some have the same offset, and none is to be a repeat.
        let topic_id = letter
            .headers
            .iter_mut()
            .find(|(name, _)| name == "source_topic_id");
        topic_id.unwrap().1 = n.to_string();
        board.take(Said::Letter(letter));
    }
    board.state = State::Reading(0);
    board.tick(NOW_MS);
    board.tick(NOW_MS + 60_000);
    board
}

fn picture(width: u16, height: u16, board: &Board, view: &View) -> Buffer {
    let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
    let mut heading = heading();
    if view.kind == Kind::Letters {
        heading.topic.push_str("-dlq");
    }
    draw(&mut buf, &heading, board, view);
    buf
}

/// Returns the picture as text, as a terminal would show it.
fn text(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buf.area.height {
        let (mut line, mut x) = (String::new(), 0);
        while x < buf.area.width {
            let symbol = buf[(x, y)].symbol();
            line.push_str(symbol);
            // The second half of a wide character is a cell of its own.
            x += u16::try_from(super::text::width(symbol)).unwrap().max(1);
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

fn press(view: &mut View, board: &Board, keys: &str) {
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
            c => KeyCode::Char(c),
        };
        assert_eq!(view.press(key(code), board), Act::Draw, "{c}");
    }
}

#[test]
fn pictures_at_three_widths() {
    let board = board();
    for (width, height) in [(40, 20), (80, 24), (200, 45)] {
        let picture = picture(width, height, &board, &View::of(Kind::Events));
        golden(&format!("live-{width}x{height}.txt"), &text(&picture));
    }
}

#[test]
fn pictures_of_what_keys_bring_up() {
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
    ] {
        let mut view = View::of(Kind::Events);
        press(&mut view, &board, keys);
        let picture = picture(size.0, size.1, &board, &view);
        golden(&format!("{name}.txt"), &text(&picture));
    }
}

#[test]
fn a_city_that_no_event_has_is_told() {
    let mut board = Board::new(true, NOW_MS);
    board.state = State::Reading(0);
    board.hint = Some("city nyc: none so far; did you mean NYC?".to_owned());
    let picture = picture(40, 20, &board, &View::of(Kind::Events));
    golden("absent-40x20.txt", &text(&picture));
}

#[test]
fn pictures_of_rejected_records() {
    let board = letters();
    for (name, keys, size) in [
        ("live-80x24", "", (80, 24)),
        ("live-40x20", "", (40, 20)),
        ("live-200x45", "", (200, 45)),
        // No severities and no alerts here: `a` does nothing.
        ("help-80x24", "a?", (80, 24)),
        ("help-40x20", "a?", (40, 20)),
        ("record-80x24", "↓↓↓↓↓\n", (80, 24)),
        ("record-40x20", "\n", (40, 20)),
        ("filtered-80x24", "/refused 東京\nssw", (80, 24)),
    ] {
        let mut view = View::of(Kind::Letters);
        press(&mut view, &board, keys);
        let picture = picture(size.0, size.1, &board, &view);
        golden(&format!("dlq-{name}.txt"), &text(&picture));
    }
}

#[test]
fn pictures_of_an_empty_log_and_of_a_wait() {
    let mut board = Board::new(false, NOW_MS);
    golden(
        "waiting-80x24.txt",
        &text(&picture(80, 24, &board, &View::of(Kind::Events))),
    );
    board.state =
        State::Waiting("there is no topic city-events; citystream init-tables makes it".to_owned());
    golden(
        "missing-60x10.txt",
        &text(&picture(60, 10, &board, &View::of(Kind::Events))),
    );
    board.state = State::Reading(0);
    golden(
        "empty-80x24.txt",
        &text(&picture(80, 24, &board, &View::of(Kind::Events))),
    );
}

/// Whatever its size, nothing panics, no line is wider than the screen, and the counts are there.
#[test]
fn every_size_is_drawn() {
    for (kind, board, sum, row) in [
        (Kind::Events, board(), "3,000 events", "NYC"),
        (Kind::Letters, letters(), "1,200 rejected", "not_json"),
    ] {
        let mut views = vec![View::of(kind)];
        for keys in ["?", "\n", "a\n", "/nyc", " ", "↓↓⇟"] {
            let mut view = View::of(kind);
            press(&mut view, &board, keys);
            views.push(view);
        }
        for width in (1..=60).chain([79, 80, 81, 100, 120, 149, 150, 151, 200, 300]) {
            for height in (1..=30).chain([40, 60, 100]) {
                for view in &views {
                    let shown = text(&picture(width, height, &board, view));
                    let widest = shown.lines().map(super::text::width).max().unwrap();
                    assert!(widest <= usize::from(width), "{width}×{height}");
                    let roomy = width >= 40 && height >= 7;
                    if roomy && view.query.is_empty() && matches!(view.over, Over::Nothing) {
                        assert!(shown.contains(sum), "{width}×{height}\n{shown}");
                        let top = view.scroll > 0 || shown.contains(row);
                        assert!(top, "{width}×{height}\n{shown}");
                    }
                }
            }
        }
    }
}

#[test]
fn severities_have_their_colours_and_the_chosen_record_is_inverse() {
    let board = board();
    let mut view = View::of(Kind::Events);
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

#[test]
fn a_frozen_picture_stays_while_counting_goes_on() {
    let mut board = board();
    let mut view = View::of(Kind::Events);
    press(&mut view, &board, " ");
    let before = text(&picture(80, 24, &board, &view));
    for n in 0..1_234 {
        board.take(said("Oslo", "traffic", Severity::Critical, 9_000_000 + n));
    }
    board.tick(NOW_MS + 100_000);
    let after = text(&picture(80, 24, &board, &view));
    assert!(before.contains(" frozen, 0 since") && after.contains(" frozen, 1,234 since"));
    let rest = |picture: &str| picture.split_once('\n').unwrap().1.to_owned();
    assert_eq!(rest(&before), rest(&after));
    press(&mut view, &board, " ");
    assert!(text(&picture(80, 24, &board, &view)).contains("4,234 events"));
}

#[test]
fn a_choice_stays_with_its_record_while_others_come() {
    let mut board = board();
    let mut view = View::of(Kind::Events);
    press(&mut view, &board, "↓↓↓");
    let chosen = view.chosen;
    assert_eq!(chosen, Some(board.alerts[2].number));
    board.take(said("Oslo", "traffic", Severity::High, 0));
    press(&mut view, &board, "\n");
    let Over::Record(seen, _) = &view.over else {
        panic!("a record is open");
    };
    assert_eq!(Some(seen.number), chosen);
    // The neighbour, and back to the list.
    press(&mut view, &board, "→\u{1b}");
    assert_eq!(view.chosen, Some(board.alerts[4].number));
    assert_eq!(view.over, Over::Nothing);
    // One that has left the list: the last takes its place.
    for n in 0..600 {
        board.take(said("Oslo", "traffic", Severity::High, n));
    }
    press(&mut view, &board, "\n");
    let Over::Record(seen, _) = &view.over else {
        panic!("a record is open");
    };
    assert_eq!(seen.number, board.alerts[499].number);
    // Without any record there is nothing to open.
    let mut view = View::of(Kind::Events);
    press(&mut view, &board, "/nowhere\n\n");
    assert_eq!(view.over, Over::Nothing);
    assert_eq!(
        view.message(board.now_ms),
        Some(("no record to show", true))
    );
    assert_eq!(view.message(board.now_ms + 6_000), None);
}

#[test]
fn a_filter_can_be_kept_dropped_and_corrected() {
    let board = board();
    let mut view = View::of(Kind::Events);
    press(&mut view, &board, "/nyc\n");
    assert_eq!((&*view.query.text, &view.over), ("nyc", &Over::Nothing));
    press(&mut view, &board, "/x\u{8} q?\u{1b}");
    assert_eq!(view.query.text, "nyc");
    let control = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    press(&mut view, &board, "/");
    view.press(control, &board);
    press(&mut view, &board, "la\n");
    assert_eq!(view.query.text, "la");
    press(&mut view, &board, "\u{1b}");
    assert!(view.query.is_empty());
    press(&mut view, &board, &format!("/{}\n", "x".repeat(200)));
    assert_eq!(view.query.text.len(), 80);
}

#[test]
fn keys_that_leave_stop_or_write_say_so() {
    let board = board();
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    for over in ["", "?", "\n", "/"] {
        let mut view = View::of(Kind::Events);
        press(&mut view, &board, over);
        assert_eq!(view.press(control('c'), &board), Act::Quit, "{over}");
        assert_eq!(view.press(control('z'), &board), Act::Stop, "{over}");
        assert_eq!(view.press(control('l'), &board), Act::Anew, "{over}");
        let quits = view.press(key(KeyCode::Char('q')), &board) == Act::Quit;
        assert_eq!(quits, over != "/", "{over}");
    }
    let mut view = View::of(Kind::Events);
    assert_eq!(view.press(key(KeyCode::Char('e')), &board), Act::Export);
}

#[test]
fn rows_come_in_the_order_that_is_asked_for() {
    let board = board();
    let mut view = View::of(Kind::Events);
    for sort in [
        Sort::Total,
        Sort::Rate,
        Sort::Alerts,
        Sort::Name,
        Sort::Total,
    ] {
        assert_eq!(view.sort, sort);
        let lines = view.lines(&board);
        assert_eq!(lines.len(), 12);
        for pair in lines.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            let right = match sort {
                Sort::Total => a.total >= b.total,
                Sort::Rate => a.rate >= b.rate,
                Sort::Alerts => (a.tally[3], a.tally[2]) >= (b.tally[3], b.tally[2]),
                Sort::Name => (a.city, a.event_type) < (b.city, b.event_type),
            };
            assert!(right, "{sort:?} {a:?} {b:?}");
        }
        press(&mut view, &board, "s");
    }
    press(&mut view, &board, "⇟⇟⇟");
    assert_eq!(view.scroll, 11);
    let shown = text(&picture(80, 24, &board, &view));
    let last = view.lines(&board).last().unwrap().event_type;
    assert!(shown.contains(last), "{shown}");
    press(&mut view, &board, "⇞⇞");
    assert_eq!(view.scroll, 0);
}

#[test]
fn an_export_holds_what_is_shown() {
    let board = board();
    let mut view = View::of(Kind::Events);
    press(&mut view, &board, "/paulo high\n");
    let json = export::json(&heading(), &board, &view).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let totals = value["totals"].as_array().unwrap();
    // Of its weather none is high.
    assert_eq!(totals.len(), 2);
    let lines = view.lines(&board);
    let (mut sum, mut windows, mut alerts) = (0, 0, 0);
    for (total, line) in totals.iter().zip(&lines) {
        assert_eq!(total["city"], "São Paulo");
        assert_eq!(total["severity_high"], line.total);
        assert_eq!(total["severity_low"], 0);
        sum += line.total;
    }
    for window in value["windows"].as_array().unwrap() {
        windows += window["event_count"].as_u64().unwrap();
        alerts += window["alert_count"].as_u64().unwrap();
    }
    assert_eq!(
        (value["events"].as_u64(), windows, alerts),
        (Some(sum), sum, sum)
    );
    assert_eq!(value["rejected"]["not_json"], 3);
    assert_eq!(
        (&value["window"], &value["filter"]),
        (&"5 minutes".into(), &"paulo high".into())
    );
    let records = value["records"].as_array().unwrap();
    assert_eq!(records.len(), view.records(&board).count());
    assert_eq!(records[0]["severity"], "high");
    assert!(records[0]["offset"].is_u64());
}

#[test]
fn rejected_records_are_sorted_exported_and_shown_in_full() {
    let board = letters();
    let mut view = View::of(Kind::Letters);
    for sort in [Sort::Total, Sort::Rate, Sort::Name, Sort::Total] {
        assert_eq!(view.sort, sort);
        press(&mut view, &board, "s");
    }
    press(&mut view, &board, "/bad_\n");
    let json = export::json(&heading(), &board, &view).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let sum = |list: &str| {
        let counts = value[list].as_array().unwrap().iter();
        let counts = counts.map(|of| of["rejected_count"].as_u64().unwrap());
        counts.sum::<u64>()
    };
    assert_eq!((sum("totals"), sum("windows")), (1_200, 1_200));
    assert_eq!(value["rejected"], 1_200);
    let records = value["records"].as_array().unwrap();
    assert_eq!(records.len(), view.records(&board).count());
    assert!(!records.is_empty() && records.len() < 500);
    for record in records {
        assert!(record["reason"].as_str().unwrap().starts_with("bad_"));
        assert_eq!(record["source_topic"], "city-events");
    }
    // The whole value, although the picture shows escapes.
    assert!(records[0]["value"].as_str().unwrap().contains("\r\n"));

    // A value of two lines and more than a screen is there to its last character.
    let mut board = Board::new(false, NOW_MS);
    let long = format!("{}the end", "x".repeat(60_000));
    board.take(Said::Letter(letter(
        "not_json",
        3,
        17,
        Some(long.as_bytes()),
    )));
    let mut view = View::of(Kind::Letters);
    press(&mut view, &board, "\n");
    for _ in 0..1_000 {
        press(&mut view, &board, "↓");
    }
    let shown = text(&picture(80, 24, &board, &view));
    assert!(shown.contains("the end"), "{shown}");
}
