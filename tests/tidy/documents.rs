//! The rules about documents: options, links and tests that they name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::code::{File, is_ident};

/// The options of all roles, with the environment variables that set them.
pub(crate) struct Options {
    pub(crate) flags: BTreeSet<String>,
    pub(crate) variables: BTreeSet<String>,
}

pub(crate) fn options(file: &File, known: &Options) -> Vec<String> {
    // Options of other tools that documents name.
    const FOREIGN: [&str; 19] = [
        "--alter",
        "--check",
        "--bench",
        "--features",
        "--format",
        "--help",
        "--key-id",
        "--locked",
        "--name",
        "--now",
        "--only",
        "--parameter-overrides",
        "--profile",
        "--release",
        "--standalone",
        "--tags",
        "--target",
        "--test",
        "--write",
    ];
    let mut complaints = Vec::new();
    let text = without_foreign_commands(&file.text);
    for (flag, _) in words(&text, "--", |c| c.is_ascii_lowercase() || c == '-') {
        let named = flag.len() > 2 && !flag.ends_with('-') && !flag.starts_with("---");
        if named && !known.flags.contains(&flag) && !FOREIGN.contains(&flag.as_str()) {
            complaints.push(format!("names {flag}, which no role has"));
        }
    }
    for (variable, _) in words(&text, "CITYSTREAM_", |c| c.is_ascii_uppercase() || c == '_') {
        if variable != "CITYSTREAM_" && !known.variables.contains(&variable) {
            complaints.push(format!("names {variable}, which no role reads"));
        }
    }
    complaints
}

/// Returns the text without the commands of other programs in fenced blocks, continuation lines included.
fn without_foreign_commands(text: &str) -> String {
    let (mut fenced, mut foreign) = (false, false);
    let mut out = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            foreign = false;
        } else if fenced && !foreign {
            let mut words = line
                .split_whitespace()
                .filter(|w| !matches!(*w, "$" | "sudo"));
            foreign = !words.next().is_some_and(|w| {
                w.ends_with("citystream")
                    || (w.contains('=') && !w.contains("$("))
                    || w.starts_with(['#', '-'])
            });
        }
        if !foreign {
            out.push_str(line);
            out.push('\n');
        }
        foreign = foreign && line.ends_with('\\');
    }
    out
}

/// Complains about links to files that do not exist, and to headings that a document does not have. `read` returns the
/// text of a file, or `None` if it does not exist.
pub(crate) fn links(file: &File, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    for (at, _) in file.text.match_indices("](") {
        let rest = &file.text[at + 2..];
        let target = &rest[..rest.find(')').unwrap_or(rest.len())];
        if target.contains("://") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let text = match path {
            "" => Some(file.text.clone()),
            path => read(&folder.join(path)),
        };
        let Some(text) = text else {
            complaints.push(format!("links to {path}, which does not exist"));
            continue;
        };
        if !anchor.is_empty() && !anchors(&text).contains(anchor) {
            complaints.push(format!("links to {target}, but there is no such heading"));
        }
    }
    complaints
}

/// Returns the anchors that GitHub gives the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut fenced, mut counts, mut out) = (false, BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        let heading = heading
            .strip_prefix(' ')
            .filter(|_| !fenced && line.starts_with('#'));
        let Some(heading) = heading else { continue };
        let kept = heading.to_lowercase().replace(' ', "-");
        let anchor = kept.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "");
        // GitHub numbers the repetitions of a heading.
        let count = counts.entry(anchor.clone()).or_insert(0);
        out.insert(match *count {
            0 => anchor,
            n => format!("{anchor}-{n}"),
        });
        *count += 1;
    }
    out
}

/// Complains about source files that do not exist. Documents name them relative to the project or to `src`.
pub(crate) fn sources(file: &File, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let spans = file.text.split('`').skip(1).step_by(2);
    let named = spans.filter(|span| span.ends_with(".rs") && span.contains('/'));
    let missing = named.filter(|n| !exists(Path::new(n)) && !exists(&Path::new("src").join(n)));
    missing
        .map(|name| format!("names the file {name}, which does not exist"))
        .collect()
}

/// Returns each word of `text` that begins with `prefix` and continues with characters that `goes_on` accepts.
/// The second value is its place.
fn words(text: &str, prefix: &str, goes_on: impl Fn(char) -> bool) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(prefix) {
        let start = at + found;
        let rest = &text[start + prefix.len()..];
        let len = prefix.len() + rest.find(|c| !goes_on(c)).unwrap_or(rest.len());
        if !text[..start].ends_with(|c: char| is_ident(c) || c == '-') {
            out.push((text[start..start + len].to_owned(), start));
        }
        at = start + len;
    }
    out
}

pub(crate) fn known_options() -> Options {
    let command = citystream::settings::command();
    let mut known = Options {
        flags: BTreeSet::new(),
        variables: citystream::settings::KAFKA_SECRET_VARIABLES
            .map(str::to_owned)
            .into(),
    };
    let roles = command.get_subcommands();
    // The actions of `silence` have options of their own.
    for role in roles.flat_map(|role| std::iter::once(role).chain(role.get_subcommands())) {
        for argument in role.get_arguments() {
            known
                .flags
                .extend(argument.get_long().map(|l| format!("--{l}")));
            let variable = argument.get_env().map(|v| v.to_string_lossy().into_owned());
            known.variables.extend(variable);
        }
    }
    known
}

