//! Runs every command of docs/TUTORIAL.md as written there, and compares its output with the one written there.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::role::binary;
use crate::services::services;

/// Replaces a missing curl, and waits for roles that do not listen yet.
const PRELUDE: &str = r#"
curl() {
  local url=${!#} answer tries=0
  local host=${url%%/*} path=/${url#*/}
  until { exec 3<>"/dev/tcp/127.0.0.1/${host#*:}"; } 2>/dev/null; do
    ((tries++ < 600)) || return 1
    sleep 0.1
  done
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" >&3
  answer=$(cat <&3)
  exec 3<&-
  printf '%s\n' "${answer##*$'\r\n\r\n'}"
}
"#;
/// Separates the outputs of the commands.
const MARK: &str = "@@@ ";

/// A command and the lines that it prints.
type Step = (String, Vec<String>);

/// Returns the commands and their outputs from the indented blocks.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(line) if line.starts_with("$ ") => {
                steps.push((line[2..].to_owned(), Vec::new()));
                open = true;
            }
            Some(line) if open => steps.last_mut().unwrap().1.push(line.to_owned()),
            _ => open = false,
        }
    }
    steps
}

/// Returns whether a line is as expected. `…` matches anything.
fn fits(got: &str, want: &str) -> bool {
    let mut parts = want.split('…');
    let Some(mut rest) = got.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, inner)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in inner {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_tutorial_prints_what_it_says() {
    for (got, want, fit) in [
        ("a 12 b", "a … b", true),
        ("a 12 c", "a … b", false),
        ("ab", "ab", true),
        ("abc", "ab", false),
        ("{1,2}", "{…}", true),
    ] {
        assert_eq!(fits(got, want), fit, "{got} {want}");
    }
    let services = services();
    let begun = Instant::now();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/TUTORIAL.md")).unwrap();
    let steps = steps(&text);
    assert!(steps.len() >= 15, "{steps:?}");
    let port = free_port();
    let mut script = PRELUDE.to_owned();
    for (number, (command, _)) in steps.iter().enumerate() {
        let command = command.replace("8082", &port);
        script.push_str(&format!("echo '{MARK}{number}'\n{command}\n"));
    }
    let folder = services.folder().join("tutorial");
    std::fs::create_dir_all(&folder).unwrap();
    // Makes the program available under its own name, wherever it was built.
    let program = folder.join("citystream");
    let _old = std::fs::remove_file(&program);
    std::os::unix::fs::symlink(binary(), &program).unwrap();
    let path = std::env::var("PATH").unwrap();
    let errors = folder.join("errors");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root)
        .envs(services.exports())
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("CITYSTREAM_PORT", &port)
        .env("CITYSTREAM_LISTEN", format!("127.0.0.1:{}", free_port()))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = std::fs::read_to_string(errors).unwrap();
    let mut parts = printed.split(MARK);
    assert_eq!(parts.next(), Some(""), "{printed}");
    for (number, (command, want)) in steps.iter().enumerate() {
        let part = parts.next().unwrap_or_default();
        let got: Vec<&str> = part.lines().skip(1).collect();
        let all =
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| fits(got, want));
        assert!(
            all,
            "command {number}: {command}\nprinted:\n{}\ninstead of:\n{}\n{errors}",
            got.join("\n"),
            want.join("\n")
        );
    }
    eprintln!(
        "tutorial: {} commands, {:.1} s",
        steps.len(),
        begun.elapsed().as_secs_f64()
    );
}
