//! Pieces of text for the screen: numbers, times, and words cut to a width.

use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthChar as _;

use crate::core::event::Severity;
use crate::core::time::{format_millis, format_seconds};
use crate::tail::event_line::push_printable;

/// How a severity looks. The terminal's own colours, so that they fit its background.
pub(super) fn of_severity(severity: Severity) -> Style {
    match severity {
        Severity::Low => Style::new().fg(Color::Blue),
        Severity::Medium => Style::new().fg(Color::Cyan),
        Severity::High => Style::new().fg(Color::Yellow),
        Severity::Critical => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// How labels look, beside what they stand for.
pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// How what matters looks.
pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// A severity's name as columns are headed.
pub(super) const fn short_severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "med",
        Severity::High => "high",
        Severity::Critical => "crit",
    }
}

/// Returns `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number in at most five columns, such as `9,999`, `12.3k`, `123k` or `4.5M`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn short_count(number: u64) -> String {
    if number < 10_000 {
        return count(number);
    }
    let mut value = number as f64;
    for unit in ["k", "M", "G", "T", "P"] {
        value /= 1_000.0;
        // Neither may round up to a column more.
        if value < 99.95 {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
    }
    "lots".to_owned()
}

/// Returns events a second: `0`, `0.25`, `12.3`, `1,234`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second <= 0.0 {
        "0".to_owned()
    } else if per_second < 9.95 {
        format!("{per_second:.2}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else if per_second < 99.5 {
        format!("{per_second:.1}")
    } else {
        // Not negative, and far below the largest number.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        count(per_second.round() as u64)
    }
}

/// How much of a time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// `22:54:07`
    Time,
    /// `01-31 22:54:07`
    Day,
    /// `2013-01-31 22:54:07`
    Date,
}

/// Returns a time in UTC.
pub(super) fn time(ms: i64, detail: Detail) -> String {
    let text = format_seconds(ms).replace('T', " ");
    let from = match detail {
        Detail::Time => 11,
        Detail::Day => 5,
        Detail::Date => 0,
    };
    text.get(from..19).unwrap_or_default().to_owned()
}

/// Returns a time with its milliseconds.
pub(super) fn exact_time(ms: i64) -> String {
    format_millis(ms).replace('T', " ").replace('Z', " UTC")
}

/// Returns text that fits into so many columns, with `…` at its end if it had to be cut, and
/// nothing in it that could play with the terminal.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut printable = String::with_capacity(text.len());
    push_printable(&mut printable, text);
    if width(&printable) <= columns {
        return printable;
    }
    let mut out = String::new();
    let mut used = 0;
    for c in printable.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Returns the columns that text takes.
pub(super) fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Returns text cut or filled up to a width: to the left, or to the right for numbers.
pub(super) fn fit(text: &str, columns: usize, to_the_right: bool) -> String {
    let text = cut(text, columns);
    let space = " ".repeat(columns.saturating_sub(width(&text)));
    if to_the_right {
        space + &text
    } else {
        text + &space
    }
}

/// Returns lines of at most so many columns, broken at spaces where there are any.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut printable = String::with_capacity(text.len());
    push_printable(&mut printable, text);
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in printable.split_inclusive(' ') {
        if used > 0 && used + width(word.trim_end()) > columns {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
            used = 0;
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > columns && used > 0 {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            // A space at which a line breaks has done its work.
            if c == ' ' && used == 0 && !lines.is_empty() {
                continue;
            }
            line.push(c);
            used += wide;
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_little_room() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), want);
        }
        for (number, want) in [
            (9_999, "9,999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (123_456_789, "123M"),
            (u64::MAX, "lots"),
        ] {
            assert_eq!(short_count(number), want);
            assert!(width(want) <= 5);
        }
        for (number, want) in [
            (0.0, "0"),
            (0.2, "0.2"),
            (0.25, "0.25"),
            (9.94, "9.94"),
            (9.96, "10.0"),
            (99.6, "100"),
            (1_234.4, "1,234"),
        ] {
            assert_eq!(rate(number), want);
        }
    }

    #[test]
    fn text_is_cut_by_columns_not_by_characters() {
        for (text, columns, want) in [
            ("traffic", 7, "traffic"),
            ("traffic", 6, "traff…"),
            ("東京都庁", 8, "東京都庁"),
            ("東京都庁", 7, "東京都…"),
            ("東京都庁", 6, "東京…"),
            ("ab", 1, "…"),
            ("ab", 0, ""),
            ("a\u{1b}[1m", 12, "a\\u{1b}[1m"),
        ] {
            assert_eq!(cut(text, columns), want);
            assert!(width(want) <= columns);
        }
        assert_eq!(fit("7", 3, true), "  7");
        assert_eq!(fit("東", 3, false), "東 ");
    }

    #[test]
    fn lines_break_at_spaces_where_there_are_any() {
        assert_eq!(wrap("to be or not", 6), ["to be", "or not"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a\nb", 10), ["a\\nb"]);
        for columns in 1..12 {
            let lines = wrap("one 東京 \u{1b}, a-very-long-word and so on", columns);
            let longest = lines.iter().map(|line| width(line)).max();
            assert!(longest <= Some(columns.max(2)), "{lines:?}");
        }
    }

    #[test]
    fn times_are_utc() {
        let ms = 1_359_672_847_123;
        assert_eq!(time(ms, Detail::Time), "22:54:07");
        assert_eq!(time(ms, Detail::Day), "01-31 22:54:07");
        assert_eq!(time(ms, Detail::Date), "2013-01-31 22:54:07");
        assert_eq!(exact_time(ms), "2013-01-31 22:54:07.123 UTC");
    }
}
