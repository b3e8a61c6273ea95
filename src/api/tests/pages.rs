//! Tests the maximum size of a page, and requests with forged cursors.

use aws_sdk_dynamodb::types::AttributeValue;

use super::dynamo::TestTables;
use super::{NOW_MS, ask, get};
use crate::api::cursor;
use crate::core::clock::UnixMs;
use crate::store::reads::{Position, Range};

/// Maximum size of a page in bytes, including the JSON around its rows.
const PAGE_BYTES_MAX: usize = (4 << 20) + 4_096;

#[tokio::test]
async fn a_page_of_large_events_ends_early_and_the_next_page_continues() {
    let tables = TestTables::new().await;
    let extra = format!("{{\"note\":\"{}\"}}", "x".repeat(60_000));
    let more = [("extra", AttributeValue::S(extra))];
    for at in 0..150 {
        let id = format!("e{at:03}");
        tables.event("NYC", &id, NOW_MS - at, &more).await;
    }
    let router = tables.router();
    let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let value = get(&router, &format!("/api/v1/events/NYC?limit=1000{after}")).await;
        let bytes = value.to_string().len();
        assert!(bytes <= PAGE_BYTES_MAX, "{bytes}");
        let events = value["events"].as_array().unwrap();
        assert!(!events.is_empty());
        seen.extend(
            events
                .iter()
                .map(|e| e["event_id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = value["next"].as_str() else {
            break;
        };
        after = format!("&cursor={next}");
    }
    assert_eq!(pages, 3);
    let want: Vec<_> = (0..150).map(|at| format!("e{at:03}")).collect();
    assert_eq!(seen, want);
}

#[tokio::test]
async fn a_forged_cursor_is_the_clients_mistake() {
    let tables = TestTables::new().await;
    tables.event("NYC", "e1", NOW_MS - 1_000, &[]).await;
    let router = tables.router();
    // `query` is the text that identifies the list in its cursors, as defined by `Params::list_key`.
    let query = "(\"/api/v1/events/{city}\", Some(\"NYC\"), [])";
    for (sort_key, key, from_ms, to_ms) in [
        ("2013-01-02T05:59:59.000Z", "", 0, NOW_MS.0),
        ("x", "", 0, NOW_MS.0),
        ("", "e1", 0, NOW_MS.0),
        ("2013-01-02T05:59:59.000Z", "e1", i64::MIN, i64::MAX),
        ("2013-01-02T05:59:59.000Z", "e1", 0, i64::MAX),
    ] {
        for lane in [0, 3, u32::MAX] {
            let position = Position {
                sort_key: sort_key.to_owned(),
                lane,
                key: key.to_owned(),
            };
            let range = Range {
                from_ms: UnixMs(from_ms),
                to_ms: UnixMs(to_ms),
            };
            let token = cursor::encode(query, &position, range);
            let path = format!("/api/v1/events/NYC?cursor={token}");
            let (status, value, _) = ask(&router, "GET", &path).await;
            // The server accepts a forged position that could exist, and rejects any other forged position with an
            // error. A forged position never causes a server error.
            assert!(status == 400 || status == 200, "{sort_key} {lane}: {value}");
            if status == 400 {
                assert_eq!(value["code"], "bad_cursor", "{sort_key} {lane}");
            }
        }
    }
}