/// Complains about names that end in `_…` and begin no function. Documents name tests like this.
pub(crate) fn tests_named(file: &File, functions: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in file.text.match_indices("_…") {
        let start = file.text[..at].rfind(|c| !is_ident(c));
        let start = start.map_or(0, |n| {
            n + file.text[n..].chars().next().map_or(1, char::len_utf8)
        });
        let part = &file.text[start..=at];
        // `…_a_part_…` may be anywhere in a name.
        let anywhere = file.text[..start].ends_with('…');
        let exists = |name: &String| {
            if anywhere {
                name.contains(part)
            } else {
                name.starts_with(part)
            }
        };
        if !functions.iter().any(exists) {
            complaints.push(format!("names the test {part}…, which does not exist"));
        }
    }
    complaints
}

/// Complains about patches of planted bugs that lack a row in the table of docs/PROOF.md, about rows without a patch, and
/// about rows that name what does not find the bug. Patches name the tests that find them in their second line.
pub(crate) fn planted_bugs(file: &File, patches: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let table = file
        .text
        .split("| patch | proof | trace | tests |\n")
        .nth(1);
    let rows = table.unwrap_or_default().lines().skip(1);
    let rows = rows.map_while(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut rows: BTreeMap<&str, &str> = rows.collect();
    for patch in patches {
        let name = patch.path.rsplit('/').next().unwrap_or_default();
        let Some(row) = rows.remove(name.trim_end_matches(".patch")) else {
            complaints.push(format!("has no row for {name}"));
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").collect();
        let found_by = patch.text.lines().nth(1).unwrap_or_default();
        let found_by: Vec<&str> = found_by
            .trim_start_matches("Found by: ")
            .split(", ")
            .collect();
        let shows = |test: &&str| match *test {
            "trace" => cells.get(2).is_some_and(|cell| *cell != "–"),
            test => cells.last().is_some_and(|cell| cell.contains(test)),
        };
        if found_by.is_empty() || !found_by.iter().all(shows) {
            complaints.push(format!("has another row for {name} than {found_by:?}"));
        }
    }
    complaints.extend(
        rows.keys()
            .map(|name| format!("has a row for {name}, which does not exist")),
    );
    complaints
}

#[test]
fn the_rules_about_documents_can_fail() {
    let known = known_options();
    let functions = BTreeSet::from(["a_test_of_something".to_owned()]);
    let rules = |file: &File| {
        let exists = |path: &Path| {
            path == Path::new("docs/TABLES.md") || path == Path::new("src/core/stall.rs")
        };
        let read = |path: &Path| {
            let text = "# Tables\n\n## Fences, `keys`\n\n```\n# no\n```\n## Fences, keys\n";
            exists(path).then(|| text.to_owned())
        };
        let found = [
            options(file, &known),
            links(file, &read),
            sources(file, &exists),
            tests_named(file, &functions),
        ];
        found.concat()
    };
    crate::assert_complaints(
        rules,
        &[
            (
                "README.md",
                "Use `--row-interval` or CITYSTREAM_ROW_INTERVAL, see [tables](docs/TABLES.md#fences-keys-1).",
                0,
            ),
            ("README.md", "Use `--row-intervall`.", 1),
            ("README.md", "Use CITYSTREAM_ROWS.", 1),
            ("README.md", "See [tables](docs/TABLE.md).", 1),
            ("README.md", "See [tables](docs/TABLES.md#fences).", 1),
            ("README.md", "See [tables](docs/TABLES.md#no).", 1),
            ("README.md", "# Size, here\n[size](#size-here)", 0),
            ("README.md", "# Size, here\n[size](#size)", 1),
            (
                "README.md",
                "`core/stall.rs`, `src/core/stall.rs`, `a.rs`",
                0,
            ),
            ("README.md", "`core/stalled.rs` waits.", 1),
            ("README.md", "| `it/a` a_test_of_… |", 0),
            ("README.md", "| `it/a` a_test_for_… |", 1),
            ("README.md", "| `it/a` …_of_… |", 0),
        ],
    );
}

#[test]
fn the_rule_about_planted_bugs_can_fail() {
    let patch = |name: &str, found_by: &str| File {
        path: format!("src/core/mutants/{name}.patch"),
        text: format!("What it is.\nFound by: {found_by}\n"),
    };
    let patches = [patch("a", "simulation, trace"), patch("b", "model")];
    let rows = |rows: &[&str]| {
        let head = "| patch | proof | trace | tests |\n|---|---|---|---|\n";
        format!("{head}{}\n\n| `c` | elsewhere |", rows.join("\n"))
    };
    let (a, b) = (
        "| `a` | – | settle: read | simulation: INV-1 |",
        "| `b` | `land` | – | model |",
    );
    crate::assert_complaints(
        |file| planted_bugs(file, &patches),
        &[
            ("docs/PROOF.md", &rows(&[a, b]), 0),
            ("docs/PROOF.md", "no table", 2),
            ("docs/PROOF.md", &rows(&[a]), 1),
            ("docs/PROOF.md", &rows(&[a, b, "| `c` | – | – | – |"]), 1),
            (
                "docs/PROOF.md",
                &rows(&[a, "| `b` | – | – | simulation |"]),
                1,
            ),
            (
                "docs/PROOF.md",
                &rows(&["| `a` | – | – | simulation |", b]),
                1,
            ),
        ],
    );
}
