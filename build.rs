//! Tells the binary which commit it is built from, for `citystream --version`, and packs its addresses.
//!
//! `SOURCE_COMMIT` says it where there is no repository. Builds for tests do not ask, so that a commit
//! does not make them anew.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    let given = std::env::var("SOURCE_COMMIT")
        .ok()
        .filter(|text| !text.is_empty());
    let released = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match given {
        Some(commit) => commit,
        None if released => from_git().unwrap_or_else(|| "unknown".to_owned()),
        None => "unknown, a debug build".to_owned(),
    };
    println!("cargo::rustc-env=BUILT_FROM={commit}");
    if released && std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu")
    {
        // A static program is moved when it starts. This form of the list of its addresses takes a thirtieth of the
        // space. The linkers and C libraries for other targets do not all know it.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The commit, marked if the files differ from it.
fn from_git() -> Option<String> {
    // A commit or a checkout adds to the first, a change of a file shows in the others.
    for path in [
        git(&["rev-parse", "--git-path", "logs/HEAD"])?.as_str(),
        "src",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}, changed")
    })
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
