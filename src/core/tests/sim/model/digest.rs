//! Computes the hash of a state of the model. The hash includes all parts of the state that affect the next states.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

pub(super) fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Appends the debug text of a consumer to `out`, without times, counts and numbers of attempts. The omitted values do
/// not affect what the consumer does later.
pub(super) fn normalized(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find("ledger: Ledger {") {
        normalized_numbers(&rest[..at], out);
        let end = rest[at..].find('}').expect("a ledger ends");
        rest = &rest[at + end..];
    }
    normalized_numbers(rest, out);
}

fn normalized_numbers(text: &str, out: &mut String) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while from < bytes.len() {
        let digit = |at: &usize| bytes[*at].is_ascii_digit();
        let begin = (from..bytes.len()).find(digit).unwrap_or(bytes.len());
        let end = (begin..bytes.len())
            .find(|at| !digit(at))
            .unwrap_or(bytes.len());
        out.push_str(&text[from..begin]);
        let of_clock = end - begin == 13 && bytes[begin] == b'7';
        if !of_clock && !text[..begin].ends_with("attempts: ") {
            out.push_str(&text[begin..end]);
        }
        from = end;
    }
}
