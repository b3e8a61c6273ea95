//! The terminal in full-screen mode, and its restoration.
//!
//! [`FullScreen::enter`] is the only way in. The terminal is restored:
//!
//! - when the [`FullScreen`] is dropped, which includes every error;
//! - on a panic, before its message is printed;
//! - while the process is suspended.
//!
//! Log lines are held back while the screen is up, see [`hold_log_lines`](crate::telemetry::hold_log_lines).

use std::io::{self, BufWriter, Stdout};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, SetTitle, disable_raw_mode,
    enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;

use crate::sys;
use crate::telemetry::{hold_log_lines, release_log_lines, write_stderr};

/// Bytes of a picture that are written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether the terminal is in full-screen mode.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// The thread that draws.
static DRAWING_THREAD: Mutex<Option<ThreadId>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal in full-screen mode.
#[derive(Debug)]
pub struct FullScreen {
    terminal: Terminal<Backend>,
}

impl FullScreen {
    /// Puts the terminal of standard output into full-screen mode. The calling thread has to draw.
    ///
    /// # Errors
    /// Returns an error if standard output is not a terminal or fails. The terminal is then unchanged.
    pub fn enter(title: &str) -> io::Result<FullScreen> {
        PANIC_HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| on_panic(info, &previous)));
        });
        *DRAWING_THREAD
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current().id());
        let terminal = new_terminal()?;
        enter()?;
        // The title is not restored: few terminals report the previous one.
        if let Err(error) = execute!(io::stdout(), SetTitle(title)) {
            restore();
            return Err(error);
        }
        Ok(FullScreen { terminal })
    }

    /// Shows what `draw` draws, with the cursor at the position that it returns.
    ///
    /// # Errors
    /// Returns an error if the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer) -> Option<(u16, u16)>) -> io::Result<()> {
        self.terminal.draw(|frame| {
            if let Some(cursor) = draw(frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    /// Clears the terminal, so that the next picture is drawn as a whole.
    ///
    /// # Errors
    /// Returns an error if the terminal is gone.
    pub fn clear(&mut self) -> io::Result<()> {
        // `Terminal::clear` asks for the cursor position and fails if the terminal does not answer.
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.terminal = new_terminal()?;
        Ok(())
    }

    /// Restores the terminal, stops the process as Ctrl-Z does, and enters full-screen mode again when the process is
    /// continued.
    ///
    /// # Errors
    /// Returns an error if the terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        sys::stop_here();
        enter()?;
        self.clear()
    }

    /// Enters full-screen mode again after another program has changed the terminal, as a shell does while the process
    /// is stopped by SIGSTOP.
    ///
    /// # Errors
    /// Returns an error if the terminal is gone.
    pub fn reenter(&mut self) -> io::Result<()> {
        // Otherwise crossterm assumes that the terminal is still in raw mode and changes nothing.
        disable_raw_mode()?;
        enter()?;
        self.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        restore();
    }
}

fn new_terminal() -> io::Result<Terminal<Backend>> {
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
    Terminal::new(CrosstermBackend::new(out))
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    hold_log_lines();
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| restore())
}

/// Restores the terminal if it is in full-screen mode, then writes the log lines that were held back.
fn restore() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        let left = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let cooked = disable_raw_mode();
        release_log_lines();
        for error in [left.err(), cooked.err()].into_iter().flatten() {
            tracing::debug!(%error, "failed to restore the terminal");
        }
    }
}

/// Restores the terminal at once if the drawing thread panics.
///
/// After a panic of another thread the screen stays up, so its message waits with the log lines.
fn on_panic(info: &PanicHookInfo<'_>, previous: &(dyn Fn(&PanicHookInfo<'_>) + Sync + Send)) {
    let drawing = *DRAWING_THREAD
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if ENTERED.load(Ordering::SeqCst) && drawing != Some(std::thread::current().id()) {
        write_stderr(format!("{info}\n").as_bytes());
        return;
    }
    restore();
    previous(info);
}
