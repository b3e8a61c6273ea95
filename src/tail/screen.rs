//! The live screen that `tail` shows on a terminal.
//!
//! Two threads share a [`Board`], which holds the data of the live screen. The reading thread reads and counts records
//! as fast as Kafka delivers records. The drawing thread handles keys and draws the screen. The drawing thread draws at
//! most ten times a second, and only after a change, so the drawing thread hardly delays the reading thread. The
//! content of the screen depends only on the [`Board`] and the [`ScreenView`].

mod chart;
mod draw;
mod export;
mod format;
mod overlay;
mod picture;
mod query;
mod record_kind;
mod record_list;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{AbortHandle, spawn_blocking};

use super::board::{Board, ReadState};
use super::classify::{Classified, Classifier, OptionFilter};
use super::count_table::{dead_letter_table, event_table};
use super::printable::printable;
use super::terminal::FullScreen;
use super::{QUIET_HINT, count_down, topic};
use crate::kafka::reader::{LogReader, ReadRange, ReadStart, ReadStep, ReaderError};
use crate::output;
use crate::settings::Tail;
use crate::shutdown::Shutdown;
use crate::sys;
use crate::telemetry::unix_ms;
use format::TimeDetail;
use picture::Heading;
use record_kind::RecordKind;
use view::{KeyAction, ScreenView};

/// Minimum time between two updates of the screen.
const FRAME: Duration = Duration::from_millis(100);
/// Maximum wait for the reading thread after the screen has ended. The reading thread may be waiting for a broker that
/// does not answer.
const READER_END: Duration = Duration::from_millis(500);

/// The state that the reading thread, the drawing thread and the signal handlers share.
#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// True if anything has changed since the screen was last drawn.
    changed: AtomicBool,
    /// True if the signal SIGTSTP has arrived and was not handled yet.
    suspend: AtomicBool,
    /// True if the signal SIGCONT has arrived and was not handled yet.
    resumed: AtomicBool,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        // If the reading thread panics, the live screen ends. The counts from before the panic are still correct, so
        // `tail` prints these counts.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the live screen until the user quits or `tail` reaches the end of its range, and then prints the counts.
///
/// # Errors
/// Returns an error if reading or the terminal fails. The terminal is restored before the function returns.
pub(crate) async fn run(
    reader: LogReader,
    range: ReadRange,
    args: Tail,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let classifier = Classifier::new(&args);
    let knows_late = classifier.knows_late() && !args.dlq;
    let shared = Arc::new(Shared {
        board: Mutex::new(Board::new(knows_late, unix_ms())),
        changed: AtomicBool::new(true),
        suspend: AtomicBool::new(false),
        resumed: AtomicBool::new(false),
    });
    listen_for_job_control(&shared)?;
    let heading = heading(&args, &range);
    let kind = if args.dlq {
        RecordKind::DeadLetters
    } else {
        RecordKind::Events
    };
    let reading = {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        let left = args.events;
        spawn_blocking(move || read(&reader, &range, classifier, left, &shared, &shutdown))
    };
    let showing = {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        let (view, reading) = (ScreenView::new(kind), reading.abort_handle());
        spawn_blocking(move || show(&shared, &heading, view, &reading, &shutdown))
    };
    let shown = showing.await.context("the screen panicked")?;
    shutdown.trigger();
    if let Ok(read) = tokio::time::timeout(READER_END, reading).await {
        read.context("the reader panicked")??;
    }
    shown.context("the terminal failed")?;
    let board = shared.board();
    if let Some(hint) = &board.hint {
        tracing::warn!(hint = %printable(hint), "no event matches a name in the filter");
    }
    let mut out = std::io::stdout();
    let columns = output::columns(&out);
    let table = match kind {
        RecordKind::Events => event_table(&board.counts, knows_late, columns),
        RecordKind::DeadLetters => dead_letter_table(&board.counts, columns),
    };
    out.write_all(table.as_bytes())
        .and_then(|()| out.flush())
        .context("failed to write the output")
}

fn heading(args: &Tail, range: &ReadRange) -> Heading {
    Heading {
        topic: topic(args),
        from: match range.start {
            ReadStart::End => "from now on".to_owned(),
            ReadStart::Beginning => "from the beginning".to_owned(),
            ReadStart::At(ms) => format!("from {}", format::time(ms, TimeDetail::Date)),
        },
        quiet_hint: matches!(range.start, ReadStart::End).then_some(QUIET_HINT),
        filter: OptionFilter::new(args).text(),
    }
}

