//! `tail` on a terminal: a live screen.
//!
//! Two threads share a [`Board`]. One reads, judges and counts, as fast as Kafka gives; the other
//! takes keys and draws, at most ten times a second and only if something has changed, so that a
//! hundred thousand events a second do not wait for a terminal. What is shown follows from the board
//! and the [`View`](view::View) alone.

mod chart;
mod draw;
mod export;
mod overlay;
mod query;
mod record_list;
mod table;
#[cfg(test)]
mod tests;
mod text;
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

use super::board::{Board, State};
use super::classify::{Filter, Intake, Said};
use super::terminal::FullScreen;
use super::{dead_letters, topic};
use crate::kafka::reader::{LogReader, Range, ReaderError, Step};
use crate::settings::{From, Tail};
use crate::shutdown::Shutdown;
use crate::sys;
use crate::telemetry::unix_ms;
use draw::Heading;
use view::{Act, Kind, View};

/// Least time between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// How long the reader may take to end behind the screen; a broker that does not answer holds it up.
const READER_END: Duration = Duration::from_millis(500);

/// What the threads and the signals tell each other.
#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// Something has changed since the last picture.
    changed: AtomicBool,
    /// The reader has ended.
    ended: AtomicBool,
    /// Somebody asks this process to stop, or it has been continued.
    asked_to_stop: AtomicBool,
    continued: AtomicBool,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        // A panic of the reader ends the screen anyway; until then there is what there was.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the reader has ended, also by a panic.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

/// Shows the screen until it is left or the range ends, then prints the counts.
///
/// # Errors
/// What made reading fail, or the terminal; it is as it was before then.
pub(crate) async fn run(
    reader: LogReader,
    range: Range,
    args: Tail,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let intake = Intake::new(&args);
    let knows_late = intake.knows_late() && !args.dlq;
    let shared = Arc::new(Shared {
        board: Mutex::new(Board::new(knows_late, unix_ms())),
        changed: AtomicBool::new(true),
        ended: AtomicBool::new(false),
        asked_to_stop: AtomicBool::new(false),
        continued: AtomicBool::new(false),
    });
    listen(&shared)?;
    let heading = heading(&args);
    let kind = if args.dlq {
        Kind::Letters
    } else {
        Kind::Events
    };
    let reading = {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tokio::task::spawn_blocking(move || {
            let _ends = Ends(Arc::clone(&shared));
            read(&reader, &range, intake, args.events, &shared, &shutdown)
        })
    };
    let showing = {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tokio::task::spawn_blocking(move || show(&shared, &heading, View::of(kind), &shutdown))
    };
    let shown = showing.await.context("the screen panicked")?;
    shutdown.trigger();
    if let Ok(read) = tokio::time::timeout(READER_END, reading).await {
        read.context("the reader panicked")??;
    }
    shown.context("the terminal failed")?;
    if let Some(hint) = &shared.board().hint {
        tracing::warn!("{hint}");
    }
    let table = match kind {
        Kind::Events => shared.board().counts.table(knows_late),
        Kind::Letters => dead_letters::table(&shared.board().counts),
    };
    let mut out = std::io::stdout();
    out.write_all(table.as_bytes())
        .and_then(|()| out.flush())
        .context("failed to write the output")
}

fn heading(args: &Tail) -> Heading {
    Heading {
        topic: topic(args),
        from: match args.from {
            From::End => "from now on".to_owned(),
            From::Beginning => "from the beginning".to_owned(),
            From::Ago(_) | From::At(_) => {
                let from_ms = match args.from {
                    From::Ago(ms) => unix_ms() - ms,
                    From::At(ms) => ms,
                    From::End | From::Beginning => unreachable!("taken above"),
                };
                format!("from {}", text::time(from_ms, text::Detail::Date))
            }
        },
        filter: Filter::new(args).text(),
    }
}

/// Notes the signals of Ctrl-Z and `fg`.
fn listen(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let [stop, go] = sys::STOP_AND_GO.map(SignalKind::from_raw).map(signal);
    let (mut stop, mut go) = (
        stop.context("failed to listen for SIGTSTP")?,
        go.context("failed to listen for SIGCONT")?,
    );
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = stop.recv() => shared.asked_to_stop.store(true, Ordering::SeqCst),
                _ = go.recv() => shared.continued.store(true, Ordering::SeqCst),
            }
        }
    });
    Ok(())
}

