//! Prints text to standard output, and wraps text that is printed to a terminal.
//!
//! On a terminal, text is wrapped between words. In a file or a pipe, each text stays on one line, so that programs can
//! read the text.

use std::io::{ErrorKind, IsTerminal, Write as _};

use textwrap::{Options, WordSplitter, fill};

/// Prints text to standard output. The function returns no error if the process that reads the output has closed the
/// pipe.
///
/// # Errors
/// Returns every error of standard output except a closed pipe.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Returns the width of the terminal to which a stream writes, in columns. Returns `None` if the stream does not write
/// to a terminal.
pub(crate) fn columns(stream: &impl IsTerminal) -> Option<usize> {
    let size = stream.is_terminal().then(crossterm::terminal::size)?;
    let (columns, _) = size.ok()?;
    (columns > 0).then_some(columns.into())
}

/// Returns `first` followed by `text` and a line end. If `columns` is given, the text is wrapped to that width, and all
/// lines after the first are indented by `indent` columns.
///
/// A word that is longer than a line is not broken, so that a user can copy the whole word.
pub(crate) fn lines(first: &str, text: &str, indent: usize, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return format!("{first}{text}\n");
    };
    let indent = " ".repeat(indent);
    let options = Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    format!("{}\n", fill(text, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words_and_indented() {
        let text = "set AWS_REGION, such as eu-west-1, or https://example.com/a-long-one";
        assert_eq!(
            lines("  > ", text, 4, Some(24)),
            "  > set AWS_REGION, such\n    as eu-west-1, or\n    https://example.com/a-long-one\n"
        );
        assert_eq!(lines("  > ", text, 4, None), format!("  > {text}\n"));
    }
}
