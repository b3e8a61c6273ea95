//! Notifies systemd of a role's state: ready, status, watchdog, stopping.
//!
//! Each notification is a datagram to `NOTIFY_SOCKET`. Without that variable, nothing is sent.
//!
//! - READY is sent when the settings are valid and the port is open. It does not depend on Kafka: a
//!   role waits for missing services by itself, and systemd must not kill it for that.
//! - WATCHDOG is sent while the role's [`Probe`] says that the role is alive. It is sent from the
//!   runtime that does the role's work, so a runtime that hangs sends none.
//! - STOPPING comes with an extension of the stop timeout, so that a short `TimeoutStopSec` does not
//!   end the drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::api::ops::Probe;
use crate::exit::DRAIN_MAX;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Time between two looks at the role's state.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Longest stop: the drain, then the last commit and the end of the process.
const STOP_MAX: Duration = DRAIN_MAX.saturating_add(Duration::from_secs(5));

/// Sends notifications until it is dropped.
#[derive(Debug)]
pub(crate) struct Notifier(Option<(tokio::task::JoinHandle<()>, Arc<AtomicBool>)>);

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some((task, is_stopping)) = &self.0 {
            task.abort();
            // A role without work in flight can end before its task notices the shutdown.
            send_stopping(is_stopping);
        }
    }
}

/// Sends READY, and starts to send the status and the watchdog.
pub(crate) fn start(probe: Arc<dyn Probe>, metrics: Metrics, shutdown: Shutdown) -> Notifier {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Notifier(None);
    }
    send(&[NotifyState::Ready]);
    let is_stopping = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(notify(probe, metrics, shutdown, Arc::clone(&is_stopping)));
    Notifier(Some((task, is_stopping)))
}

async fn notify(
    probe: Arc<dyn Probe>,
    metrics: Metrics,
    shutdown: Shutdown,
    is_stopping: Arc<AtomicBool>,
) {
    let watchdog = sd_notify::watchdog_enabled().map(|timeout| timeout / 2);
    let every = watchdog.map_or(POLL_EVERY, |half| half.min(POLL_EVERY));
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut sent_status, mut fed_at) = (String::new(), None::<Instant>);
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            _ = ticks.tick() => {}
        }
        let status = status(&*probe, &metrics);
        if status != sent_status {
            send(&[NotifyState::Status(&status)]);
            sent_status = status;
        }
        if let Some(half) = watchdog
            && fed_at.is_none_or(|at| at.elapsed() + every > half)
            && is_alive(&*probe)
        {
            send(&[NotifyState::Watchdog]);
            fed_at = Some(Instant::now());
        }
    }
    send_stopping(&is_stopping);
    // The watchdog must not end a drain that is within its time.
    let begin = Instant::now();
    while watchdog.is_some() && begin.elapsed() < STOP_MAX {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

/// Sends STOPPING, once.
fn send_stopping(is_sent: &AtomicBool) {
    if is_sent.swap(true, Ordering::SeqCst) {
        return;
    }
    let micros = u32::try_from(STOP_MAX.as_micros()).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: finishing the work in flight"),
        NotifyState::ExtendTimeoutUsec(micros),
    ]);
}

fn is_alive(probe: &dyn Probe) -> bool {
    match probe.live() {
        Ok(()) => true,
        Err(reason) => {
            tracing::error!(reason, "the role is not alive, so the watchdog is not fed");
            false
        }
    }
}

/// Returns what the role waits for, or its progress.
fn status(probe: &dyn Probe, metrics: &Metrics) -> String {
    if let Err(reason) = probe.ready() {
        return reason;
    }
    match metrics.lag() {
        Some((partitions, records)) => {
            format!("running: {partitions} partitions, lag {records} records")
        }
        None => "running".to_owned(),
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "failed to notify the service manager");
    }
}
