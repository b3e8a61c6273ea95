//! Builds requests for [PagerDuty's Events API v2](https://developer.pagerduty.com/docs/events-api-v2-overview).
//!
//! For a message that opens or updates an incident, the request triggers an alert. All alerts of one incident have the
//! same `dedup_key`. For the last message about an incident, the request resolves the alert.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::core::event::Severity;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::time::format_millis;

use super::{Request, cut, rank};

/// Maximum length of the field `dedup_key` in characters.
const DEDUP_KEY_MAX: usize = 255;
/// Maximum length of the field `summary` in characters.
const SUMMARY_MAX: usize = 1_024;

/// Returns the request for a message to PagerDuty.
pub fn request(url: Url, routing_key: &str, message: &Message<'_>) -> Request {
    let mut body = json!({
        "routing_key": routing_key,
        "event_action": if message.kind == MessageKind::Resolved { "resolve" } else { "trigger" },
        "dedup_key": dedup_key(&message.incident.name()),
    });
    if message.kind != MessageKind::Resolved {
        body["payload"] = payload(message);
        body["client"] = json!("citystream");
        if let Some(link) = message.link {
            body["client_url"] = json!(link);
            body["links"] = json!([{"href": link, "text": "Open in citystream"}]);
        }
    }
    Request::json(url, None, &body)
}

fn payload(message: &Message<'_>) -> Value {
    let incident = message.incident;
    let severity = match rank(message) {
        Severity::Critical => "critical",
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "info",
    };
    let mut payload = json!({
        "summary": cut(&message.title(), SUMMARY_MAX),
        "source": incident.group.city.as_deref().unwrap_or("citystream"),
        "severity": severity,
        "timestamp": format_millis(incident.opened_at_ms),
        "group": &*incident.rule,
        "custom_details": incident.fields(),
    });
    if let Some(city) = &incident.group.city {
        payload["component"] = json!(&**city);
    }
    if let Some(event_type) = &incident.group.event_type {
        payload["class"] = json!(&**event_type);
    }
    payload
}

/// Returns the key by which PagerDuty identifies the incident: the name of the incident, or a hash of a name that is
/// too long.
fn dedup_key(name: &str) -> String {
    if name.chars().count() <= DEDUP_KEY_MAX {
        return name.to_owned();
    }
    super::hex(&Sha256::digest(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_becomes_a_hash() {
        let name = "r".repeat(255);
        assert_eq!(dedup_key(&name), name);
        let key = dedup_key(&"r".repeat(256));
        assert!(key.len() == 64 && key.chars().all(|c| c.is_ascii_hexdigit()));
    }
}
