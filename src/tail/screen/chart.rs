//! Draws charts of events per window: one large chart of all rows, and a small chart in each row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use super::picture::Picture;
use crate::core::clock::UnixMs;
use crate::tail::board::sum;
use crate::tail::history::{LENGTHS, RowHistory, WINDOWS};

/// Maximum width of a bar, in columns.
const BAR_COLUMNS_MAX: u16 = 4;
/// The height of the tallest bar in a small chart, in eighths of a line. The top eighth of the line stays empty, to
/// separate the small charts of adjacent rows.
const SPARK_FULL: u64 = 7;
/// The characters that draw bars with a height of zero to eight eighths of a line.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The counts of events in consecutive windows, starting with the oldest window.
pub(super) struct Bars {
    /// For each window, the number of all events and the number of alerts.
    pub(super) windows: Vec<(u64, u64)>,
    /// The start of the first window and the end of the last window.
    pub(super) range_ms: (UnixMs, UnixMs),
}

impl Bars {
    /// Adds up the counts of the visible rows for each window. Returns at most `room` windows, and no window before the
    /// window of the first event.
    pub(super) fn new(picture: &Picture<'_>, room: usize) -> Option<Bars> {
        let (view, rows) = (picture.view, picture.rows.iter());
        let histories = rows.filter_map(|row| row.row.history.as_deref());
        let severities = view.query.severities;
        Some(Bars::sum(
            histories,
            severities,
            view.length,
            picture.board.times_ms?,
            room,
        ))
    }

    fn sum<'a>(
        histories: impl Iterator<Item = &'a RowHistory>,
        severities: [bool; 4],
        length: usize,
        (oldest_ms, newest_ms): (UnixMs, UnixMs),
        room: usize,
    ) -> Bars {
        let (length_ms, _) = LENGTHS[length];
        let newest = newest_ms.0.div_euclid(length_ms);
        let count = newest - oldest_ms.0.div_euclid(length_ms) + 1;
        let count = usize::try_from(count).unwrap_or(WINDOWS);
        let count = count.min(room).min(WINDOWS);
        let first = newest + 1 - i64::try_from(count).unwrap_or(0);
        let mut windows = vec![(0, 0); count];
        for history in histories {
            for (window, bar) in (first..=newest).zip(&mut windows) {
                let counts = history.window(length, window).map(u64::from);
                let [_, _, high, critical] = severities;
                bar.0 += sum(counts, severities);
                bar.1 += sum(counts, [false, false, high, critical]);
            }
        }
        Bars {
            windows,
            range_ms: (UnixMs(first * length_ms), UnixMs((newest + 1) * length_ms)),
        }
    }

    /// Returns the number of events in the window that has the most events.
    pub(super) fn most(&self) -> u64 {
        self.windows.iter().map(|bar| bar.0).max().unwrap_or(0)
    }
}

/// Returns the height of the bar that shows the number `count`. If `count` equals `most`, the bar has the height
/// `full`. Every count above 0 gets a visible bar.
fn bar_height(count: u64, most: u64, full: u64) -> u64 {
    if count == 0 || most == 0 {
        return 0;
    }
    let height = u128::from(count) * u128::from(full) / u128::from(most);
    u64::try_from(height).unwrap_or(u64::MAX).max(1)
}

/// Returns the character that draws a bar of `height` eighths of a line, up to one full line.
fn eighths(height: u64) -> char {
    EIGHTHS[usize::try_from(height.min(8)).unwrap_or(8)]
}