/// Reads into the board.
fn read(
    reader: &LogReader,
    range: &Range,
    mut intake: Intake,
    mut left: Option<u64>,
    shared: &Shared,
    shutdown: &Shutdown,
) -> Result<(), ReaderError> {
    reader.run(range, shutdown, &mut |step| {
        match step {
            Step::Record(record) => {
                let said = intake.take(record);
                let is_event = matches!(said, Said::Event(_));
                let mut board = shared.board();
                board.take(said);
                if board.hint.as_deref() != intake.hint() {
                    board.hint = intake.hint().map(str::to_owned);
                }
                drop(board);
                if is_event && is_last(&mut left) {
                    return ControlFlow::Break(());
                }
            }
            Step::Letter(letter) => {
                shared.board().take(Said::Letter(letter));
                if is_last(&mut left) {
                    return ControlFlow::Break(());
                }
            }
            Step::Behind(records) => shared.board().state = State::Reading(records),
            Step::Waiting(why) => shared.board().state = State::Waiting(why),
            Step::Idle => return ControlFlow::Continue(()),
        }
        shared.changed.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    })
}

/// Takes one off the number of records that are wanted, if there is one.
fn is_last(left: &mut Option<u64>) -> bool {
    left.as_mut().is_some_and(|left| {
        *left -= 1;
        *left == 0
    })
}

/// Takes keys and draws until one of them, a signal or the reader ends it.
fn show(
    shared: &Shared,
    heading: &Heading,
    mut view: View,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let mut screen = FullScreen::enter(&format!("citystream tail {}", heading.topic))?;
    let mut next_frame = Instant::now();
    let mut second = 0;
    while !shutdown.is_triggered() && !shared.ended.load(Ordering::SeqCst) {
        if event::poll(next_frame.saturating_duration_since(Instant::now()))? {
            if act(event::read()?, shared, heading, &mut view, &mut screen)? == Act::Quit {
                break;
            }
            shared.changed.store(true, Ordering::Relaxed);
        }
        if shared.asked_to_stop.swap(false, Ordering::SeqCst) {
            screen.stop_here()?;
            // The signal that goes with it.
            shared.continued.store(false, Ordering::SeqCst);
            shared.changed.store(true, Ordering::Relaxed);
        } else if shared.continued.swap(false, Ordering::SeqCst) {
            screen.take_again()?;
            shared.changed.store(true, Ordering::Relaxed);
        }
        if next_frame > Instant::now() {
            continue;
        }
        next_frame = Instant::now() + FRAME;
        let now_ms = unix_ms();
        // Rates sink and messages end although nothing comes.
        let changed = shared.changed.swap(false, Ordering::Relaxed) || now_ms / 1_000 != second;
        second = now_ms / 1_000;
        if changed {
            let mut board = shared.board();
            board.tick(now_ms);
            screen.draw(|buf| draw::draw(buf, heading, &board, &view))?;
        }
    }
    Ok(())
}

/// Does what an event of the terminal asks for.
fn act(
    event: Event,
    shared: &Shared,
    heading: &Heading,
    view: &mut View,
    screen: &mut FullScreen,
) -> std::io::Result<Act> {
    let Event::Key(key) = event else {
        return Ok(Act::Draw);
    };
    let act = view.press(key, &shared.board());
    match act {
        Act::Draw | Act::Quit => {}
        Act::Anew => screen.clear()?,
        // Comes back as a signal, as from anybody else.
        Act::Stop => sys::stop_job(),
        Act::Export => {
            let (json, now_ms) = {
                let board = shared.board();
                let json = export::json(heading, view.shown(&board), view);
                (json, board.now_ms)
            };
            let saved = json
                .map_err(std::io::Error::from)
                .and_then(|json| export::save(&json, Path::new("."), now_ms));
            match saved {
                Ok(name) => view.tell(&format!("wrote {}", name.display()), false, now_ms),
                Err(error) => {
                    let text = format!("failed to export into this folder: {error}");
                    view.tell(&text, true, now_ms);
                }
            }
        }
    }
    Ok(act)
}
