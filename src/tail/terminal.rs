//! The terminal in full-screen mode, and back again whatever happens.
//!
//! [`FullScreen`] is the only way in. Out of it leads its drop, so also any error; a panic, whose
//! message is then seen on the terminal as it was before; and [`FullScreen::stop_here`], which gives
//! the terminal back while the process is stopped. Log lines wait meanwhile, see
//! [`hold_log_lines`](crate::telemetry::hold_log_lines).

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

/// Bytes of a picture that go out at once.
const OUT_BYTES: usize = 64 * 1024;

/// The terminal is ours.
static OURS: AtomicBool = AtomicBool::new(false);
/// The thread that draws.
static DRAWS: Mutex<Option<ThreadId>> = Mutex::new(None);
static HOOK: Once = Once::new();

type Out = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal while it shows a full screen.
#[derive(Debug)]
pub struct FullScreen {
    terminal: Terminal<Out>,
}

impl FullScreen {
    /// Takes the terminal of standard output. The thread that calls it is the one to draw.
    ///
    /// # Errors
    /// When there is no such terminal, or it does not obey; then it is as it was before.
    pub fn enter(title: &str) -> io::Result<FullScreen> {
        HOOK.call_once(|| {
            let former = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| on_panic(info, &former)));
        });
        *DRAWS.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current().id());
        let terminal = terminal()?;
        take()?;
        // Few terminals say what their title was, so this one is not put back.
        if let Err(error) = execute!(io::stdout(), SetTitle(title)) {
            give_back();
            return Err(error);
        }
        Ok(FullScreen { terminal })
    }

    /// Shows what `draw` draws, and the cursor where it says.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer) -> Option<(u16, u16)>) -> io::Result<()> {
        self.terminal.draw(|frame| {
            if let Some(cursor) = draw(frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    /// Forgets what is on the terminal, so that the next picture is drawn as a whole.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn clear(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal for its cursor and fail where that does not answer.
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.terminal = terminal()?;
        Ok(())
    }

    /// Gives the terminal back, stops the process as Ctrl-Z does, and takes the terminal again once
    /// it is continued.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn stop_here(&mut self) -> io::Result<()> {
        give_back();
        sys::stop_here();
        take()?;
        self.clear()
    }

    /// Takes the terminal again after somebody else has set it, as a shell does behind a process that
    /// was stopped by force.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn take_again(&mut self) -> io::Result<()> {
        // Otherwise crossterm believes that it is in raw mode still.
        disable_raw_mode()?;
        take()?;
        self.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        give_back();
    }
}

fn terminal() -> io::Result<Terminal<Out>> {
    let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
    Terminal::new(CrosstermBackend::new(out))
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    OURS.store(true, Ordering::SeqCst);
    hold_log_lines();
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| give_back())
}

/// Puts the terminal back as it was, once; what was logged meanwhile follows. A terminal that is gone
/// needs nothing.
fn give_back() {
    if OURS.swap(false, Ordering::SeqCst) {
        let shown = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let cooked = disable_raw_mode();
        release_log_lines();
        for error in [shown.err(), cooked.err()].into_iter().flatten() {
            tracing::debug!(%error, "failed to put the terminal back");
        }
    }
}

/// A panic of the thread that draws gives the terminal back at once. One of another thread must not
/// do that while something is drawn: its message waits, with the log lines.
fn on_panic(info: &PanicHookInfo<'_>, former: &(dyn Fn(&PanicHookInfo<'_>) + Sync + Send)) {
    let draws = *DRAWS.lock().unwrap_or_else(PoisonError::into_inner);
    if OURS.load(Ordering::SeqCst) && draws != Some(std::thread::current().id()) {
        write_stderr(format!("{info}\n").as_bytes());
        return;
    }
    give_back();
    former(info);
}
