//! The errors that brokers return to a group member until the member's settings change.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;

use crate::failure::Failure;

/// Returns the failure of a member of `group` that the brokers refuse with `code`. `option` is the option of the role
/// that names the group.
pub fn refused(code: RDKafkaErrorCode, group: &str, option: &str) -> Failure {
    Failure {
        what: format!("Kafka refuses this member of group {group}"),
        why: Some(code.to_string()),
        remedy: remedy(code, option),
    }
}

/// Returns the failure of a member whose id another member of the group also has. `option` is the option of the role
/// that sets the id. The member must not restart. If both members restarted, they would fence each other off endlessly.
pub fn fenced(option: &str) -> Failure {
    let what = format!("another member of the group has joined with the same {option}");
    Failure::new(what).with_remedy("give each member its own id")
}

/// Returns true if a member gets the error until its settings change.
pub fn is_lasting(code: RDKafkaErrorCode) -> bool {
    remedy(code, "").is_some()
}

/// Returns the remedy for an error that a member gets when it joins a group. Returns `None` if the error may disappear
/// without a change of settings.
///
/// The codes come from the error table of Kafka's protocol guide,
/// <https://kafka.apache.org/protocol#protocol_error_codes>.
fn remedy(code: RDKafkaErrorCode, option: &str) -> Option<String> {
    let text = match code {
        RDKafkaErrorCode::InvalidSessionTimeout => {
            "choose --kafka-property session.timeout.ms between the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            let what = "other members of this group use another assignment strategy";
            return Some(format!("{what}; stop them, or choose another {option}"));
        }
        RDKafkaErrorCode::InvalidGroupId => return Some(format!("choose another {option}")),
        // Only `consume` can have another group protocol, so only `consume` gets this error.
        RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => {
            "these brokers do not support the protocol; choose --group-protocol classic, or update them"
        }
        RDKafkaErrorCode::UnsupportedAssignor => {
            "these brokers do not know the assignor of this member; remove --kafka-property group.remote.assignor"
        }
        _ => return None,
    };
    Some(text.to_owned())
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
    fn a_remedy_names_the_option_of_the_role() {
        let code = RDKafkaErrorCode::InvalidGroupId;
        let text = refused(code, "g", "--notify-group").to_string();
        assert!(text.ends_with("; choose another --notify-group"), "{text}");
    }

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
            assert!(is_lasting(code), "{code:?}");
        }
        for code in [
            RDKafkaErrorCode::RebalanceInProgress,
            RDKafkaErrorCode::UnknownMemberId,
            RDKafkaErrorCode::IllegalGeneration,
            RDKafkaErrorCode::NotCoordinator,
            RDKafkaErrorCode::CoordinatorNotAvailable,
            RDKafkaErrorCode::AllBrokersDown,
        ] {
            assert!(!is_lasting(code), "{code:?}");
        }
    }
}
