//! What a receiver is sent: a message about an incident becomes an HTTP request.
//!
//! The functions of this module are pure. They take the secrets and the time as values, and [`crate::notify::send`]
//! sends what they return.

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
use crate::core::incident::outbox::Kind;
use crate::core::incident::{Sample, State};
use crate::core::time::format_seconds;

/// A POST request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the request goes. The URL holds no user name and no password.
    pub url: Url,
    /// The headers, except those that every request has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// Shows neither the URL nor the headers, because they may hold secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("host", &self.url.host_str())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Returns a request with a JSON body. A user name and a password in the URL become a header, unless there is a
    /// token.
    fn json(mut url: Url, token: Option<&str>, body: &Value) -> Request {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        let login = login(&url);
        if let Some(authorization) = token.map(|token| format!("Bearer {token}")).or(login) {
            headers.push(("authorization", authorization));
        }
        // Fails only for a URL that cannot have a user name.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        debug_assert!(cleared.is_ok(), "an http URL can lose its user name");
        Request {
            url,
            headers,
            body: body.to_string(),
        }
    }

    /// Returns the value of a header.
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

/// Returns the severity by which a receiver ranks the message. An incident of a silence has none, and ranks as high.
fn rank(message: &Message<'_>) -> Severity {
    message.incident.severity.unwrap_or(Severity::High)
}

/// Returns what a person wants to know about the incident, as names and values.
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
    if let (Kind::Resolved, State::Resolved { at_ms }) = (message.kind, incident.state) {
        facts.push(("Resolved", format_seconds(at_ms)));
    }
    facts
}

/// Returns an event in one line.
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

/// Returns the first characters of a text, at most `max` of them. A text that is cut ends with `…`.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Returns whole seconds.
fn seconds(ms: UnixMs) -> i64 {
    ms.0.div_euclid(1_000)
}

/// Returns bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
