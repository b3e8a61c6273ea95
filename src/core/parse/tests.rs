//! Tests each reject reason with several cases, and tests the maximum lengths. The tests also check that no input makes
//! the parser panic.

use super::*;

const GOOD: &str = r#"{"city":"NYC","event_type":"traffic","severity":"high","description":"high traffic congestion detected","timestamp":"2025-10-13T11:30:00Z"}"#;

fn reason(value: impl AsRef<[u8]>) -> Option<Reason> {
    parse_event(value.as_ref()).err().map(|r| r.reason)
}

/// Returns a valid event with additional or replaced fields.
fn with(members: &str) -> String {
    let mut parts = vec![
        r#""city":"NYC""#.to_owned(),
        r#""event_type":"traffic""#.to_owned(),
        r#""severity":"high""#.to_owned(),
        r#""timestamp":"2025-10-13T11:30:00Z""#.to_owned(),
    ];
    let name = members.split(':').next().unwrap_or_default().to_owned();
    parts.retain(|p| !p.starts_with(&name));
    if !members.is_empty() {
        parts.push(members.to_owned());
    }
    format!("{{{}}}", parts.join(","))
}

#[test]
fn a_good_event_keeps_its_fields() {
    let e = parse_event(GOOD.as_bytes()).expect("valid");
    assert_eq!(&*e.city, "NYC");
    assert_eq!(&*e.event_type, "traffic");
    assert_eq!(e.severity, Severity::High);
    assert_eq!(e.time_ms, UnixMs(1_760_355_000_000));
    assert_eq!(&*e.description, "high traffic congestion detected");
    assert_eq!(e.event_id, None);
    assert_eq!(e.extra, None);
}

#[test]
fn names_are_lower_cased_and_cities_trimmed() {
    let e = parse_event(
        b" \t\r\n{\"city\":\" \\tS\\u00e3o Paulo\\f\",\"event_type\":\"TRAFFIC\",\"severity\":\"Critical\",\"timestamp\":\"2025-10-13 11:30:00z\"} ",
    )
    .expect("valid");
    assert_eq!(&*e.city, "São Paulo");
    assert_eq!(&*e.event_type, "traffic");
    assert_eq!(e.severity, Severity::Critical);
    // The parser trims only the five ASCII white-space characters. A no-break space stays part of the city's name.
    let e = parse_event(with("\"city\":\"\u{a0}X\"").as_bytes()).expect("valid");
    assert_eq!(&*e.city, "\u{a0}X");
}

