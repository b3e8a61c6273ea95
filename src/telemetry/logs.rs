//! Writes the log to standard error, and prints plain messages for users.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;
use crate::settings::LogFormat;

/// The log filter that applies if `RUST_LOG` is not set.
const DEFAULT_FILTER: &str = "info,aws_config=error,hyper=warn,rdkafka=off,dynoxide=warn";

/// Maximum number of log lines that are held back while a full-screen display is shown. If more log lines arrive than
/// this maximum, the oldest log lines are dropped.
const HELD_LINES_MAX: usize = 200;

/// The log lines that are held back. `None` means that log lines are written immediately.
static HELD_LINES: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);

fn held_lines() -> MutexGuard<'static, Option<VecDeque<Vec<u8>>>> {
    HELD_LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts logging to standard error. Only the first call of this function in a process has an effect.
///
/// If `format` is `None`, log lines are text on a terminal and JSON elsewhere. The environment variable `RUST_LOG` sets
/// the log filter.
///
/// # Errors
/// Returns a message for the operator if `RUST_LOG` is not a valid filter.
pub fn start_logging(format: Option<LogFormat>) -> Result<(), Failure> {
    let setting = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let setting = setting.as_deref().unwrap_or(DEFAULT_FILTER);
    let filter: Targets = setting.parse().map_err(|error| {
        Failure::new(format!("RUST_LOG={setting}"))
            .with_why(format!("{error}"))
            .with_remedy("give a level such as debug, or info,aws_config=debug")
    })?;
    let is_terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(|| LogWriter)
        .with_target(false);
    let colors = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = match format {
        LogFormat::Text => builder.with_ansi(colors).finish().with(filter).try_init(),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder.finish().with(filter).try_init()
        }
    };
    if started.is_err() {
        // Several tests in one process may each start logging.
        tracing::debug!("logging was already started");
    }
    Ok(())
}

/// Holds back log lines until [`release_log_lines`] is called, so that no log line overwrites a full-screen display.
///
/// If standard error is not a terminal, log lines are not held back.
pub fn hold_log_lines() {
    if io::stderr().is_terminal() {
        held_lines().get_or_insert_default();
    }
}

/// Writes the log lines that were held back. After a call of this function, log lines are written immediately again.
pub fn release_log_lines() {
    let held = held_lines().take();
    for line in held.into_iter().flatten() {
        write_stderr(&line);
    }
}

/// Writes text to standard error. While log lines are held back, the function also holds back the text.
pub fn write_stderr(line: &[u8]) {
    match &mut *held_lines() {
        Some(held) => {
            if held.len() == HELD_LINES_MAX {
                held.pop_front();
            }
            held.push_back(line.to_vec());
        }
        None => {
            // If writing to standard error fails, there is no other place to report the failure.
            drop(io::stderr().write_all(line));
        }
    }
}

/// Prints a message for users to standard error, to which the log is also written. The function ignores write errors.
pub fn print_stderr(text: &str) {
    write_stderr(format!("{text}\n").as_bytes());
}

/// Prints useful but optional text to standard output, such as the address at which a role listens.
///
/// The function logs a write error at the level debug, and does not return the error. For required output, commands use
/// other functions, which return write errors.
pub fn print_stdout(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "failed to write to standard output");
    }
}

/// The writer of the log, which receives each log line in a single write call.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_stderr(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
