//! Processes under measurement: started, observed through `/proc` and their metrics, and ended by their ids.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Returns the program to measure: `BINARY`, to compare an older build, or the build of this tree.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_citystream").into(), PathBuf::from)
}

/// Ticks per second in `/proc/PID/stat`. The kernel's interface fixes this number.
const TICKS: f64 = 100.0;

/// Returns the user and system time of a process so far.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn cpu_seconds_of(pid: u32) -> Option<f64> {
    // The run time of each thread in nanoseconds. Ended threads are only in the ticks.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS)
}

/// Returns the largest resident size so far, in MiB.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn peak_mib_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1_024.0)
}

/// Returns how busy the machine is now, as a share of its time, measured over 300 ms.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn machine_load() -> f64 {
    let read = || {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let all: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        let idle = all.get(3).copied().unwrap_or(0) + all.get(4).copied().unwrap_or(0);
        (idle as f64, all.iter().take(8).sum::<u64>() as f64)
    };
    let before = read();
    std::thread::sleep(Duration::from_millis(300));
    let after = read();
    1.0 - (after.0 - before.0) / (after.1 - before.1).max(1.0)
}

/// A child that listens and has printed its address.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    // Receives the child's other lines. Closing this pipe would end the child.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts the child and waits for the line with its address.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Server> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the child has no output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // Some commands print other lines first.
        let url = loop {
            line.clear();
            if stdout.read_line(&mut line)? == 0 {
                bail!("the child ended: {}", child.wait()?);
            }
            if let Some(at) = line.find("http://") {
                break line[at..].trim().to_owned();
            }
        };
        Ok(Server {
            child,
            url,
            _stdout: stdout,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the body of a response.
pub(crate) fn get(url: &str, path: &str) -> anyhow::Result<String> {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    Ok(body.to_owned())
}

/// Returns the sum of a metric over its labels.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|l| {
        l.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
