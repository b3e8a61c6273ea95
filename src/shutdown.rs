//! A flag that tells all tasks of a role to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A flag that is raised when a role has to stop, and that is never lowered. All clones share the same flag.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Shutdown {
    /// Returns a flag that is raised by SIGTERM or SIGINT. A second SIGTERM or SIGINT ends the process immediately.
    ///
    /// # Panics
    /// Panics if called outside a Tokio runtime.
    pub fn on_signals() -> Shutdown {
        let shutdown = Shutdown::default();
        let flag = shutdown.clone();
        // The signal handlers are installed before the task starts, because a signal that has no handler would end the
        // process.
        let (Ok(mut term), Ok(mut int)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            tracing::error!("failed to listen for signals");
            return shutdown;
        };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if flag.is_triggered() {
                    std::process::exit(130);
                }
                flag.trigger();
            }
        });
        shutdown
    }

    /// Raises the flag.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Returns true if the flag is raised.
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits until the flag is raised.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // `wait_for` returns an error only if the sender has been dropped. The sender cannot be dropped during this
        // call, because `self` owns the sender.
        let _stopped = receiver.wait_for(|stop| *stop).await;
    }
}

impl Default for Shutdown {
    /// Returns a flag that is not raised yet. Only [`Shutdown::trigger`] raises this flag.
    fn default() -> Shutdown {
        Shutdown {
            sender: watch::Sender::new(false),
        }
    }
}
