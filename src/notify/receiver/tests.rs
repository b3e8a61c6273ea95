//! Tests of the requests for each type of receiver.

use base64::Engine as _;
use serde_json::{Value, json};
use url::Url;

use crate::core::incident::{Incident, Sample};
use crate::notify::config::TopicArn;
use crate::notify::fixture::{LINK, NOW_MS, incident, message, resolved, silence};
use crate::notify::secret::parse_signing_key;

use super::*;

const NAME: &str = "critical#AAAAAAAAQACAAAAAAAAAAA#3#000000000000042";

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn body(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

/// Returns an incident in which all texts are long.
fn long() -> Incident {
    let text = "<".repeat(5_000);
    let mut incident = incident();
    incident.rule = text.as_str().into();
    incident.group.city = Some(text.as_str().into());
    let sample = Sample {
        description: text.as_str().into(),
        ..(*incident.samples[0]).clone()
    };
    incident.samples = vec![sample.into(); 5];
    incident
}

#[test]
fn the_signature_is_that_of_standard_webhooks() {
    // The signing key comes from an example in the Standard Webhooks libraries.
    let key = parse_signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    assert_eq!(
        webhook::sign(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            "{\"test\": 2432232314}",
        ),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
}

#[test]
fn a_webhook_is_signed_with_every_key() {
    let incident = incident();
    let message = message(MessageKind::Opened, &incident);
    let keys = [vec![1; 24], vec![2; 32]];
    let at = url("https://hooks.example/city?a=b");
    let request = webhook::request(at.clone(), &keys, Some("t-1"), &message, NOW_MS);
    assert_eq!(request.url, at);
    assert_eq!(body(&request), message.body());
    assert_eq!(body(&request)["type"], "incident.opened");
    assert_eq!(request.header("webhook-id"), Some(&*format!("{NAME}.1")));
    assert_eq!(request.header("webhook-timestamp"), Some("1767323045"));
    assert_eq!(request.header("authorization"), Some("Bearer t-1"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let sign = |key: &[u8]| webhook::sign(key, &format!("{NAME}.1"), "1767323045", &request.body);
    let wanted = format!("{} {}", sign(&keys[0]), sign(&keys[1]));
    assert_eq!(request.header("webhook-signature"), Some(&*wanted));

    let unsigned = webhook::request(at, &[], None, &message, NOW_MS);
    assert_eq!(unsigned.header("webhook-signature"), None);
    assert_eq!(unsigned.header("authorization"), None);
}

#[test]
fn a_login_in_a_url_becomes_a_header_and_is_not_shown() {
    let incident = incident();
    let message = message(MessageKind::Opened, &incident);
    let at = url("https://me%40home:p%3Aw@hooks.example/secret");
    let request = webhook::request(at, &[], None, &message, NOW_MS);
    assert_eq!(request.url.as_str(), "https://hooks.example/secret");
    let encoded = base64::engine::general_purpose::STANDARD.encode("me@home:p:w");
    let wanted = format!("Basic {encoded}");
    assert_eq!(request.header("authorization"), Some(&*wanted));
    let shown = format!("{request:?}");
    assert!(
        !shown.contains("secret") && !shown.contains(&encoded),
        "{shown}"
    );
}

#[test]
fn slack_gets_blocks_with_escaped_text() {
    let incident = incident();
    let request = slack::request(
        url("https://hooks.slack.com/a"),
        &message(MessageKind::Opened, &incident),
    );
    let markdown = |text: &str| json!({"type": "mrkdwn", "text": text});
    let wanted = json!({
        "text": "Open: critical in NYC, traffic, 2 events",
        "blocks": [
            {"type": "header", "text": {
                "type": "plain_text",
                "text": "Open: critical in NYC, traffic, 2 events",
                "emoji": false,
            }},
            {"type": "section", "fields": [
                markdown("*Rule*\ncritical"),
                markdown("*City*\nNYC"),
                markdown("*Type*\ntraffic"),
                markdown("*Severity*\ncritical"),
                markdown("*Events*\n2"),
                markdown("*First event*\n2026-01-02T02:53:05Z"),
                markdown("*Last event*\n2026-01-02T02:55:05Z"),
            ]},
            {"type": "context", "elements": [
                markdown("2026-01-02T02:53:05Z NYC, traffic, medium: 5th &amp; &lt;Main&gt;"),
                markdown("2026-01-02T02:55:05Z NYC, traffic, critical"),
            ]},
            {"type": "section", "text": markdown(
                "<https://city.example/?city=NYC&amp;type=traffic|Open in citystream>",
            )},
        ],
    });
    assert_eq!(body(&request), wanted);
}

#[test]
fn slack_gets_no_text_beyond_its_limits() {
    let incident = long();
    let request = slack::request(
        url("https://hooks.slack.com/a"),
        &message(MessageKind::Opened, &incident),
    );
    let sent = body(&request);
    let length = |value: &Value| value.as_str().unwrap().chars().count();
    assert_eq!(length(&sent["blocks"][0]["text"]["text"]), 150);
    let fields = sent["blocks"][1]["fields"].as_array().unwrap();
    assert!(fields.len() <= 10 && fields.iter().all(|f| length(&f["text"]) <= 2_000));
    let samples = sent["blocks"][2]["elements"].as_array().unwrap();
    assert!(samples.len() == 5 && samples.iter().all(|s| length(&s["text"]) <= 2_000));
    assert!(length(&sent["text"]) <= 3_000);
    // A link that is too long is omitted, because a truncated link would be broken.
    let link = format!("https://city.example/{}", "x".repeat(3_000));
    let message = Message {
        link: Some(&link),
        ..message(MessageKind::Opened, &incident)
    };
    let request = slack::request(url("https://hooks.slack.com/a"), &message);
    assert_eq!(body(&request)["blocks"].as_array().unwrap().len(), 3);
}

#[test]
fn pagerduty_is_triggered_and_resolved_under_one_key() {
    let at = url("https://events.pagerduty.com/v2/enqueue");
    let open = incident();
    let request = pagerduty::request(at.clone(), "key-1", &message(MessageKind::Updated, &open));
    let wanted = json!({
        "routing_key": "key-1",
        "event_action": "trigger",
        "dedup_key": NAME,
        "payload": {
            "summary": "Still open: critical in NYC, traffic, 2 events",
            "source": "NYC",
            "severity": "critical",
            "timestamp": "2026-01-02T02:54:05.000Z",
            "component": "NYC",
            "group": "critical",
            "class": "traffic",
            "custom_details": open.fields(),
        },
        "client": "citystream",
        "client_url": LINK,
        "links": [{"href": LINK, "text": "Open in citystream"}],
    });
    assert_eq!(body(&request), wanted);

    let resolved = resolved();
    let request = pagerduty::request(
        at.clone(),
        "key-1",
        &message(MessageKind::Resolved, &resolved),
    );
    let wanted = json!({"routing_key": "key-1", "event_action": "resolve", "dedup_key": NAME});
    assert_eq!(body(&request), wanted);

    let silence = silence();
    let request = pagerduty::request(at.clone(), "key-1", &message(MessageKind::Opened, &silence));
    let payload = &body(&request)["payload"];
    assert_eq!(payload["summary"], "Open: silent");
    assert_eq!(
        (&payload["severity"], &payload["source"]),
        (&json!("error"), &json!("citystream"))
    );
    assert_eq!(
        (payload.get("component"), payload.get("class")),
        (None, None)
    );

    let long = long();
    let request = pagerduty::request(at, "key-1", &message(MessageKind::Opened, &long));
    let body = body(&request);
    let summary = body["payload"]["summary"].as_str().unwrap();
    assert_eq!(summary.chars().count(), 1_024);
    assert_eq!(body["dedup_key"].as_str().unwrap().len(), 64);
}

#[test]
fn ntfy_gets_a_priority_and_lines() {
    let at = url("https://ntfy.example/");
    let incident = incident();
    let request = ntfy::request(
        at.clone(),
        "city",
        Some("tk_1"),
        &message(MessageKind::Opened, &incident),
    );
    let wanted = json!({
        "topic": "city",
        "title": "Open: critical in NYC, traffic, 2 events",
        "message": "Rule: critical\nCity: NYC\nType: traffic\nSeverity: critical\nEvents: 2\n\
                    First event: 2026-01-02T02:53:05Z\nLast event: 2026-01-02T02:55:05Z\n\
                    2026-01-02T02:53:05Z NYC, traffic, medium: 5th & <Main>\n\
                    2026-01-02T02:55:05Z NYC, traffic, critical",
        "priority": 5,
        "tags": ["rotating_light", "critical"],
        "click": LINK,
    });
    assert_eq!(body(&request), wanted);
    assert_eq!(request.header("authorization"), Some("Bearer tk_1"));
    let resolved = resolved();
    let request = ntfy::request(
        at.clone(),
        "city",
        None,
        &message(MessageKind::Resolved, &resolved),
    );
    let text = body(&request);
    assert_eq!(
        (&text["priority"], &text["tags"][0]),
        (&json!(2), &json!("white_check_mark"))
    );
    assert!(
        text["message"]
            .as_str()
            .unwrap()
            .contains("\nResolved: 2026-01-02T03:03:05Z\n")
    );
    let long = long();
    let request = ntfy::request(at, "city", None, &message(MessageKind::Opened, &long));
    assert!(body(&request)["message"].as_str().unwrap().len() <= 4_096);
}

#[test]
fn alertmanager_gets_the_alert_and_the_end_of_those_at_lower_severities() {
    let base = url("https://am.example/prefix/");
    let open = incident();
    let request = alertmanager::request(
        &base,
        None,
        Some(300_000),
        &message(MessageKind::Opened, &open),
        NOW_MS,
    );
    assert_eq!(
        request.url.as_str(),
        "https://am.example/prefix/api/v2/alerts"
    );
    let annotations = json!({
        "summary": "Open: critical in NYC, traffic, 2 events",
        "description": "2026-01-02T02:53:05Z NYC, traffic, medium: 5th & <Main>\n\
                        2026-01-02T02:55:05Z NYC, traffic, critical",
        "event_count": "2",
        "first_event": "2026-01-02T02:53:05.000Z",
        "last_event": "2026-01-02T02:55:05.000Z",
    });
    let alert = |severity: &str, ends: &str| {
        json!({
            "labels": {
                "alertname": "critical",
                "rule": "critical",
                "incident": "AAAAAAAAQACAAAAAAAAAAA#3#000000000000042",
                "city": "NYC",
                "event_type": "traffic",
                "severity": severity,
            },
            "annotations": annotations,
            "startsAt": "2026-01-02T02:54:05.000Z",
            "endsAt": ends,
            "generatorURL": LINK,
        })
    };
    // The alert stays open for the minimum of one hour, because four repeat intervals are shorter than one hour.
    let wanted = json!([
        alert("critical", "2026-01-02T04:04:05.000Z"),
        alert("medium", "2026-01-02T03:04:05.000Z"),
        alert("high", "2026-01-02T03:04:05.000Z"),
    ]);
    assert_eq!(body(&request), wanted);
    let repeat_ms = Some(1_800_000);
    let request = alertmanager::request(
        &base,
        None,
        repeat_ms,
        &message(MessageKind::Opened, &open),
        NOW_MS,
    );
    assert_eq!(body(&request)[0]["endsAt"], "2026-01-02T05:04:05.000Z");
}

#[test]
fn an_alert_never_ends_before_it_starts_or_in_the_future() {
    let base = url("https://am.example");
    let ends = |opened_ms: i64, at_ms: i64| {
        let incident = Incident {
            opened_at_ms: NOW_MS.saturating_add(opened_ms),
            state: IncidentPhase::Resolved {
                at_ms: NOW_MS.saturating_add(at_ms),
            },
            ..incident()
        };
        let message = message(MessageKind::Resolved, &incident);
        let alerts = body(&alertmanager::request(&base, None, None, &message, NOW_MS));
        let text = |name: &str| alerts[0][name].as_str().unwrap()[11..19].to_owned();
        (text("startsAt"), text("endsAt"))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(ends(-60_000, -1_000), pair("03:03:05", "03:04:04"));
    assert_eq!(ends(-60_000, 90_000), pair("03:03:05", "03:04:05"));
    assert_eq!(ends(-1_000, -60_000), pair("03:04:04", "03:04:04"));
    assert_eq!(ends(60_000, 90_000), pair("03:04:05", "03:04:05"));
}

fn sns_request(
    arn: &str,
    kind: MessageKind,
    incident: &Incident,
) -> (Request, Vec<(String, String)>) {
    let topic = TopicArn::parse(arn).unwrap();
    let credentials = aws_credential_types::Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        Some("session".to_owned()),
        None,
        "test",
    );
    let at = url(&topic.endpoint());
    let request = sns::request(at, &topic, &credentials, &message(kind, incident), NOW_MS).unwrap();
    let pairs = url::form_urlencoded::parse(request.body.as_bytes());
    let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
    let pairs = pairs.collect();
    (request, pairs)
}

#[test]
fn sns_gets_a_signed_form() {
    let incident = incident();
    let (request, pairs) = sns_request(
        "arn:aws:sns:eu-west-1:123456789012:incidents.fifo",
        MessageKind::Opened,
        &incident,
    );
    let text = message(MessageKind::Opened, &incident).body().to_string();
    let id = format!("{NAME}.1");
    let wanted = [
        ("Action", "Publish"),
        ("Version", "2010-03-31"),
        (
            "TopicArn",
            "arn:aws:sns:eu-west-1:123456789012:incidents.fifo",
        ),
        ("Message", &text),
        ("Subject", "Open: critical in NYC, traffic, 2 events"),
        ("MessageAttributes.entry.1.Name", "rule"),
        ("MessageAttributes.entry.1.Value.DataType", "String"),
        ("MessageAttributes.entry.1.Value.StringValue", "critical"),
        ("MessageAttributes.entry.2.Name", "type"),
        ("MessageAttributes.entry.2.Value.DataType", "String"),
        (
            "MessageAttributes.entry.2.Value.StringValue",
            "incident.opened",
        ),
        ("MessageAttributes.entry.3.Name", "severity"),
        ("MessageAttributes.entry.3.Value.DataType", "String"),
        ("MessageAttributes.entry.3.Value.StringValue", "critical"),
        ("MessageGroupId", NAME),
        ("MessageDeduplicationId", &id),
    ];
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(pairs, wanted);
    assert_eq!(request.url.as_str(), "https://sns.eu-west-1.amazonaws.com/");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(request.header("content-type"), Some(form));
    assert_eq!(request.header("x-amz-date"), Some("20260102T030405Z"));
    assert_eq!(request.header("x-amz-security-token"), Some("session"));
    // The expected signature was computed from the rules of Signature Version 4, without AWS's library.
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-west-1/sns/aws4_request, \
                         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
    let given = request.header("authorization").unwrap();
    let (start, signature) = given.split_at(authorization.len());
    assert_eq!(start, authorization);
    assert_eq!(signature, sigv4(&request.body));
}

/// Returns the expected signature of an SNS request with the body `body`. The signature uses the time and the
/// credentials of the tests in this file.
fn sigv4(body: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};
    let hash = |text: &str| hex(&Sha256::digest(text));
    let hmac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let canonical = format!(
        "POST\n/\n\ncontent-type:application/x-www-form-urlencoded\n\
         host:sns.eu-west-1.amazonaws.com\nx-amz-date:20260102T030405Z\n\
         x-amz-security-token:session\n\n\
         content-type;host;x-amz-date;x-amz-security-token\n{}",
        hash(body)
    );
    let text = format!(
        "AWS4-HMAC-SHA256\n20260102T030405Z\n20260102/eu-west-1/sns/aws4_request\n{}",
        hash(&canonical)
    );
    let secret = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
    let parts = ["20260102", "eu-west-1", "sns", "aws4_request"];
    let key = parts.iter().fold(secret, |key, part| hmac(&key, part));
    hex(&hmac(&key, &text))
}

#[test]
fn sns_topics_without_order_get_no_ids() {
    let silence = silence();
    let arn = "arn:aws:sns:eu-west-1:123456789012:incidents";
    let (_, pairs) = sns_request(arn, MessageKind::Opened, &silence);
    let has = |text: &str| pairs.iter().any(|(n, v)| n == text || v == text);
    assert!(!has("MessageGroupId") && !has("MessageDeduplicationId") && !has("severity"));
    assert!(has("Open: silent") && has("rule") && has("type"));
}
