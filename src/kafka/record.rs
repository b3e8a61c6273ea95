//! From a Kafka message to what the core reads: parsed, or whole for the dead-letter topic.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::core::event::Offset;
use crate::core::parse::{HEARTBEAT_HEADER, Reason, parse_record};
use crate::core::worker::{Content, Rejected};

/// What a header takes beside its name and value.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// Returns what a record says: an event or heartbeat, or the record itself and why it is neither.
pub(super) fn content(message: &BorrowedMessage<'_>) -> Content {
    let headers = message.headers();
    let heartbeats = headers.into_iter().flat_map(|headers| {
        headers
            .iter()
            .filter(|h| h.key == HEARTBEAT_HEADER)
            .map(|h| h.value)
    });
    let reject = match parse_record(message.payload(), heartbeats) {
        Ok(body) => return Content::Valid(body),
        Err(reject) => reject,
    };
    Content::Rejected(Box::new(original(message, reject.reason, reject.detail)))
}

/// Returns what the headers take that `content` keeps: those of a rejected record.
pub(super) fn header_bytes(content: &Content) -> usize {
    let Content::Rejected(rejected) = content else {
        return 0;
    };
    let bytes = |(key, value): &(String, Option<Vec<u8>>)| {
        key.len() + value.as_ref().map_or(0, Vec::len) + HEADER_OVERHEAD_BYTES
    };
    rejected.headers.iter().map(bytes).sum()
}

/// Copies a record for the dead-letter topic.
pub(super) fn original(message: &BorrowedMessage<'_>, reason: Reason, detail: String) -> Rejected {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let own = |h: rdkafka::message::Header<'_, &[u8]>| {
            (h.key.to_owned(), h.value.map(<[u8]>::to_vec))
        };
        headers.iter().map(own).collect()
    });
    Rejected {
        reason,
        detail,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        partition: message.partition(),
        offset: Offset(message.offset()),
        timestamp_ms: message.timestamp().to_millis(),
    }
}
