//! Checks of the tree itself: layers, limits, and what every file must look like.
//!
//! Each rule is a function from a file to complaints, so that a test can give it a bad file and see it complain. The
//! rules read code as text, with comments and strings blanked out. They find mistakes; they do not stop a person who
//! wants to get around them.
//!
//! | module | rules |
//! |---|---|
//! | `layers` | imports between layers point one way; each foreign crate has its layer; the core depends on a few pure crates |
//! | `limits` | lengths of files and functions; no cycles of imports |
//! | `habits` | each file begins with a description; nothing panics on a closed pipe; no logical offsets; nothing is left open; which tests are ignored |
//! | `log_lines` | messages are in lower case without a full stop; no field twice |
//! | `documents` | options, links and tests in documents exist; the table of planted bugs is complete |
#![allow(clippy::unwrap_used, missing_docs)]

mod code;
mod documents;
mod habits;
mod layers;
mod limits;
mod log_lines;

use std::fs;
use std::path::{Path, PathBuf};

use code::File;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text files in these places of the tree, sorted by path.
fn files(places: &[&str]) -> Vec<File> {
    code::files(&root(), places)
}

/// Applies a rule to files and fails with all complaints.
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

/// Checks how often a rule complains about each file: path, text, number of complaints.
fn assert_complaints(rule: impl Fn(&File) -> Vec<String>, cases: &[(&str, &str, usize)]) {
    for (path, text, complaints) in cases {
        let file = File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let found = rule(&file);
        assert_eq!(found.len(), *complaints, "{path}: {text}\n{found:?}");
    }
}

#[test]
fn modules_point_one_way() {
    check(&files(&["src"]), layers::layers);
}

#[test]
fn the_core_depends_on_pure_crates_only() {
    let manifest = fs::read_to_string(root().join("src/core/Cargo.toml")).unwrap();
    let dependencies = layers::dependencies(&manifest);
    assert!(dependencies.contains("serde"));
    let impure = layers::impure(&dependencies);
    assert!(impure.is_empty(), "{impure:?}");
}

#[test]
fn every_file_begins_with_a_description() {
    check(&files(&["src", "tests"]), habits::opening);
}

#[test]
fn log_lines_are_lower_case_without_a_full_stop_and_have_no_field_twice() {
    let files = files(&["src"]);
    let lines = files.iter().flat_map(|f| log_lines::log_lines(&f.text));
    let messages: usize = lines.map(|line| line.messages.len()).sum();
    assert!(
        messages > 50,
        "only {messages} messages found: the rule is blind"
    );
    check(&files, log_lines::log_text);
    check(&files, log_lines::log_fields);
}

#[test]
fn nothing_prints_with_macros_that_panic() {
    check(&files(&["src"]), habits::printing);
}

#[test]
fn no_partition_is_read_from_a_logical_offset() {
    check(&files(&["src"]), habits::logical_offsets);
}

#[test]
fn no_process_starts_while_a_broker_goes_down() {
    check(&files(&["tests/it"]), habits::unguarded_starts);
}

#[test]
fn only_tests_that_need_real_services_are_ignored() {
    check(&files(&["src", "tests"]), habits::ignored_tests);
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
    check(&files(&places), habits::left_open);
}

#[test]
fn documents_name_options_that_exist() {
    let known = documents::known_options();
    assert!(known.flags.contains("--row-interval") && known.variables.contains("CITYSTREAM_GROUP"));
    let files = files(&["README.md", "docs", "systemd"]);
    check(&files, |file| documents::options(file, &known));
}

#[test]
fn documents_link_to_files_and_headings_that_exist() {
    let files = files(&["README.md", "CHANGELOG.md", "docs"]);
    check(&files, |file| {
        documents::links(file, &|path: &Path| {
            let path = root().join(path);
            let exists = path.exists();
            exists.then(|| fs::read_to_string(path).unwrap_or_default())
        })
    });
}

#[test]
fn documents_name_source_files_that_exist() {
    let files = files(&["README.md", "CHANGELOG.md", "docs"]);
    check(&files, |file| {
        documents::sources(file, &|path: &Path| root().join(path).exists())
    });
}

#[test]
fn every_planted_bug_has_a_row_that_says_what_finds_it() {
    let patches = files(&["src/core/mutants"]);
    assert!(patches.len() > 40, "only {} patches", patches.len());
    check(&files(&["docs/PROOF.md"]), |file| {
        documents::planted_bugs(file, &patches)
    });
}

#[test]
fn documents_name_tests_that_exist() {
    let code = files(&["src", "tests"]);
    let functions = code
        .iter()
        .flat_map(|f| code::functions(&code::blank(&f.text)));
    let mut functions: std::collections::BTreeSet<String> =
        functions.map(|(name, _)| name).collect();
    // The tests of the store are named in a macro.
    let suite = code.iter().filter(|f| f.path == "tests/store/mod.rs");
    functions.extend(
        suite
            .flat_map(|f| f.text.split_whitespace())
            .map(str::to_owned),
    );
    check(&files(&["README.md", "docs"]), |file| {
        documents::tests_named(file, &functions)
    });
}
