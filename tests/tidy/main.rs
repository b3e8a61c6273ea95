//! Checks of the tree itself: who may use whom, and what every file has to look like.
//!
//! Each rule is a function from a file to complaints, so that the last test can hand it a bad file
//! and see it complain. The rules read code as text, with comments and strings blanked out where
//! they do not matter; they look for mistakes, not for somebody who wants to get around them.
//!
//! | rule | says |
//! |---|---|
//! | `layers` | arrows between modules point one way, and each foreign crate has its place |
//! | `core_crates` | `src/core` uses a few pure crates and nothing of the system |
//! | `opening` | a file opens with its `//!` description |
//! | `length` | a file in `src` has at most [`LINES_MAX`] lines |
//! | `log_text` | log messages begin in lower case (names aside) and end without a full stop |
//! | `log_fields` | no log line has a field twice, or one that every line has |
//! | `printing` | nothing prints with the macros that panic once their reader is gone |
//! | `logical_offsets` | no partition is taken at an offset that librdkafka looks up at a broker |
//! | `left_open` | nothing is left for later |
//! | `options` | options and variables that documents name exist |
//! | `links` | documents link to files that exist |
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

/// Longest file in `src`. Beyond 600 lines, ask whether the file still owns one thing; beyond this,
/// it does not.
const LINES_MAX: usize = 900;

/// What `src/core` may use beside itself: the standard library and crates without a clock, chance,
/// threads or sockets.
const CORE_CRATES: [&str; 6] = [
    "crc32fast",
    "itoa",
    "jiff",
    "serde",
    "serde_json",
    "thiserror",
];

/// What a message may begin with although it is upper case.
const NAMES: [&str; 4] = ["Kafka", "DynamoDB", "HTTP", "API"];

/// What every log line has as JSON, whose fields stand beside these.
const LOG_KEYS: [&str; 5] = ["timestamp", "level", "message", "span", "spans"];

/// The modules that do what the subcommands promise, and those that put them together.
const ROLES: [&str; 8] = [
    "crate::check",
    "crate::cmd",
    "crate::consume",
    "crate::dev",
    "crate::produce",
    "crate::tables",
    "crate::tail",
    "crate::verify",
];

/// Where in the tree, which of [`ROLES`] may be named there: none below them, and only these among them. `src/cmd/`
/// may name all.
const ROLES_ALLOWED: [(&str, &[&str]); 14] = [
    ("src/core/", &[]),
    ("src/kafka/", &[]),
    ("src/store/", &[]),
    ("src/api/", &[]),
    ("src/settings", &[]),
    ("src/telemetry.rs", &[]),
    ("src/sys", &[]),
    ("src/check/", &["crate::check", "crate::tables"]),
    ("src/consume/", &["crate::consume"]),
    ("src/produce/", &["crate::produce"]),
    ("src/tables/", &["crate::tables"]),
    ("src/tail/", &["crate::tail"]),
    ("src/verify/", &["crate::verify"]),
    (
        "src/dev/",
        &[
            "crate::consume",
            "crate::dev",
            "crate::produce",
            "crate::tables",
            "crate::verify",
        ],
    ),
];

/// Where in the tree, what else must not be named there. `crate::…` is a module of ours, anything else a
/// crate or an item of the standard library.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    (
        "src/core/",
        &[
            "crate::api",
            "crate::kafka",
            "crate::settings",
            "crate::shutdown",
            "crate::store",
            "crate::sys",
            "crate::telemetry",
        ],
    ),
    (
        "src/core/",
        &[
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
        ],
    ),
    (
        "src/kafka/",
        &[
            "crate::api",
            "crate::store",
            "anyhow",
            "aws_sdk_dynamodb",
            "axum",
        ],
    ),
    (
        "src/store/",
        &["crate::api", "crate::kafka", "anyhow", "rdkafka", "axum"],
    ),
    ("src/api/", &["crate::kafka", "anyhow", "rdkafka"]),
    (
        "src/settings",
        &["crate::api", "crate::kafka", "crate::store", "anyhow"],
    ),
    (
        "src/telemetry.rs",
        &["crate::api", "crate::kafka", "crate::store", "anyhow"],
    ),
    (
        "src/sys",
        &["crate::api", "crate::kafka", "crate::store", "anyhow"],
    ),
];

struct File {
    /// From the root of the tree, with forward slashes.
    path: String,
    text: String,
}

// --- rules -----------------------------------------------------------------------------------

