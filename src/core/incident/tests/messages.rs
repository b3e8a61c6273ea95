//! Tests when a receiver needs a message about an incident, the content of the message, and the silences that hold it
//! back.

use serde_json::json;

use super::*;
use crate::incident::message::Message;
use crate::incident::outbox::{self, MessageKind, OutboxStep, SendOutcome, SentMessages, Timing};
use crate::incident::silence::Silence;
use crate::incident::{Group, SAMPLE_CHARS_MAX, Sample, incident_id};

const NOW_MS: UnixMs = UnixMs(BASE_MS);
const OPEN: IncidentPhase = IncidentPhase::Open;
const ENDED: IncidentPhase = IncidentPhase::Resolved { at_ms: NOW_MS };

fn incident(state: IncidentPhase, event_count: u64) -> Incident {
    Incident {
        state,
        event_count,
        group: Group {
            city: Some("NYC".into()),
            event_type: None,
        },
        id: incident_id("T", 3, Offset(7)).into(),
        opened_at_ms: UnixMs(BASE_MS + 1),
        ..Incident::begin(&critical(), &Group::default())
    }
}

/// Returns a message that was created `after_ms` milliseconds after [`NOW_MS`], and whose outcome is unknown.
fn message(n: u32, kind: MessageKind, event_count: u64, after_ms: i64) -> SentMessages {
    SentMessages {
        n,
        kind,
        event_count,
        begun_ms: NOW_MS + after_ms,
        outcome: SendOutcome::Unknown,
    }
}

/// Returns a message about an incident with five events, which was created at [`NOW_MS`].
fn sent(n: u32, kind: MessageKind, outcome: SendOutcome) -> SentMessages {
    SentMessages {
        outcome,
        ..message(n, kind, 5, 0)
    }
}

/// Returns the next step at `after_ms` milliseconds after [`NOW_MS`]. Two messages are at least 100 ms apart.
fn step(
    last: Option<&SentMessages>,
    incident: &Incident,
    silenced: bool,
    after_ms: i64,
    repeat_ms: Option<i64>,
) -> OutboxStep {
    let timing = Timing {
        repeat_ms,
        interval_min_ms: 100,
    };
    outbox::next(incident, last, timing, silenced, NOW_MS + after_ms)
}

#[test]
fn the_first_message_waits_for_the_end_of_a_silence() {
    let first = message(1, MessageKind::Opened, 5, 0);
    let skipped = sent(1, MessageKind::Opened, SendOutcome::Silenced);
    for (state, silenced, want) in [
        (OPEN, false, OutboxStep::Send(first.clone())),
        (ENDED, false, OutboxStep::Send(first)),
        (OPEN, true, OutboxStep::Wait(None)),
        (ENDED, true, OutboxStep::Skip(skipped)),
    ] {
        let found = step(None, &incident(state, 5), silenced, 0, None);
        assert_eq!(found, want, "{state:?}, silenced {silenced}");
    }
}

#[test]
fn news_and_reminders_are_sent_in_time() {
    let last = sent(1, MessageKind::Opened, SendOutcome::Taken);
    let wait = |after_ms: i64| OutboxStep::Wait(Some(NOW_MS + after_ms));
    let news =
        |events, after_ms| OutboxStep::Send(message(2, MessageKind::Updated, events, after_ms));
    // Each case lists the number of events, whether a silence covers the incident, the time since the last message, the
    // time between reminders, and the expected step.
    for (events, silenced, after_ms, repeat_ms, want) in [
        (5, false, 999, Some(1_000), wait(1_000)),
        (5, false, 1_000, Some(1_000), news(5, 1_000)),
        (5, false, 9_999, None, OutboxStep::Wait(None)),
        (6, false, 99, None, wait(100)),
        (6, false, 100, None, news(6, 100)),
        (6, true, 100, Some(1_000), OutboxStep::Wait(None)),
    ] {
        let found = step(
            Some(&last),
            &incident(OPEN, events),
            silenced,
            after_ms,
            repeat_ms,
        );
        assert_eq!(found, want, "{events} events after {after_ms} ms");
    }
}

#[test]
fn the_end_is_told_once_although_a_silence_covers_the_incident() {
    use MessageKind::{Opened, Resolved, Updated};
    use SendOutcome::{Silenced, Taken, Unknown};
    let refused = || SendOutcome::Refused("full".into());
    let end = |n| OutboxStep::Send(message(n, Resolved, 9, 1));
    let unknown = sent(2, Updated, Unknown);
    for (last, want) in [
        (sent(1, Opened, Taken), end(2)),
        (sent(2, Updated, refused()), end(3)),
        // The sender repeats a message with an unknown outcome unchanged.
        (unknown.clone(), OutboxStep::Send(unknown)),
        (sent(1, Opened, Silenced), OutboxStep::Done),
        (sent(3, Resolved, Taken), OutboxStep::Done),
        (sent(3, Resolved, refused()), OutboxStep::Done),
    ] {
        for silenced in [false, true] {
            let found = step(Some(&last), &incident(ENDED, 9), silenced, 1, None);
            assert_eq!(found, want, "{last:?}");
        }
    }
}

