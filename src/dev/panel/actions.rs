//! The actions that the buttons of the panel start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prometheus::core::Collector as _;

use super::{Panel, lock};
use crate::api::ops::Probe as _;
use crate::core::clock::UnixMs;
use crate::core::murmur2::partition_of;
use crate::dev::bad_events::make_bad_events;
use crate::dev::waiting::without_details;

/// Duration of a fault. The panel extends a fault that has not affected any write.
const FAULT: Duration = Duration::from_secs(10);
/// Maximum time by which the panel extends a fault that has not affected any write yet.
const FAULT_EXTRA_MAX: Duration = Duration::from_secs(60);
/// Time between two updates of the state that the panel shows for a running action.
const SECOND: Duration = Duration::from_secs(1);
/// Pause between two attempts to send an event while the embedded broker has no room for records.
const CREDIT_PAUSE: Duration = Duration::from_millis(5);
/// The actions of the panel: the name of each action, and the state that the panel shows first.
const ACTIONS: [(&str, &str); 7] = [
    ("kill", "waiting for its successor"),
    ("zombie", "it reads, and its writes are held back"),
    ("throttle", "refusing writes"),
    ("cut", "dropping answers"),
    ("broker", "Kafka is down"),
    ("receiver", "refusing messages"),
    ("garbage", "sending"),
];

impl Panel {
    /// Starts the action `what`, unless the action is already running. Returns false if no action has the name `what`.
    pub(super) fn start(&self, what: &str) -> bool {
        let Some((what, state)) = ACTIONS.into_iter().find(|(name, _)| *name == what) else {
            return false;
        };
        let mut running = lock(&self.0.running);
        if running.contains_key(what) {
            return true;
        }
        running.insert(what, state.to_owned());
        drop(running);
        let panel = self.clone();
        tokio::spawn(async move {
            match what {
                "kill" => panel.kill().await,
                "zombie" => panel.run_zombie().await,
                "throttle" => panel.throttle().await,
                "cut" => panel.cut_replies().await,
                "broker" => panel.stop_broker().await,
                "receiver" => panel.stop_receiver().await,
                _ => panel.send_bad_events().await,
            }
            lock(&panel.0.running).remove(what);
        });
        true
    }