fn layers(file: &File) -> Vec<String> {
    let code = product_code(&file.text);
    let mut complaints = Vec::new();
    let roles = ROLES_ALLOWED.iter().flat_map(|(place, allowed)| {
        let others = ROLES.iter().filter(|name| !allowed.contains(name));
        others.map(move |name| (*place, *name))
    });
    let others = FORBIDDEN
        .iter()
        .flat_map(|(place, names)| names.iter().map(move |name| (*place, *name)));
    for (place, name) in roles.chain(others) {
        if file.path.starts_with(place) && uses(&code, name) {
            complaints.push(format!("uses {name}, which {place} must not"));
        }
    }
    let foreign_calls = file.path == "src/sys.rs" || file.path.starts_with("src/sys/");
    if file.path.starts_with("src/") && !foreign_calls && token(&code, "unsafe") {
        complaints.push("has unsafe code, which belongs in src/sys".to_owned());
    }
    complaints
}

fn core_crates(file: &File, dependencies: &BTreeSet<String>) -> Vec<String> {
    if !file.path.starts_with("src/core/") {
        return Vec::new();
    }
    let code = product_code(&file.text);
    dependencies
        .iter()
        .filter(|name| !CORE_CRATES.contains(&name.as_str()) && uses(&code, name))
        .map(|name| format!("uses the crate {name}; the core has {CORE_CRATES:?}"))
        .collect()
}

fn opening(file: &File) -> Vec<String> {
    if is_rust(file) && !file.text.starts_with("//! ") {
        return vec!["does not open with a //! description".to_owned()];
    }
    Vec::new()
}

fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if is_rust(file) && file.path.starts_with("src/") && lines > LINES_MAX {
        return vec![format!("has {lines} lines, at most {LINES_MAX}")];
    }
    Vec::new()
}

fn log_text(file: &File) -> Vec<String> {
    if !is_rust(file) || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for message in log_lines(&file.text).into_iter().flat_map(|l| l.messages) {
        let first = message.split(' ').next().unwrap_or_default();
        if message.starts_with(|c: char| c.is_uppercase()) && !NAMES.contains(&first) {
            complaints.push(format!("logs {message:?}, which begins in upper case"));
        }
        if message.ends_with(['.', '!']) || message.is_empty() {
            complaints.push(format!(
                "logs {message:?}, which ends with a full stop or is empty"
            ));
        }
    }
    complaints
}

fn log_fields(file: &File) -> Vec<String> {
    if !is_rust(file) || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for LogLine { fields, messages } in log_lines(&file.text) {
        for (n, field) in fields.iter().enumerate() {
            if LOG_KEYS.contains(&field.as_str()) || fields[..n].contains(field) {
                complaints.push(format!("logs {field} twice with {messages:?}"));
            }
        }
    }
    complaints
}

fn printing(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    if !is_rust(file) || !file.path.starts_with("src/") {
        return complaints;
    }
    let code = product_code(&file.text);
    for name in ["println!", "print!", "eprintln!", "eprint!"] {
        if token(&code, name) {
            complaints.push(format!(
                "{name} panics once its reader is gone: telemetry's say and show do not"
            ));
        }
    }
    complaints
}

/// An answer about such an offset that crosses a seek makes librdkafka skip records.
fn logical_offsets(file: &File) -> Vec<String> {
    const LOGICAL: [&str; 4] = ["Beginning", "End", "Stored", "OffsetTail"];
    let code = blank(&product_code(&file.text));
    let named = LOGICAL.into_iter();
    named
        .filter(|name| code.contains(&format!("Offset::{name}")))
        .map(|name| format!("takes the logical offset {name}"))
        .collect()
}

fn left_open(file: &File) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("unimple", "mented"),
        concat!("to", "do!"),
        concat!("#[", "ignore"),
    ];
    let found = words.iter().filter(|w| token(&file.text, w));
    found
        .map(|w| format!("leaves something open: {w}"))
        .collect()
}

/// Options of every role, and the variables that stand for them.
struct Options {
    flags: BTreeSet<String>,
    variables: BTreeSet<String>,
}

