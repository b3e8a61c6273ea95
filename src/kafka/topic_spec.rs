//! Describes the topics that `init-tables` creates, and compares them with existing topics.

use std::collections::BTreeMap;

use crate::kafka::dlq::DLQ_MESSAGE_BYTES_MAX;

/// The topic settings that all Kafka services allow, including MSK Serverless, which allows the fewest.
///
/// The list comes from "Configuration properties for MSK Serverless clusters" in AWS's documentation.
const TAKEN_EVERYWHERE: [&str; 7] = [
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "retention.bytes",
    "retention.ms",
];

/// The result of a request to create a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// True if the topic did not exist before the request.
    pub made: bool,
    /// The settings that the new topic lacks, because the brokers refuse them.
    pub left_out: Vec<&'static str>,
}

impl Creation {
    /// Returns a note about the settings that the new topic lacks, or `None` if it has all settings.
    pub fn note(&self) -> Option<String> {
        let names = self.left_out.join(", ");
        (!self.left_out.is_empty())
            .then(|| format!("without {names}, which these brokers do not allow for topics"))
    }
}

/// The specification of a topic that `init-tables` creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name of the topic.
    pub name: String,
    /// The number of partitions of the topic.
    pub partitions: i32,
    /// The topic settings for which the program does not use the brokers' defaults.
    pub config: Vec<(&'static str, String)>,
}

impl TopicSpec {
    /// Returns the names of the settings that some brokers refuse, and the specification without these settings.
    pub fn reduced(&self) -> (Vec<&'static str>, TopicSpec) {
        let (config, refused): (Vec<_>, Vec<_>) = self
            .config
            .iter()
            .cloned()
            .partition(|(name, _)| TAKEN_EVERYWHERE.contains(name));
        let reduced = TopicSpec {
            config,
            ..self.clone()
        };
        (refused.into_iter().map(|(name, _)| name).collect(), reduced)
    }

    /// Returns the specification of the topic for events.
    pub fn events(name: &str, partitions: i32, replication: i32) -> TopicSpec {
        let mut config = common(replication, 24);
        // With `LogAppendTime`, the broker sets the ingest time, so a producer with a wrong clock cannot make it wrong.
        config.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        TopicSpec {
            name: name.to_owned(),
            partitions,
            config,
        }
    }

    /// Returns the specification of the dead-letter topic.
    pub fn dead_letters(name: &str, replication: i32) -> TopicSpec {
        let mut config = common(replication, 14 * 24);
        config.push(("max.message.bytes", DLQ_MESSAGE_BYTES_MAX.to_string()));
        TopicSpec {
            name: name.to_owned(),
            partitions: 1,
            config,
        }
    }
}

fn common(replication: i32, retention_hours: u64) -> Vec<(&'static str, String)> {
    let mut config = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", (retention_hours * 3_600_000).to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    if replication >= 3 {
        config.push(("min.insync.replicas", "2".to_owned()));
    }
    config
}

/// Returns the differences between an existing topic and its specification, with one phrase for each difference.
///
/// The function ignores settings that are absent from `actual`, because some services do not report all settings.
pub fn differences(
    spec: &TopicSpec,
    partitions: i32,
    actual: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut out = Vec::new();
    if partitions != spec.partitions {
        out.push(format!(
            "has {partitions} partitions instead of {}",
            spec.partitions
        ));
    }
    for (name, wanted) in &spec.config {
        if let Some(value) = actual.get(*name)
            && value != wanted
        {
            out.push(format!("has {name}={value} instead of {wanted}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_msk_serverless_refuses_are_left_out_and_named() {
        let spec = TopicSpec::events("city-events", 6, 3);
        let (left_out, reduced) = spec.reduced();
        let refused = ["unclean.leader.election.enable", "min.insync.replicas"];
        assert_eq!(left_out, refused);
        let names: Vec<&str> = reduced.config.iter().map(|(name, _)| *name).collect();
        let kept = ["cleanup.policy", "retention.ms", "message.timestamp.type"];
        assert_eq!(names, kept);
        let creation = Creation {
            made: true,
            left_out,
        };
        let note = creation.note().unwrap();
        assert!(refused.iter().all(|name| note.contains(name)), "{note}");
        assert_eq!(Creation::default().note(), None);
        assert!(reduced.reduced().0.is_empty());
    }

    #[test]
    fn topics_have_the_documented_settings() {
        let events = TopicSpec::events("city-events", 6, 3);
        assert_eq!(
            events.config,
            [
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", "86400000".to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
                ("min.insync.replicas", "2".to_owned()),
                ("message.timestamp.type", "LogAppendTime".to_owned()),
            ]
        );
        let dlq = TopicSpec::dead_letters("city-events-dlq", 1);
        assert_eq!(dlq.partitions, 1);
        assert_eq!(
            dlq.config,
            [
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", "1209600000".to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
                ("max.message.bytes", "2097152".to_owned()),
            ]
        );
    }

    #[test]
    fn differences_name_the_actual_and_the_wanted_setting() {
        let spec = TopicSpec::events("city-events", 6, 1);
        let mut actual: BTreeMap<String, String> = spec
            .config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        assert!(differences(&spec, 6, &actual).is_empty());
        actual.insert("message.timestamp.type".into(), "CreateTime".into());
        actual.remove("cleanup.policy");
        assert_eq!(
            differences(&spec, 12, &actual),
            [
                "has 12 partitions instead of 6",
                "has message.timestamp.type=CreateTime instead of LogAppendTime"
            ]
        );
    }
}
