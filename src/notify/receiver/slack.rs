//! Builds requests for Slack's
//! [incoming webhooks](https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks). The text of a
//! message is laid out in blocks.

use serde_json::{Value, json};
use url::Url;

use crate::core::incident::message::Message;

use super::{Request, cut, facts, sample_line};

/// Maximum length of a Slack header in characters.
const HEADER_CHARS_MAX: usize = 150;
/// Maximum length of the text in a section block of Slack, in characters.
const SECTION_CHARS_MAX: usize = 3_000;
/// Maximum length of a field in a section block of Slack, in characters.
const FIELD_CHARS_MAX: usize = 2_000;
/// Maximum number of fields in a section block of Slack.
const FIELDS_MAX: usize = 10;

/// Returns the request for an incoming webhook of Slack.
pub fn request(url: Url, message: &Message<'_>) -> Request {
    Request::json(url, None, &body(message))
}

fn body(message: &Message<'_>) -> Value {
    let title = message.title();
    let fields = facts(message).into_iter().take(FIELDS_MAX);
    let fields: Vec<Value> = fields
        .map(|(name, value)| {
            let room = FIELD_CHARS_MAX - name.len() - 3;
            markdown(&format!("*{name}*\n{}", escape(&value, room)))
        })
        .collect();
    let mut blocks = vec![
        json!({
            "type": "header",
            "text": {"type": "plain_text", "text": cut(&title, HEADER_CHARS_MAX), "emoji": false},
        }),
        json!({"type": "section", "fields": fields}),
    ];
    let samples = message.incident.samples.iter();
    let samples: Vec<Value> = samples
        .map(|sample| markdown(&escape(&sample_line(sample), FIELD_CHARS_MAX)))
        .collect();
    if !samples.is_empty() {
        blocks.push(json!({"type": "context", "elements": samples}));
    }
    if let Some(link) = message.link {
        // A link that is too long is omitted, because a truncated link would be broken.
        let text = format!("<{}|Open in citystream>", escape(link, usize::MAX));
        if text.chars().count() <= SECTION_CHARS_MAX {
            blocks.push(json!({"type": "section", "text": markdown(&text)}));
        }
    }
    json!({"text": escape(&title, SECTION_CHARS_MAX), "blocks": blocks})
}

fn markdown(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text})
}

/// Escapes the characters `&`, `<` and `>` in the text, because Slack would interpret these characters. The result has
/// at most `max` characters. The function never cuts an escape sequence in half, even if it truncates the text.
fn escape(text: &str, max: usize) -> String {
    let escaped = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        other => other.to_string(),
    };
    let whole: String = text.chars().map(escaped).collect();
    if whole.chars().count() <= max {
        return whole;
    }
    let mut out = String::new();
    let mut left = max.saturating_sub(1);
    for part in text.chars().map(escaped) {
        let Some(rest) = left.checked_sub(part.chars().count()) else {
            break;
        };
        left = rest;
        out.push_str(&part);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_escapes() {
        for (text, max, wanted) in [
            ("a<b", 10, "a&lt;b"),
            ("a<b", 6, "a&lt;b"),
            ("a<b", 5, "a…"),
            ("a<bc", 6, "a&lt;…"),
            ("<!channel> & all", 99, "&lt;!channel&gt; &amp; all"),
            ("ééé", 2, "é…"),
        ] {
            assert_eq!(escape(text, max), wanted, "{text} {max}");
        }
    }
}