fn options(file: &File, known: &Options) -> Vec<String> {
    // Options of the tools that documents tell to run.
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

/// Returns the text without the commands in fenced blocks that run another program than ours, with
/// the lines that a backslash adds to them.
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

fn links(file: &File, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    for (at, _) in file.text.match_indices("](") {
        let rest = &file.text[at + 2..];
        let target = &rest[..rest.find(')').unwrap_or(rest.len())];
        let target = target.split('#').next().unwrap_or_default();
        if target.is_empty() || target.contains("://") {
            continue;
        }
        if !exists(&folder.join(target)) {
            complaints.push(format!("links to {target}, which does not exist"));
        }
    }
    complaints
}

// --- reading code ----------------------------------------------------------------------------

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// Returns the code without comments, strings and the tests at its end.
fn product_code(text: &str) -> String {
    let code = blank(text);
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// Returns the text with comments and the insides of strings replaced by blanks, same length.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + find(rest, b"*/").map_or(rest.len(), |n| n + 2)
        } else if rest.starts_with(b"r#\"") {
            at + find(rest, b"\"#").map_or(rest.len(), |n| n + 2)
        } else if rest[0] == b'"' {
            at + string_len(rest)
        } else if rest.starts_with(b"'\"'") || rest.starts_with(b"b'\"'") {
            at + 3
        } else if rest.starts_with(b"'\\") {
            at + 4
        } else {
            at += 1;
            continue;
        };
        for b in &mut out[at..end.min(bytes.len())] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// Returns the length of the string literal that begins here, quotes included.
fn string_len(rest: &[u8]) -> usize {
    let mut n = 1;
    while n < rest.len() && rest[n] != b'"' {
        n += if rest[n] == b'\\' { 2 } else { 1 };
    }
    n + 1
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Tells whether `name` stands in `code` with no letter before it, nor behind it if it ends in one.
fn token(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let closed = !name.ends_with(is_ident) || !after.is_some_and(is_ident);
        closed && !before.is_some_and(is_ident)
    })
}

/// Tells whether code names a crate, or a module below `crate` or `std`, grouped imports included.
fn uses(code: &str, name: &str) -> bool {
    let Some((root, item)) = name.split_once("::") else {
        return token(code, &format!("{name}::")) || token(code, &format!("use {name};"));
    };
    let prefix = format!("{root}::");
    let mut starts = code.match_indices(&prefix).map(|(at, _)| at);
    starts.any(|at| {
        if code[..at].ends_with(|c: char| is_ident(c) || c == ':') {
            return false;
        }
        let rest = &code[at + root.len() + 2..];
        let Some(group) = rest.strip_prefix('{') else {
            return rest
                .strip_prefix(item)
                .is_some_and(|r| !r.starts_with(is_ident));
        };
        let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
                _ => part.push(c),
            }
        }
        parts.push(part);
        let first = |p: &String| p.trim().split(|c| !is_ident(c)).next() == Some(item);
        parts.iter().any(first)
    })
}

/// A log line as it stands in the code.
#[derive(Default)]
struct LogLine {
    /// String arguments that are no field's value: one.
    messages: Vec<String>,
    /// Names of the fields.
    fields: Vec<String>,
}

/// Returns all log lines.
fn log_lines(text: &str) -> Vec<LogLine> {
    let code = blank(text);
    let mut lines = Vec::new();
    for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
        for (at, _) in code.match_indices(level) {
            if !code[..at].ends_with("tracing::") && code[..at].ends_with(is_ident) {
                continue;
            }
            let open = at + level.len();
            let (mut depth, mut n, mut start, mut from) = (0, open, true, open);
            let mut line = LogLine::default();
            let bytes = code.as_bytes();
            while n < bytes.len() {
                // A string is blank in `code`; what it says stands in `text`.
                if text.as_bytes()[n] == b'"' {
                    let len = string_len(&text.as_bytes()[n..]);
                    if depth == 0 && start {
                        line.messages.push(text[n + 1..n + len - 1].to_owned());
                    }
                    (n, start) = (n + len, false);
                    continue;
                }
                match bytes[n] {
                    b')' if depth == 0 => break,
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth -= 1,
                    b',' if depth == 0 => {
                        line.fields.extend(field(&code[from..n]));
                        (start, from) = (true, n + 1);
                    }
                    b if !b.is_ascii_whitespace() => start = false,
                    _ => {}
                }
                n += 1;
            }
            line.fields.extend(field(&code[from..n]));
            lines.push(line);
        }
    }
    lines
}

