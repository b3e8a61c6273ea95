//! Text in the lines of a terminal: broken between words, the further lines below where the first began.
//! What is no terminal gets each text in one line, for programs that read it.

use std::io::IsTerminal;

use textwrap::{Options, WordSplitter, fill};

/// Returns the columns of the terminal behind a stream; `None` if it is none.
pub(super) fn columns(stream: &impl IsTerminal) -> Option<usize> {
    let size = stream.is_terminal().then(crossterm::terminal::size)?;
    let (columns, _) = size.ok()?;
    (columns > 0).then_some(columns.into())
}

/// Returns `first` and `text`, then a line end; further lines begin `indent` columns in. A word longer than a line
/// is not broken, so that it can be copied.
pub(super) fn lines(first: &str, text: &str, indent: usize, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return format!("{first}{text}\n");
    };
    let further = " ".repeat(indent);
    let options = Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(&further)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    format!("{}\n", fill(text, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_stand_below_each_other() {
        let text = "set AWS_REGION, such as eu-west-1, or https://example.com/a-long-one";
        assert_eq!(
            lines("  > ", text, 4, Some(24)),
            "  > set AWS_REGION, such\n    as eu-west-1, or\n    https://example.com/a-long-one\n"
        );
        assert_eq!(lines("  > ", text, 4, None), format!("  > {text}\n"));
    }
}
