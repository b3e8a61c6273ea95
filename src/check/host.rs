//! What a role needs of its host: open files, a free port, time enough to stop.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Outcome, Table};
use crate::settings::Role;

/// A server takes 1,024 connections and more; a consumer as many requests as it may.
const OPEN_FILES_MIN: u64 = 4_096;
/// Longest wait for whoever has the port already.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Longest answer of a role that lives.
const ANSWER_BYTES_MAX: u64 = 4_096;

pub(crate) async fn check(table: &mut Table, role: Role, port: Option<(&str, SocketAddr)>) {
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
            Err(_) if lives_at(address).await => {
                let found = format!("{address} is taken by a role that lives, this one it seems");
                table.row(Outcome::Note, option, found, None);
            }
            Err(error) => table.bad(
                Outcome::Away,
                option,
                format!("{address}: {error}"),
                "another program has the port; give another",
            ),
        }
    }
    stop_timeout(table, role);
}

/// Tells whether somebody answers `/livez` there as a role does.
async fn lives_at(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await;
    matches!(answer, Ok(Ok(a)) if a.starts_with(b"HTTP/1.1 200 ") && a.ends_with(b"\r\n\r\nok\n"))
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
    let drain = crate::exit::DRAIN_MAX;
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

    /// Answers every request so.
    async fn answering(text: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1_024];
                let _read = stream.read(&mut request).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_port_that_the_role_itself_has_is_no_trouble() {
        let role = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nok\n";
        let other = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        for (answer, outcome) in [(role, Outcome::Note), (other, Outcome::Away)] {
            let address = answering(answer).await;
            let mut table = Table { worst: Outcome::Ok };
            check(&mut table, Role::Tail, Some(("--listen", address))).await;
            assert_eq!(table.worst, outcome, "{answer}");
        }
    }

    #[test]
    fn spans_of_systemd_are_understood() {
        for (text, seconds) in [("20s", 20), ("1min 30s", 90), ("1h", 3_600)] {
            assert_eq!(parse_systemd_span(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse_systemd_span("infinity"), None);
    }
}
