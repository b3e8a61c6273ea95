//! Builds requests for
//! [Alertmanager's API v2](https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml).
//!
//! Alertmanager identifies an alert by its labels. The label `severity` contains the current severity of the incident.
//! If the severity of an incident has risen, the request also ends the incident's alerts with lower severities.
//!
//! An open alert needs an end time in the future. Without an end time, the alert would end after Alertmanager's
//! `resolve_timeout`.

use serde_json::{Map, Value, json};
use url::Url;

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::incident::IncidentPhase;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::time::format_millis;

use super::{Request, sample_line};

/// Minimum time for which an open alert stays open without a further message.
const OPEN_MS_MIN: i64 = 3_600_000;
/// Number of repeat intervals without a message after which an open alert ends. Prometheus also ends its alerts after
/// four intervals without a message.
const REPEATS_MISSED: i64 = 4;

/// Returns the request for Alertmanager at `base`. `repeat_ms` is the time between two messages about an open incident.
pub fn request(
    base: &Url,
    token: Option<&str>,
    repeat_ms: Option<i64>,
    message: &Message<'_>,
    now_ms: UnixMs,
) -> Request {
    let mut url = base.clone();
    let folder = base.path().trim_end_matches('/');
    url.set_path(&format!("{folder}/api/v2/alerts"));
    let incident = message.incident;
    // Alertmanager treats an alert that ends in the future as open, and refuses an alert that ends before its start.
    let starts_ms = incident.opened_at_ms.min(now_ms);
    let ends_ms = match (message.kind, incident.state) {
        (MessageKind::Resolved, IncidentPhase::Resolved { at_ms }) => {
            at_ms.min(now_ms).max(starts_ms)
        }
        (MessageKind::Resolved, IncidentPhase::Open) => now_ms,
        (MessageKind::Opened | MessageKind::Updated, _) => {
            let repeats_ms = repeat_ms.unwrap_or(0).saturating_mul(REPEATS_MISSED);
            now_ms.saturating_add(repeats_ms.max(OPEN_MS_MIN))
        }
    };
    let alert = |severity: Option<Severity>, ends_ms: UnixMs| {
        let mut alert = json!({
            "labels": labels(message, severity),
            "annotations": annotations(message),
            "startsAt": format_millis(starts_ms),
            "endsAt": format_millis(ends_ms),
        });
        if let Some(link) = message.link {
            alert["generatorURL"] = json!(link);
        }
        alert
    };
    let mut alerts = vec![alert(incident.severity, ends_ms)];
    let lower = former_severities(message);
    alerts.extend(lower.map(|severity| alert(Some(severity), now_ms.max(starts_ms))));
    Request::json(url, token, &Value::Array(alerts))
}

/// Returns the severities that the incident may have had before its severity rose to the current severity. The lowest
/// severity in the result is the severity of the first event.
fn former_severities(message: &Message<'_>) -> impl Iterator<Item = Severity> {
    let first = message.incident.samples.first().map(|s| s.severity);
    let current = message.incident.severity;
    let all = Severity::ALL.into_iter();
    all.filter(move |s| first.is_some_and(|first| first <= *s) && Some(*s) < current)
}

fn labels(message: &Message<'_>, severity: Option<Severity>) -> Map<String, Value> {
    let incident = message.incident;
    let mut labels = Map::new();
    let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), json!(value));
    put("alertname", &incident.rule);
    put("rule", &incident.rule);
    put("incident", &incident.id);
    if let Some(city) = &incident.group.city {
        put("city", city);
    }
    if let Some(event_type) = &incident.group.event_type {
        put("event_type", event_type);
    }
    if let Some(severity) = severity {
        put("severity", severity.name());
    }
    labels
}

fn annotations(message: &Message<'_>) -> Value {
    let incident = message.incident;
    let samples = incident.samples.iter();
    let samples: Vec<String> = samples.map(|sample| sample_line(sample)).collect();
    json!({
        "summary": message.title(),
        "description": samples.join("\n"),
        "event_count": incident.event_count.to_string(),
        "first_event": format_millis(incident.first_event_ms),
        "last_event": format_millis(incident.last_event_ms),
    })
}
