//! `citystream config`: prints the settings that a role would use, and the origin of each setting.
//!
//! The command reads the same settings as the role, and opens no connection. If a value is invalid, the command reports
//! the same error as the role, with exit code 2.

use crate::exit::{Exit, print_parser_message};
use crate::output::{self, columns, lines};
use crate::settings::{Config, Effective, Parsed, Role, other_variables, parse_role};

/// Number of terminal columns that the origin of a setting needs. On a narrower terminal, the value and its origin are
/// printed below the name of the setting.
const ORIGIN_COLUMNS: usize = 20;

/// Prints the settings of a role.
///
/// # Errors
/// Returns an error if standard output cannot be written.
pub fn run(args: &Config) -> anyhow::Result<Exit> {
    let mut text = String::new();
    if args.role.is_none() {
        let names = args.roles().into_iter().map(Role::name);
        let names = names.collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "# Services: {names}. For another role: citystream config --for ROLE\n"
        ));
    }
    for role in args.roles() {
        let parsed = match parse_role(role, &args.options) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(print_parser_message(&error)),
        };
        push_section(&mut text, role, &parsed, columns(&std::io::stdout()));
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

fn push_section(out: &mut String, role: Role, parsed: &Parsed, columns: Option<usize>) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("# citystream {}\n", role.name()));
    let mut settings = parsed.settings.clone();
    settings.extend(other_variables());
    let width = |f: fn(&Effective) -> &str| settings.iter().map(|s| f(s).chars().count()).max();
    let names = width(|s| &s.name).unwrap_or(0);
    // The column of values has a maximum width, because a long list of brokers would otherwise push all origins off the
    // screen.
    let values = width(|s| s.value.as_deref().unwrap_or("-"))
        .unwrap_or(0)
        .min(32);
    let is_narrow = columns.is_some_and(|columns| columns < names + values + ORIGIN_COLUMNS);
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
