//! Sends the outstanding messages to the receivers, and records the outcome of each message in the incident's row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::core::clock::SteadyMs;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::{OutboxStep, SendOutcome, SentMessages, next};
use crate::core::incident::owner::{IncidentName, Owner, name_of};
use crate::core::incident::silence::Silence;
use crate::core::pace::backoff_ms;
use crate::notify::partitions::Partitions;
use crate::notify::send::{DeliveryResult, Receiver};
use crate::notify::task_result::{Attempt, TaskResult};
use crate::store::incidents::{IncidentTable, StoredIncident};
use crate::telemetry::{Metrics, steady_ms, unix_ms};

/// Maximum number of messages that are sent to one receiver at the same time.
const UNDER_WAY_MAX: usize = 32;
/// Pause after the first failure to send a message. The pause doubles with each further failure.
const PAUSE_FIRST_MS: i64 = 1_000;
/// Maximum number of attempts to record a message in the row of its incident. After the last failed attempt, the
/// message counts as not sent.
const NOTE_ATTEMPTS: u32 = 3;
/// Maximum pause between two attempts to send a message.
const PAUSE_MAX_MS: i64 = 300_000;

/// An incident with messages that a receiver may not have received yet.
struct Live {
    partition: i32,
    row: StoredIncident,
    under_way: BTreeSet<usize>,
    /// For each receiver: the number of failures, and the time of the next attempt.
    pauses: BTreeMap<usize, (u32, SteadyMs)>,
}

/// The deliveries of messages about the incidents in the partitions of this process.
pub(super) struct IncidentDeliveries {
    receivers: Vec<Arc<Receiver>>,
    under_way: Vec<usize>,
    live: BTreeMap<IncidentName, Live>,
    silences: Vec<Silence>,
    table: IncidentTable,
    link: Option<Arc<str>>,
    done: UnboundedSender<TaskResult>,
    metrics: Metrics,
}

impl IncidentDeliveries {
    pub(super) fn new(
        receivers: Vec<Receiver>,
        table: IncidentTable,
        link: Option<String>,
        done: UnboundedSender<TaskResult>,
        metrics: Metrics,
    ) -> IncidentDeliveries {
        IncidentDeliveries {
            under_way: vec![0; receivers.len()],
            receivers: receivers.into_iter().map(Arc::new).collect(),
            live: BTreeMap::new(),
            silences: Vec::new(),
            table,
            link: link.map(Arc::from),
            done,
            metrics,
        }
    }

    pub(super) fn set_silences(&mut self, silences: Vec<Silence>) {
        self.silences = silences;
    }

