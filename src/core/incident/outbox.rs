//! Decides which messages about an incident a receiver still needs.
//!
//! The messages to one receiver about one incident are numbered from 1. Message 1 says that the incident was opened,
//! and the last message says that the incident was resolved. Until the sender knows the outcome of a message, it sends
//! the message again with the same number. The receiver recognizes a repeated message by its number. The sender does
//! not store message 1 before sending it, because a new process can build this message again from the incident alone.
//! For every later message, the sender stores the number and the kind *before* it sends the message. If a new process
//! replaces the sender, it repeats the last message whose outcome is unknown. Therefore, two different messages never
//! have the same number.

use super::{Incident, IncidentPhase};
use crate::clock::UnixMs;

/// The kind of change that a message reports about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// The incident was opened.
    Opened,
    /// The incident has new events, or it is still open and a reminder is due.
    Updated,
    /// The incident has ended.
    Resolved,
}

impl MessageKind {
    /// All kinds of messages, in the order in which a receiver gets them.
    pub const ALL: [MessageKind; 3] = [
        MessageKind::Opened,
        MessageKind::Updated,
        MessageKind::Resolved,
    ];

    /// Returns the kind of message that has this name, or `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<MessageKind> {
        MessageKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Returns the name of the kind, as it appears in items and API responses.
    pub const fn name(self) -> &'static str {
        match self {
            MessageKind::Opened => "opened",
            MessageKind::Updated => "updated",
            MessageKind::Resolved => "resolved",
        }
    }
}

/// The latest message to one receiver about one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMessages {
    /// The number of the message, counted from 1.
    pub n: u32,
    /// The kind of change that the message reports.
    pub kind: MessageKind,
    /// The number of events that the incident had when the message was created.
    pub event_count: u64,
    /// The wall-clock time at which the message was created.
    pub begun_ms: UnixMs,
    /// The outcome of the message.
    pub outcome: SendOutcome,
}

/// The outcome of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The outcome is unknown, so the sender sends the message again.
    Unknown,
    /// The receiver accepted the message.
    Taken,
    /// The receiver refused the message, so the sender does not send it again. The field contains the reason for the
    /// refusal.
    Refused(Box<str>),
    /// The sender never sent the message, because a silence covered the incident until the incident ended.
    Silenced,
}

impl SendOutcome {
    /// Returns the name of the outcome, as it appears in items and API responses.
    pub const fn name(&self) -> &'static str {
        match self {
            SendOutcome::Unknown => "unknown",
            SendOutcome::Taken => "taken",
            SendOutcome::Refused(_) => "refused",
            SendOutcome::Silenced => "silenced",
        }
    }
}

/// The times between messages to one receiver about the same incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time after which the receiver gets a reminder of an open incident without new events, in milliseconds, or `None`
    /// for no reminders.
    pub repeat_ms: Option<i64>,
    /// Minimum time between two messages about an open incident, in milliseconds.
    pub interval_min_ms: i64,
}

/// The next step in the delivery of messages to one receiver about one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxStep {
    /// Send this message. Unless it is message 1, store it before the first attempt.
    Send(SentMessages),
    /// Send nothing, and store this message with the outcome `Silenced`, because a silence covered the incident until
    /// it ended.
    Skip(SentMessages),
    /// Wait until the incident changes, or until the given time if there is one. Then call `next` again.
    Wait(Option<UnixMs>),
    /// The receiver needs no more messages about the incident.
    Done,
}

/// Returns the next step in the delivery of messages to a receiver. `last` is the last message to the receiver, and
/// `silenced` is true if a silence covers the incident now.
///
/// A silence holds back messages about an open incident. A receiver that already has a message about the incident
/// always gets the message that the incident has ended.
pub fn next(
    incident: &Incident,
    last: Option<&SentMessages>,
    timing: Timing,
    silenced: bool,
    now_ms: UnixMs,
) -> OutboxStep {
    let message = |n, kind| SentMessages {
        n,
        kind,
        event_count: incident.event_count,
        begun_ms: now_ms,
        outcome: SendOutcome::Unknown,
    };
    let ended = matches!(incident.state, IncidentPhase::Resolved { .. });
    let Some(last) = last else {
        return match (silenced, ended) {
            (false, _) => OutboxStep::Send(message(1, MessageKind::Opened)),
            (true, false) => OutboxStep::Wait(None),
            (true, true) => OutboxStep::Skip(SentMessages {
                outcome: SendOutcome::Silenced,
                ..message(1, MessageKind::Opened)
            }),
        };
    };
    match last.outcome {
        SendOutcome::Unknown => return OutboxStep::Send(last.clone()),
        SendOutcome::Silenced => return OutboxStep::Done,
        SendOutcome::Taken | SendOutcome::Refused(_) => {}
    }
    if last.kind == MessageKind::Resolved {
        return OutboxStep::Done;
    }
    if ended {
        return OutboxStep::Send(message(last.n + 1, MessageKind::Resolved));
    }
    if silenced {
        return OutboxStep::Wait(None);
    }
    let due_ms = if incident.event_count > last.event_count {
        last.begun_ms.saturating_add(timing.interval_min_ms)
    } else {
        match timing.repeat_ms {
            Some(repeat_ms) => last.begun_ms.saturating_add(repeat_ms),
            None => return OutboxStep::Wait(None),
        }
    };
    if due_ms <= now_ms {
        OutboxStep::Send(message(last.n + 1, MessageKind::Updated))
    } else {
        OutboxStep::Wait(Some(due_ms))
    }
}
