//! Errors by which a broker refuses a member of a group for good: waiting does not help, other settings do.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;

/// Returns what to do about an error of joining a group. `None` for errors that may pass by themselves.
///
/// Source: the error table of Kafka's protocol guide, <https://kafka.apache.org/protocol#protocol_error_codes>.
pub fn remedy(code: RDKafkaErrorCode) -> Option<&'static str> {
    Some(match code {
        RDKafkaErrorCode::InvalidSessionTimeout => {
            "choose --kafka-property session.timeout.ms between the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            "other members of this group share out partitions in another way; stop them, or choose another --group"
        }
        RDKafkaErrorCode::InvalidGroupId => "choose another --group",
        RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => {
            "these brokers do not know the protocol; choose --group-protocol classic, or update them"
        }
        RDKafkaErrorCode::UnsupportedAssignor => {
            "these brokers do not know how this member shares out partitions; remove --kafka-property group.remote.assignor"
        }
        _ => return None,
    })
}

/// Returns why these brokers can never lead the group, if this line of librdkafka's log says so.
///
/// Where the brokers do not know the protocol of `group.protocol=consumer`, librdkafka 2.12 looks for another
/// coordinator without end. It reports no error, so the line is the only sign. [`make_heard`] has it
/// written.
pub fn refusal(facility: &str, text: &str) -> Option<RDKafkaErrorCode> {
    let unknown = facility == "COORD"
        && text.contains("ConsumerGroupHeartbeatRequest not supported by broker");
    unknown.then_some(RDKafkaErrorCode::UnsupportedFeature)
}

/// Sets `config` so that librdkafka writes the lines that [`refusal`] reads: some each second.
pub fn make_heard(config: &mut ClientConfig) {
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
    fn only_what_other_settings_mend_ends_a_member() {
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
