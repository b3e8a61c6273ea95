//! A handle of the consumer thread's Kafka client, for the threads that send commands.
//!
//! The crate `proof/handoff` compiles this file for loom, which tries every order in which the threads can take their
//! steps.

#[cfg(loom)]
use loom::sync::{Arc, mpsc};
#[cfg(not(loom))]
use std::sync::{Arc, mpsc};

/// A handle of the Kafka client `C`, whose consumer thread carries out the commands `M`.
pub(super) struct Handle<C, M> {
    client: Arc<C>,
    commands: mpsc::Sender<M>,
}

impl<C, M> Handle<C, M> {
    /// Returns a handle of `client`. The consumer thread receives the other end of `commands`.
    pub(super) fn new(client: Arc<C>, commands: mpsc::Sender<M>) -> Handle<C, M> {
        Handle { client, commands }
    }

    /// Returns the Kafka client.
    pub(super) fn client(&self) -> &Arc<C> {
        &self.client
    }

    /// Sends a command to the consumer thread.
    pub(super) fn send(&self, command: M) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }

    /// Drops the handle and sends the command that ends the consumer thread.
    ///
    /// Dropping the last handle of a client closes the client, and closing the client waits for the answer to the last
    /// revoke. The caller of `close` sends this answer, so it must not drop the last handle. `close` therefore drops
    /// its own handle before it sends the command. Until the consumer thread receives the command, the thread holds a
    /// handle too.
    pub(super) fn close(self, command: M) {
        let Handle { client, commands } = self;
        drop(client);
        if commands.send(command).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }
}
