//! Runs the examples of docs/EVENTS.md that send events over HTTP.

use std::process::Command;

use crate::accept::Door;
use crate::process::Start as _;
use crate::produce::{Broker, text};

/// Returns the text of each fenced block of a language in docs/EVENTS.md.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/EVENTS.md");
    let document = std::fs::read_to_string(path).unwrap();
    // Between two fences, every second part is a block, which begins with its language.
    let parts = document.split("\n```").skip(1).step_by(2);
    let blocks = parts.filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n'));
    blocks.map(str::to_owned).collect()
}

/// Runs a program. Returns its output, or `None` if the host lacks it.
#[allow(clippy::print_stderr)]
fn run(program: &str, flag: &str, argument: &str) -> Option<String> {
    match Command::new(program).args([flag, argument]).run() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(text(&output.stdout))
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{program}");
            eprintln!("SKIPPED: this host has no {program}");
            None
        }
    }
}

#[test]
fn the_examples_that_send_events_over_http_work() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let usual = "127.0.0.1:8080";
    let curl = blocks("")
        .into_iter()
        .find(|block| block.starts_with("curl "));
    let python = blocks("python").pop().expect("an example");
    let mut wanted = 0;
    for (program, flag, example, count) in [
        ("sh", "-c", curl.expect("an example"), 1),
        ("python3", "-c", python, 2),
    ] {
        assert!(example.contains(usual), "{example}");
        if program == "sh" && run("curl", "-V", "-q").is_none() {
            continue;
        }
        let Some(answer) = run(program, flag, &example.replace(usual, &door.address)) else {
            continue;
        };
        let accepted = format!("{{\"accepted\":{count},\"rejected\":0,\"results\":[]}}");
        assert_eq!(answer.trim(), accepted);
        wanted += count;
    }
    assert_eq!(broker.tail_json(&[]).len(), wanted);
}
