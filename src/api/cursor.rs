//! Page tokens: where a list goes on, sealed against accidents and bound to the query.
//!
//! URL-safe base64 of: one byte of version, four of CRC-32 over query and payload, and the payload, a
//! JSON array `[sort key, lane, key, from_ms, to_ms]`. The range travels along because "the last 24
//! hours" moves between two pages. A token that was changed, or comes from another query or version,
//! is refused. It is no secret and no right: whoever forges one reads what the query allows anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::error::ApiError;
use crate::core::time::TIME_MS_END;
use crate::store::reads::{Position, Range};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// Longer than any token given out: an event id takes up to 512 bytes, a key of a window fewer.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Longest sort key of DynamoDB. Our partition keys are shorter too.
const KEY_BYTES_MAX: usize = 1_024;

/// Returns the token of a place in the list that `query` names.
pub fn encode(query: &str, position: &Position, range: Range) -> String {
    let payload = serde_json::json!([
        position.sort_key,
        position.lane,
        position.key,
        range.from_ms,
        range.to_ms
    ])
    .to_string();
    let mut token = vec![VERSION];
    token.extend(seal(query, payload.as_bytes()).to_be_bytes());
    token.extend(payload.as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// Returns the place a token stands for.
///
/// # Errors
/// `bad_cursor` if this query never gave it out.
pub fn decode(query: &str, token: &str) -> Result<(Position, Range), ApiError> {
    parse(query, token).ok_or_else(ApiError::bad_cursor)
}

fn parse(query: &str, token: &str) -> Option<(Position, Range)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES)?;
    let sum = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != VERSION || sum != seal(query, payload) {
        return None;
    }
    let (sort_key, lane, key, from_ms, to_ms) = serde_json::from_slice(payload).ok()?;
    let position = Position {
        sort_key,
        lane,
        key,
    };
    let times = 0..=TIME_MS_END;
    let is_possible = times.contains(&from_ms)
        && times.contains(&to_ms)
        && (1..=KEY_BYTES_MAX).contains(&position.sort_key.len())
        && position.key.len() <= KEY_BYTES_MAX;
    is_possible.then_some((position, Range { from_ms, to_ms }))
}

fn seal(query: &str, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(query.as_bytes());
    hasher.update(&[0]);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_names_no_place_that_cannot_be() {
        let forged = |sort_key: &str, from_ms, to_ms| {
            let position = Position {
                sort_key: sort_key.into(),
                lane: 0,
                key: String::new(),
            };
            decode("q", &encode("q", &position, Range { from_ms, to_ms })).is_ok()
        };
        assert!(forged("2013", 0, TIME_MS_END));
        assert!(!forged("", 0, 1));
        assert!(!forged(&"a".repeat(KEY_BYTES_MAX + 1), 0, 1));
        assert!(!forged("2013", -1, 1));
        assert!(!forged("2013", 0, i64::MAX));
    }

    #[test]
    fn a_token_is_good_for_its_own_query_only() {
        let position = Position {
            sort_key: "2013-01-01T06:00:00.000Z".into(),
            lane: 3,
            key: "São \"Paulo\"#1".into(),
        };
        let range = Range {
            from_ms: 1,
            to_ms: 2,
        };
        let token = encode("events?city=NYC", &position, range);
        assert_eq!(decode("events?city=NYC", &token), Ok((position, range)));
        assert!(decode("events?city=LA", &token).is_err());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(decode("events?city=NYC", &changed).is_err(), "{at}");
            assert!(decode("events?city=NYC", &token[..at]).is_err(), "{at}");
        }
        assert!(decode("events?city=NYC", &format!("{token}AAAA")).is_err());
        assert!(decode("events?city=NYC", &"A".repeat(10_000)).is_err());
    }
}
