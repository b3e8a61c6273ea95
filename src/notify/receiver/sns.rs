//! Builds requests for the action `Publish` of
//! [Amazon SNS](https://docs.aws.amazon.com/sns/latest/api/API_Publish.html). The requests are signed with Signature
//! Version 4.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use sha2::{Digest as _, Sha256};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::core::clock::UnixMs;
use crate::core::incident::message::Message;
use crate::notify::config::TopicArn;

use super::Request;

/// Maximum length of a subject in characters. SNS requires fewer than 100 characters.
const SUBJECT_CHARS_MAX: usize = 99;
/// Maximum length of the ids of a FIFO topic in characters.
const ID_CHARS_MAX: usize = 128;
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the request for an SNS topic.
///
/// # Errors
/// Returns the error message of the signing library.
pub fn request(
    endpoint: Url,
    topic: &TopicArn,
    credentials: &Credentials,
    message: &Message<'_>,
    now_ms: UnixMs,
) -> Result<Request, String> {
    let body = form(topic, message);
    let identity = credentials.clone().into();
    let since = Duration::from_millis(u64::try_from(now_ms.0).unwrap_or(0));
    let now: SystemTime = UNIX_EPOCH + since;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&topic.region)
        .name("sns")
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let mut headers = vec![("content-type", FORM.to_owned())];
    let signed = [("content-type", FORM)].into_iter();
    let signable = SignableBody::Bytes(body.as_bytes());
    let request = SignableRequest::new("POST", endpoint.as_str(), signed, signable)
        .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(|error| error.to_string())?
        .into_parts();
    let (added, _) = instructions.into_parts();
    headers.extend(
        added
            .iter()
            .map(|header| (header.name(), header.value().to_owned())),
    );
    Ok(Request {
        url: endpoint,
        headers,
        body,
    })
}

fn form(topic: &TopicArn, message: &Message<'_>) -> String {
    let incident = message.incident;
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", "Publish")
        .append_pair("Version", "2010-03-31")
        .append_pair("TopicArn", &topic.arn)
        .append_pair("Message", &message.body().to_string())
        .append_pair("Subject", &subject(&message.title()));
    let kind = format!("incident.{}", message.kind.name());
    let severity = incident.severity.map(|severity| severity.name());
    let attributes = [
        ("rule", Some(&*incident.rule)),
        ("type", Some(&*kind)),
        ("severity", severity),
    ];
    let given = attributes
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)));
    for (n, (name, value)) in given.enumerate() {
        let entry = format!("MessageAttributes.entry.{}", n + 1);
        form.append_pair(&format!("{entry}.Name"), name)
            .append_pair(&format!("{entry}.Value.DataType"), "String")
            .append_pair(&format!("{entry}.Value.StringValue"), value);
    }
    if topic.is_fifo {
        form.append_pair("MessageGroupId", &fifo_id(&incident.name()))
            .append_pair("MessageDeduplicationId", &fifo_id(&message.id()));
    }
    form.finish()
}

/// Converts the title to a valid subject for SNS. A valid subject contains only printable ASCII characters, and begins
/// with a letter, a digit or a punctuation mark.
fn subject(title: &str) -> String {
    let ascii = title.chars().map(|c| match c {
        ' '..='~' => c,
        _ => '?',
    });
    ascii.take(SUBJECT_CHARS_MAX).collect()
}

/// Returns an id that a FIFO topic accepts. The result is a hash of `id` if `id` is too long or contains invalid
/// characters, and otherwise `id` itself.
fn fifo_id(id: &str) -> String {
    if id.len() <= ID_CHARS_MAX && id.chars().all(|c| c.is_ascii_graphic()) {
        return id.to_owned();
    }
    super::hex(&Sha256::digest(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_short_ascii_text() {
        assert_eq!(subject("Open: São Paulo\n"), "Open: S?o Paulo?");
        assert_eq!(subject(&"x".repeat(200)).len(), 99);
    }

    #[test]
    fn long_ids_become_hashes() {
        let id = "a".repeat(128);
        assert_eq!(fifo_id(&id), id);
        assert_eq!(fifo_id(&"a".repeat(129)).len(), 64);
        assert_eq!(
            fifo_id("ä"),
            "33e6d73fee82904c8d7afb78de1154d1e8dc2a0edb08120e63df5b9385c2d9cc"
        );
    }
}
