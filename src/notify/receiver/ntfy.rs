//! Builds requests for [ntfy](https://docs.ntfy.sh/publish/#publish-as-json). Each message is a JSON object.

use serde_json::json;
use url::Url;

use crate::core::event::Severity;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;

use super::{Request, cut, facts, rank, sample_line};

/// Maximum length of a message in bytes. ntfy turns a longer message into an attachment.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Maximum length of a title in characters. A phone can show a title of 250 characters completely.
const TITLE_CHARS_MAX: usize = 250;

/// Returns the request for an ntfy topic. `url` is the root of the server, because ntfy accepts JSON only at the root.
pub fn request(url: Url, topic: &str, token: Option<&str>, message: &Message<'_>) -> Request {
    let priority = match (message.kind, rank(message)) {
        (MessageKind::Resolved, _) | (_, Severity::Low) => 2,
        (_, Severity::Medium) => 3,
        (_, Severity::High) => 4,
        (_, Severity::Critical) => 5,
    };
    let sign = match message.kind {
        MessageKind::Opened => "rotating_light",
        MessageKind::Updated => "hourglass_flowing_sand",
        MessageKind::Resolved => "white_check_mark",
    };
    let mut body = json!({
        "topic": topic,
        "title": cut(&message.title(), TITLE_CHARS_MAX),
        "message": text(message),
        "priority": priority,
        "tags": [sign, &*message.incident.rule],
    });
    if let Some(link) = message.link {
        body["click"] = json!(link);
    }
    Request::json(url, token, &body)
}

/// Returns the facts about the incident, followed by the sample events, one per line. Lines that would exceed the
/// maximum length of a message are omitted.
fn text(message: &Message<'_>) -> String {
    let facts = facts(message).into_iter();
    let facts = facts.map(|(name, value)| format!("{name}: {value}"));
    let samples = message.incident.samples.iter();
    let samples = samples.map(|sample| sample_line(sample));
    let mut text = String::new();
    for line in facts.chain(samples) {
        if text.len() + line.len() + 1 > MESSAGE_BYTES_MAX {
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&line);
    }
    text
}
