//! The layers of the program: which module may use which, and which crates the core may depend on.

use std::collections::BTreeSet;

use crate::code::{File, is_ident, product_code, words_at};

/// What `src/core` may use besides the standard library: crates without a clock, randomness, threads or
/// sockets.
const CORE_CRATES: [&str; 5] = ["crc32fast", "itoa", "jiff", "serde", "serde_json"];

/// The modules that implement the subcommands.
const ROLES: [&str; 9] = [
    "crate::check",
    "crate::cmd",
    "crate::consume",
    "crate::dev",
    "crate::notify",
    "crate::produce",
    "crate::tables",
    "crate::tail",
    "crate::verify",
];

/// For each place in the tree, the modules of [`ROLES`] that code there may use. `src/cmd/` may use all.
const ROLES_ALLOWED: [(&str, &[&str]); 14] = [
    ("src/kafka/", &[]),
    ("src/store/", &[]),
    ("src/api/", &[]),
    ("src/settings", &[]),
    ("src/telemetry", &[]),
    ("src/sys", &[]),
    ("src/check/", &["crate::check", "crate::tables"]),
    ("src/consume/", &["crate::consume"]),
    ("src/notify/", &["crate::notify"]),
    ("src/produce/", &["crate::produce"]),
    ("src/tables/", &["crate::tables"]),
    ("src/tail/", &["crate::tail"]),
    ("src/verify/", &["crate::verify"]),
    (
        "src/dev/",
        &[
            "crate::consume",
            "crate::dev",
            "crate::notify",
            "crate::produce",
            "crate::tables",
            "crate::verify",
        ],
    ),
];

/// For each place in the tree, the other modules, crates and items of the standard library that code there must not use.
const FORBIDDEN: [(&str, &[&str]); 7] = [
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
        "src/telemetry",
        &["crate::api", "crate::kafka", "crate::store", "anyhow"],
    ),
    (
        "src/sys",
        &["crate::api", "crate::kafka", "crate::store", "anyhow"],
    ),
];

pub(crate) fn layers(file: &File) -> Vec<String> {
    // The integration tests of the core are not part of it.
    if file.path.starts_with("src/core/tests/") {
        return Vec::new();
    }
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
            complaints.push(format!("uses {name}, which code in {place} must not use"));
        }
    }
    let foreign_calls = file.path == "src/sys.rs" || file.path.starts_with("src/sys/");
    if file.path.starts_with("src/") && !foreign_calls && words_at(&code, "unsafe").next().is_some()
    {
        complaints.push("has unsafe code, which belongs in src/sys".to_owned());
    }
    complaints
}

/// Returns the crates of the core's manifest that it must not depend on.
pub(crate) fn impure(dependencies: &BTreeSet<String>) -> Vec<&str> {
    let names = dependencies.iter().map(String::as_str);
    names.filter(|name| !CORE_CRATES.contains(name)).collect()
}

/// Returns whether `code` uses the crate, or the module below `crate` or `std`. Understands grouped imports.
fn uses(code: &str, name: &str) -> bool {
    let names = |text: &str| words_at(code, text).next().is_some();
    let Some((root, item)) = name.split_once("::") else {
        return names(&format!("{name}::")) || names(&format!("use {name};"));
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

/// Returns the crates of `[dependencies]`, as code spells them.
pub(crate) fn dependencies(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|l| *l != "[dependencies]");
    let lines = lines.skip(1).take_while(|l| !l.starts_with('['));
    let names = lines
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

#[test]
fn the_rules_about_layers_can_fail() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\ntokio = \"1\"\naws-config = \"1\"\nserde = \"1\"\n[features]\n";
    assert_eq!(impure(&dependencies(manifest)), ["aws_config", "tokio"]);
    crate::assert_complaints(
        layers,
        &[
            (
                "src/core/a.rs",
                "use std::fmt;\nuse serde::Serialize;\nuse crate::core::time;\n",
                0,
            ),
            ("src/core/a.rs", "use std::{fmt, fs};\n", 1),
            (
                "src/core/a.rs",
                "use std::{fmt::{self, Write}, thread::spawn};\n",
                1,
            ),
            (
                "src/core/a.rs",
                "// std::fs::read in a comment\nconst A: &str = \"std::fs\";\n",
                0,
            ),
            (
                "src/core/a.rs",
                "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n",
                0,
            ),
            ("src/kafka/a.rs", "use crate::store::write::Writer;\n", 1),
            ("src/kafka/a.rs", "use crate::{core::keys, store};\n", 1),
            (
                "src/kafka/a.rs",
                "use crate::stores::A;\nuse crate::core::keys;\n",
                0,
            ),
            ("src/store/a.rs", "fn f() { crate::kafka::admin::f() }\n", 1),
            ("src/store/a.rs", "use rdkafka::ClientConfig;\n", 1),
            ("src/api/a.rs", "use crate::kafka::reader;\n", 1),
            ("src/api/a.rs", "use anyhow::Context as _;\n", 1),
            (
                "src/cmd/a.rs",
                "use crate::kafka::reader;\nuse crate::store::reads;\n",
                0,
            ),
            ("src/cmd/a.rs", "fn f() { unsafe { g() } }\n", 1),
            ("src/cmd/a.rs", "#![deny(unsafe_code)]\n", 0),
        ],
    );
}
