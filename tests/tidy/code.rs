//! Reads Rust code as text: comments and strings blanked out, functions, imports and cycles of imports.
//!
//! The reader expects code as `rustfmt` writes it. It uses the standard library alone, because `scripts/size` compiles
//! it without Cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree.
pub(crate) struct File {
    /// From the root of the tree, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Returns the text files in `places`, which are relative to `root`, sorted by path.
pub(crate) fn files(root: &Path, places: &[&str]) -> Vec<File> {
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
        walk(&root.join(place), &mut paths);
    }
    paths.sort();
    let file = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root).unwrap();
        let path = path.to_string_lossy().replace('\\', "/");
        Some(File { path, text })
    };
    paths.into_iter().filter_map(file).collect()
}

pub(crate) fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// Returns whether the file holds nothing but in-tree tests, as `src/core/worker/tests.rs` does.
pub(crate) fn is_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Returns the code without comments, strings and the tests at its end, byte for byte at the same places.
pub(crate) fn product_code(text: &str) -> String {
    let code = blank(text);
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// Returns the text with comments and literals replaced by spaces. The length stays the same.
pub(crate) fn blank(text: &str) -> String {
    erase(text, true)
}

/// Returns the text with comments replaced by spaces, and literals too if `literals` is true.
pub(crate) fn erase(text: &str, literals: bool) -> String {
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
        } else if rest.starts_with(b"'\\") {
            at + 4
        } else if rest[0] == b'\'' && rest.get(2) == Some(&b'\'') {
            at + 3
        } else {
            at += 1;
            continue;
        };
        let comment = rest.starts_with(b"//") || rest.starts_with(b"/*");
        for b in &mut out[at..end.min(bytes.len())] {
            if *b != b'\n' && (comment || literals) {
                *b = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// Returns the length of the string literal at the start of `rest`, quotes included.
pub(crate) fn string_len(rest: &[u8]) -> usize {
    let mut n = 1;
    while n < rest.len() && rest[n] != b'"' {
        n += if rest[n] == b'\\' { 2 } else { 1 };
    }
    n + 1
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub(crate) fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the places where `name` occurs in `code` as a word of its own.
pub(crate) fn words_at<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let places = code.match_indices(name).map(|(at, _)| at);
    places.filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let closed = !name.ends_with(is_ident) || !after.is_some_and(is_ident);
        closed && !before.is_some_and(is_ident)
    })
}

/// Returns the name at the start of `code`.
fn name(code: &str) -> &str {
    &code[..code.find(|c| !is_ident(c)).unwrap_or(code.len())]
}

/// Returns each function with a body: its name and its length in lines, from `fn` to the closing brace.
pub(crate) fn functions(code: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    for at in words_at(code, "fn ") {
        let (mut braces, mut brackets) = (0, 0);
        let mut end = None;
        for (n, c) in code[at..].char_indices() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                // A declaration in a trait or an extern block.
                ';' if braces == 0 && brackets == 0 => break,
                '{' => braces += 1,
                '}' => {
                    braces -= 1;
                    if braces == 0 {
                        end = Some(at + n);
                        break;
                    }
                }
                _ => {}
            }
        }
        let name = name(&code[at + 3..]);
        if let (Some(end), false) = (end, name.is_empty()) {
            let lines = code[at..end].matches('\n').count() + 1;
            out.push((name.to_owned(), lines));
        }
    }
    out
}

/// Which files of `src` import which: an arrow from each file to every file that it names.
///
/// Arrows from a module to its own parent are left out. A file may use helpers of its parent.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Reads the imports of the files in `src`, in-tree tests and `main.rs` aside.
pub(crate) fn imports(files: &[File]) -> Imports {
    let mut modules = BTreeMap::new();
    for file in files {
        let of_library = file.path.starts_with("src/") && file.path != "src/main.rs";
        if of_library && is_rust(file) && !is_tests(&file.path) {
            modules.insert(module(&file.path), file);
        }
    }
    let core_is_a_crate = files.iter().any(|file| file.path == "src/core/lib.rs");
    let mut imports = Imports::new();
    for (here, file) in &modules {
        let code = product_code(&file.text);
        let mut targets = BTreeSet::new();
        let crate_root: &[String] = if core_is_a_crate && here.first().is_some_and(|n| n == "core")
        {
            &here[..1]
        } else {
            &[]
        };
        for path in paths(&code, here, crate_root) {
            let longest = (0..=path.len()).rev().find_map(|n| modules.get(&path[..n]));
            let parent = here.len().checked_sub(1).map(|n| &here[..n]);
            if let Some(target) = longest
                && target.path != file.path
                && Some(&module(&target.path)[..]) != parent
            {
                targets.insert(target.path.clone());
            }
        }
        imports.insert(file.path.clone(), targets);
    }
    imports
}

/// Returns the module that a file of `src` holds: `src/a/b.rs` and `src/a/b/mod.rs` hold `a::b`.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let names = path.split('/').filter(|name| *name != "lib");
    names.map(str::to_owned).collect()
}

/// Returns every path in the code of module `here` that begins inside its crate, whose root is `crate_root`.
fn paths(code: &str, here: &[String], crate_root: &[String]) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let children = words_at(code, "mod ")
        .map(|at| name(&code[at + 4..]))
        .filter(|child| code.contains(&format!("mod {child};")));
    for first in children.chain(["crate", "self", "super"]) {
        for at in words_at(code, &format!("{first}::")) {
            if code[..at].ends_with(':') {
                continue;
            }
            let mut base = match first {
                "crate" => crate_root,
                _ => here,
            }
            .to_vec();
            let mut rest = &code[at..];
            if !["crate", "self", "super"].contains(&first) {
                base.push(first.to_owned());
            }
            if first != "super" {
                rest = &rest[first.len() + 2..];
            }
            while let Some(above) = rest.strip_prefix("super::") {
                base.pop();
                rest = above;
            }
            expand(rest, &base, &mut out);
        }
    }
    out
}

/// Adds the paths of the import tree at the start of `code`, each below `base`. Returns the length of the tree.
fn expand(code: &str, base: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let start = code.len() - code.trim_start().len();
    let rest = &code[start..];
    if let Some(group) = rest.strip_prefix('{') {
        let mut at = 0;
        while at < group.len() && !group[at..].starts_with('}') {
            let skipped = group[at..].starts_with(|c: char| c == ',' || c.is_whitespace());
            at += if skipped {
                1
            } else {
                expand(&group[at..], base, out).max(1)
            };
        }
        return start + at + 2;
    }
    let first = name(rest);
    let mut path = base.to_vec();
    path.push(first.to_owned());
    match rest[first.len()..].strip_prefix("::") {
        Some(deeper) if !first.is_empty() => start + first.len() + 2 + expand(deeper, &path, out),
        _ => {
            out.push(path);
            start + first.len()
        }
    }
}

/// Returns the groups of files that import each other, directly or through others.
pub(crate) fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    let mut out: Vec<Vec<String>> = Vec::new();
    for file in imports.keys() {
        if out.iter().flatten().any(|known| known == file) {
            continue;
        }
        let mutual = reached(imports, file).into_iter();
        let mutual = mutual.filter(|other| reached(imports, other).contains(file));
        let group: Vec<String> = mutual.collect();
        if !group.is_empty() {
            out.push(group);
        }
    }
    out
}

/// Returns the files that a chain of imports leads to from `file`.
pub(crate) fn reached(imports: &Imports, file: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![file.to_owned()];
    while let Some(next) = open.pop() {
        for target in imports.get(&next).into_iter().flatten() {
            if seen.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    seen
}
