//! `citystream config`: the settings a role would run with, and where each comes from.
//!
//! Reads what the role itself would read and connects to nobody. A wrong value is told as the role
//! would tell it, exit code 2.

use std::io::Write as _;

use crate::exit::{Exit, print_parser_message};
use crate::output::{columns, lines};
use crate::settings::{Config, Effective, Parsed, Role, other_variables, parse_role};

/// Columns of an origin that must fit beside a value, or it stands below.
const ORIGIN: usize = 20;

/// Prints the settings.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Config) -> anyhow::Result<Exit> {
    let mut text = String::new();
    for role in args.roles() {
        let parsed = match parse_role(role, &args.options) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(print_parser_message(&error)),
        };
        section(&mut text, role, &parsed, columns(&std::io::stdout()));
    }
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(Exit::Done)
}

fn section(out: &mut String, role: Role, parsed: &Parsed, columns: Option<usize>) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("# citystream {}\n", role.name()));
    let mut settings = parsed.settings.clone();
    settings.extend(other_variables());
    let width = |f: fn(&Effective) -> &str| settings.iter().map(|s| f(s).chars().count()).max();
    let names = width(|s| &s.name).unwrap_or(0);
    // One long list of brokers must not push every origin off the screen.
    let values = width(|s| s.value.as_deref().unwrap_or("-"))
        .unwrap_or(0)
        .min(32);
    let is_narrow = columns.is_some_and(|columns| columns < names + values + ORIGIN);
    for Effective {
        name,
        value,
        origin,
    } in settings
    {
        if is_narrow {
            let text = value.map_or_else(|| origin.clone(), |value| format!("{value}  ({origin})"));
            out.push_str(&lines("", &name, 2, columns));
            out.push_str(&lines("  ", &text, 4, columns));
        } else {
            let value = value.as_deref().unwrap_or("-");
            let first = format!("{name:<names$}  {value:<values$}  ");
            out.push_str(&lines(&first, &origin, names + values + 4, columns));
        }
    }
}
