//! Tests of the effects of keys on the view, and of the content of the export.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::export;
use super::super::record_kind::RecordKind;
use super::super::view::{Focus, KeyAction, Overlay, ScreenView, Sort};
use super::{NOW_MS, board, dead_letter_board, heading, key, picture, press, text};
use crate::core::event::Severity;
use crate::tail::board::Board;
use crate::tail::board::tests::{event, letter};
use crate::tail::classify::Classified;

/// Adds an event to the board. The time of the event is `n` milliseconds after 2013-01-01T06:00:00Z.
fn add(board: &mut Board, city: &str, kind: &str, severity: Severity, n: i64) {
    board.add(Classified::Event(event(city, kind, severity, n)));
}

#[test]
fn a_frozen_picture_stays_while_counting_continues() {
    let mut board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, " ");
    let before = text(&picture(80, 24, &board, &view));
    for n in 0..1_234 {
        board.add(Classified::Event(event(
            "Oslo",
            "traffic",
            Severity::Critical,
            9_000_000 + n,
        )));
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
fn the_selected_record_stays_selected_while_others_arrive() {
    let mut board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "↓↓↓");
    let chosen = view.chosen;
    assert_eq!(chosen, Some(board.alerts[2].number));
    add(&mut board, "Oslo", "traffic", Severity::High, 20_000_000);
    press(&mut view, &board, "\n");
    let Overlay::Record(record, _) = &view.overlay else {
        panic!("a record is open");
    };
    assert_eq!(Some(record.number), chosen);
    // The key → opens the next record, and then the key Esc returns to the list.
    press(&mut view, &board, "→\u{1b}");
    assert_eq!(view.chosen, Some(board.alerts[4].number));
    assert_eq!(view.overlay, Overlay::Nothing);
    // If the chosen record is no longer in the list, the last record of the list is chosen.
    for n in 0..600 {
        add(
            &mut board,
            "Oslo",
            "traffic",
            Severity::High,
            30_000_000 + n,
        );
    }
    press(&mut view, &board, "\n");
    let Overlay::Record(record, _) = &view.overlay else {
        panic!("a record is open");
    };
    assert_eq!(record.number, board.alerts[499].number);
    // If the list is empty, there is no record to open.
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "/nowhere\n\n");
    assert_eq!(view.overlay, Overlay::Nothing);
    assert_eq!(
        view.message(board.now_ms),
        Some(("no record to show", true))
    );
    assert_eq!(view.message(board.now_ms + 6_000), None);
}

#[test]
fn enter_on_a_row_filters_by_its_names_and_keeps_the_severities() {
    let board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "/crit\n\t↓↓↑");
    let names = |view: &ScreenView, at: usize| {
        let rows = view.rows(&board);
        format!("{} {}", rows[at].city, rows[at].event_type)
    };
    let second = names(&view, 1);
    assert_eq!(view.chosen_row_index(&view.rows(&board)), Some(1));
    // The same row stays chosen when the order of the rows changes.
    press(&mut view, &board, "sss");
    let at = view.chosen_row_index(&view.rows(&board)).unwrap();
    assert_eq!(names(&view, at), second);
    press(&mut view, &board, "\n");
    assert_eq!(view.query.text, format!("{second} critical"));
    assert_eq!((view.focus, view.rows(&board).len()), (Focus::Records, 1));
    press(&mut view, &board, "\u{1b}\t⇟⇟⇟⇟⇟⇟⇟⇟");
    let rows = view.rows(&board);
    assert_eq!(view.chosen_row_index(&rows), Some(rows.len() - 1));
    // The chosen row is visible, and the last line of the table says which rows are visible.
    let shown = text(&picture(80, 24, &board, &view));
    let last = rows.last().unwrap();
    assert!(shown.contains(last.city), "{shown}");
    assert!(
        shown.contains(&format!("–{0} of {0}", rows.len())),
        "{shown}"
    );
}

#[test]
fn a_filter_can_be_applied_dropped_and_edited() {
    let board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "/nyc\n");
    assert_eq!(
        (&*view.query.text, &view.overlay),
        ("nyc", &Overlay::Nothing)
    );
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
fn keys_return_the_action_for_the_screen() {
    let board = board();
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    for over in ["", "?", "\n", "/"] {
        let mut view = ScreenView::new(RecordKind::Events);
        press(&mut view, &board, over);
        assert_eq!(view.press(control('c'), &board), KeyAction::Quit, "{over}");
        assert_eq!(
            view.press(control('z'), &board),
            KeyAction::Suspend,
            "{over}"
        );
        assert_eq!(
            view.press(control('l'), &board),
            KeyAction::Redraw,
            "{over}"
        );
        let quits = view.press(key(KeyCode::Char('q')), &board) == KeyAction::Quit;
        assert_eq!(quits, over != "/", "{over}");
    }
    let mut view = ScreenView::new(RecordKind::Events);
    assert_eq!(
        view.press(key(KeyCode::Char('e')), &board),
        KeyAction::Export
    );
}

#[test]
fn rows_are_sorted_in_the_chosen_order() {
    let board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    for sort in [
        Sort::Total,
        Sort::Rate,
        Sort::Alerts,
        Sort::Name,
        Sort::Total,
    ] {
        assert_eq!(view.sort, sort);
        let lines = view.rows(&board);
        assert_eq!(lines.len(), 12);
        for pair in lines.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            let right = match sort {
                Sort::Total => a.total >= b.total,
                Sort::Rate => a.rate >= b.rate,
                Sort::Alerts => {
                    (a.severities[3], a.severities[2]) >= (b.severities[3], b.severities[2])
                }
                Sort::Name => (a.city, a.event_type) < (b.city, b.event_type),
            };
            assert!(right, "{sort:?} {a:?} {b:?}");
        }
        press(&mut view, &board, "s");
    }
    press(&mut view, &board, "⇟⇟⇟");
    assert_eq!(view.scroll, 11);
    let shown = text(&picture(80, 24, &board, &view));
    let last = view.rows(&board).last().unwrap().event_type;
    assert!(shown.contains(last), "{shown}");
    press(&mut view, &board, "⇞⇞");
    assert_eq!(view.scroll, 0);
}

#[test]
fn an_export_contains_what_is_shown() {
    let board = board();
    let mut view = ScreenView::new(RecordKind::Events);
    press(&mut view, &board, "/paulo high\n");
    let json = export::json(&heading(), &board, &view).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let totals = value["totals"].as_array().unwrap();
    // No weather event in São Paulo has the severity high, so the filter hides the row of the weather events.
    assert_eq!(totals.len(), 2);
    let lines = view.rows(&board);
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
fn dead_letters_are_sorted_exported_and_shown_in_full() {
    let board = dead_letter_board();
    let mut view = ScreenView::new(RecordKind::DeadLetters);
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
    // The export contains the raw value, while the screen shows escapes.
    assert!(records[0]["value"].as_str().unwrap().contains("\r\n"));

    // The user can scroll to the end of a value that is longer than the screen.
    let mut board = Board::new(false, NOW_MS);
    let long = format!("{}the end", "x".repeat(60_000));
    board.add(Classified::DeadLetter(letter(
        "not_json",
        3,
        17,
        Some(long.as_bytes()),
    )));
    let mut view = ScreenView::new(RecordKind::DeadLetters);
    press(&mut view, &board, "\n");
    for _ in 0..1_000 {
        press(&mut view, &board, "↓");
    }
    let shown = text(&picture(80, 24, &board, &view));
    assert!(shown.contains("the end"), "{shown}");
}
