//! What a role needs of its host: open files, a free port, time enough to stop.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use super::{Outcome, Table};
use crate::settings::Role;

/// A server takes 1,024 connections and more; a consumer as many requests as it may.
const OPEN_FILES_MIN: u64 = 4_096;

pub(super) async fn check(table: &mut Table, role: Role, port: Option<(&str, SocketAddr)>) {
    if let Some((_, most)) = crate::sys::open_files() {
        if most < OPEN_FILES_MIN {
            table.bad(
                Outcome::Note,
                "open files",
                format!("at most {most}"),
                &format!("LimitNOFILE={OPEN_FILES_MIN} or more in the unit, or ulimit -n"),
            );
        } else {
            table.ok("open files", format!("at most {most}"));
        }
    }
    if let Some((option, address)) = port {
        match tokio::net::TcpListener::bind(address).await {
            Ok(_) => table.ok(option, format!("{address} is free")),
            Err(error) => table.bad(
                Outcome::Away,
                option,
                format!("{address}: {error}"),
                "the role runs already, or another program has the port; give another",
            ),
        }
    }
    stop_timeout(table, role);
}

/// Compares how long the unit lets the role stop with how long that may take (H4).
fn stop_timeout(table: &mut Table, role: Role) {
    if role == Role::InitTables {
        return;
    }
    let unit = format!("citystream-{}.service", role.name());
    let what = "TimeoutStopSec";
    let asked = std::process::Command::new("systemctl")
        .args(["show", "--property=LoadState,TimeoutStopUSec", &unit])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = asked else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("LoadState=loaded") {
        return;
    }
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix("TimeoutStopUSec="));
    let Some(value) = value else { return };
    let drain = crate::cmd::DRAIN_MAX;
    match parse_systemd_span(value) {
        Some(given) if given <= drain => table.bad(
            Outcome::Wrong,
            what,
            format!(
                "{unit} gives {value}, a stop may take {} s",
                drain.as_secs()
            ),
            &format!(
                "TimeoutStopSec={}s (systemctl edit {unit})",
                2 * drain.as_secs()
            ),
        ),
        _ => table.ok(what, format!("{unit} gives {value}")),
    }
}

/// Parses a span as `systemctl show` prints it: `1min 30s`, `500ms`; `None` for `infinity`.
fn parse_systemd_span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_systemd_are_understood() {
        for (text, seconds) in [("20s", 20), ("1min 30s", 90), ("1h", 3_600)] {
            assert_eq!(parse_systemd_span(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse_systemd_span("infinity"), None);
    }
}
