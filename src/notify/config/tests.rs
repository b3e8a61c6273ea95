//! Tests of the rules file: which settings are read, and the text of each mistake.

use std::collections::BTreeSet;

use crate::core::event::Severity;
use crate::core::incident::rule::Condition;

use super::*;

/// Parses the text of a rules file without reading the files with secrets that the text names.
fn parse(text: &str) -> Result<NotifyConfig, Mistakes> {
    let path = Path::new("/etc/citystream/notify.toml");
    NotifyConfig::parse(path, text, None, SecretReading::Skip)
}

/// Returns the mistakes in the text, each on one line and without the path.
fn mistakes(text: &str) -> Vec<String> {
    let found = parse(text).expect_err("a mistake").all;
    found.iter().map(ToString::to_string).collect()
}

/// Returns the mistakes in a rules file that contains the line `[[rule]]`, followed by `lines`.
fn rule_mistakes(lines: &str) -> Vec<String> {
    mistakes(&format!("[[rule]]\n{lines}"))
}

/// Returns the mistakes in one receiver, whose section starts at line 4.
fn receiver_mistakes(lines: &str) -> Vec<String> {
    mistakes(&format!("[[rule]]\nname = \"all\"\n[[receiver]]\n{lines}"))
}

const EXAMPLE: &str = r#"
[[rule]]
name = "critical"
severity = ["critical"]
group_by = ["city"]
quiet = "20m"

[[rule]]
name = "traffic-surge"
city = ["NYC", "São Paulo"]
event_type = ["traffic"]
count = 50
window = "5m"
open_max = 7

[[rule]]
name = "silent-city"
silence = "30m"
group_by = ["city"]

[[receiver]]
name = "ops"
type = "webhook"
url_file = "hook-url"
secret_file = "/run/keys/hook-secret"
rules = ["critical", "traffic-surge"]
repeat = "4h"
min_interval = "30s"

[[receiver]]
name = "pager"
type = "pagerduty"
routing_key_file = "pager-key"

[[receiver]]
name = "am"
type = "alertmanager"
url = "http://127.0.0.1:9093"
allow_private = true
ca_file = "ca.pem"

[[receiver]]
name = "topic"
type = "sns"
topic_arn = "arn:aws:sns:eu-west-1:123456789012:incidents.fifo"
"#;

#[test]
fn the_three_kinds_of_rules_are_read() {
    let config = parse(EXAMPLE).expect("no mistake");
    let [critical, surge, silent] = &config.rules[..] else {
        panic!("{:?}", config.rules);
    };
    assert_eq!(critical.filter.severities, Some(vec![Severity::Critical]));
    assert_eq!((critical.by_city, critical.by_event_type), (true, false));
    let quiet_ms = 20 * 60_000;
    assert_eq!(critical.condition, Condition::Event { quiet_ms });
    assert_eq!(critical.open_max, 1_000);
    let cities = ["NYC", "São Paulo"].map(Box::from);
    assert_eq!(surge.filter.cities, Some(BTreeSet::from(cities)));
    assert_eq!((surge.by_city, surge.by_event_type), (true, true));
    let count = Condition::Count {
        count: 50,
        window_ms: 300_000,
        quiet_ms: 900_000,
    };
    assert_eq!(surge.condition, count);
    assert_eq!(surge.open_max, 7);
    let silence_ms = 1_800_000;
    assert_eq!(silent.condition, Condition::Silence { silence_ms });
}

#[test]
fn receivers_are_read_with_their_defaults() {
    let config = parse(EXAMPLE).expect("no mistake");
    let [ops, pager, am, topic] = &config.receivers[..] else {
        panic!("{:?}", config.receivers);
    };
    let Target::Webhook {
        url: Location::File(url),
        secret: Some(secret),
        token: None,
    } = &ops.target
    else {
        panic!("{:?}", ops.target);
    };
    assert_eq!(url.path(), Path::new("/etc/citystream/hook-url"));
    assert_eq!(secret.path(), Path::new("/run/keys/hook-secret"));
    assert_eq!(ops.timing.repeat_ms, Some(4 * 3_600_000));
    assert_eq!(ops.timing.interval_min_ms, 30_000);
    assert!(ops.wants("critical") && !ops.wants("silent-city") && !ops.allow_private);
    let Target::PagerDuty { url, .. } = &pager.target else {
        panic!("{:?}", pager.target);
    };
    assert_eq!(url.as_str(), "https://events.pagerduty.com/v2/enqueue");
    assert_eq!(pager.timing.repeat_ms, None);
    assert_eq!(pager.timing.interval_min_ms, 60_000);
    assert!(pager.wants("silent-city"));
    assert_eq!(am.timing.repeat_ms, Some(300_000));
    assert!(am.allow_private);
    assert_eq!(
        am.ca_file.as_deref(),
        Some(Path::new("/etc/citystream/ca.pem"))
    );
    let Target::Sns { topic: arn } = &topic.target else {
        panic!("{:?}", topic.target);
    };
    assert_eq!((arn.region.as_str(), arn.is_fifo), ("eu-west-1", true));
    assert!(topic.allow_private, "an endpoint of the VPC is private");
    assert_eq!(topic.target.kind(), "sns");
}