    /// Returns the number of incidents with messages that a receiver may not have received yet.
    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Returns the names of a partition's ended incidents for which a message may not have reached a receiver yet.
    pub(super) fn owed(&self, partition: i32) -> Vec<IncidentName> {
        let of_partition = self
            .live
            .iter()
            .filter(|(_, live)| live.partition == partition);
        let ended = of_partition.filter(|(_, live)| !live.row.incident.is_open());
        ended.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets the incidents of a partition that this process no longer owns.
    pub(super) fn forget(&mut self, partition: i32) {
        self.live.retain(|_, live| live.partition != partition);
    }

    /// Processes the stored row of an incident, and sends the messages that are due.
    pub(super) fn take_row(&mut self, partition: i32, row: StoredIncident) {
        let name = name_of(&row.incident);
        let live = self.live.entry(name.clone()).or_insert_with(|| Live {
            partition,
            row: row.clone(),
            under_way: BTreeSet::new(),
            pauses: BTreeMap::new(),
        });
        live.merge(row);
        self.send_due(&name);
    }

    /// Processes the result of an attempt to send a message, and sends the next messages that are due.
    pub(super) fn take_attempt(&mut self, attempt: Attempt) {
        let Attempt {
            name,
            receiver,
            row,
            failure,
        } = attempt;
        self.under_way[receiver] -= 1;
        let of = &self.receivers[receiver].config().name;
        let last = row.as_ref().and_then(|row| sent_to(row, of));
        let outcome = match last.map(|sent| &sent.outcome) {
            _ if failure.is_some() => "failed",
            Some(SendOutcome::Refused(_)) => "refused",
            Some(SendOutcome::Silenced) => "silenced",
            _ => "sent",
        };
        self.metrics
            .notify_attempts
            .with_label_values(&[of, outcome])
            .inc();
        let Some(live) = self.live.get_mut(&name) else {
            return;
        };
        live.under_way.remove(&receiver);
        if let Some(row) = row {
            live.merge(row);
        }
        match failure {
            None => drop(live.pauses.remove(&receiver)),
            Some((why, after)) => {
                let (failures, _) = live.pauses.get(&receiver).copied().unwrap_or_default();
                let pause_ms = after.map_or_else(
                    || pause_ms(failures),
                    |after| i64::try_from(after.as_millis()).unwrap_or(PAUSE_MAX_MS),
                );
                tracing::warn!(
                    receiver = &**of,
                    incident = &*name.1,
                    error = why,
                    pause_ms,
                    "failed to send a message"
                );
                live.pauses
                    .insert(receiver, (failures + 1, steady_ms() + pause_ms));
            }
        }
        self.send_due(&name);
    }

    /// Updates the metrics of the role. Returns the number of incidents and the number of events that rules have ignored
    /// because of their limits.
    pub(super) fn report(&self, partitions: &Partitions) -> (u64, u64) {
        let (mut open, mut incidents, mut events) = (0, 0, 0);
        for fold in partitions.owners().map(Owner::fold) {
            let left_out = fold.left_out();
            open += fold.open().count();
            (incidents, events) = (incidents + left_out.incidents, events + left_out.events);
        }
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.notify_open.set(whole(open));
        self.metrics.notify_live.set(whole(self.live.len()));
        let ignored = i64::try_from(incidents).unwrap_or(i64::MAX);
        self.metrics.notify_left_out.set(ignored);
        for (at, receiver) in self.receivers.iter().enumerate() {
            let is_paused = |live: &&Live| live.pauses.contains_key(&at);
            let waiting = self.live.values().filter(is_paused);
            let gauge = &self.metrics.notify_waiting;
            gauge
                .with_label_values(&[&*receiver.config().name])
                .set(whole(waiting.count()));
        }
        (incidents, events)
    }

    /// Sends all messages that are due.
    pub(super) fn send_all_due(&mut self) {
        let names: Vec<IncidentName> = self.live.keys().cloned().collect();
        for name in names {
            self.send_due(&name);
        }
    }

    fn send_due(&mut self, name: &IncidentName) {
        let Some(live) = self.live.get_mut(name) else {
            return;
        };
        let now_ms = unix_ms();
        let mut is_done = !live.row.incident.is_open();
        let silenced = self
            .silences
            .iter()
            .any(|s| s.covers(&live.row.incident, now_ms));
        for (at, receiver) in self.receivers.iter().enumerate() {
            let config = receiver.config();
            if !config.wants(&live.row.incident.rule) {
                continue;
            }
            let last = sent_to(&live.row, &config.name).cloned();
            let step = next(
                &live.row.incident,
                last.as_ref(),
                config.timing,
                silenced,
                now_ms,
            );
            is_done &= step == OutboxStep::Done;
            let pause = live.pauses.get(&at);
            if live.under_way.contains(&at)
                || self.under_way[at] >= UNDER_WAY_MAX
                || pause.is_some_and(|(_, until_ms)| steady_ms() < *until_ms)
            {
                continue;
            }
            let (sent, skips) = match step {
                OutboxStep::Send(sent) => (sent, false),
                OutboxStep::Skip(sent) => (sent, true),
                OutboxStep::Wait(_) | OutboxStep::Done => continue,
            };
            live.under_way.insert(at);
            self.under_way[at] += 1;
            let errand = Errand {
                name: name.clone(),
                receiver: Arc::clone(receiver),
                at,
                row: live.row.clone(),
                last,
                sent,
                skips,
                table: self.table.clone(),
                link: self.link.clone(),
            };
            let done = self.done.clone();
            tokio::spawn(async move {
                let attempt = errand.run().await;
                drop(done.send(TaskResult::Attempt(attempt)));
            });
        }
        if is_done {
            self.live.remove(name);
        }
    }
}

fn pause_ms(failures: u32) -> i64 {
    let cap = (PAUSE_FIRST_MS << failures.min(20)).min(PAUSE_MAX_MS);
    cap / 2 + fastrand::i64(0..=cap / 2)
}

impl Live {
    /// Merges `row` into the known row of the incident. The function copies the incident if `row` has the higher fence,
    /// and copies each message with a higher number or a newer outcome.
    fn merge(&mut self, row: StoredIncident) {
        if row.incident.next > self.row.incident.next {
            self.row.incident = row.incident;
        }
        for (receiver, sent) in row.sent {
            match self.row.sent.iter_mut().find(|(name, _)| *name == receiver) {
                None => self.row.sent.push((receiver, sent)),
                Some((_, known)) => {
                    let is_known = sent.n == known.n && sent.outcome == SendOutcome::Unknown;
                    if sent.n >= known.n && !is_known {
                        *known = sent;
                    }
                }
            }
        }
    }
}

/// A single attempt to send a message.
struct Errand {
    name: IncidentName,
    receiver: Arc<Receiver>,
    at: usize,
    row: StoredIncident,
    last: Option<SentMessages>,
    sent: SentMessages,
    /// True if the attempt only updates the row of the incident and sends no message.
    skips: bool,
    table: IncidentTable,
    link: Option<Arc<str>>,
}

impl Errand {
    async fn run(self) -> Attempt {
        let (row, failure) = match self.try_run().await {
            Ok(row) => (row, None),
            Err(failure) => (None, Some(failure)),
        };
        Attempt {
            name: self.name,
            receiver: self.at,
            row,
            failure,
        }
    }

