//! Converts a Kafka message into a parsed record for the pipeline, or into a whole record for the dead-letter topic.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::parse::{HEARTBEAT_HEADER, Reason, parse_record};
use crate::core::worker::{Content, Rejected};

/// Memory that a record header needs in addition to its name and value, in bytes.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// Returns the event or heartbeat in a record, or the whole record with its reject reason.
pub(super) fn content(message: &BorrowedMessage<'_>) -> Content {
    match parse_record(message.payload(), heartbeat_values(message)) {
        Ok(body) => Content::Valid(body),
        Err(reject) => Content::Rejected(Box::new(original(message, reject.reason, reject.detail))),
    }
}

/// Returns the values of the record's heartbeat headers. A valid record has at most one heartbeat header.
pub(super) fn heartbeat_values<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = Option<&'a [u8]>> {
    let headers = message.headers().into_iter();
    headers
        .flat_map(|headers| headers.iter())
        .filter(|header| header.key == HEARTBEAT_HEADER)
        .map(|header| header.value)
}

/// Returns the size of the headers that `content` keeps, in bytes. Only a rejected record keeps its headers.
pub(super) fn header_bytes(content: &Content) -> usize {
    let Content::Rejected(rejected) = content else {
        return 0;
    };
    let bytes = |(key, value): &(String, Option<Vec<u8>>)| {
        key.len() + value.as_ref().map_or(0, Vec::len) + HEADER_OVERHEAD_BYTES
    };
    rejected.headers.iter().map(bytes).sum()
}

/// Copies a whole record, including its headers, for the dead-letter topic.
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
        timestamp_ms: message.timestamp().to_millis().map(UnixMs),
    }
}
