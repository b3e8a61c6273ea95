//! Tests when a receiver needs a message about an incident, what the message says, and which silences hold it back.

use serde_json::json;

use super::*;
use crate::incident::message::Message;
use crate::incident::outbox::{self, Kind, Outcome, Sent, Step, Timing};
use crate::incident::silence::Silence;
use crate::incident::{Group, SAMPLE_CHARS_MAX, Sample, incident_id};

const NOW_MS: UnixMs = UnixMs(BASE_MS);
const OPEN: State = State::Open;
const ENDED: State = State::Resolved { at_ms: NOW_MS };

fn incident(state: State, event_count: u64) -> Incident {
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

#[test]
fn a_receiver_gets_news_in_time_and_the_end_in_any_case() {
    use Kind::{Opened, Resolved, Updated};
    use Outcome::{Silenced, Taken, Unknown};
    let refused = Outcome::Refused("full".into());
    let sent = |n, kind, outcome: &Outcome| Sent {
        n,
        kind,
        event_count: 5,
        begun_ms: NOW_MS,
        outcome: outcome.clone(),
    };
    let first = sent(1, Opened, &Taken);
    let fresh = |n, kind, event_count, after_ms| Sent {
        event_count,
        begun_ms: NOW_MS + after_ms,
        ..sent(n, kind, &Unknown)
    };
    let unknown = sent(2, Updated, &Unknown);
    let wait = |after_ms: i64| Step::Wait(Some(NOW_MS + after_ms));
    // Each case lists the last message, the state of the incident, its number of events, whether a silence covers it,
    // and the time since the last message. A reminder is sent after 1,000 ms, and news are sent after 100 ms.
    for (last, state, events, silenced, after_ms, want) in [
        (None, OPEN, 5, false, 0, Step::Send(fresh(1, Opened, 5, 0))),
        (None, ENDED, 5, false, 0, Step::Send(fresh(1, Opened, 5, 0))),
        (None, OPEN, 5, true, 0, Step::Wait(None)),
        (None, ENDED, 5, true, 0, {
            let outcome = Silenced;
            Step::Skip(Sent {
                outcome,
                ..fresh(1, Opened, 5, 0)
            })
        }),
        (Some(&first), OPEN, 5, false, 999, wait(1_000)),
        (
            Some(&first),
            OPEN,
            5,
            false,
            1_000,
            Step::Send(fresh(2, Updated, 5, 1_000)),
        ),
        (Some(&first), OPEN, 6, false, 99, wait(100)),
        (
            Some(&first),
            OPEN,
            6,
            false,
            100,
            Step::Send(fresh(2, Updated, 6, 100)),
        ),
        (Some(&first), OPEN, 6, true, 100, Step::Wait(None)),
        // The end is told although a silence covers the incident.
        (
            Some(&first),
            ENDED,
            5,
            true,
            1,
            Step::Send(fresh(2, Resolved, 5, 1)),
        ),
        (
            Some(&sent(2, Updated, &refused)),
            ENDED,
            5,
            false,
            1,
            Step::Send(fresh(3, Resolved, 5, 1)),
        ),
        // A message without a known outcome is sent again as it was.
        (
            Some(&unknown),
            ENDED,
            9,
            true,
            1,
            Step::Send(unknown.clone()),
        ),
        (
            Some(&sent(1, Opened, &Silenced)),
            ENDED,
            5,
            false,
            1,
            Step::Done,
        ),
        (
            Some(&sent(3, Resolved, &Taken)),
            ENDED,
            5,
            false,
            1,
            Step::Done,
        ),
        (
            Some(&sent(3, Resolved, &refused)),
            ENDED,
            5,
            false,
            1,
            Step::Done,
        ),
    ] {
        let timing = Timing {
            repeat_ms: Some(1_000),
            interval_min_ms: 100,
        };
        let incident = incident(state, events);
        let step = outbox::next(&incident, last, timing, silenced, NOW_MS + after_ms);
        assert_eq!(
            step, want,
            "{last:?}, {state:?}, {events} events, {after_ms} ms"
        );
    }
    let timing = Timing {
        repeat_ms: None,
        interval_min_ms: 100,
    };
    let late_ms = NOW_MS + 9_999;
    let step = outbox::next(&incident(OPEN, 5), Some(&first), timing, false, late_ms);
    assert_eq!(step, Step::Wait(None), "without news there is no reminder");
}

#[test]
fn the_kinds_and_outcomes_of_messages_have_their_names() {
    let names = Kind::ALL.map(Kind::name);
    assert_eq!(names, ["opened", "updated", "resolved"]);
    assert_eq!(names.map(Kind::from_name), Kind::ALL.map(Some));
    assert_eq!(Kind::from_name("open"), None);
    let refused = Outcome::Refused("full".into());
    for (outcome, name) in [
        (Outcome::Unknown, "unknown"),
        (Outcome::Taken, "taken"),
        (refused, "refused"),
        (Outcome::Silenced, "silenced"),
    ] {
        assert_eq!(outcome.name(), name);
    }
}

#[test]
fn a_title_names_the_rule_the_group_and_the_number_of_events() {
    for (kind, city, event_type, events, want) in [
        (Kind::Opened, None, None, 1, "Open: critical, 1 event"),
        (
            Kind::Updated,
            Some("NYC"),
            None,
            2,
            "Still open: critical in NYC, 2 events",
        ),
        (
            Kind::Resolved,
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
            kind: Kind::Resolved,
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
