//! Replaces or appends one field of a JSON object, without changing any other byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::value::RawValue;

/// Returns the range of bytes in `text` that contains the value of the field `name`. Returns `None` if `text` is not an
/// object or does not have the field.
pub fn find_member(text: &str, name: &str) -> Option<Range<usize>> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
    let raw = members.get(name)?.get();
    // The raw value is a slice of `text`, so the difference of their addresses is its position in `text`.
    let start = (raw.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + raw.len())
}

/// Replaces the value of the field `name` in `text`, and returns the new text. `value` must be valid JSON.
pub fn replace_member(text: &str, name: &str, value: &str) -> Option<String> {
    let Range { start, end } = find_member(text, name)?;
    Some([&text[..start], value, &text[end..]].concat())
}

/// Adds the field `name` to `text` after all other fields, and returns the new text. `value` must be valid JSON.
/// Returns `None` if `text` is not an object or already has the field.
pub fn append_member(text: &str, name: &str, value: &str) -> Option<String> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
    if members.contains_key(name) {
        return None;
    }
    let end = text.trim_end().strip_suffix('}')?.len();
    let comma = if members.is_empty() { "" } else { "," };
    let name = serde_json::to_string(name).ok()?;
    Some([&text[..end], comma, &name, ":", value, &text[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_member_itself_is_replaced() {
        let text = r#" { "a" : [1.0, {"t":1}] ,"\u0074":"x\"}" , "z":"t" } "#;
        let want = r#" { "a" : [1.0, {"t":1}] ,"\u0074":2 , "z":"t" } "#;
        assert_eq!(replace_member(text, "t", "2").as_deref(), Some(want));
        for (text, name) in [(text, "y"), ("[1]", "a"), ("{", "a"), ("", "a")] {
            assert_eq!(replace_member(text, name, "2"), None, "{text}");
        }
    }

    #[test]
    fn a_missing_member_is_appended_and_a_present_one_is_not() {
        for (text, want) in [
            (r#"{}"#, Some(r#"{"t":2}"#)),
            (" { } \n", Some(" { \"t\":2} \n")),
            (r#"{"a":{}} "#, Some(r#"{"a":{},"t":2} "#)),
            (r#"{"\u0074":1}"#, None),
            ("[1]", None),
            ("{", None),
        ] {
            assert_eq!(append_member(text, "t", "2").as_deref(), want, "{text}");
        }
    }
}
