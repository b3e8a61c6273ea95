//! Notifies systemd when a role is ready, alive or stopping, and reports the role's status.
//!
//! Each notification is a datagram to the socket whose path is in `NOTIFY_SOCKET`. If `NOTIFY_SOCKET` is not set, the
//! role sends no notifications.
//!
//! - READY is sent when the settings are valid and the port is open. READY does not depend on Kafka, because a role
//!   waits for missing services, and systemd must not end the role during that wait.
//! - WATCHDOG is sent while the role's [`Probe`] reports that the role is alive. WATCHDOG is sent from the runtime that
//!   does the work of the role, so the notifications stop if that runtime hangs.
//! - STOPPING is sent with an extension of the stop timeout, so that systemd does not end the drain after a short
//!   `TimeoutStopSec`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::api::ops::Probe;
use crate::exit::DRAIN_MAX;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Time between two checks of the state of the role.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Maximum time to stop a role. Within this time, the role finishes its work in flight, commits, and ends the process.
const STOP_MAX: Duration = DRAIN_MAX.saturating_add(Duration::from_secs(5));

/// A guard that sends notifications to systemd until the guard is dropped.
#[derive(Debug)]
pub(crate) struct Notifier(Option<(tokio::task::JoinHandle<()>, Arc<AtomicBool>)>);

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some((task, is_stopping)) = &self.0 {
            task.abort();
            // A role without work in flight can end before the notification task has noticed the shutdown. This
            // destructor therefore also sends STOPPING.
            send_stopping(is_stopping);
        }
    }
}

/// Sends the notification READY to systemd, and starts a task that periodically sends the status and the watchdog
/// notification.
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
    // While the role finishes its work in flight, the task keeps sending watchdog notifications, so that systemd does
    // not end the process too early.
    let begin = Instant::now();
    while watchdog.is_some() && begin.elapsed() < STOP_MAX {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

/// Sends the notification STOPPING to systemd, unless STOPPING has already been sent.
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
            tracing::error!(
                reason,
                "the role is not alive, so the watchdog is not notified"
            );
            false
        }
    }
}

/// Returns the reason why the role is waiting. If the role is not waiting, the function returns the progress of the
/// role.
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
