//! Tests the host for `citystream check`: whether the process may open enough files, and whether the role's port is
//! free.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CheckOutcome, CheckTable};

/// The lowest acceptable limit for the number of open files. A limit of 4,096 files suffices for the connections of a
/// server and for the requests of a consumer.
const OPEN_FILES_MIN: u64 = 4_096;
/// Maximum wait for a response from the program that already uses the role's port.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Maximum number of bytes to read from the response of the program that already uses the role's port.
const ANSWER_BYTES_MAX: u64 = 4_096;

pub(crate) async fn check(table: &mut CheckTable, port: Option<(&str, SocketAddr)>) {
    if let Some((_, most)) = crate::sys::open_files() {
        if most < OPEN_FILES_MIN {
            table.add_bad(
                CheckOutcome::Note,
                "open files",
                format!("at most {most}"),
                &format!("LimitNOFILE={OPEN_FILES_MIN} or more in the unit, or ulimit -n"),
            );
        } else {
            table.add_ok("open files", format!("at most {most}"));
        }
    }
    if let Some((option, address)) = port {
        match tokio::net::TcpListener::bind(address).await {
            Ok(_) => table.add_ok(option, format!("{address} is free")),
            Err(_) if is_role_at(address).await => {
                let found = format!("{address} is in use by a running role, probably this one");
                table.add(CheckOutcome::Note, option, found, None);
            }
            Err(error) => table.add_bad(
                CheckOutcome::Away,
                option,
                format!("{address}: {error}"),
                "another program uses the port; choose another port",
            ),
        }
    }
}

/// Returns true if the program at `address` answers `/livez` the way a citystream role does.
async fn is_role_at(address: SocketAddr) -> bool {
    let request = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let line = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(line).await?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, request).await;
    matches!(answer, Ok(Ok(a)) if a.starts_with(b"HTTP/1.1 200 ") && a.ends_with(b"\r\n\r\nok\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a test server that answers every request with `text`.
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
    async fn a_port_in_use_by_the_role_itself_is_only_a_note() {
        let role = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nok\n";
        let other = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        for (answer, outcome) in [(role, CheckOutcome::Note), (other, CheckOutcome::Away)] {
            let address = answering(answer).await;
            let mut table = CheckTable::new();
            check(&mut table, Some(("--listen", address))).await;
            assert_eq!(table.worst, outcome, "{answer}");
        }
    }
}
