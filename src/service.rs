//! What the service manager hears of a role: ready, what it does now, alive, stopping.
//!
//! systemd's protocol, one datagram a message to `NOTIFY_SOCKET`; without that variable nothing is
//! sent. READY goes out once settings are taken and the port is open, not once Kafka answers: a role
//! waits for what is missing by itself, and must not be killed for it (H2). The watchdog is fed while
//! the role's own [`Probe`] says that it lives, from the runtime that does the role's work, so a hung
//! one starves it. Once stopping was asked for, the manager is told how much longer that may take,
//! so that a short `TimeoutStopSec` cuts no drain short (H4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::api::ops::Probe;
use crate::exit::DRAIN_MAX;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Time between two looks at the role.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a stop may take: the drain, then committing, closing, ending the process.
const STOP_MAX: Duration = DRAIN_MAX.saturating_add(Duration::from_secs(5));

/// Tells the service manager about the role until the guard is dropped.
#[derive(Debug)]
pub(crate) struct Service(Option<(tokio::task::JoinHandle<()>, Arc<AtomicBool>)>);

impl Drop for Service {
    fn drop(&mut self) {
        if let Some((task, told)) = &self.0 {
            task.abort();
            // A role with nothing to finish can be done before its task looks.
            tell_stopping(told);
        }
    }
}

/// Says READY and begins to tell how the role is.
pub(crate) fn start(probe: Arc<dyn Probe>, metrics: Metrics, shutdown: Shutdown) -> Service {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Service(None);
    }
    send(&[NotifyState::Ready]);
    let told = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(tell(probe, metrics, shutdown, Arc::clone(&told)));
    Service(Some((task, told)))
}

async fn tell(
    probe: Arc<dyn Probe>,
    metrics: Metrics,
    shutdown: Shutdown,
    told_stopping: Arc<AtomicBool>,
) {
    let watchdog = sd_notify::watchdog_enabled().map(|timeout| timeout / 2);
    let every = watchdog.map_or(LOOK_EVERY, |half| half.min(LOOK_EVERY));
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut said, mut fed) = (String::new(), None::<Instant>);
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            _ = ticks.tick() => {}
        }
        let status = status(&*probe, &metrics);
        if status != said {
            send(&[NotifyState::Status(&status)]);
            said = status;
        }
        if let Some(half) = watchdog
            && fed.is_none_or(|at| at.elapsed() + every > half)
            && alive(&*probe)
        {
            send(&[NotifyState::Watchdog]);
            fed = Some(Instant::now());
        }
    }
    tell_stopping(&told_stopping);
    // A drain feeds the watchdog too, for as long as it may take.
    let begin = Instant::now();
    while watchdog.is_some() && begin.elapsed() < STOP_MAX {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

/// Says STOPPING, once.
fn tell_stopping(told: &AtomicBool) {
    if told.swap(true, Ordering::SeqCst) {
        return;
    }
    let micros = u32::try_from(STOP_MAX.as_micros()).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: what is under way is being finished"),
        NotifyState::ExtendTimeoutUsec(micros),
    ]);
}

fn alive(probe: &dyn Probe) -> bool {
    match probe.live() {
        Ok(()) => true,
        Err(reason) => {
            tracing::error!(reason, "not alive, the watchdog is not fed");
            false
        }
    }
}

/// What the role waits for, or how it does.
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
        tracing::debug!(%error, "failed to tell the service manager");
    }
}
