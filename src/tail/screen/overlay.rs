//! Draws overlays on top of the live screen: the help for the keys, and the full record.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Widget as _};

use super::format::{bold, count, dim, exact_time, severity_style};
use super::record_kind::RecordKind;
use crate::core::clock::UnixMs;
use crate::core::keys::event_id;
use crate::core::parse::VALUE_BYTES_MAX;
use crate::kafka::reader::Letter;
use crate::tail::board::{ListedRecord, RecordContent};
use crate::tail::classify::TailEvent;
use crate::tail::dead_letters;
use crate::tail::printable::{fit, wrap};

/// Maximum width of an overlay, in columns.
const COLUMNS_MAX: u16 = 96;
/// Maximum number of characters that the screen shows of a dead letter's value. The constant equals the maximum size of
/// a valid event, in bytes.
const VALUE_CHARS_MAX: usize = VALUE_BYTES_MAX;
/// The key that switches between alerts and all events. For dead letters, the key `a` does nothing, because dead
/// letters have no alerts.
const ALERTS_KEY: &str = "a";

/// The keys of the live screen, each with its effect. Each description has at most 25 characters, so that the help fits
/// on a screen of 40 columns.
const KEYS: [(&str, &str); 15] = [
    ("q", "leave, keep the counts"),
    ("space", "freeze or continue"),
    ("/", "filter by words"),
    ("esc", "drop filter and choice"),
    ("s", "sort order of the rows"),
    ("w", "length of the windows"),
    (ALERTS_KEY, "alerts only, or all"),
    ("↑ ↓", "choose a record or row"),
    ("tab", "among records or rows"),
    ("enter", "show record, filter row"),
    ("← →", "previous or next record"),
    ("PgUp PgDn", "scroll the rows"),
    ("e", "export to a JSON file"),
    ("Ctrl-Z", "suspend until fg"),
    ("Ctrl-L", "redraw the screen"),
];
/// Width of the column with the key names in the help, in columns of the terminal.
const KEY_COLUMNS: usize = 11;
/// Number of columns for the field names of a record.
const FIELD_COLUMNS: usize = 10;

/// Draws the help for the keys.
pub(super) fn help(buf: &mut Buffer, area: Rect, kind: RecordKind) {
    let keys = KEYS.iter();
    let keys = keys.filter(|(key, _)| kind == RecordKind::Events || *key != ALERTS_KEY);
    let lines = keys.map(|(key, action)| {
        let key = fit(key, KEY_COLUMNS, false);
        Line::from(vec![Span::styled(key, bold()), Span::raw(*action)])
    });
    let lines: Vec<Line<'_>> = lines.collect();
    draw_box(buf, area, " keys ", &lines, 0, " any key closes this ");
}