/// Listens for the signal SIGTSTP, which Ctrl-Z sends, and for the signal SIGCONT, which the shell command `fg` sends.
fn listen_for_job_control(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let [stop, go] = sys::STOP_AND_GO.map(SignalKind::from_raw).map(signal);
    let mut stop = stop.context("failed to listen for SIGTSTP")?;
    let mut go = go.context("failed to listen for SIGCONT")?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = stop.recv() => shared.suspend.store(true, Ordering::SeqCst),
                _ = go.recv() => shared.resumed.store(true, Ordering::SeqCst),
            }
        }
    });
    Ok(())
}

/// Reads the log and adds each record to the board.
fn read(
    reader: &LogReader,
    range: &ReadRange,
    mut classifier: Classifier,
    mut left: Option<u64>,
    shared: &Shared,
    shutdown: &Shutdown,
) -> Result<(), ReaderError> {
    reader.run(range, shutdown, &mut |step| {
        let classified = match step {
            ReadStep::Record(record) => classifier.classify(record),
            ReadStep::Letter(letter) => Classified::DeadLetter(letter),
            ReadStep::Behind(records) => {
                shared.board().state = ReadState::Reading(records);
                Classified::Hidden
            }
            ReadStep::Waiting(why) => {
                shared.board().state = ReadState::Waiting(why);
                Classified::Hidden
            }
            ReadStep::Idle => return ControlFlow::Continue(()),
        };
        let is_listed = matches!(classified, Classified::Event(_) | Classified::DeadLetter(_));
        let mut board = shared.board();
        board.add(classified);
        if board.hint.as_deref() != classifier.hint() {
            board.hint = classifier.hint().map(str::to_owned);
        }
        drop(board);
        shared.changed.store(true, Ordering::Relaxed);
        if is_listed && count_down(&mut left) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
}

/// Handles keys and draws the screen. The function returns when the user presses the key `q`, when a signal ends the
/// process, or when the reader has ended.
fn show(
    shared: &Shared,
    heading: &Heading,
    mut view: ScreenView,
    reading: &AbortHandle,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let mut screen = FullScreen::enter(&format!("citystream tail {}", heading.topic))?;
    let mut next_frame = Instant::now();
    let mut second = 0;
    while !shutdown.is_triggered() && !reading.is_finished() {
        if event::poll(next_frame.saturating_duration_since(Instant::now()))? {
            let event = event::read()?;
            if handle_event(event, shared, heading, &mut view, &mut screen)? == KeyAction::Quit {
                break;
            }
            shared.changed.store(true, Ordering::Relaxed);
        }
        if shared.suspend.swap(false, Ordering::SeqCst) {
            screen.suspend()?;
            // `suspend` has already handled the signal SIGCONT, so the code clears the flag `resumed`.
            shared.resumed.store(false, Ordering::SeqCst);
            shared.changed.store(true, Ordering::Relaxed);
        } else if shared.resumed.swap(false, Ordering::SeqCst) {
            screen.reenter()?;
            shared.changed.store(true, Ordering::Relaxed);
        }
        if next_frame > Instant::now() {
            continue;
        }
        next_frame = Instant::now() + FRAME;
        let now_ms = unix_ms();
        // The screen changes every second even without new records, because rates fall and messages expire.
        let changed = shared.changed.swap(false, Ordering::Relaxed) || now_ms.0 / 1_000 != second;
        second = now_ms.0 / 1_000;
        if changed {
            let mut board = shared.board();
            board.tick(now_ms);
            screen.draw(|buf| draw::draw(buf, heading, &board, &view))?;
        }
    }
    Ok(())
}

/// Handles one event of the terminal.
fn handle_event(
    event: Event,
    shared: &Shared,
    heading: &Heading,
    view: &mut ScreenView,
    screen: &mut FullScreen,
) -> std::io::Result<KeyAction> {
    let Event::Key(key) = event else {
        return Ok(KeyAction::Draw);
    };
    let action = view.press(key, &shared.board());
    match action {
        KeyAction::Draw | KeyAction::Quit => {}
        KeyAction::Redraw => screen.clear()?,
        // The process sends SIGTSTP to itself, and handles the signal like a SIGTSTP from another process.
        KeyAction::Suspend => sys::stop_job(),
        KeyAction::Export => {
            let board = shared.board();
            let (json, now_ms) = (export::json(heading, &board, view), board.now_ms);
            // The code releases the lock on the board before it writes the file, so that the reading thread does not
            // wait.
            drop(board);
            let saved = json
                .map_err(std::io::Error::from)
                .and_then(|json| export::save(&json, Path::new("."), now_ms));
            let (text, is_error) = match saved {
                Ok(name) => (format!("wrote {}", name.display()), false),
                Err(error) => (format!("cannot write to this folder: {error}"), true),
            };
            view.show_message(&text, is_error, now_ms);
        }
    }
    Ok(action)
}