/// Returns the name of the field that an argument of a log line is, unless it is the message.
fn field(argument: &str) -> Option<String> {
    let name = argument.split('=').next().unwrap_or_default().trim();
    let name = name.trim_start_matches(['%', '?']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Returns every word of `text` that begins with `prefix` and goes on with such characters.
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

// --- the tree --------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files below these places of the tree, sorted.
fn files(places: &[&str]) -> Vec<File> {
    fn walk(path: &Path, out: &mut Vec<PathBuf>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), out);
            }
        } else if path.exists() {
            out.push(path.to_owned());
        }
    }
    let mut paths = Vec::new();
    for place in places {
        walk(&root().join(place), &mut paths);
    }
    paths.sort();
    let file = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root()).unwrap();
        let path = path.to_string_lossy().replace('\\', "/");
        Some(File { path, text })
    };
    paths.into_iter().filter_map(file).collect()
}

/// Returns the crates of `[dependencies]`, as code names them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|l| *l != "[dependencies]");
    let lines = lines.skip(1).take_while(|l| !l.starts_with('['));
    let names = lines
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

fn known_options() -> Options {
    let command = citystream::settings::Cli::command();
    let mut known = Options {
        flags: BTreeSet::new(),
        variables: citystream::settings::KAFKA_SECRET_VARIABLES
            .map(str::to_owned)
            .into(),
    };
    for role in command.get_subcommands() {
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

/// Applies a rule to files and fails with every complaint.
fn check(files: &[File], rule: impl Fn(&File) -> Vec<String>) {
    assert!(!files.is_empty(), "the rule looked at no file");
    let mut complaints = Vec::new();
    for file in files {
        complaints.extend(
            rule(file)
                .into_iter()
                .map(|c| format!("{}: {c}", file.path)),
        );
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_point_one_way() {
    check(&files(&["src"]), layers);
}

#[test]
fn the_core_uses_only_pure_crates() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = dependencies(&manifest);
    assert!(dependencies.contains("aws_sdk_dynamodb") && dependencies.contains("tokio"));
    check(&files(&["src/core"]), |file| {
        core_crates(file, &dependencies)
    });
}

#[test]
fn every_file_says_what_it_is() {
    check(&files(&["src", "tests"]), opening);
}

#[test]
fn no_file_is_too_long() {
    check(&files(&["src"]), length);
}

#[test]
fn log_lines_are_lower_case_without_a_full_stop_and_have_no_field_twice() {
    let files = files(&["src"]);
    let lines = files.iter().flat_map(|f| log_lines(&f.text));
    let messages: usize = lines.map(|line| line.messages.len()).sum();
    assert!(
        messages > 50,
        "only {messages} messages found: the rule is blind"
    );
    check(&files, log_text);
    check(&files, log_fields);
}

#[test]
fn nothing_prints_with_what_panics() {
    check(&files(&["src"]), printing);
}

#[test]
fn no_partition_is_taken_at_a_logical_offset() {
    check(&files(&["src"]), logical_offsets);
}

#[test]
fn nothing_is_left_open() {
    let places = [
        "src",
        "tests",
        "scripts",
        ".ci",
        "systemd",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "Cargo.toml",
        "deny.toml",
    ];
    check(&files(&places), left_open);
}

#[test]
fn documents_name_options_that_exist() {
    let known = known_options();
    assert!(known.flags.contains("--row-interval") && known.variables.contains("CITYSTREAM_GROUP"));
    let files = files(&["README.md", "docs", "systemd"]);
    check(&files, |file| options(file, &known));
}

#[test]
fn documents_link_to_files_that_exist() {
    let files = files(&["README.md", "CHANGELOG.md", "docs"]);
    check(&files, |file| {
        links(file, &|path| root().join(path).exists())
    });
}

/// Every rule complains about a file that breaks it, and not about its harmless twin.
#[test]
fn the_rules_can_fail() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\ntokio = \"1\"\naws-config = \"1\"\nserde = \"1\"\n[features]\n";
    let dependencies = dependencies(manifest);
    let known = known_options();
    let every_rule = |file: &File| {
        let mut out = layers(file);
        out.extend(core_crates(file, &dependencies));
        out.extend(opening(file));
        out.extend(length(file));
        out.extend(log_text(file));
        out.extend(log_fields(file));
        out.extend(printing(file));
        out.extend(logical_offsets(file));
        out.extend(left_open(file));
        if file.path.ends_with(".md") {
            out.extend(options(file, &known));
            out.extend(links(file, &|path| path == Path::new("docs/TABLES.md")));
        }
        out
    };
    let open = concat!("//! Is.\n// TO", "DO: later\n");
    let ignored = concat!("//! Is.\n#[", "ignore]\n");
    let long = format!("//! Is.\n{}", "fn f() {}\n".repeat(LINES_MAX));
    for (path, text, complaints) in [
        (
            "src/core/a.rs",
            "//! Is.\nuse std::fmt;\nuse serde::Serialize;\nuse crate::core::time;\n",
            0,
        ),
        ("src/core/a.rs", "//! Is.\nuse tokio::sync::mpsc;\n", 1),
        (
            "src/core/a.rs",
            "//! Is.\nfn f() { aws_config::load() }\n",
            1,
        ),
        ("src/core/a.rs", "//! Is.\nuse std::{fmt, fs};\n", 1),
        (
            "src/core/a.rs",
            "//! Is.\nuse std::{fmt::{self, Write}, thread::spawn};\n",
            1,
        ),
        (
            "src/core/a.rs",
            "//! Is.\nuse crate::telemetry::unix_ms;\n",
            1,
        ),
        (
            "src/core/a.rs",
            "//! Is.\n// tokio::spawn in a comment\nconst A: &str = \"tokio::x\";\n",
            0,
        ),
        (
            "src/core/a.rs",
            "//! Is.\n#[cfg(test)]\nmod tests {\n    use tokio::time;\n}\n",
            0,
        ),
        (
            "src/kafka/a.rs",
            "//! Is.\nuse crate::store::write::Writer;\n",
            1,
        ),
        (
            "src/kafka/a.rs",
            "//! Is.\nuse crate::{core::keys, store};\n",
            1,
        ),
        (
            "src/kafka/a.rs",
            "//! Is.\nuse crate::stores::A;\nuse crate::core::keys;\n",
            0,
        ),
        (
            "src/store/a.rs",
            "//! Is.\nfn f() { crate::kafka::admin::f() }\n",
            1,
        ),
        ("src/store/a.rs", "//! Is.\nuse rdkafka::ClientConfig;\n", 1),
        ("src/api/a.rs", "//! Is.\nuse crate::kafka::reader;\n", 1),
        ("src/api/a.rs", "//! Is.\nuse anyhow::Context as _;\n", 1),
        (
            "src/cmd/a.rs",
            "//! Is.\nuse crate::kafka::reader;\nuse crate::store::reads;\n",
            0,
        ),
        ("src/cmd/a.rs", "//! Is.\nfn f() { unsafe { g() } }\n", 1),
        ("src/cmd/a.rs", "//! Is.\n#![deny(unsafe_code)]\n", 0),
        ("src/a.rs", "use std::fmt;\n", 1),
        ("src/a.rs", "//! Is.\nfn f() { println!(\"x\") }\n", 1),
        ("src/a.rs", "//! Is.\nfn f() { eprint!(\"x\") }\n", 1),
        (
            "src/a.rs",
            "//! Is.\n#[allow(clippy::print_stdout)]\nfn f() { println!(\"x\") }\n",
            1,
        ),
        (
            "src/a.rs",
            "//! Is.\nfn f() { tracing::info!(a, b = \"B.\", \"went well\") }\n",
            0,
        ),
        (
            "src/a.rs",
            "//! Is.\nfn f() { tracing::info!(a, \"Went well\") }\n",
            1,
        ),
        (
            "src/a.rs",
            "//! Is.\nfn f() { debug!(a, message, %c, c = g(a, a), \"went well\") }\n",
            2,
        ),
        (
            "src/a.rs",
            "//! Is.\nfn f() { warn!(a = g(1, \"X.\"), \"went well.\") }\n",
            1,
        ),
        (
            "src/a.rs",
            "//! Is.\nfn f() { tracing::warn!(\"Kafka is away: {a}\") }\n",
            0,
        ),
        (
            "src/kafka/a.rs",
            "//! Is.\nfn f() { assign(KafkaOffset::End) }\n",
            1,
        ),
        (
            "src/kafka/a.rs",
            "//! Is.\nfn f() { assign(KafkaOffset::Offset(0)) }\n",
            0,
        ),
        ("src/a.rs", &long, 1),
        ("src/a.rs", open, 1),
        ("tests/a.rs", ignored, 1),
        (
            "README.md",
            "Use `--row-interval` or CITYSTREAM_ROW_INTERVAL, see [tables](docs/TABLES.md#fences).",
            0,
        ),
        ("README.md", "Use `--row-intervall`.", 1),
        ("README.md", "Use CITYSTREAM_ROWS.", 1),
        ("README.md", "See [tables](docs/TABLE.md).", 1),
    ] {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = every_rule(&file);
        assert_eq!(found.len(), complaints, "{path}: {text:.200}\n{found:?}");
    }
}
