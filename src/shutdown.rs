//! One request to stop, seen by every task of a role.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A flag that goes up once. Clones share it.
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

    /// Returns a flag that SIGTERM and SIGINT raise; a second signal ends the process at once.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn on_signals() -> Shutdown {
        let shutdown = Shutdown::new();
        let flag = shutdown.clone();
        // Here and not in the task: whoever asks at once to stop may ask before that runs.
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

    /// Asks everybody to stop.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Tells whether stopping was asked for.
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits until stopping is asked for.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _stopped = receiver.wait_for(|stop| *stop).await;
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
