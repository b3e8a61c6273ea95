//! The limits on files, functions and imports, with the exceptions that remain from before the limits.
//!
//! The lists of exceptions may only become shorter. A test fails when an exception is no longer needed.

use std::collections::BTreeSet;

use crate::code::{File, Imports, blank, cycles, functions, imports, is_rust, reached};

/// Most lines of a file. A longer file holds more than one thing.
const FILE_LINES_MAX: usize = 500;

/// Most lines of a function, from `fn` to the closing brace: what fits on one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer than [`FILE_LINES_MAX`].
const LONG_FILES: &[&str] = &[
    "src/core/parse.rs",
    "src/core/pipeline/tests.rs",
    "src/core/worker/tests.rs",
    "tests/store/mod.rs",
];

/// Functions that are longer than [`FUNCTION_LINES_MAX`], each with its file.
const LONG_FUNCTIONS: &[(&str, &str)] = &[
    ("src/core/parse/tests.rs", "every_reason_has_its_cases"),
    ("src/core/restart.rs", "the_start_rule_is_the_designs"),
    (
        "tests/it/protection.rs",
        "existing_tables_are_protected_on_request_and_never_unprotected",
    ),
];

/// Imports that close a cycle: the first file imports the second.
const CYCLES: &[(&str, &str)] = &[];

/// Returns the files that are too long.
fn long_files(files: &[File]) -> BTreeSet<&str> {
    let long = files.iter().filter(|f| is_rust(f));
    let long = long.filter(|f| f.text.lines().count() > FILE_LINES_MAX);
    long.map(|f| f.path.as_str()).collect()
}

/// Returns the functions that are too long, each with its file.
fn long_functions(files: &[File]) -> BTreeSet<(&str, String)> {
    let mut out = BTreeSet::new();
    for file in files.iter().filter(|f| is_rust(f)) {
        let long = functions(&blank(&file.text)).into_iter();
        let long = long.filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        out.extend(long.map(|(name, _)| (file.path.as_str(), name)));
    }
    out
}

/// Returns `imports` without the imports in `exceptions`.
fn without(imports: &Imports, exceptions: &[(&str, &str)]) -> Imports {
    let mut out = imports.clone();
    for (from, to) in exceptions {
        if let Some(targets) = out.get_mut(*from) {
            targets.remove(*to);
        }
    }
    out
}

/// Returns whether an import from one file to another closes a cycle.
fn closes_a_cycle(imports: &Imports, from: &str, to: &str) -> bool {
    imports
        .get(from)
        .is_some_and(|targets| targets.contains(to))
        && reached(imports, to).contains(from)
}

fn tree() -> Vec<File> {
    crate::files(&["src", "tests", "benches", "fuzz"])
}

#[test]
fn files_are_short() {
    let tree = tree();
    let found = long_files(&tree);
    let known: BTreeSet<&str> = LONG_FILES.iter().copied().collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(
        new.is_empty(),
        "longer than {FILE_LINES_MAX} lines: {new:#?}"
    );
    let stale: Vec<_> = known.difference(&found).collect();
    assert!(
        stale.is_empty(),
        "short now, remove from LONG_FILES: {stale:#?}"
    );
}

#[test]
fn functions_are_short() {
    let tree = tree();
    let found = long_functions(&tree);
    let known: BTreeSet<(&str, String)> = LONG_FUNCTIONS
        .iter()
        .map(|(path, name)| (*path, (*name).to_owned()))
        .collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(
        new.is_empty(),
        "longer than {FUNCTION_LINES_MAX} lines: {new:#?}"
    );
    let stale: Vec<_> = known.difference(&found).collect();
    assert!(
        stale.is_empty(),
        "short now, remove from LONG_FUNCTIONS: {stale:#?}"
    );
}

#[test]
fn files_import_each_other_in_one_direction() {
    let imports = imports(&tree());
    assert!(imports.len() > 100, "only {} files read", imports.len());
    let found = cycles(&without(&imports, CYCLES));
    assert!(found.is_empty(), "files that import each other: {found:#?}");
    let stale = CYCLES
        .iter()
        .filter(|(from, to)| !closes_a_cycle(&imports, from, to));
    let stale: Vec<_> = stale.collect();
    assert!(
        stale.is_empty(),
        "no cycle any more, remove from CYCLES: {stale:#?}"
    );
}

#[test]
fn the_limits_can_fail() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let body = "    g();\n".repeat(FUNCTION_LINES_MAX - 1);
    let long = format!(
        "impl A {{\nfn long(\n    a: [u8; 2],\n) {{\n{body}}}\nfn short() {{ \"}}\"; }}\n}}\n"
    );
    let longest = "fn f() {}\n".repeat(FILE_LINES_MAX + 1);
    let files = [
        file("src/a.rs", "use crate::b::{self, inner::{C, D}};\n"),
        file("src/b.rs", "mod inner;\npub use inner::C;\n"),
        file(
            "src/b/inner.rs",
            "use super::Helper;\nfn f(a: crate::d::E) {}\n",
        ),
        file(
            "src/d.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
        ),
        file("src/e.rs", &long),
        file("src/f.rs", &longest),
    ];
    assert_eq!(long_files(&files), BTreeSet::from(["src/f.rs"]));
    assert_eq!(
        long_functions(&files),
        BTreeSet::from([("src/e.rs", "long".to_owned())])
    );
    let mut imports = imports(&files);
    let targets = |imports: &Imports, from: &str| imports[from].iter().cloned().collect::<Vec<_>>();
    assert_eq!(
        targets(&imports, "src/a.rs"),
        ["src/b.rs", "src/b/inner.rs"]
    );
    assert_eq!(targets(&imports, "src/b.rs"), ["src/b/inner.rs"]);
    assert_eq!(targets(&imports, "src/b/inner.rs"), ["src/d.rs"]);
    assert!(cycles(&imports).is_empty());
    imports
        .get_mut("src/d.rs")
        .unwrap()
        .insert("src/a.rs".to_owned());
    assert_eq!(cycles(&imports)[0].len(), 4);
    assert!(closes_a_cycle(&imports, "src/d.rs", "src/a.rs"));
    assert!(cycles(&without(&imports, &[("src/d.rs", "src/a.rs")])).is_empty());
}
