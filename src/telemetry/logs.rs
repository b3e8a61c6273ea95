//! The log on standard error, and plain messages for people.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::settings::LogFormat;

/// The log filter if `RUST_LOG` is not set.
const DEFAULT_FILTER: &str = "info,aws_config=error,hyper=warn,rdkafka=off,dynoxide=warn";

/// Log lines that are held back while a screen is up. If more arrive, the oldest are dropped.
const HELD_LINES_MAX: usize = 200;

/// The lines that are held back; `None` while lines are written at once.
static HELD_LINES: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);

fn held_lines() -> MutexGuard<'static, Option<VecDeque<Vec<u8>>>> {
    HELD_LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts logging to standard error. Further calls have no effect.
///
/// Without a `format`, lines are text on a terminal and JSON elsewhere. `RUST_LOG` sets the filter.
///
/// # Errors
/// Returns a message for the operator if `RUST_LOG` is not a valid filter.
pub fn start_logging(format: Option<LogFormat>) -> Result<(), Failure> {
    let setting = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = if setting.is_empty() {
        EnvFilter::new(DEFAULT_FILTER)
    } else {
        EnvFilter::builder().parse(&setting).map_err(|error| {
            Failure::new(format!("RUST_LOG={setting}"))
                .with_why(error.to_string())
                .with_remedy("give a level such as debug, or info,aws_config=debug")
        })?
    };
    let is_terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_target(false);
    let colors = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = match format {
        LogFormat::Text => builder.with_ansi(colors).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        // Tests start logging several times in one process.
        tracing::debug!("logging was already started");
    }
    Ok(())
}

/// Holds back log lines until [`release_log_lines`], so that they do not overwrite a full screen.
///
/// If standard error is not a terminal, lines are still written at once.
pub fn hold_log_lines() {
    if io::stderr().is_terminal() {
        held_lines().get_or_insert_default();
    }
}

/// Writes the log lines that were held back. Later lines are written at once.
pub fn release_log_lines() {
    let held = held_lines().take();
    for line in held.into_iter().flatten() {
        write_stderr(&line);
    }
}

/// Writes to standard error, or holds the text back like a log line.
pub fn write_stderr(line: &[u8]) {
    match &mut *held_lines() {
        Some(held) => {
            if held.len() == HELD_LINES_MAX {
                held.pop_front();
            }
            held.push_back(line.to_vec());
        }
        None => {
            // There is no other place to report that standard error failed.
            drop(io::stderr().write_all(line));
        }
    }
}

/// Prints a line for people on standard error, next to the log. Write errors are ignored.
pub fn print_stderr(text: &str) {
    write_stderr(format!("{text}\n").as_bytes());
}

/// Prints text on standard output that the role can work without, such as its address.
///
/// Write errors are logged at level debug. The actual output of a command goes through writers that
/// return their errors.
pub fn print_stdout(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "failed to write to standard output");
    }
}

/// Receives each log line in a single write.
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