/// Draws one bar per window, aligned to the right end of an area. In each bar, alerts are drawn below all other events.
pub(super) fn draw(buf: &mut Buffer, area: Rect, bars: &Bars) {
    let most = bars.most();
    let full = u64::from(area.height) * 8;
    let count = u16::try_from(bars.windows.len()).unwrap_or(u16::MAX).max(1);
    let bar_columns = (area.width / count).clamp(1, BAR_COLUMNS_MAX);
    let first = area.right().saturating_sub(count * bar_columns);
    for (at, (all, alerts)) in (0..count).zip(&bars.windows) {
        let all = bar_height(*all, most, full);
        let alerts = bar_height(*alerts, most, full).min(all);
        for line in 0..area.height {
            let below = u64::from(line) * 8;
            let (height, style) = if alerts > below && all >= below + 8 && alerts < below + 8 {
                // In this line of the bar, the lower part shows alerts, and the upper part shows other events.
                let style = Style::new().fg(Color::Yellow).bg(Color::Blue);
                (alerts - below, style)
            } else if alerts > below {
                (alerts - below, Style::new().fg(Color::Yellow))
            } else if all > below {
                (all - below, Style::new().fg(Color::Blue))
            } else {
                continue;
            };
            for x in 0..bar_columns {
                let position = (first + at * bar_columns + x, area.bottom() - 1 - line);
                if let Some(cell) = buf.cell_mut(position) {
                    cell.set_char(eighths(height)).set_style(style);
                }
            }
        }
    }
}

/// Returns the small chart of one row as text. The text is at most `columns` columns wide. The small charts of all rows
/// show the same windows.
pub(super) fn spark(
    history: &RowHistory,
    severities: [bool; 4],
    length: usize,
    times_ms: (UnixMs, UnixMs),
    columns: usize,
) -> String {
    let history = std::iter::once(history);
    let bars = Bars::sum(history, severities, length, times_ms, columns);
    let most = bars.most();
    let bar_columns = (columns / bars.windows.len().max(1)).clamp(1, BAR_COLUMNS_MAX.into());
    let symbols = bars.windows.iter().flat_map(|(all, _)| {
        let symbol = eighths(bar_height(*all, most, SPARK_FULL));
        std::iter::repeat_n(symbol, bar_columns)
    });
    symbols.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spark_shows_the_last_windows() {
        let mut history = RowHistory::default();
        for (minute, count) in [(0, 80), (1, 1), (3, 40), (5, 10)] {
            for _ in 0..count {
                history.add(UnixMs(minute * 60_000), 0);
            }
        }
        let all = [true; 4];
        let until = |minute: i64| (UnixMs(0), UnixMs(minute * 60_000));
        assert_eq!(spark(&history, all, 0, until(5), 6), "▇▁ ▃ ▁");
        assert_eq!(spark(&history, all, 0, until(5), 11), "▇▁ ▃ ▁");
        assert_eq!(spark(&history, all, 0, until(5), 12), "▇▇▁▁  ▃▃  ▁▁");
        assert_eq!(spark(&history, all, 0, until(5), 3), "▇ ▁");
        assert_eq!(spark(&history, all, 0, until(7), 4), " ▇  ");
        assert_eq!(spark(&history, [false; 4], 0, until(5), 3), "   ");
        assert_eq!(spark(&history, all, 0, until(0), 50), "▇▇▇▇");
        let long = (UnixMs(-500 * 60_000), UnixMs(5 * 60_000));
        assert_eq!(spark(&history, all, 0, long, 500).chars().count(), 4 * 96);
        assert_eq!(spark(&history, all, 0, long, 100).chars().count(), 96);
    }

    #[test]
    fn the_chart_has_alerts_below_the_other_events() {
        let bars = Bars {
            windows: vec![(16, 0), (16, 4), (16, 16), (1, 1), (0, 0), (12, 0)],
            range_ms: (UnixMs(0), UnixMs(0)),
        };
        // In this test, seven columns show six windows, so the first column stays empty.
        let area = Rect::new(0, 0, 7, 2);
        let mut buf = Buffer::empty(area);
        draw(&mut buf, area, &bars);
        let line = |y| (0..7).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(
            (line(0), line(1)),
            (" ███  ▄".to_owned(), " █▄█▁ █".to_owned())
        );
        let colors = |x| (buf[(x, 1)].fg, buf[(x, 1)].bg);
        assert_eq!(colors(1), (Color::Blue, Color::Reset));
        assert_eq!(colors(2), (Color::Yellow, Color::Blue));
        assert_eq!(colors(3), (Color::Yellow, Color::Reset));
    }
}
