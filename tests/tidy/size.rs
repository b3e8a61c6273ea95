//! Prints how large the tree is: the program behind `scripts/size`, which compiles this file without Cargo.
//!
//! `--check` fails when a figure exceeds its limit. `--binary PATH` names the shipped binary; by default it is the newest
//! release build in `target`, if there is one.

// The checks of the tree use the rest of this module.
#[allow(dead_code)]
mod code;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use code::File;

/// Most lines of code. This is today's figure, so that the tree cannot grow unnoticed. The goal is 26,500: lower the limit
/// whenever the figure falls.
const CODE_LINES_MAX: usize = 50_060;
/// Most words of the manuals, counted as `wc -w` does. This is a little more than today's figure, and the goal is 15,000.
const WORDS_MAX: usize = 18_500;
/// Most crates in Cargo.lock. This is today's figure, and the goal is 320.
const CRATES_MAX: usize = 347;
/// Largest binary: 33 MiB.
const BINARY_BYTES_MAX: u64 = 33 << 20;

/// Functions and files shown in the list of the longest.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(".");
    let tree = code::files(root, &["src", "tests", "benches", "fuzz", "scripts"]);
    let source: Vec<&File> = tree
        .iter()
        .filter(|f| f.path.starts_with("src/") && code::is_rust(f))
        .collect();

    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &source {
        let folder = file.path.split('/').nth(1).unwrap_or_default();
        let folder = folder.trim_end_matches(".rs");
        *folders.entry(folder).or_default() += code_lines(file);
    }
    println!("lines of code in src, without tests, comments and blank lines");
    for (folder, lines) in &folders {
        println!("{lines:>8}  {folder}");
    }
    let code_lines = folders.values().sum();

    let functions = source.iter().flat_map(|file| {
        let of_file = code::functions(&code::product_code(&file.text)).into_iter();
        of_file.map(|(name, lines)| (lines, format!("{name} in {}", file.path)))
    });
    show_longest("longest functions, in lines", functions);
    let files = source
        .iter()
        .map(|f| (f.text.lines().count(), f.path.clone()));
    show_longest("longest files, in lines", files);

    let imports = code::imports(&tree);
    let cycles = code::cycles(&imports);
    println!("\nfiles that import each other: {} groups", cycles.len());
    for group in &cycles {
        println!("          {}", group.join(" "));
    }

    let manuals = code::files(root, &["README.md", "docs"]);
    let manuals = manuals.iter().filter(|f| f.path.ends_with(".md"));
    let manuals: Vec<(usize, String)> = manuals
        .map(|f| (f.text.split_whitespace().count(), f.path.clone()))
        .collect();
    let all_words = manuals.iter().map(|(n, _)| n).sum();
    println!("\nwords of the manuals");
    for (n, path) in &manuals {
        println!("{n:>8}  {path}");
    }

    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let crates = lock.lines().filter(|line| *line == "[[package]]").count();
    let given = arguments.iter().position(|a| a == "--binary");
    let given = given.and_then(|n| arguments.get(n + 1)).map(PathBuf::from);
    let binary = given.or_else(built_binary);
    let binary_bytes = binary.and_then(|path| std::fs::metadata(path).ok());

    println!("\nin all");
    let mut ok = within("lines of code", code_lines, CODE_LINES_MAX);
    ok &= within("words of the manuals", all_words, WORDS_MAX);
    ok &= within("crates in Cargo.lock", crates, CRATES_MAX);
    if let Some(file) = binary_bytes {
        ok &= within("bytes of the binary", file.len(), BINARY_BYTES_MAX);
    }
    if ok || !arguments.iter().any(|a| a == "--check") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns how many lines of code the file has, without comments, blank lines and in-tree tests.
fn code_lines(file: &File) -> usize {
    if code::is_tests(&file.path) {
        return 0;
    }
    let code = code::erase(&file.text, false);
    let code = &code[..code::product_code(&file.text).len()];
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Returns the newest release binary in the folder `target`.
fn built_binary() -> Option<PathBuf> {
    let targets = std::fs::read_dir("target").ok()?;
    let folders = targets.filter_map(|entry| Some(entry.ok()?.path()));
    let binaries = folders.flat_map(|folder| {
        ["release", "dist"].map(|profile| folder.join(profile).join("citystream"))
    });
    let built = binaries.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)));
    built.max().map(|(_, path)| path)
}

fn show_longest(title: &str, items: impl Iterator<Item = (usize, String)>) {
    let mut items: Vec<(usize, String)> = items.collect();
    items.sort_by(|a, b| b.cmp(a));
    println!("\n{title}");
    for (lines, name) in items.iter().take(SHOWN) {
        println!("{lines:>8}  {name}");
    }
}

/// Prints a figure with its limit and returns whether the limit holds.
fn within<N: PartialOrd + std::fmt::Display>(what: &str, figure: N, limit: N) -> bool {
    let holds = figure <= limit;
    let verdict = if holds { "" } else { ", TOO MUCH" };
    println!("{figure:>8}  {what} (limit {limit}{verdict})");
    holds
}