#[test]
fn all_mistakes_are_reported_with_their_places() {
    let text = r#"
[[rule]]
name = "Critical"
sevrity = ["critical"]
quiet = "15 parsecs"

[[rules]]
name = "b"

[[receiver]]
name = "ops"
type = "webhok"
"#;
    let error = Failure::from(parse(text).expect_err("mistakes"));
    assert_eq!(
        error.to_lines(None),
        "citystream: there are 5 mistakes in /etc/citystream/notify.toml\n  \
         because: /etc/citystream/notify.toml:3:8: \"Critical\" is not a name; write a lower-case \
         letter, then at most 63 of a-z, 0-9 and -\n    \
         /etc/citystream/notify.toml:4:1: [[rule]] has no key \"sevrity\"; write severity\n    \
         /etc/citystream/notify.toml:5:9: quiet = \"15 parsecs\" is not a duration in range; \
         expected a duration such as 5s, 250ms or 10m, from 1s to 30days\n    \
         /etc/citystream/notify.toml:7:3: the file has no section \"rules\"; write rule\n    \
         /etc/citystream/notify.toml:12:8: \"webhok\" is not a type of receiver; write webhook\n  \
         > correct the file\n"
    );
}

#[test]
fn text_that_is_not_toml_is_a_mistake_with_its_place() {
    let found = mistakes("[[rule]]\nname = \"a\nquiet = \"5m\"\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("2:10: invalid basic string"),
        "{found:?}"
    );
    let found = mistakes("[[rule]]\nname = \"a\"\nname = \"b\"\n");
    assert!(found[0].starts_with("3:1: duplicate key"), "{found:?}");
    assert_eq!(
        mistakes("rule = 1\n"),
        [
            "1:1: rule is not a list of sections; begin each with [[rule]]",
            "1:1: the file has no rule; add a section [[rule]] with name = \"critical\" and \
             severity = [\"critical\"]",
        ]
    );
}

#[test]
fn columns_count_characters() {
    let found = rule_mistakes("name = \"a\"\ncity = [\"São Paulo\", \"Zürich#\"]\n");
    assert_eq!(
        found,
        [
            "3:22: no event has the city \"Zürich#\"; write 1 to 64 characters without # and control \
          characters"
        ]
    );
}

/// Test cases, each with the lines of a rule and the expected error message.
const RULE_MISTAKES: &[(&str, &str)] = &[
    (
        "city = [\"NYC\"]",
        "1:1: [[rule]] has no name; add name = \"…\"",
    ),
    (
        "name = 5",
        "2:8: name is of type integer; write name = \"…\"",
    ),
    (
        "name = \"\"",
        "2:8: name is empty; write a value, or remove the key",
    ),
    (
        "name = \"a\"\ncity = \"NYC\"",
        "3:8: city is of type string; write a list such as city = [\"…\"]",
    ),
    (
        "name = \"a\"\ncity = []",
        "3:1: city is an empty list, which admits no event; remove the key to admit all",
    ),
    (
        "name = \"a\"\ncity = [\" NYC\"]",
        "3:9: no event has the city \" NYC\"; write \"NYC\"",
    ),
    (
        "name = \"a\"\ncity = [7]",
        "3:9: city holds a value of type integer; write a list such as city = [\"…\"]",
    ),
    (
        "name = \"a\"\nevent_type = [\"Traffic\"]",
        "3:15: no event has the event_type \"Traffic\"; write \"traffic\"",
    ),
    (
        "name = \"a\"\nevent_type = [\"a b\"]",
        "3:15: no event has the event_type \"a b\"; write a lower-case letter, then at most 63 of a-z, 0-9, _ and -",
    ),
    (
        "name = \"a\"\nseverity = [\"Critical\"]",
        "3:13: \"Critical\" is not a severity; write critical",
    ),
    (
        "name = \"a\"\nseverity = [\"fatal\"]",
        "3:13: \"fatal\" is not a severity; the severities are low, medium, high, critical",
    ),
    (
        "name = \"a\"\ngroup_by = [\"type\"]",
        "3:13: a rule cannot group by \"type\"; a rule groups by city, event_type",
    ),
    (
        "name = \"a\"\ncount = 5",
        "1:1: [[rule]] has no window; add window = \"5m\"",
    ),
    (
        "name = \"a\"\nwindow = \"5m\"",
        "1:1: [[rule]] has no count; add count = 50",
    ),
    (
        "name = \"a\"\ncount = 0\nwindow = \"5m\"",
        "3:9: count = 0 is out of range; write a whole number from 1 to 1000000",
    ),
    (
        "name = \"a\"\ncount = 1_000_001\nwindow = \"5m\"",
        "3:9: count = 1000001 is out of range; write a whole number from 1 to 1000000",
    ),
    (
        "name = \"a\"\ncount = \"5\"\nwindow = \"5m\"",
        "3:9: count is of type string; write a whole number such as count = 50",
    ),
    (
        "name = \"a\"\ncount = 5\nwindow = \"31d\"",
        "4:10: window = \"31d\" is not a duration in range; expected a duration such as 5s, 250ms or 10m, from 1s to 30days",
    ),
    (
        "name = \"a\"\nquiet = 15",
        "3:9: quiet is of type integer; write quiet = \"…\"",
    ),
    (
        "name = \"a\"\nsilence = \"5m\"\nquiet = \"5m\"",
        "4:1: a silence ends with the next event, so quiet has no meaning; remove quiet",
    ),
    (
        "name = \"a\"\ncount = 5\nwindow = \"5m\"\nsilence = \"5m\"",
        "5:1: the rule mixes a count and a silence; write two rules",
    ),
    (
        "name = \"a\"\nopen_max = -1",
        "3:12: open_max = -1 is out of range; write a whole number from 1 to 100000",
    ),
    (
        "name = \"a\"\n[[rule]]\nname = \"a\"",
        "4:8: the rule of line 2 has the name \"a\"; give each a name of its own",
    ),
];

