//! Turns a message about an incident into an HTTP request for a receiver.
//!
//! The functions of this module are pure, so they receive the secrets and the time as parameters.
//! [`crate::notify::send`] sends the requests that the functions return.

pub mod alertmanager;
pub mod ntfy;
pub mod pagerduty;
pub mod slack;
pub mod sns;
#[cfg(test)]
mod tests;
pub mod webhook;

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::incident::{IncidentPhase, Sample};
use crate::core::time::format_seconds;

/// An HTTP POST request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The URL of the request, without user name and password.
    pub url: Url,
    /// The headers of the request, except the headers that every request contains.
    pub headers: Vec<(&'static str, String)>,
    /// The body of the request.
    pub body: String,
}

/// The debug text omits the URL and the headers, because both may contain secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("host", &self.url.host_str())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Returns a request with a JSON body. A user name and a password in the URL become an `Authorization` header,
    /// unless `token` is given.
    fn json(mut url: Url, token: Option<&str>, body: &Value) -> Request {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        let login = login(&url);
        if let Some(authorization) = token.map(|token| format!("Bearer {token}")).or(login) {
            headers.push(("authorization", authorization));
        }
        // `set_username` and `set_password` fail only for a URL that cannot contain a user name.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        debug_assert!(cleared.is_ok(), "an http URL can lose its user name");
        Request {
            url,
            headers,
            body: body.to_string(),
        }
    }

    /// Returns the value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }
}

fn login(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    Some(format!("Basic {encoded}"))
}

/// Returns the severity by which a receiver ranks the message. An incident without a severity ranks as high.
fn rank(message: &Message<'_>) -> Severity {
    message.incident.severity.unwrap_or(Severity::High)
}

/// Returns name/value pairs that describe the incident in a message.
fn facts(message: &Message<'_>) -> Vec<(&'static str, String)> {
    let incident = message.incident;
    let mut facts = vec![("Rule", incident.rule.to_string())];
    let city = incident.group.city.as_ref().map(ToString::to_string);
    let event_type = incident.group.event_type.as_ref().map(ToString::to_string);
    let severity = incident.severity.map(|severity| severity.name().to_owned());
    facts.extend(city.map(|city| ("City", city)));
    facts.extend(event_type.map(|event_type| ("Type", event_type)));
    facts.extend(severity.map(|severity| ("Severity", severity)));
    if incident.event_count > 0 {
        facts.push(("Events", incident.event_count.to_string()));
        facts.push(("First event", format_seconds(incident.first_event_ms)));
    }
    facts.push(("Last event", format_seconds(incident.last_event_ms)));
    if let (MessageKind::Resolved, IncidentPhase::Resolved { at_ms }) =
        (message.kind, incident.state)
    {
        facts.push(("Resolved", format_seconds(at_ms)));
    }
    facts
}

/// Returns a line of text that describes an event.
fn sample_line(sample: &Sample) -> String {
    let Sample {
        city,
        event_type,
        severity,
        description,
        ..
    } = sample;
    let time = format_seconds(sample.time_ms);
    let mut line = format!("{time} {city}, {event_type}, {severity}");
    if !description.is_empty() {
        line.push_str(": ");
        line.push_str(description);
    }
    line
}

/// Returns at most the first `max` characters of a text. If characters were removed from the text, the result ends with
/// `…`.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Converts a time to whole seconds since the Unix epoch.
fn seconds(ms: UnixMs) -> i64 {
    ms.0.div_euclid(1_000)
}

/// Returns the bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
