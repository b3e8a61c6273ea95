//! Switches the terminal to full-screen mode, and restores the terminal afterwards.
//!
//! Only [`FullScreen::enter`] turns on full-screen mode. The terminal is restored in three cases:
//!
//! - when the [`FullScreen`] is dropped, even after an error;
//! - when a thread panics, before the message of the panic is printed;
//! - while the process is suspended.
//!
//! While the screen is shown, log lines are held back, as [`hold_log_lines`](crate::telemetry::hold_log_lines)
//! describes.

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

/// Size of the buffer for the output that draws the screen, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// True if the terminal is in full-screen mode.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// The id of the thread that draws the screen.
static DRAWING_THREAD: Mutex<Option<ThreadId>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal in full-screen mode.
#[derive(Debug)]
pub struct FullScreen {
    terminal: Terminal<Backend>,
}

impl FullScreen {
    /// Puts the terminal of standard output into full-screen mode. Only the drawing thread may call this function.
    ///
    /// # Errors
    /// Returns an error if standard output fails or is not a terminal. If an error is returned, the terminal is
    /// unchanged.
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
        // The previous title cannot be restored, because few terminals report their title.
        if let Err(error) = execute!(io::stdout(), SetTitle(title)) {
            restore();
            return Err(error);
        }
        Ok(FullScreen { terminal })
    }

    /// Shows the picture that `draw` creates. The cursor is placed at the position that `draw` returns.
    ///
    /// # Errors
    /// Returns an error if the terminal no longer exists.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer) -> Option<(u16, u16)>) -> io::Result<()> {
        self.terminal.draw(|frame| {
            if let Some(cursor) = draw(frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    /// Clears the terminal, so that the next picture is drawn completely.
    ///
    /// # Errors
    /// Returns an error if the terminal no longer exists.
    pub fn clear(&mut self) -> io::Result<()> {
        // The function `Terminal::clear` would request the cursor position from the terminal, and would fail if the
        // terminal does not answer.
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.terminal = new_terminal()?;
        Ok(())
    }

    /// Restores the terminal and suspends the process, as the key Ctrl-Z does in other programs. When the process is
    /// resumed, the terminal returns to full-screen mode.
    ///
    /// # Errors
    /// Returns an error if the terminal no longer exists.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        sys::stop_here();
        enter()?;
        self.clear()
    }

    /// Turns on full-screen mode again after another program has changed the terminal's settings. For example, a shell
    /// changes the terminal's settings while SIGSTOP stops this process.
    ///
    /// # Errors
    /// Returns an error if the terminal no longer exists.
    pub fn reenter(&mut self) -> io::Result<()> {
        // Raw mode must be turned off and then on again, because crossterm assumes that the terminal is still in raw
        // mode. If the code turned raw mode on without first turning it off, crossterm would change nothing.
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

/// Restores the terminal if it is in full-screen mode, and then writes the log lines that were held back.
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

/// Restores the terminal immediately if the drawing thread panics.
///
/// If a different thread panics, the screen stays. The program then holds back the message of the panic together with
/// the log lines.
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