    async fn try_run(&self) -> Result<Option<StoredIncident>, (String, Option<Duration>)> {
        let mut last = self.last.clone();
        if self.skips {
            return self.note(last.as_ref(), &self.sent).await.map(Some);
        }
        // A message with a number above 1 is recorded in the row before the message is sent, so that no other message
        // gets this number.
        if self.sent.n > 1 && last.as_ref() != Some(&self.sent) {
            let row = self.note(last.as_ref(), &self.sent).await?;
            if sent_to(&row, &self.receiver.config().name) != Some(&self.sent) {
                // Another process has already recorded a different message in the row.
                return Ok(Some(row));
            }
            last = Some(self.sent.clone());
        }
        let message = Message {
            kind: self.sent.kind,
            n: self.sent.n,
            incident: &self.row.incident,
            link: self.link.as_deref(),
        };
        let outcome = match self.receiver.send(&message).await {
            DeliveryResult::Taken => SendOutcome::Taken,
            DeliveryResult::Refused { why } => {
                let receiver = &*self.receiver.config().name;
                tracing::error!(
                    receiver,
                    incident = &*self.name.1,
                    error = why,
                    "a receiver refused a message, and it is not sent again"
                );
                SendOutcome::Refused(why.into())
            }
            DeliveryResult::Again { after, why } => return Err((why, after)),
        };
        let sent = SentMessages {
            outcome,
            ..self.sent.clone()
        };
        self.note(last.as_ref(), &sent).await.map(Some)
    }

    async fn note(
        &self,
        last: Option<&SentMessages>,
        sent: &SentMessages,
    ) -> Result<StoredIncident, (String, Option<Duration>)> {
        let name = (&*self.name.0, &*self.name.1);
        let receiver = &self.receiver.config().name;
        let mut attempt = 1;
        // The loop repeats a failed write. Without the record in the row, the receiver would get the same message
        // again.
        loop {
            match self.table.write_sent(name, receiver, last, sent).await {
                Err(error) if attempt < NOTE_ATTEMPTS && error.kind().is_retryable() => {
                    let pause_ms = backoff_ms(attempt, fastrand::u32(..)).unsigned_abs();
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    attempt += 1;
                }
                noted => return noted.map_err(|error| (error.to_string(), None)),
            }
        }
    }
}

fn sent_to<'a>(row: &'a StoredIncident, receiver: &str) -> Option<&'a SentMessages> {
    row.sent
        .iter()
        .find(|(name, _)| name == receiver)
        .map(|(_, sent)| sent)
}
