//! Formats numbers, times and severities for the screen.

use indicatif::HumanCount;
use ratatui::style::{Color, Modifier, Style};

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::time::{format_millis, format_seconds};

/// Minimum screen width at which words are not abbreviated, in columns.
pub(super) const ROOMY_COLUMNS: u16 = 60;

/// Returns the style of a severity. The style uses the terminal's palette, whose colors fit the terminal's background.
pub(super) fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Low => Style::new().fg(Color::Blue),
        Severity::Medium => Style::new().fg(Color::Cyan),
        Severity::High => Style::new().fg(Color::Yellow),
        Severity::Critical => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// Returns the text style of labels.
pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// Returns the text style of values and titles.
pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Returns the name of a severity, shortened to at most four columns.
pub(super) const fn short_severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "med",
        Severity::High => "high",
        Severity::Critical => "crit",
    }
}

/// Returns a number as text with thousands separators, such as `1,234,567`.
pub(super) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// Returns a number as text of at most five columns, such as `9,999`, `12.3k`, `123k` or `4.5M`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn short_count(number: u64) -> String {
    if number < 10_000 {
        return count(number);
    }
    let mut value = number as f64;
    for unit in ["k", "M", "G", "T", "P"] {
        value /= 1_000.0;
        // With one decimal, a value of 99.95 or more would become `100.0`, which is one column too wide.
        if value < 99.95 {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
    }
    "lots".to_owned()
}

/// Returns a rate per second as text, such as `0`, `0.25`, `12.3` or `1,234`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second <= 0.0 {
        "0".to_owned()
    } else if per_second < 9.95 {
        let text = format!("{per_second:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if per_second < 99.5 {
        format!("{per_second:.1}")
    } else {
        // The rate is positive and far below the largest `u64`, so the cast does not change the rate.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        count(per_second.round() as u64)
    }
}

/// The amount of detail with which the screen shows a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeDetail {
    /// Only the time of day, such as `22:54:07`.
    Time,
    /// The day and the time of day, such as `01-31 22:54:07`.
    Day,
    /// The date and the time of day, such as `2013-01-31 22:54:07`.
    Date,
}

/// Returns a time in UTC as text, with as much detail as requested.
pub(super) fn time(ms: UnixMs, detail: TimeDetail) -> String {
    let text = format_seconds(ms).replace('T', " ");
    let from = match detail {
        TimeDetail::Time => 11,
        TimeDetail::Day => 5,
        TimeDetail::Date => 0,
    };
    text.get(from..19).unwrap_or_default().to_owned()
}

/// Returns a time in UTC as text, including its milliseconds.
pub(super) fn exact_time(ms: UnixMs) -> String {
    format_millis(ms).replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_few_columns() {
        for (number, want) in [(0, "0"), (999, "999"), (1_234_567, "1,234,567")] {
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
            assert!(want.len() <= 5);
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
    fn times_are_utc() {
        let ms = UnixMs(1_359_672_847_123);
        assert_eq!(time(ms, TimeDetail::Time), "22:54:07");
        assert_eq!(time(ms, TimeDetail::Day), "01-31 22:54:07");
        assert_eq!(time(ms, TimeDetail::Date), "2013-01-31 22:54:07");
        assert_eq!(exact_time(ms), "2013-01-31 22:54:07.123 UTC");
    }
}
