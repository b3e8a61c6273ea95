//! Makes text safe to print on a terminal, and cuts or pads text to a number of columns.
//!
//! A record can contain any characters. Characters that a terminal would interpret or hide are shown as escapes.

use textwrap::{Options, WordSplitter};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Returns true if a terminal would interpret or hide the character instead of showing it.
///
/// Hidden characters are control characters and characters with the Unicode property `Default_Ignorable_Code_Point`.
/// The Unicode property `Default_Ignorable_Code_Point` includes characters that change the text direction or have no
/// width. Hidden characters must become visible, because two city names may differ only in a hidden character.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Replaces hidden characters in a JSON text with JSON escapes, starting at the byte `begin`.
///
/// Hidden characters occur only inside JSON strings, because all other JSON tokens are ASCII. A JSON escape does not
/// change the value of the string that contains the escape.
pub(super) fn escape_json(out: &mut Vec<u8>, begin: usize) {
    if out[begin..].iter().all(|byte| *byte < 0x7f) {
        return;
    }
    let text = String::from_utf8_lossy(&out[begin..]).into_owned();
    out.truncate(begin);
    for c in text.chars() {
        if c >= ' ' && is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Returns the text with all hidden characters replaced by escapes.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns the number of terminal columns that a text needs.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns printable text with a width of at most `columns` columns. A text that was cut ends with `…`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let text = printable(text);
    if width(&text) <= columns {
        return text;
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Returns printable text, cut or padded with spaces to exactly `columns` columns.
pub(super) fn fit(text: &str, columns: usize, align_right: bool) -> String {
    let text = cut(text, columns);
    let space = " ".repeat(columns.saturating_sub(width(&text)));
    if align_right {
        space + &text
    } else {
        text + &space
    }
}

/// Returns printable lines of at most `columns` columns each. Lines are broken at spaces if possible.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let options = Options::new(columns).word_splitter(WordSplitter::NoHyphenation);
    let text = printable(text);
    let lines = textwrap::wrap(&text, options).into_iter();
    lines.map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_printed_differently() {
        for hidden in [
            '\u{200b}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{ad}', '\u{3164}', '\u{fe0f}',
        ] {
            let name = format!("NYC{hidden}");
            assert_eq!(printable(&name), format!("NYC{}", hidden.escape_unicode()));
        }
        let names = "S\u{e3}o Sa\u{303}o \u{6771}\u{4eac}";
        assert_eq!(printable(names), names);
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
    fn lines_break_at_spaces_where_possible() {
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
}
