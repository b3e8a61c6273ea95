//! Cursors: opaque tokens that mark where the next page of a list starts.
//!
//! A cursor consists of a version byte, a CRC-32 and a payload, encoded as URL-safe base64. The CRC-32 has four bytes,
//! and covers the query and the payload. The payload is a JSON array that contains the position of an item and a range
//! of times. The range is part of the payload, because a range such as "the last 24 hours" would otherwise change
//! between two pages. [`decode`] rejects a cursor that was changed or that belongs to another query or version. A
//! cursor grants no access. Even with a forged cursor, a client can read only items that its query may return.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::error::ApiError;
use crate::core::clock::UnixMs;
use crate::core::time::TIME_MS_END;
use crate::store::reads::{Position, Range};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// Maximum length of a cursor in bytes. The API creates only shorter cursors, because an event id has at most 512
/// bytes, and a window key is even shorter.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Maximum length of a sort key in DynamoDB, in bytes. All partition keys in this program's tables are shorter than
/// 1,024 bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// Returns the cursor of a position in the list that `query` identifies.
pub fn encode(query: &str, position: &Position, range: Range) -> String {
    let payload = serde_json::json!([
        position.sort_key,
        position.lane,
        position.key,
        range.from_ms.0,
        range.to_ms.0
    ])
    .to_string();
    let mut token = vec![VERSION];
    token.extend(checksum(query, payload.as_bytes()).to_be_bytes());
    token.extend(payload.as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// Returns the position and the range that a cursor contains.
///
/// # Errors
/// Returns `bad_cursor` if the cursor is damaged or does not belong to `query`.
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
    if head[0] != VERSION || sum != checksum(query, payload) {
        return None;
    }
    let (sort_key, lane, key, from_ms, to_ms) = serde_json::from_slice(payload).ok()?;
    let range = Range {
        from_ms: UnixMs(from_ms),
        to_ms: UnixMs(to_ms),
    };
    let position = Position {
        sort_key,
        lane,
        key,
    };
    let times = UnixMs(0)..=TIME_MS_END;
    let is_possible = times.contains(&range.from_ms)
        && times.contains(&range.to_ms)
        && (1..=KEY_BYTES_MAX).contains(&position.sort_key.len())
        && position.key.len() <= KEY_BYTES_MAX;
    is_possible.then_some((position, range))
}

fn checksum(query: &str, payload: &[u8]) -> u32 {
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
    fn a_forged_cursor_cannot_name_an_impossible_position() {
        let is_accepted = |sort_key: &str, from_ms, to_ms| {
            let position = Position {
                sort_key: sort_key.into(),
                lane: 0,
                key: String::new(),
            };
            decode("q", &encode("q", &position, Range { from_ms, to_ms })).is_ok()
        };
        assert!(is_accepted("2013", UnixMs(0), TIME_MS_END));
        assert!(!is_accepted("", UnixMs(0), UnixMs(1)));
        assert!(!is_accepted(
            &"a".repeat(KEY_BYTES_MAX + 1),
            UnixMs(0),
            UnixMs(1)
        ));
        assert!(!is_accepted("2013", UnixMs(-1), UnixMs(1)));
        assert!(!is_accepted("2013", UnixMs(0), UnixMs(i64::MAX)));
    }

    #[test]
    fn a_cursor_is_valid_for_its_own_query_only() {
        let position = Position {
            sort_key: "2013-01-01T06:00:00.000Z".into(),
            lane: 3,
            key: "São \"Paulo\"#1".into(),
        };
        let range = Range {
            from_ms: UnixMs(1),
            to_ms: UnixMs(2),
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
