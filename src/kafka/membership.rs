//! The errors that brokers return to a group member until the member's settings change.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;

/// Returns the remedy for an error that a member gets when it joins a group. Returns `None` if the error may disappear
/// without a change of settings.
///
/// The codes come from the error table of Kafka's protocol guide,
/// <https://kafka.apache.org/protocol#protocol_error_codes>.
pub fn remedy(code: RDKafkaErrorCode) -> Option<&'static str> {
    Some(match code {
        RDKafkaErrorCode::InvalidSessionTimeout => {
            "choose --kafka-property session.timeout.ms between the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            "other members of this group use another assignment strategy; stop them, or choose another --group"
        }
        RDKafkaErrorCode::InvalidGroupId => "choose another --group",
        RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => {
            "these brokers do not support the protocol; choose --group-protocol classic, or update them"
        }
        RDKafkaErrorCode::UnsupportedAssignor => {
            "these brokers do not know the assignor of this member; remove --kafka-property group.remote.assignor"
        }
        _ => return None,
    })
}

/// Parses a log line of librdkafka. Returns the error with which the brokers refuse a group member, if the log line
/// reports such an error.
///
/// With `group.protocol=consumer`, librdkafka 2.12 searches for another coordinator forever if the brokers do not
/// support the protocol. While librdkafka searches for a coordinator, it reports no error and only writes a log line.
/// [`log_coordinator_lines`] makes librdkafka write log lines about the coordinator.
pub fn parse_refused_member(facility: &str, text: &str) -> Option<RDKafkaErrorCode> {
    let unknown = facility == "COORD"
        && text.contains("ConsumerGroupHeartbeatRequest not supported by broker");
    unknown.then_some(RDKafkaErrorCode::UnsupportedFeature)
}

/// Makes librdkafka write the log lines that [`parse_refused_member`] reads. With the debug context `cgrp`, librdkafka
/// writes a few log lines per second.
pub fn log_coordinator_lines(config: &mut ClientConfig) {
    if config.get("group.protocol") != Some("consumer") {
        return;
    }
    let debug = match config.get("debug") {
        Some(debug) => format!("{debug},cgrp"),
        None => "cgrp".to_owned(),
    };
    config
        .set("debug", debug)
        .set_log_level(RDKafkaLogLevel::Debug);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_need_other_settings_end_a_member() {
        for code in [
            RDKafkaErrorCode::InvalidSessionTimeout,
            RDKafkaErrorCode::InconsistentGroupProtocol,
            RDKafkaErrorCode::InvalidGroupId,
            RDKafkaErrorCode::UnsupportedVersion,
            RDKafkaErrorCode::UnsupportedFeature,
            RDKafkaErrorCode::UnsupportedAssignor,
        ] {
            assert!(remedy(code).is_some(), "{code:?}");
        }
        for code in [
            RDKafkaErrorCode::RebalanceInProgress,
            RDKafkaErrorCode::UnknownMemberId,
            RDKafkaErrorCode::IllegalGeneration,
            RDKafkaErrorCode::NotCoordinator,
            RDKafkaErrorCode::CoordinatorNotAvailable,
            RDKafkaErrorCode::AllBrokersDown,
        ] {
            assert_eq!(remedy(code), None, "{code:?}");
        }
    }
}
