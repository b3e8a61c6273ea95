//! Repairs rejected records if there is only one possible repair.
//!
//! | reason | repair |
//! |---|---|
//! | `not_json` | a byte order mark at the start is dropped |
//! | `bad_event_type`, `bad_severity` | white space around the value is trimmed |
//! | `bad_timestamp` | text without a zone is UTC; a whole number is Unix seconds, or milliseconds from 12 digits on |
//! | `bad_description` | `null` becomes an empty string; a text that is too long is cut |
//! | `bad_event_id` | the id is replaced by the default id of a record without an id |
//!
//! A repair changes nothing else in the value. The parser then checks the repaired value by the same rules as every
//! other record.

use crate::clock::UnixMs;
use crate::event::Event;
use crate::parse::{DESCRIPTION_BYTES_MAX, Reason, parse_event};
use crate::patch::{find_member, replace_member};
use crate::time::{format_millis, is_event_time};

/// Numbers from this one on are timestamps in milliseconds, and smaller numbers are timestamps in seconds. The number
/// 100,000,000,000 is a time in 1973 in milliseconds, and a time in 5138 in seconds.
const MILLIS_FROM: i64 = 100_000_000_000;

/// Returns the repaired value and its event. `own_id` is the default id, which replaces an invalid event id.
///
/// # Errors
/// Returns the reason why the value is still rejected.
pub fn repair(value: &[u8], own_id: &str) -> Result<(String, Event), Reason> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Err(parse_event(value).map_or_else(|reject| reject.reason, |_| Reason::NotUtf8));
    };
    let mut text = text.to_owned();
    let mut mended = Vec::new();
    loop {
        let reason = match parse_event(text.as_bytes()) {
            Ok(event) => return Ok((text, event)),
            Err(reject) => reject.reason,
        };
        // The repair for this reason has not helped, so the function gives up.
        if mended.contains(&reason) {
            return Err(reason);
        }
        mended.push(reason);
        text = mend(&text, reason, own_id).ok_or(reason)?;
    }
}

fn mend(text: &str, reason: Reason, own_id: &str) -> Option<String> {
    let value = |name: &str| -> Option<serde_json::Value> {
        serde_json::from_str(&text[find_member(text, name)?]).ok()
    };
    let trimmed = |name: &str| {
        let value = value(name)?;
        replace_member(text, name, &json(value.as_str()?.trim()))
    };
    match reason {
        Reason::NotJson => text.strip_prefix('\u{feff}').map(str::to_owned),
        Reason::BadEventType => trimmed("event_type"),
        Reason::BadSeverity => trimmed("severity"),
        Reason::BadTimestamp => {
            let time = time(&value("timestamp")?)?;
            replace_member(text, "timestamp", &json(&time))
        }
        Reason::BadDescription => {
            let value = value("description")?;
            let shown = if value.is_null() { "" } else { value.as_str()? };
            let end = shown.floor_char_boundary(DESCRIPTION_BYTES_MAX);
            replace_member(text, "description", &json(&shown[..end]))
        }
        Reason::BadEventId => replace_member(text, "event_id", &json(own_id)),
        Reason::Empty
        | Reason::TooLarge
        | Reason::NotUtf8
        | Reason::MissingField
        | Reason::BadCity
        | Reason::BadHeartbeat
        | Reason::RefusedByTable => None,
    }
}

fn time(value: &serde_json::Value) -> Option<String> {
    if let Some(number) = value.as_i64() {
        let ms = if number < MILLIS_FROM {
            number.checked_mul(1_000)?
        } else {
            number
        };
        return is_event_time(UnixMs(ms)).then(|| format_millis(UnixMs(ms)));
    }
    // The caller parses the repaired value, so a text that is not a time stays invalid.
    Some(format!("{}Z", value.as_str()?.trim()))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &str) -> String {
        format!(r#"{{"city":"NYC","event_type":"traffic","severity":"low",{fields}}}"#)
    }

    const TIME: &str = r#""timestamp":"2013-01-01T06:00:00Z""#;

    #[test]
    fn what_can_be_mended_without_guessing_is() {
        let at = |time: &str| with(&format!("\"timestamp\":{time}"));
        let utc = at("\"2013-01-01T06:00:00Z\"");
        let fine = with(TIME);
        for (value, want) in [
            (fine.clone(), fine.clone()),
            (format!("\u{feff}{fine}"), fine.clone()),
            (fine.replace("low", " low\\n"), fine.clone()),
            (fine.replace("traffic", "\\ttraffic"), fine.clone()),
            (at("\"2013-01-01T06:00:00\""), utc.clone()),
            (
                at("\"2013-01-01 06:00:00 \""),
                at("\"2013-01-01 06:00:00Z\""),
            ),
            (at("1357020000"), at("\"2013-01-01T06:00:00.000Z\"")),
            (at("1357020000123"), at("\"2013-01-01T06:00:00.123Z\"")),
            (
                with(&format!("{TIME},\"description\":null, \"n\":1.0")),
                with(&format!("{TIME},\"description\":\"\", \"n\":1.0")),
            ),
            (
                with(&format!("{TIME},\"event_id\":\"\"")),
                with(&format!("{TIME},\"event_id\":\"t-0-7\"")),
            ),
            // The value has two flaws at the same time.
            (
                with("\"timestamp\":1357020000,\"event_id\":null"),
                with("\"timestamp\":\"2013-01-01T06:00:00.000Z\",\"event_id\":\"t-0-7\""),
            ),
        ] {
            let (text, event) =
                repair(value.as_bytes(), "t-0-7").unwrap_or_else(|e| panic!("{value}: {e}"));
            assert_eq!(text, want);
            assert_eq!(&*event.city, "NYC");
        }
        let long = with(&format!("{TIME},\"description\":\"{}\"", "é".repeat(3_000)));
        let (_, event) = repair(long.as_bytes(), "").expect("it is cut");
        assert_eq!(event.description.len(), DESCRIPTION_BYTES_MAX);
    }

    #[test]
    fn the_rest_keeps_its_reason() {
        let at = |time: &str| with(&format!("\"timestamp\":{time}"));
        for (value, reason) in [
            (at("\"half past nine\""), Reason::BadTimestamp),
            (at("null"), Reason::BadTimestamp),
            (at("1.5"), Reason::BadTimestamp),
            (at("-1"), Reason::BadTimestamp),
            (with(TIME).replace("low", "grave"), Reason::BadSeverity),
            (with(TIME).replace("NYC", "N#C"), Reason::BadCity),
            (with(TIME).replace("city", "town"), Reason::MissingField),
            ("{\"city\":\"NYC\",".to_owned(), Reason::NotJson),
            (String::new(), Reason::Empty),
        ] {
            assert_eq!(
                repair(value.as_bytes(), "t-0-7").map(|(text, _)| text),
                Err(reason),
                "{value}"
            );
        }
        assert_eq!(
            repair(b"{\xff}", "").map(|(text, _)| text),
            Err(Reason::NotUtf8)
        );
    }
}
