//! Defines the errors that a group member gets until an operator changes its settings.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;

use crate::failure::Failure;

/// Returns the failure for a member of `group` that the brokers refuse with `code`. `option` is the command-line option
/// that sets the group.
pub fn refused(code: RDKafkaErrorCode, group: &str, option: &str) -> Failure {
    Failure {
        what: format!("Kafka refuses this member of group {group}"),
        why: Some(code.to_string()),
        remedy: remedy(code, option),
    }
}

/// Returns the failure for a member that has the same id as another member of the group. `option` is the command-line
/// option that sets the id. The member must not restart, because each of the two members would then remove the other
/// again and again.
pub fn fenced(option: &str) -> Failure {
    let what = format!("another member of the group has joined with the same {option}");
    Failure::new(what).with_remedy("give each member its own id")
}

/// Returns true if a member gets the error `code` until an operator changes its settings.
pub fn is_lasting(code: RDKafkaErrorCode) -> bool {
    remedy(code, "").is_some()
}

/// Returns the remedy for the error `code`, which a member gets when it joins a group. Returns `None` if the error may
/// end without a change of settings.
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
        // Only `consume` has an option for the group protocol, so only `consume` gets this error.
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

/// Parses a log line of librdkafka. If the log line reports that the brokers refuse a group member, returns the error.
///
/// If the brokers do not support `group.protocol=consumer`, librdkafka 2.12 searches for another coordinator forever.
/// During this search, librdkafka reports no error and only writes a log line. [`log_coordinator_lines`] makes
/// librdkafka write such log lines.
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