    async fn kill(&self) {
        self.log("killed the consumer: nothing drained, nothing committed");
        let updates = async {
            loop {
                if let Err(why) = self.0.parts.consumers.status.ready() {
                    let state = format!("its successor: {}", without_details(&why));
                    self.set_state("kill", state);
                }
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::select! {
            () = self.0.parts.consumers.kill() => {}
            () = updates => {}
        }
        self.log("a new consumer continues from the last commit");
    }

    async fn run_zombie(&self) {
        let parts = &self.0.parts;
        while self.is_running("broker") {
            self.set_state("zombie", "it waits for the broker");
            tokio::time::sleep(SECOND).await;
        }
        self.set_state("zombie", "it reads, and its writes are held back");
        self.log("a second consumer reads everything since the last restart point as well");
        let woken = || {
            self.set_state("zombie", "it writes what it read");
            self.log("the zombie wakes up and writes, as if it were the only consumer");
        };
        let ended = parts.consumers.run_zombie(&parts.shutdown, &woken).await;
        self.log(match ended {
            Ok(ledger) => format!(
                "the zombie is gone: of {} records it found {} counted already, and counted {} itself",
                ledger.consumed,
                ledger.already_counted,
                ledger.counted + ledger.late,
            ),
            Err(error) => format!("the zombie failed: {error:#}"),
        });
    }

    async fn throttle(&self) {
        let faults = &self.0.parts.faults;
        let before = faults.refused();
        self.log("DynamoDB refuses four of five writes");
        faults.throttle(true);
        let refused = || faults.refused() - before;
        self.hold_fault("throttle", "four of five writes are refused", &refused)
            .await;
        faults.throttle(false);
        self.log(match refused() {
            0 => "DynamoDB accepts writes again; there was no write to refuse".to_owned(),
            count => format!("DynamoDB accepts writes again; {count} were refused"),
        });
    }

    async fn cut_replies(&self) {
        let faults = &self.0.parts.faults;
        let before = faults.answers_lost();
        self.log("every write takes effect, and its answer is lost");
        faults.cut_replies(true);
        let lost = || faults.answers_lost() - before;
        self.hold_fault("cut", "answers are lost", &lost).await;
        faults.cut_replies(false);
        self.log(match lost() {
            0 => "answers arrive again; there was no answer to lose".to_owned(),
            count => format!("answers arrive again; {count} were lost"),
        });
    }

    async fn stop_broker(&self) {
        let broker = &self.0.parts.broker;
        self.log("the broker is down");
        broker.set_reachable(false);
        self.count_down("broker", "Kafka is down").await;
        broker.set_reachable(true);
        self.log("the broker is back");
    }

    async fn stop_receiver(&self) {
        let receiver = &self.0.parts.receiver;
        let before = receiver.refused();
        self.log("the receiver of messages about incidents answers 503");
        receiver.set_down(true);
        let refused = || receiver.refused() - before;
        self.hold_fault("receiver", "messages are refused", &refused)
            .await;
        receiver.set_down(false);
        self.log(match refused() {
            0 => "the receiver takes messages again; there was no message to refuse".to_owned(),
            count => format!(
                "the receiver takes messages again; it refused {count}, and they are sent again under their ids"
            ),
        });
    }

    async fn send_bad_events(&self) {
        let watermarks = self.watermarks();
        let partitions = self.0.parts.partitions;
        let made = make_bad_events(|city| {
            let partition = partition_of(city.as_bytes(), partitions);
            watermarks.get(&partition).copied()
        });
        let (panel, late) = (self.clone(), made.late);
        let sent = tokio::task::spawn_blocking(move || panel.send(&made.events)).await;
        self.log(match sent {
            Ok(Ok(count)) => format!(
                "sent {late} late events and {} invalid ones",
                count.saturating_sub(late)
            ),
            Ok(Err(error)) => format!("failed to send: {error:#}"),
            Err(error) => format!("failed to send: {error}"),
        });
    }

    /// Sends the given events, independently of the regular source of events, and returns the number of sent events.
    /// The function blocks the calling thread.
    fn send(&self, events: &[(String, Vec<u8>)]) -> anyhow::Result<usize> {
        let parts = &self.0.parts;
        for (sent, (city, value)) in events.iter().enumerate() {
            let partition = partition_of(city.as_bytes(), parts.partitions);
            // If another thread sends an event of the regular source between `try_take` and `send`, the credit swaps
            // the sizes of two adjacent records, but the sum of both sizes is still correct.
            while !parts.credit.try_take(partition, city.len() + value.len()) {
                if parts.shutdown.is_triggered() {
                    return Ok(sent);
                }
                std::thread::sleep(CREDIT_PAUSE);
            }
            if !parts.producer.send(city, value, &parts.shutdown)? {
                return Ok(sent);
            }
        }
        Ok(events.len())
    }

    /// Returns the watermark of each partition that has a watermark.
    #[allow(clippy::cast_possible_truncation)]
    fn watermarks(&self) -> BTreeMap<i32, UnixMs> {
        let families = self.0.parts.consumers.metrics.watermark_seconds.collect();
        let samples = families.iter().flat_map(|family| family.get_metric());
        samples
            .filter_map(|sample| {
                let partition = sample.get_label().first()?.value().parse().ok()?;
                let seconds = sample.get_gauge().get_value();
                (seconds > 0.0).then_some((partition, UnixMs((seconds * 1_000.0) as i64)))
            })
            .collect()
    }

    fn set_state(&self, what: &'static str, state: impl Into<String>) {
        if let Some(line) = lock(&self.0.running).get_mut(what) {
            *line = state.into();
        }
    }

    /// Keeps a fault active for the duration [`FAULT`]. If the fault has not affected any write, the function extends
    /// the fault until a write is affected, but by at most [`FAULT_EXTRA_MAX`]. Without this limit, the fault could
    /// last forever while the broker is stopped and the consumer has nothing to write.
    async fn hold_fault(
        &self,
        what: &'static str,
        state: &str,
        affected: &(dyn Fn() -> u64 + Sync),
    ) {
        self.count_down(what, state).await;
        let begun = Instant::now();
        while affected() == 0 && begun.elapsed() < FAULT_EXTRA_MAX {
            self.set_state(what, "waiting for something to fail");
            tokio::time::sleep(SECOND).await;
        }
    }

    async fn count_down(&self, what: &'static str, state: &str) {
        for left in (1..=FAULT.as_secs()).rev() {
            self.set_state(what, format!("{state}, {left} s to go"));
            tokio::time::sleep(SECOND).await;
        }
    }
}
