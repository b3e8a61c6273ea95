//! Which messages about an incident a receiver still lacks.
//!
//! The messages to one receiver about one incident are numbered from 1. Message 1 says that the incident was opened, and
//! the last one says that it was resolved. A message is repeated under its number until the receiver takes it, so a
//! receiver that knows the numbers gets each message once. Message 1 follows from the incident alone. Every later
//! number is stored with its kind *before* the message is sent. A process that takes over therefore repeats the message
//! that may be under way, instead of giving its number to another one.

use super::{Incident, State};
use crate::clock::UnixMs;

/// What a message says about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The incident was opened.
    Opened,
    /// The incident has more events, or is still open.
    Updated,
    /// The incident has ended.
    Resolved,
}

impl Kind {
    /// All kinds, in the order in which a receiver gets them.
    pub const ALL: [Kind; 3] = [Kind::Opened, Kind::Updated, Kind::Resolved];

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name that is used in items and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Opened => "opened",
            Kind::Updated => "updated",
            Kind::Resolved => "resolved",
        }
    }
}

/// The last message to a receiver about an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The number of the message.
    pub n: u32,
    /// What the message says.
    pub kind: Kind,
    /// The number of events of the incident when the message was begun.
    pub event_count: u64,
    /// The wall clock when the message was begun.
    pub begun_ms: UnixMs,
    /// What became of the message.
    pub outcome: Outcome,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The outcome is not known. The message is sent again.
    Unknown,
    /// The receiver took the message.
    Taken,
    /// The receiver refused the message, for this reason. The message is not sent again.
    Refused(Box<str>),
    /// A silence kept the message back, and the incident has ended since.
    Silenced,
}

impl Outcome {
    /// Returns the name that is used in items and answers.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Unknown => "unknown",
            Outcome::Taken => "taken",
            Outcome::Refused(_) => "refused",
            Outcome::Silenced => "silenced",
        }
    }
}

/// When a receiver wants messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An incident that stays open is sent again after this many milliseconds.
    pub repeat_ms: Option<i64>,
    /// Minimum time between two messages about an open incident, in milliseconds.
    pub interval_min_ms: i64,
}

/// What to do next for a receiver and an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message. If its number is new and not 1, store it first.
    Send(Sent),
    /// Store that there is nothing to send, because a silence covered the incident until it ended.
    Skip(Sent),
    /// Look again at this time, or when the incident changes.
    Wait(Option<UnixMs>),
    /// The receiver has everything.
    Done,
}

/// Returns what to do next. `last` is the last message of the receiver, and `silenced` says whether a silence covers the
/// incident now.
///
/// A silence keeps back the messages of an open incident. A receiver that knows of an incident is always told that it
/// ended.
pub fn next(
    incident: &Incident,
    last: Option<&Sent>,
    timing: Timing,
    silenced: bool,
    now_ms: UnixMs,
) -> Step {
    let message = |n, kind| Sent {
        n,
        kind,
        event_count: incident.event_count,
        begun_ms: now_ms,
        outcome: Outcome::Unknown,
    };
    let ended = matches!(incident.state, State::Resolved { .. });
    let Some(last) = last else {
        return match (silenced, ended) {
            (false, _) => Step::Send(message(1, Kind::Opened)),
            (true, false) => Step::Wait(None),
            (true, true) => Step::Skip(Sent {
                outcome: Outcome::Silenced,
                ..message(1, Kind::Opened)
            }),
        };
    };
    match last.outcome {
        Outcome::Unknown => return Step::Send(last.clone()),
        Outcome::Silenced => return Step::Done,
        Outcome::Taken | Outcome::Refused(_) => {}
    }
    if last.kind == Kind::Resolved {
        return Step::Done;
    }
    if ended {
        return Step::Send(message(last.n + 1, Kind::Resolved));
    }
    if silenced {
        return Step::Wait(None);
    }
    let due_ms = if incident.event_count > last.event_count {
        last.begun_ms.saturating_add(timing.interval_min_ms)
    } else {
        match timing.repeat_ms {
            Some(repeat_ms) => last.begun_ms.saturating_add(repeat_ms),
            None => return Step::Wait(None),
        }
    };
    if due_ms <= now_ms {
        Step::Send(message(last.n + 1, Kind::Updated))
    } else {
        Step::Wait(Some(due_ms))
    }
}
