//! Text for standard output and terminals.
//!
//! On a terminal, lines break between words. Programs that read the output get each text in one line.

use std::io::{ErrorKind, IsTerminal, Write as _};

use textwrap::{Options, WordSplitter, fill};

/// Prints text on standard output. A reader that is gone is no error.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Returns the columns of the terminal behind a stream; `None` if it is none.
pub(crate) fn columns(stream: &impl IsTerminal) -> Option<usize> {
    let size = stream.is_terminal().then(crossterm::terminal::size)?;
    let (columns, _) = size.ok()?;
    (columns > 0).then_some(columns.into())
}

/// Returns `first` and `text`, then a line end; further lines begin `indent` columns in. A word longer than a line
/// is not broken, so that it can be copied.
pub(crate) fn lines(first: &str, text: &str, indent: usize, columns: Option<usize>) -> String {
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