#[test]
fn extra_keeps_values_as_they_stood_in_order() {
    let e = parse_event(
        with(r#""z":1.50,"a" : {"b" : [1e2, "x\u0041"]} ,"n":null,"q\"":18446744073709551616"#)
            .as_bytes(),
    )
    .expect("valid");
    assert_eq!(
        e.extra.as_deref(),
        Some(r#"{"z":1.50,"a":{"b" : [1e2, "x\u0041"]},"n":null,"q\"":18446744073709551616}"#)
    );
}

#[test]
fn every_reason_has_its_cases() {
    let cases: Vec<(Vec<u8>, Option<Reason>)> = vec![
        (b"".to_vec(), Some(Reason::Empty)),
        (b" \n".to_vec(), Some(Reason::NotJson)),
        (vec![b' '; VALUE_BYTES_MAX + 1], Some(Reason::TooLarge)),
        (vec![0xff; VALUE_BYTES_MAX + 1], Some(Reason::TooLarge)),
        (vec![0xff], Some(Reason::NotUtf8)),
        (b"{\"city\":\"\xc3\"}".to_vec(), Some(Reason::NotUtf8)),
        (b"\xef\xbb\xbf{}".to_vec(), Some(Reason::NotJson)),
        (b"[]".to_vec(), Some(Reason::NotJson)),
        (b"\"x\"".to_vec(), Some(Reason::NotJson)),
        (b"null".to_vec(), Some(Reason::NotJson)),
        (b"{".to_vec(), Some(Reason::NotJson)),
        (b"{}x".to_vec(), Some(Reason::NotJson)),
        (b"{}{}".to_vec(), Some(Reason::NotJson)),
        (b"{,}".to_vec(), Some(Reason::NotJson)),
        (b"{\"a\":1,}".to_vec(), Some(Reason::NotJson)),
        (b"{'a':1}".to_vec(), Some(Reason::NotJson)),
        (b"{\"a\":\"\x01\"}".to_vec(), Some(Reason::NotJson)),
        (b"{}".to_vec(), Some(Reason::MissingField)),
        (GOOD.into(), None),
    ];
    for (value, want) in cases {
        assert_eq!(
            reason(&value),
            want,
            "{:?}",
            String::from_utf8_lossy(&value)
        );
    }
    let texts: Vec<(&str, Option<Reason>)> = vec![
        // The parser accepts only strict JSON in every part of the value.
        (r#""x":NaN"#, Some(Reason::NotJson)),
        (r#""x":Infinity"#, Some(Reason::NotJson)),
        (r#""x":1e309"#, Some(Reason::NotJson)),
        (r#""x":-1e309"#, Some(Reason::NotJson)),
        (r#""x":1e308"#, None),
        (r#""x":1e-400"#, None),
        (r#""x":01"#, Some(Reason::NotJson)),
        (r#""x":.5"#, Some(Reason::NotJson)),
        (r#""x":+1"#, Some(Reason::NotJson)),
        (r#""x":"\ud800""#, Some(Reason::NotJson)),
        (r#""x":"\udc00\ud800""#, Some(Reason::NotJson)),
        (r#""x":"\ud83d\ude00""#, None),
        (r#""\ud800":1"#, Some(Reason::NotJson)),
        (r#""x":{"y":[{"\udfff":1}]}"#, Some(Reason::NotJson)),
        (r#""x":{"a":1,"a":2}"#, Some(Reason::NotJson)),
        (r#""x":{"a":1,"\u0061":2}"#, Some(Reason::NotJson)),
        (r#""x":[{"b":{"a":1,"a":1}}]"#, Some(Reason::NotJson)),
        (r#""x":1,"\u0078":2"#, Some(Reason::NotJson)),
        (r#""x":1,"cit\u0079":"LA""#, Some(Reason::NotJson)),
        (r#""city":{"a":1,"a":2}"#, Some(Reason::NotJson)),
        (r#""city":[1e999]"#, Some(Reason::NotJson)),
        // A field with a value of the wrong type is rejected, and null counts as a wrong type.
        (r#""city":null"#, Some(Reason::BadCity)),
        (r#""city":7"#, Some(Reason::BadCity)),
        (r#""city":{}"#, Some(Reason::BadCity)),
        (r#""event_type":null"#, Some(Reason::BadEventType)),
        (r#""severity":true"#, Some(Reason::BadSeverity)),
        (r#""timestamp":1760355000"#, Some(Reason::BadTimestamp)),
        (r#""description":null"#, Some(Reason::BadDescription)),
        (r#""description":[]"#, Some(Reason::BadDescription)),
        (r#""event_id":null"#, Some(Reason::BadEventId)),
        (r#""event_id":12"#, Some(Reason::BadEventId)),
        // Each of the following values breaks the rule of its field.
        (r#""city":"""#, Some(Reason::BadCity)),
        (r#""city":"  ""#, Some(Reason::BadCity)),
        (r#""city":"a#b""#, Some(Reason::BadCity)),
        (r#""city":"a\u0000b""#, Some(Reason::BadCity)),
        (r#""city":"a\u0085b""#, Some(Reason::BadCity)),
        (r#""city":"a\tb""#, Some(Reason::BadCity)),
        (r#""city":"\u000bX""#, Some(Reason::BadCity)),
        (r#""event_type":"""#, Some(Reason::BadEventType)),
        (r#""event_type":"1a""#, Some(Reason::BadEventType)),
        (r#""event_type":" traffic""#, Some(Reason::BadEventType)),
        (r#""event_type":"a b""#, Some(Reason::BadEventType)),
        (r#""event_type":"stra\u00dfe""#, Some(Reason::BadEventType)),
        (r#""event_type":"\u212aelvin""#, Some(Reason::BadEventType)),
        (r#""event_type":"road_work-2""#, None),
        (r#""severity":"urgent""#, Some(Reason::BadSeverity)),
        (r#""severity":"high ""#, Some(Reason::BadSeverity)),
        (r#""timestamp":"yesterday""#, Some(Reason::BadTimestamp)),
        (r#""event_id":"""#, Some(Reason::BadEventId)),
        (r#""event_id":"a\nb""#, Some(Reason::BadEventId)),
    ];
    for (members, want) in texts {
        assert_eq!(reason(with(members)), want, "{members}");
    }
}

#[test]
fn lengths_are_exact_at_their_edges() {
    let check = |members: String, want: Option<Reason>| {
        assert_eq!(reason(with(&members)), want, "{} bytes", members.len());
    };
    check(format!("\"city\":\"{}\"", "é".repeat(64)), None);
    check(
        format!("\"city\":\"{}\"", "é".repeat(65)),
        Some(Reason::BadCity),
    );
    check(format!("\"event_type\":\"{}\"", "a".repeat(64)), None);
    check(
        format!("\"event_type\":\"{}\"", "a".repeat(65)),
        Some(Reason::BadEventType),
    );
    check(format!("\"description\":\"{}\"", "é".repeat(2048)), None);
    check(
        format!("\"description\":\"{}x\"", "é".repeat(2048)),
        Some(Reason::BadDescription),
    );
    check(format!("\"event_id\":\"{}\"", "é".repeat(128)), None);
    check(
        format!("\"event_id\":\"{}\"", "é".repeat(129)),
        Some(Reason::BadEventId),
    );
    let nest = |n: usize| format!("\"x\":{}{}", "[".repeat(n), "]".repeat(n));
    check(nest(126), None);
    check(nest(127), Some(Reason::NotJson));
    check(nest(20_000), Some(Reason::NotJson));
    let nest = |n: usize| format!("\"x\":{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
    check(nest(126), None);
    check(nest(127), Some(Reason::NotJson));
    let mut big = with(&format!("\"x\":\"{}\"", "a".repeat(65_000)));
    big.push_str(&" ".repeat(VALUE_BYTES_MAX - big.len()));
    assert_eq!(reason(&big), None);
    big.push(' ');
    assert_eq!(reason(&big), Some(Reason::TooLarge));
}

#[test]
fn the_first_broken_rule_wins() {
    let all_bad = r##"{"city":"#","event_type":"!","severity":"?","timestamp":"","description":1,"event_id":""}"##;
    let order = [
        ("\"city\":\"#\"", "\"city\":\"A\"", Reason::BadCity),
        (
            "\"event_type\":\"!\"",
            "\"event_type\":\"a\"",
            Reason::BadEventType,
        ),
        (
            "\"severity\":\"?\"",
            "\"severity\":\"low\"",
            Reason::BadSeverity,
        ),
        (
            "\"timestamp\":\"\"",
            "\"timestamp\":\"2025-01-01T00:00:00Z\"",
            Reason::BadTimestamp,
        ),
        (
            "\"description\":1",
            "\"description\":\"\"",
            Reason::BadDescription,
        ),
        (
            "\"event_id\":\"\"",
            "\"event_id\":\"1\"",
            Reason::BadEventId,
        ),
    ];
    let mut value = all_bad.to_owned();
    for (bad, good, want) in order {
        assert_eq!(reason(&value), Some(want));
        value = value.replace(bad, good);
    }
    assert_eq!(reason(&value), None);
    assert_eq!(
        reason(all_bad.replace("\"city\":\"#\",", "")),
        Some(Reason::MissingField)
    );
}

#[test]
fn heartbeats_are_records_without_value_and_one_header_of_digits() {
    let check = |value: Option<&[u8]>, headers: &[Option<&[u8]>], want: Result<i64, Reason>| {
        let got = parse_record(value, headers.iter().copied());
        let got = match got {
            Ok(Body::Heartbeat(ms)) => Ok(ms.0),
            Ok(Body::Event(_)) => Ok(-1),
            Err(reject) => Err(reject.reason),
        };
        assert_eq!(got, want, "{headers:?}");
    };
    check(None, &[Some(b"1760355000000")], Ok(1_760_355_000_000));
    check(None, &[Some(b"0")], Ok(0));
    check(None, &[Some(b"999999999999999")], Ok(999_999_999_999_999));
    check(
        None,
        &[Some(b"1000000000000000")],
        Err(Reason::BadHeartbeat),
    );
    check(None, &[Some(b"")], Err(Reason::BadHeartbeat));
    check(None, &[Some(b"-1")], Err(Reason::BadHeartbeat));
    check(None, &[Some(b"1 ")], Err(Reason::BadHeartbeat));
    check(None, &[None], Err(Reason::BadHeartbeat));
    check(None, &[Some(b"1"), Some(b"1")], Err(Reason::BadHeartbeat));
    check(None, &[], Err(Reason::Empty));
    check(Some(b""), &[Some(b"1")], Err(Reason::Empty));
    check(Some(GOOD.as_bytes()), &[Some(b"x")], Ok(-1));
}

#[test]
fn a_rejection_says_what_is_wrong_and_where() {
    let long = format!("{}yz", "x".repeat(63));
    let cases = [
        ("".to_owned(), "empty: the value has 0 bytes".to_owned()),
        (
            "{\"a\":1,}".to_owned(),
            "not_json: trailing comma at column 8".to_owned(),
        ),
        (
            "{\n\"a\":1,}".to_owned(),
            "not_json: trailing comma at line 2 column 7".to_owned(),
        ),
        (
            "[]".to_owned(),
            "not_json: invalid type: sequence, expected a JSON object at column 0".to_owned(),
        ),
        ("{}".to_owned(), "missing_field: no city".to_owned()),
        (
            with(&format!("\"city\":\"{long}\"")),
            "bad_city: 65 characters, at most 64".to_owned(),
        ),
        (
            with(&format!("\"severity\":\"{long}\"")),
            format!(
                "bad_severity: \"{}y\"… is not low, medium, high or critical",
                "x".repeat(63)
            ),
        ),
        (
            with(&format!("\"severity\":\"{}\"", &long[..64])),
            format!(
                "bad_severity: \"{}y\" is not low, medium, high or critical",
                "x".repeat(63)
            ),
        ),
        (
            with("\"event_type\":\"a\\nb\""),
            "bad_event_type: \"a\\nb\" is not [a-z][a-z0-9_-]{0,63}".to_owned(),
        ),
    ];
    for (value, want) in cases {
        let reject = parse_event(value.as_bytes()).expect_err(&value);
        assert_eq!(reject.to_string(), want, "{value}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics(value in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        drop(parse_event(&value));
    }

    #[test]
    fn parsing_near_events_never_panics(cut in 0usize..200, byte in proptest::num::u8::ANY) {
        let mut value = GOOD.as_bytes().to_vec();
        let at = cut % value.len();
        value[at] = byte;
        drop(parse_event(&value));
        value.truncate(at);
        proptest::prop_assert!(parse_event(&value).is_err());
    }

    #[test]
    fn what_is_accepted_obeys_the_rules(city in "\\PC{0,70}", kind in "[a-zA-Z0-9_ -]{0,70}", id in "\\PC{0,130}") {
        let value = serde_json::json!({"city": city, "event_type": kind, "severity": "LOW", "timestamp": "2025-10-13T11:30:00Z", "event_id": id});
        if let Ok(e) = parse_event(value.to_string().as_bytes()) {
            proptest::prop_assert!((1..=64).contains(&e.city.chars().count()));
            proptest::prop_assert!(!e.city.contains('#'));
            proptest::prop_assert!(is_event_type(&e.event_type));
            proptest::prop_assert!(!e.event_id.expect("given").is_empty());
        }
    }
}

/// Checks that the parser rejects the examples in the guide to the event format.
#[test]
fn every_reason_is_in_the_guide_and_its_example_is_rejected_for_it() {
    let guide = include_str!("../../../docs/EVENTS.md");
    let row = |name: &str| {
        let row = guide
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` ")));
        let row = row.unwrap_or_else(|| panic!("no row of {name}"));
        row.trim_end_matches([' ', '|'])
            .rsplit(" | ")
            .next()
            .unwrap()
    };
    let mut examples = 0;
    for wanted in Reason::ALL {
        let Some(example) = row(wanted.name()).strip_prefix('`') else {
            continue;
        };
        examples += 1;
        assert_eq!(reason(example.trim_end_matches('`')), Some(wanted));
    }
    assert_eq!(examples, 8);
    let good = guide.lines().filter(|line| line.starts_with("{\"city\""));
    for event in good {
        assert_eq!(reason(event), None, "{event}");
    }
}
