//! Contains the librdkafka callbacks of clients that join no group. The callbacks also remember the offset at which a
//! log ends.

use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::core::event::Offset;
use crate::kafka::client_errors::ClientErrors;

/// Passes log lines and errors to [`ClientErrors`]. Also remembers the end offset after the client has read a partition
/// to its end.
///
/// A poll that reaches the end of a partition returns an error without the end offset. The error callback, which runs
/// during the same poll, gets the end offset.
#[derive(Debug)]
pub(crate) struct Context {
    errors: ClientErrors,
    end_of_log: Mutex<Option<Offset>>,
}

impl Context {
    /// Returns the context of a client with the settings `config`.
    pub(crate) fn new(config: &ClientConfig) -> Context {
        Context {
            errors: ClientErrors::new(config),
            end_of_log: Mutex::new(None),
        }
    }

    /// Returns the errors that the client has reported.
    pub(crate) fn errors(&self) -> &ClientErrors {
        &self.errors
    }

    /// Returns and removes the end offset that the last poll reported.
    pub(crate) fn take_end_of_log(&self) -> Option<Offset> {
        self.end_of_log
            .lock()
            .expect("no panic holds the lock")
            .take()
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.report_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => {
                *self.end_of_log.lock().expect("no panic holds the lock") = end_of_log(reason);
            }
            // The callback ignores offset errors, because the caller of the poll gets the same errors.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {}
            _ => self.errors.report_error(&error, reason),
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.errors.oauth_token()
    }
}

impl ConsumerContext for Context {}

/// Returns the offset in librdkafka's message about the end of a partition.
///
/// The client has delivered all records before the returned offset, and the last fetch has found no record at or after
/// it. No function of librdkafka returns this offset. The client's read position may be lower, because it is only the
/// offset after the last delivered record. A request to a broker for the end of the log may return the end at a later
/// time or on another replica.
pub(crate) fn end_of_log(reason: &str) -> Option<Offset> {
    let (_, rest) = reason.split_once("end of partition at offset ")?;
    let digits = rest.split(' ').next()?;
    digits.parse().ok().map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_about_the_end_of_a_partition_has_an_offset() {
        let eof = "Fetch from broker 3 reached end of partition at offset 41 (HighwaterMark 52)";
        assert_eq!(end_of_log(eof), Some(Offset(41)));
        for reason in [
            "",
            "Broker: Unknown partition",
            "end of partition at offset x",
        ] {
            assert_eq!(end_of_log(reason), None, "{reason}");
        }
    }
}
