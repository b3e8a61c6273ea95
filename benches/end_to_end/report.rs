//! The table of figures, printed row by row and written into `docs/BENCHMARKS.md` between two marks.

use std::path::Path;

use anyhow::Context as _;

const BEGIN: &str = "<!-- figures: written by scripts/bench --write -->";
const END: &str = "<!-- end of figures -->";

/// One figure.
pub(crate) struct Row {
    what: String,
    value: String,
    target: String,
}

impl Row {
    pub(crate) fn new(what: &str, value: String, target: &str) -> Row {
        Row {
            what: what.to_owned(),
            value,
            target: target.to_owned(),
        }
    }

    /// Returns the figure as a row of the table.
    pub(crate) fn line(&self) -> String {
        format!("| {} | {} | {} |", self.what, self.value, self.target)
    }
}

/// Replaces the table in the document.
pub(crate) fn write(machine: &str, lines: &[String]) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/BENCHMARKS.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("the document lacks its mark")?;
    let (_, after) = rest
        .split_once(END)
        .context("the document lacks its mark")?;
    let table = lines.join("\n");
    let text = format!(
        "{before}{BEGIN}\n{machine}\n\n| figure | measured | target |\n|---|---|---|\n{table}\n{END}{after}"
    );
    Ok(std::fs::write(path, text)?)
}