#[test]
fn each_mistake_of_a_rule_says_what_to_write() {
    for (lines, wanted) in RULE_MISTAKES {
        assert_eq!(rule_mistakes(lines), [*wanted], "{lines}");
    }
}

/// Test cases, each with the lines of a receiver and the expected error message.
const RECEIVER_MISTAKES: &[(&str, &str)] = &[
    (
        "name = \"a\"",
        "3:1: [[receiver]] has no type; add type = \"webhook\"",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"",
        "3:1: [[receiver]] has no url; add url = \"https://…\"",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"\nurl = \"https://a.b\"\nurl_file = \"u\"",
        "7:1: the receiver has both url and url_file; remove one of them",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"\nurl = \"http://a.b\"",
        "6:7: url begins with http://, which is not encrypted and needs allow_private; write https://, or allow_private = true for a service in your own network",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"\nurl = \"https://me:pw@a.b\"",
        "6:7: url holds a user name or a password; write the URL to a file, and name the file with url_file",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"\nurl = \"a.b\"",
        "6:7: url cannot be parsed: relative URL without a base; write a URL such as https://hooks.example/city",
    ),
    (
        "name = \"a\"\ntype = \"webhook\"\nurl = \"https://a.b\"\ntoken = \"t\"",
        "7:1: [[receiver]] has no key \"token\"; write token_file",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\nurl = \"https://hooks.slack.com/services/1\"",
        "7:1: a receiver of type slack has no url; write the URL to a file, because it is a secret, and name the file with url_file",
    ),
    (
        "name = \"a\"\ntype = \"slack\"",
        "3:1: [[receiver]] has no url_file; add url_file = \"slack-url\"",
    ),
    (
        "name = \"a\"\ntype = \"pagerduty\"",
        "3:1: [[receiver]] has no routing_key_file; add routing_key_file = \"pagerduty-key\"",
    ),
    (
        "name = \"a\"\ntype = \"sns\"",
        "3:1: [[receiver]] has no topic_arn; add topic_arn = \"arn:aws:sns:eu-west-1:123456789012:incidents\"",
    ),
    (
        "name = \"a\"\ntype = \"sns\"\ntopic_arn = \"arn:aws:sqs:eu-west-1:123456789012:q\"",
        "6:13: \"arn:aws:sqs:eu-west-1:123456789012:q\" is not the ARN of an SNS topic; write an ARN such as \"arn:aws:sns:eu-west-1:123456789012:incidents\"",
    ),
    (
        "name = \"a\"\ntype = \"sns\"\ntopic_arn = \"arn:aws:sns:eu-west-1:123456789012:q\"\nallow_private = true",
        "7:1: a receiver of type sns has no allow_private; remove the key",
    ),
    (
        "name = \"a\"\ntype = \"ntfy\"\nurl = \"https://ntfy.sh\"",
        "3:1: [[receiver]] has no topic; add topic = \"city-incidents\"",
    ),
    (
        "name = \"a\"\ntype = \"ntfy\"\nurl = \"https://ntfy.sh\"\ntopic = \"a/b\"",
        "7:9: \"a/b\" is not a topic of ntfy; write at most 64 letters, digits, - and _",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\nrules = [\"al\"]",
        "7:10: there is no rule \"al\"; write all",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\nrules = []",
        "7:1: rules is an empty list, so the receiver gets nothing; remove the key for all rules",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\nallow_private = \"yes\"",
        "7:17: allow_private is of type string; write allow_private = true or allow_private = false",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\nrepeat = \"1ms\"",
        "7:10: repeat = \"1ms\" is not a duration in range; expected a duration such as 5s, 250ms or 10m, from 1s to 30days",
    ),
    (
        "name = \"a\"\ntype = \"slack\"\nurl_file = \"u\"\n[[receiver]]\nname = \"a\"\ntype = \"slack\"\nurl_file = \"u\"",
        "8:8: the receiver of line 4 has the name \"a\"; give each a name of its own",
    ),
];

#[test]
fn each_mistake_of_a_receiver_says_what_to_write() {
    for (lines, wanted) in RECEIVER_MISTAKES {
        assert_eq!(receiver_mistakes(lines), [*wanted], "{lines}");
    }
}

#[test]
fn too_many_sections_are_refused() {
    let rules: String = (0..101)
        .map(|n| format!("[[rule]]\nname = \"r{n}\"\n"))
        .collect();
    assert_eq!(
        mistakes(&rules),
        ["201:1: there are 101 rules; write at most 100 rules"]
    );
    let receiver =
        |n| format!("[[receiver]]\nname = \"r{n}\"\ntype = \"slack\"\nurl_file = \"u\"\n");
    let receivers: String = (0..101).map(receiver).collect();
    assert_eq!(
        mistakes(&format!("[[rule]]\nname = \"a\"\n{receivers}")),
        ["403:1: there are 101 receivers; write at most 100 receivers"]
    );
    let wrong = "[[rule]]\n".repeat(30);
    let text = parse(&wrong).expect_err("mistakes").to_string();
    assert_eq!(text.lines().count(), SHOWN_MAX + 1);
    assert!(text.ends_with("\nand 10 more"), "{text}");
}

#[test]
fn secrets_are_read_from_the_folder_of_the_file_or_of_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.toml");
    std::fs::write(folder.path().join("url"), "https://hooks.example/1\n").unwrap();
    std::fs::write(folder.path().join("key"), "sesame\n").unwrap();
    let text = "[[rule]]\nname = \"a\"\n[[receiver]]\nname = \"b\"\ntype = \"webhook\"\n\
                url_file = \"url\"\nsecret_file = \"key\"\ntoken_file = \"absent\"\n";
    std::fs::write(&path, text).unwrap();
    let why = NotifyConfig::load(&path, SecretReading::Check)
        .expect_err("wrong secrets")
        .why
        .expect("reasons");
    let at = folder.path().display();
    let wanted = format!(
        "{at}/notify.toml:7:15: key 1 in {at}/key is not whsec_ with 24 to 64 bytes in base64; \
         correct the file, or secret_file\n\
         {at}/notify.toml:8:14: failed to read {at}/absent: No such file or directory (os error 2); \
         correct the file, or token_file"
    );
    assert_eq!(why, wanted);

    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
    std::fs::write(credentials.path().join("key"), key).unwrap();
    std::fs::write(credentials.path().join("absent"), "token").unwrap();
    let config =
        NotifyConfig::parse(&path, text, Some(credentials.path()), SecretReading::Check).unwrap();
    let Target::Webhook {
        url: Location::File(url),
        secret: Some(secret),
        token: Some(_),
    } = &config.receivers[0].target
    else {
        panic!("{config:?}");
    };
    assert_eq!(url.path(), folder.path().join("url"));
    assert_eq!(secret.path(), credentials.path().join("key"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_failure() {
    let path = Path::new("/nonexistent/notify.toml");
    let failure = NotifyConfig::load(path, SecretReading::Skip).expect_err("no file");
    assert_eq!(failure.what, "failed to read /nonexistent/notify.toml");
}

#[test]
fn arns_of_topics_are_checked() {
    let topic = TopicArn::parse("arn:aws-cn:sns:cn-north-1:123456789012:a").unwrap();
    assert_eq!(topic.endpoint(), "https://sns.cn-north-1.amazonaws.com.cn/");
    let topic = TopicArn::parse("arn:aws:sns:us-east-1:123456789012:a_b-c.fifo").unwrap();
    assert_eq!(topic.endpoint(), "https://sns.us-east-1.amazonaws.com/");
    for wrong in [
        "arn:aws:sns:us-east-1:1234:a",
        "arn:aws:sns::123456789012:a",
        "arn:aws:sns:us-east-1:123456789012:.fifo",
        "arn:aws:sns:us-east-1:123456789012:a:b",
        "arn:aws:sns:evil.example/:123456789012:a",
    ] {
        assert_eq!(TopicArn::parse(wrong), None, "{wrong}");
    }
}
