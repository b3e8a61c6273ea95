//! The rules about what code must not do: print, use logical offsets, leave something for later.

use crate::code::{File, blank, is_rust, product_code, words_at};

pub(crate) fn opening(file: &File) -> Vec<String> {
    if is_rust(file) && !file.text.starts_with("//! ") {
        return vec!["does not begin with a //! description".to_owned()];
    }
    Vec::new()
}

pub(crate) fn printing(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let product = file.path.starts_with("src/") && !file.path.starts_with("src/core/tests/");
    if !is_rust(file) || !product {
        return complaints;
    }
    let code = product_code(&file.text);
    for name in ["println!", "print!", "eprintln!", "eprint!"] {
        if words_at(&code, name).next().is_some() {
            complaints.push(format!(
                "{name} panics when its reader has closed the pipe; use the print functions of telemetry"
            ));
        }
    }
    complaints
}

/// Complains about offsets that librdkafka must ask a broker for. If the answer crosses a seek, librdkafka skips
/// records.
pub(crate) fn logical_offsets(file: &File) -> Vec<String> {
    const LOGICAL: [&str; 4] = ["Beginning", "End", "Stored", "OffsetTail"];
    let code = blank(&product_code(&file.text));
    let named = LOGICAL.into_iter();
    named
        .filter(|name| code.contains(&format!("Offset::{name}")))
        .map(|name| format!("uses the logical offset {name}"))
        .collect()
}

/// Complains about tests beside mock clusters that start processes or take brokers down outside `process.rs`, which
/// keeps the two apart.
pub(crate) fn unguarded_starts(file: &File) -> Vec<String> {
    if !file.path.starts_with("tests/it/") || file.path == "tests/it/process.rs" {
        return Vec::new();
    }
    let code = blank(&file.text);
    let code = code.replace("command.spawn(pts)", "");
    [".spawn(", ".output()", ".broker_down("]
        .into_iter()
        .filter(|call| code.contains(call))
        .map(|call| format!("calls {call}; use the functions of tests/it/process.rs"))
        .collect()
}

pub(crate) fn left_open(file: &File) -> Vec<String> {
    // `concat!` keeps this file from complaining about itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("unimple", "mented"),
        concat!("to", "do!"),
        concat!("#[", "ignore]"),
    ];
    let found = words
        .iter()
        .filter(|w| words_at(&file.text, w).next().is_some());
    found
        .map(|w| format!("leaves something open: {w}"))
        .collect()
}

/// Complains about tests that would start real services in a plain `cargo test`, and about tests elsewhere that
/// `cargo test` would not run.
pub(crate) fn ignored_tests(file: &File) -> Vec<String> {
    if !is_rust(file) || file.path.starts_with("tests/tidy/") || file.path == "tests/store/mod.rs" {
        return Vec::new();
    }
    let tests = file.text.matches("#[test]").count();
    let ignored = file.text.matches(concat!("#[", "ignore = \"")).count();
    // The oracle's own test needs no service.
    let needs_services =
        file.path.starts_with("tests/real/") && file.path != "tests/real/oracle.rs";
    if needs_services && ignored < tests {
        return vec![format!(
            "has {tests} tests, of which {ignored} are ignored by default"
        )];
    }
    if !needs_services && ignored > 0 {
        return vec!["has a test that is ignored by default".to_owned()];
    }
    Vec::new()
}

#[test]
fn the_rules_about_habits_can_fail() {
    let rules = |file: &File| {
        let found = [
            opening(file),
            printing(file),
            logical_offsets(file),
            left_open(file),
            unguarded_starts(file),
            ignored_tests(file),
        ];
        found.concat()
    };
    let ignored = concat!("//! Is.\n#[test]\n#[", "ignore = \"why\"]\nfn f() {}\n");
    let not_ignored = concat!("//! Is.\n#[", "test]\nfn f() {}\n");
    crate::assert_complaints(
        rules,
        &[
            ("src/a.rs", "use std::fmt;\n", 1),
            ("src/a.rs", "//! Is.\nfn f() { println!(\"x\") }\n", 1),
            ("src/a.rs", "//! Is.\nfn f() { eprint!(\"x\") }\n", 1),
            (
                "src/a.rs",
                "//! Is.\n#[allow(clippy::print_stdout)]\nfn f() { println!(\"x\") }\n",
                1,
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
            ("src/a.rs", concat!("//! Is.\n// TO", "DO: later\n"), 1),
            ("tests/a.rs", concat!("//! Is.\n#[", "ignore]\n"), 1),
            ("tests/it/a.rs", ignored, 1),
            ("tests/it/a.rs", not_ignored, 0),
            ("tests/it/a.rs", "//! Is.\nfn f() { c.spawn() }\n", 1),
            ("tests/it/process.rs", "//! Is.\nfn f() { c.spawn() }\n", 0),
            ("tests/real/a.rs", ignored, 0),
            ("tests/real/a.rs", not_ignored, 1),
        ],
    );
}
