//! One member of a JSON object given another value, with every other byte as it stood.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::value::RawValue;

/// Returns where the value of a member stands; `None` if `text` is no object or has no such member.
pub fn find_member(text: &str, name: &str) -> Option<Range<usize>> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
    let raw = members.get(name)?.get();
    // The value is borrowed from the text.
    let start = (raw.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + raw.len())
}

/// Returns `text` with the member's value replaced by `value`, which is JSON.
pub fn replace_member(text: &str, name: &str, value: &str) -> Option<String> {
    let Range { start, end } = find_member(text, name)?;
    Some([&text[..start], value, &text[end..]].concat())
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
}
