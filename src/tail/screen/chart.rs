//! Events per window: the chart of all rows, and the small one of each.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use super::view::{Line, View};
use crate::tail::board::Board;
use crate::tail::history::{History, LENGTHS, WINDOWS};

/// Widest column of the chart.
const WIDE_MAX: u16 = 4;
/// Eighths of a line that a full column of a row's chart takes: rows above each other stay apart.
const SPARK_FULL: u64 = 7;
/// From an empty column to a full one.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Events of the windows that end with the newest, the oldest first.
pub(super) struct Bars {
    /// Of each window all events, and those that raise alerts.
    pub(super) windows: Vec<(u64, u64)>,
    /// Where the first window begins and the last one ends, in Unix milliseconds.
    pub(super) range_ms: (i64, i64),
}

impl Bars {
    /// Adds up the windows of rows, at most `room` of them and none before the first event.
    pub(super) fn of(lines: &[Line<'_>], board: &Board, view: &View, room: usize) -> Option<Bars> {
        let times_ms = board.times_ms?;
        let count = windows(times_ms, view.length).min(room);
        let histories = lines.iter().filter_map(|line| line.row.history.as_deref());
        let severities = view.query.severities;
        Some(Bars::sum(
            histories,
            severities,
            view.length,
            times_ms.1,
            count,
        ))
    }

    /// Adds up the last `count` windows of histories.
    fn sum<'a>(
        histories: impl Iterator<Item = &'a History>,
        severities: [bool; 4],
        length: usize,
        newest_ms: i64,
        count: usize,
    ) -> Bars {
        let (length_ms, _) = LENGTHS[length];
        let newest = newest_ms.div_euclid(length_ms);
        let count = count.min(WINDOWS);
        let first = newest + 1 - i64::try_from(count).unwrap_or(0);
        let mut windows = vec![(0, 0); count];
        for history in histories {
            for (window, bar) in (first..=newest).zip(&mut windows) {
                let tally = history.window(length, window).map(u64::from);
                let of = |at: usize| if severities[at] { tally[at] } else { 0 };
                let alerts = of(2) + of(3);
                bar.0 += of(0) + of(1) + alerts;
                bar.1 += alerts;
            }
        }
        Bars {
            windows,
            range_ms: (first * length_ms, (newest + 1) * length_ms),
        }
    }

    /// Returns the most events of one window.
    pub(super) fn most(&self) -> u64 {
        self.windows.iter().map(|bar| bar.0).max().unwrap_or(0)
    }
}

/// Returns how tall a count is if the largest is `full`; what is there can be seen.
fn tall(count: u64, most: u64, full: u64) -> u64 {
    if count == 0 || most == 0 {
        return 0;
    }
    let tall = u128::from(count) * u128::from(full) / u128::from(most);
    u64::try_from(tall).unwrap_or(u64::MAX).max(1)
}

/// Draws the windows to the right end of an area: alerts below, all else above them.
pub(super) fn draw(buf: &mut Buffer, area: Rect, bars: &Bars) {
    let most = bars.most();
    let full = u64::from(area.height) * 8;
    let count = u16::try_from(bars.windows.len()).unwrap_or(u16::MAX).max(1);
    let wide = (area.width / count).clamp(1, WIDE_MAX);
    let first = area.right().saturating_sub(count * wide);
    for (at, (all, alerts)) in (0..count).zip(&bars.windows) {
        let all = tall(*all, most, full);
        let alerts = tall(*alerts, most, full).min(all);
        for line in 0..area.height {
            let below = u64::from(line) * 8;
            let (part, style) = if alerts > below && all >= below + 8 && alerts < below + 8 {
                // Both end in this line, and the upper one fills it.
                let style = Style::new().fg(Color::Yellow).bg(Color::Blue);
                (alerts - below, style)
            } else if alerts > below {
                (alerts - below, Style::new().fg(Color::Yellow))
            } else if all > below {
                (all - below, Style::new().fg(Color::Blue))
            } else {
                continue;
            };
            let symbol = EIGHTHS[usize::try_from(part.min(8)).unwrap_or(8)];
            for x in 0..wide {
                let place = (first + at * wide + x, area.bottom() - 1 - line);
                if let Some(cell) = buf.cell_mut(place) {
                    cell.set_char(symbol).set_style(style);
                }
            }
        }
    }
}

/// Returns one row's windows as text of at most so many columns, none before the board's first event.
pub(super) fn spark(
    history: &History,
    severities: [bool; 4],
    length: usize,
    times_ms: (i64, i64),
    columns: usize,
) -> String {
    let count = windows(times_ms, length).min(columns).min(WINDOWS);
    let bars = Bars::sum(
        std::iter::once(history),
        severities,
        length,
        times_ms.1,
        count,
    );
    let most = bars.most();
    let wide = (columns / count.max(1)).clamp(1, WIDE_MAX.into());
    let symbols = bars.windows.iter().flat_map(|(all, _)| {
        let symbol = EIGHTHS[usize::try_from(tall(*all, most, SPARK_FULL)).unwrap_or(8)];
        std::iter::repeat_n(symbol, wide)
    });
    symbols.collect()
}

/// Returns the number of windows from the first event's to the last one's.
fn windows((oldest_ms, newest_ms): (i64, i64), length: usize) -> usize {
    let (length_ms, _) = LENGTHS[length];
    let count = newest_ms.div_euclid(length_ms) - oldest_ms.div_euclid(length_ms) + 1;
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spark_shows_the_last_windows_and_every_one_that_has_events() {
        let mut history = History::default();
        for (minute, count) in [(0, 80), (1, 1), (3, 40), (5, 10)] {
            for _ in 0..count {
                history.add(minute * 60_000, 0);
            }
        }
        let all = [true; 4];
        let until = |minute: i64| (0, minute * 60_000);
        assert_eq!(spark(&history, all, 0, until(5), 6), "▇▁ ▃ ▁");
        assert_eq!(spark(&history, all, 0, until(5), 11), "▇▁ ▃ ▁");
        assert_eq!(spark(&history, all, 0, until(5), 12), "▇▇▁▁  ▃▃  ▁▁");
        assert_eq!(spark(&history, all, 0, until(5), 3), "▇ ▁");
        assert_eq!(spark(&history, all, 0, until(7), 4), " ▇  ");
        assert_eq!(spark(&history, [false; 4], 0, until(5), 3), "   ");
        assert_eq!(spark(&history, all, 0, until(0), 50), "▇▇▇▇");
        let long = (-500 * 60_000, 5 * 60_000);
        assert_eq!(spark(&history, all, 0, long, 500).chars().count(), 4 * 96);
        assert_eq!(spark(&history, all, 0, long, 100).chars().count(), 96);
    }

    #[test]
    fn the_chart_has_alerts_below_the_rest() {
        let bars = Bars {
            windows: vec![(16, 0), (16, 4), (16, 16), (1, 1), (0, 0), (12, 0)],
            range_ms: (0, 0),
        };
        // One column more than there are windows: they stand at the right end.
        let area = Rect::new(0, 0, 7, 2);
        let mut buf = Buffer::empty(area);
        draw(&mut buf, area, &bars);
        let line = |y| (0..7).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(
            (line(0), line(1)),
            (" ███  ▄".to_owned(), " █▄█▁ █".to_owned())
        );
        let colours = |x| (buf[(x, 1)].fg, buf[(x, 1)].bg);
        assert_eq!(colours(1), (Color::Blue, Color::Reset));
        assert_eq!(colours(2), (Color::Yellow, Color::Blue));
        assert_eq!(colours(3), (Color::Yellow, Color::Reset));
    }
}