/// Draws a complete record, scrolled down by `scroll` lines.
pub(super) fn record(
    buf: &mut Buffer,
    area: Rect,
    record: &ListedRecord,
    scroll: u16,
    topic: &str,
) {
    let (name, fields) = match &record.content {
        RecordContent::Event(event) => ("event", event_fields(event, topic)),
        RecordContent::DeadLetter(letter) => ("rejected record", letter_fields(letter)),
    };
    let inner = usize::from(area.width.min(COLUMNS_MAX).saturating_sub(4));
    let columns = inner.saturating_sub(FIELD_COLUMNS).max(1);
    let lines = fields.iter().flat_map(|(name, text, style)| {
        let parts = wrap(text, columns).into_iter().enumerate();
        parts.map(|(at, part)| {
            let name = fit(if at == 0 { name } else { "" }, FIELD_COLUMNS, false);
            Line::from(vec![Span::styled(name, dim()), Span::styled(part, *style)])
        })
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let title = format!(" {name} {} ", count(record.number));
    draw_box(buf, area, &title, &lines, scroll, " ← → next  esc close ");
}

/// A field of a record: the name, the text, and the style of the text. The text may have many lines.
type RecordField = (&'static str, String, Style);

fn event_fields(event: &TailEvent, topic: &str) -> Vec<RecordField> {
    let (partition, offset) = (event.partition, event.offset);
    let (is_late, is_future, record_ms) = (event.late, event.future, event.record_ms);
    let event = &event.event;
    let plain = Style::new();
    let record = match record_ms {
        Some(ms) => {
            let delay = delay_text(ms - event.time_ms);
            format!("{}, {delay} the event", exact_time(ms))
        }
        None => "without a timestamp".to_owned(),
    };
    let severity = event.severity.name().to_owned();
    let place = format!("partition {partition}, offset {offset}");
    let mut fields: Vec<RecordField> = vec![
        ("city", event.city.to_string(), bold()),
        ("type", event.event_type.to_string(), plain),
        ("severity", severity, severity_style(event.severity)),
        ("time", exact_time(event.time_ms), plain),
        ("record", record, plain),
        ("event id", event_id(event, topic, partition, offset), plain),
        ("place", place, plain),
    ];
    if is_late {
        let text = "late: it counts in the totals, but not in its window";
        fields.push(("", text.to_owned(), bold()));
    }
    if is_future {
        let text = "future: its time is too far after its record's timestamp";
        fields.push(("", text.to_owned(), bold()));
    }
    if !event.description.is_empty() {
        fields.push(("text", event.description.to_string(), plain));
    }
    if let Some(extra) = &event.extra {
        fields.push(("extra", extra.to_string(), plain));
    }
    fields
}

fn letter_fields(letter: &Letter) -> Vec<RecordField> {
    let time = |ms: Option<UnixMs>| ms.map_or_else(|| "without a timestamp".to_owned(), exact_time);
    let plain = Style::new();
    let [topic, partition, offset] = dead_letters::origin(letter);
    let place = format!("{topic}, partition {partition}, offset {offset}");
    let kept_at = format!("partition {}, offset {}", letter.partition, letter.offset);
    let mut fields: Vec<RecordField> = vec![
        ("reason", dead_letters::reason(letter).to_owned(), bold()),
        ("detail", dead_letters::detail(letter).to_owned(), plain),
        ("place", place, plain),
        ("record", time(dead_letters::source_ms(letter)), plain),
        ("rejected", time(letter.record_ms), plain),
        ("kept at", kept_at, plain),
    ];
    if let Some(key) = dead_letters::key(letter) {
        fields.push(("key", key, plain));
    }
    for (name, value) in dead_letters::own_headers(letter) {
        fields.push(("header", format!("{name}: {value}"), plain));
    }
    let value = dead_letters::content(letter, VALUE_CHARS_MAX);
    fields.push(("value", value, plain));
    fields
}

/// Returns a delay as text, such as `1.5 s after` or, if the delay is negative, `2 h before`.
fn delay_text(ms: i64) -> String {
    let word = if ms < 0 { "before" } else { "after" };
    let text = match ms.abs() {
        size @ 0..1_000 => format!("{size} ms"),
        size @ 1_000..120_000 => format!("{}.{} s", size / 1_000, size % 1_000 / 100),
        size @ 120_000..7_200_000 => format!("{} min", size / 60_000),
        size @ 7_200_000..172_800_000 => format!("{} h", size / 3_600_000),
        size => format!("{} days", count((size / 86_400_000).unsigned_abs())),
    };
    format!("{text} {word}")
}

/// Draws a box in the middle of an area. The box skips the first `scroll` lines of its text, and shows as many of the
/// remaining lines as fit.
fn draw_box(
    buf: &mut Buffer,
    area: Rect,
    title: &str,
    lines: &[Line<'_>],
    scroll: u16,
    hint: &str,
) {
    let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let width = area.width.min(COLUMNS_MAX);
    let height = area.height.min(count.saturating_add(2));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buf);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .title_top(Line::styled(title, bold()))
        .title_bottom(Line::styled(hint, dim()).right_aligned());
    let inner = block.inner(place);
    block.render(place, buf);
    let first = scroll.min(count.saturating_sub(inner.height));
    for (y, line) in (inner.y..inner.bottom()).zip(&lines[usize::from(first)..]) {
        let width = inner.width.saturating_sub(2);
        buf.set_line(inner.x + 1, y, line, width);
    }
}