#[test]
fn the_kinds_and_outcomes_of_messages_have_their_names() {
    let names = MessageKind::ALL.map(MessageKind::name);
    assert_eq!(names, ["opened", "updated", "resolved"]);
    assert_eq!(
        names.map(MessageKind::from_name),
        MessageKind::ALL.map(Some)
    );
    assert_eq!(MessageKind::from_name("open"), None);
    let refused = SendOutcome::Refused("full".into());
    for (outcome, name) in [
        (SendOutcome::Unknown, "unknown"),
        (SendOutcome::Taken, "taken"),
        (refused, "refused"),
        (SendOutcome::Silenced, "silenced"),
    ] {
        assert_eq!(outcome.name(), name);
    }
}

#[test]
fn a_title_names_the_rule_the_group_and_the_number_of_events() {
    for (kind, city, event_type, events, want) in [
        (
            MessageKind::Opened,
            None,
            None,
            1,
            "Open: critical, 1 event",
        ),
        (
            MessageKind::Updated,
            Some("NYC"),
            None,
            2,
            "Still open: critical in NYC, 2 events",
        ),
        (
            MessageKind::Resolved,
            Some("NYC"),
            Some("traffic"),
            0,
            "Resolved: critical in NYC, traffic",
        ),
    ] {
        let group = Group {
            city: city.map(Into::into),
            event_type: event_type.map(Into::into),
        };
        let incident = Incident {
            group,
            ..incident(OPEN, events)
        };
        let message = Message {
            kind,
            n: 4,
            incident: &incident,
            link: None,
        };
        assert_eq!(message.title(), want);
        assert_eq!(message.id(), "critical#T#3#000000000000007.4");
    }
}

#[test]
fn a_body_has_the_fields_that_the_incident_has() {
    let Some(Body::Event(mut long)) = event("LA", Severity::High, 0).1 else {
        panic!("it is an event");
    };
    long.description = "é".repeat(SAMPLE_CHARS_MAX + 1).into();
    let mut told = Incident {
        severity: Some(Severity::High),
        first_event_ms: NOW_MS,
        last_event_ms: NOW_MS,
        samples: vec![Arc::new(Sample::new(&long, "e1".to_owned()))],
        ..incident(ENDED, 1)
    };
    told.group.event_type = Some("traffic".into());
    let message = |incident, link| {
        let message = Message {
            kind: MessageKind::Resolved,
            n: 2,
            incident,
            link,
        };
        message.body()
    };
    let time = "2013-01-01T06:00:00.000Z";
    let want = json!({
        "type": "incident.resolved", "incident": "T#3#000000000000007", "rule": "critical", "city": "NYC",
        "event_type": "traffic", "severity": "high", "event_count": 1, "first_event": time, "last_event": time,
        "opened_at": "2013-01-01T06:00:00.001Z", "resolved_at": time, "link": "https://example.org/",
        "samples": [{
            "event_id": "e1", "city": "LA", "event_type": "traffic", "severity": "high", "timestamp": time,
            "description": "é".repeat(SAMPLE_CHARS_MAX),
        }],
    });
    assert_eq!(message(&told, Some("https://example.org/")), want);
    let silent = Incident {
        group: Group::default(),
        first_event_ms: NOW_MS,
        last_event_ms: NOW_MS,
        ..incident(OPEN, 0)
    };
    let want = json!({
        "type": "incident.resolved", "incident": "T#3#000000000000007", "rule": "critical", "event_count": 0,
        "first_event": time, "last_event": time, "opened_at": "2013-01-01T06:00:00.001Z", "samples": [],
    });
    assert_eq!(message(&silent, None), want);
}

#[test]
fn a_silence_covers_what_it_names_from_its_beginning_to_its_end() {
    let incident = incident(OPEN, 1);
    for (rule, city, event_type, at_ms, covers) in [
        (None, None, None, 0, true),
        (None, None, None, -1, false),
        (None, None, None, 9, true),
        (None, None, None, 10, false),
        (Some("critical"), None, None, 0, true),
        (Some("surge"), None, None, 0, false),
        (Some("critical"), Some("NYC"), None, 0, true),
        (Some("critical"), Some("LA"), None, 0, false),
        // The rule of the incident does not group by event type.
        (None, Some("NYC"), Some("traffic"), 0, false),
    ] {
        let silence = Silence {
            id: "1".into(),
            rule: rule.map(Into::into),
            city: city.map(Into::into),
            event_type: event_type.map(Into::into),
            from_ms: NOW_MS,
            until_ms: NOW_MS + 10,
            why: "".into(),
        };
        let found = silence.covers(&incident, NOW_MS + at_ms);
        assert_eq!(found, covers, "{silence:?} after {at_ms} ms");
    }
}
