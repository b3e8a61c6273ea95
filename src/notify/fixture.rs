//! An example incident for the tests of `notify`.

use std::sync::Arc;

use crate::core::clock::UnixMs;
use crate::core::event::{Offset, Severity};
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::incident::{Group, Incident, IncidentPhase, Sample};

/// The instant 2026-01-02T03:04:05Z.
pub(super) const NOW_MS: UnixMs = UnixMs(1_767_323_045_000);
/// The address of a page with more details about the incident.
pub(super) const LINK: &str = "https://city.example/?city=NYC&type=traffic";

fn minutes_ago(minutes: i64) -> UnixMs {
    NOW_MS.saturating_sub(minutes * 60_000)
}

/// Returns an incident with two events, which was opened ten minutes ago.
pub(super) fn incident() -> Incident {
    let sample = |id: &str, severity, minutes, description: &str| {
        Arc::new(Sample {
            event_id: id.into(),
            city: "NYC".into(),
            event_type: "traffic".into(),
            severity,
            time_ms: minutes_ago(minutes),
            description: description.into(),
        })
    };
    Incident {
        rule: "critical".into(),
        id: "AAAAAAAAQACAAAAAAAAAAA#3#000000000000042".into(),
        group: Group {
            city: Some("NYC".into()),
            event_type: Some("traffic".into()),
        },
        state: IncidentPhase::Open,
        severity: Some(Severity::Critical),
        event_count: 2,
        first_event_ms: minutes_ago(11),
        last_event_ms: minutes_ago(9),
        opened_at_ms: minutes_ago(10),
        samples: vec![
            sample("e-1", Severity::Medium, 11, "5th & <Main>"),
            sample("e-2", Severity::Critical, 9, ""),
        ],
        quiet_at_ms: Some(NOW_MS),
        opened: Offset(0),
        next: Offset(44),
    }
}

/// Returns the example incident, which was resolved a minute ago.
pub(super) fn resolved() -> Incident {
    Incident {
        state: IncidentPhase::Resolved {
            at_ms: minutes_ago(1),
        },
        ..incident()
    }
}

/// Returns an open incident of a rule that reports missing events. The incident has no group.
pub(super) fn silence() -> Incident {
    Incident {
        rule: "silent".into(),
        group: Group::default(),
        severity: None,
        event_count: 0,
        samples: Vec::new(),
        ..incident()
    }
}

/// Returns a message of the given kind. The number of the message depends on the kind.
pub(super) fn message(kind: MessageKind, incident: &Incident) -> Message<'_> {
    let n = match kind {
        MessageKind::Opened => 1,
        MessageKind::Updated => 2,
        MessageKind::Resolved => 3,
    };
    Message {
        kind,
        n,
        incident,
        link: Some(LINK),
    }
}
