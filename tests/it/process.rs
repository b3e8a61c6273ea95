//! Starts processes and takes brokers down, but never both at once.
//!
//! Between fork and exec, a child has a copy of every open socket. If the mock cluster closes a broker's listener at this
//! moment, the copy still listens, and the cluster aborts the process because it cannot bind the port again.

use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use crate::broker::Broker;

/// Shared while a process starts, exclusive while a broker goes down.
static STARTS: RwLock<()> = RwLock::new(());

/// Calls a function that starts a process. No broker goes down meanwhile.
pub(crate) fn starting<T>(start: impl FnOnce() -> T) -> T {
    let _shared = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// The methods of [`Command`] that start a process, for use beside [`broker_down`].
pub(crate) trait Start {
    /// As [`Command::spawn`].
    fn start(&mut self) -> io::Result<Child>;

    /// As [`Command::output`], with the standard streams piped and an empty input.
    fn run(&mut self) -> io::Result<Output>;

    /// As [`Command::status`].
    fn finish(&mut self) -> io::Result<ExitStatus>;
}

impl Start for Command {
    fn start(&mut self) -> io::Result<Child> {
        starting(|| self.spawn())
    }

    fn run(&mut self) -> io::Result<Output> {
        self.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .start()?
            .wait_with_output()
    }

    fn finish(&mut self) -> io::Result<ExitStatus> {
        self.start()?.wait()
    }
}

/// Makes a broker close its connections and refuse new ones.
pub(crate) fn broker_down(cluster: &Broker, broker: i32) {
    let _exclusive = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    cluster.broker_down(broker).unwrap();
}
