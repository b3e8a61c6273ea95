//! One request to stop, visible to every task of a role.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A flag that is raised once, when the role has to stop. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Shutdown {
    /// Returns a flag that only [`Shutdown::trigger`] raises.
    pub fn new() -> Shutdown {
        Shutdown {
            sender: watch::Sender::new(false),
        }
    }

    /// Returns a flag that SIGTERM and SIGINT raise. A second signal ends the process at once.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn on_signals() -> Shutdown {
        let shutdown = Shutdown::new();
        let flag = shutdown.clone();
        // The handlers are installed before the task starts: a signal in between would kill the process.
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

    /// Returns whether the flag is raised.
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits until the flag is raised.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // `wait_for` fails only if the sender is dropped, and `self` holds the sender.
        let _stopped = receiver.wait_for(|stop| *stop).await;
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
