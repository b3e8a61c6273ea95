//! Lists the rights that each role needs on Kafka. The list of the rights on DynamoDB is in `store::rights`.
//!
//! `check` compares this list with the rights that the brokers report for the client. For a missing right, `check`
//! prints the Kafka command that grants the right, or the IAM actions of Amazon MSK.
//!
//! In Kafka, the right to read, write or delete a resource includes the right to describe it. Therefore, the list
//! contains the right Describe on a resource only if no other right on this resource includes it.

use std::fmt;

use crate::settings::{KafkaArgs, KafkaAuth};
use crate::sys::{Operation, Rights};

/// The consumer group whose committed offsets store the progress of `produce --from-dlq` in the dead-letter topic. No
/// member joins this group.
pub const RESEND_GROUP: &str = "citystream-from-dlq";

/// Returns the transactional id of the producer that resends the dead letters of `topic`. If two producers have the
/// same transactional id, Kafka refuses the requests of the older one.
pub fn resend_transactional_id(topic: &str) -> String {
    format!("{RESEND_GROUP}-{topic}")
}

/// A subcommand that uses Kafka, or one mode of a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaUser<'a> {
    /// The subcommand `produce`.
    Produce,
    /// The subcommand `produce` with the option `--from-dlq`.
    FromDlq,
    /// The subcommand `consume` in the given consumer group.
    Consume(&'a str),
    /// The subcommand `notify` in the given consumer group.
    Notify(&'a str),
    /// The subcommand `tail`.
    Tail,
    /// The subcommand `tail` with the option `--dlq`.
    TailDlq,
    /// The subcommand `verify`, which reads the committed offsets of the given consumer group.
    Verify(&'a str),
    /// The subcommand `init-tables`.
    InitTables,
    /// The subcommand `init-tables --delete`, which refuses to run while the given consumer group has members.
    Delete(&'a str),
}

/// A resource in Kafka to which a right applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// A transactional id, which identifies a producer that uses transactions.
    TransactionalId(String),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::TransactionalId(name) => write!(f, "transactional id {name}"),
        }
    }
}

/// The rights that a role needs on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The Kafka resource to which the operations apply.
    pub resource: Resource,
    /// The operations that the role must be allowed to perform on the resource.
    pub operations: Vec<Operation>,
}

impl Need {
    /// Returns a copy of this [`Need`] that contains only the given operations.
    pub fn only(&self, operations: &[Operation]) -> Need {
        Need {
            resource: self.resource.clone(),
            operations: operations.to_vec(),
        }
    }

    /// Returns the needed operations for which the client has no right. Returns `None` if the brokers do not report
    /// rights.
    pub fn missing(&self, rights: &Rights) -> Option<Vec<Operation>> {
        match rights {
            Rights::Listed(told) => {
                let wanted = self.operations.iter().copied();
                Some(wanted.filter(|o| !told.contains(o)).collect())
            }
            Rights::Denied => Some(self.operations.clone()),
            Rights::Unsupported | Rights::Unknown { .. } => None,
        }
    }
}

/// Returns the rights that the role `user` needs for the topic `topic` and its dead-letter topic `dlq`.
pub fn needs(user: KafkaUser<'_>, topic: &str, dlq: &str) -> Vec<Need> {
    use Operation::{Create, Delete, Describe, DescribeConfigs, Read, Write};
    let on_topic = |name: &str, operations: &[Operation]| Need {
        resource: Resource::Topic(name.to_owned()),
        operations: operations.to_vec(),
    };
    let on_group = |name: &str, operation| Need {
        resource: Resource::Group(name.to_owned()),
        operations: vec![operation],
    };
    match user {
        KafkaUser::Produce => vec![on_topic(topic, &[Write])],
        KafkaUser::FromDlq => vec![
            on_topic(topic, &[Write]),
            on_topic(dlq, &[Read]),
            on_group(RESEND_GROUP, Read),
            Need {
                resource: Resource::TransactionalId(resend_transactional_id(topic)),
                operations: vec![Write],
            },
        ],
        KafkaUser::Consume(group) => vec![
            on_topic(topic, &[Read]),
            on_topic(dlq, &[Write]),
            on_group(group, Read),
        ],
        KafkaUser::Notify(group) => vec![on_topic(topic, &[Read]), on_group(group, Read)],
        KafkaUser::Tail => vec![on_topic(topic, &[Read])],
        KafkaUser::TailDlq => vec![on_topic(dlq, &[Read])],
        KafkaUser::Verify(group) => vec![
            on_topic(topic, &[Read]),
            on_topic(dlq, &[Read]),
            on_group(group, Describe),
        ],
        KafkaUser::InitTables => [topic, dlq]
            .map(|name| on_topic(name, &[Create, Describe, DescribeConfigs]))
            .to_vec(),
        KafkaUser::Delete(group) => {
            let mut out = [topic, dlq].map(|name| on_topic(name, &[Delete])).to_vec();
            out.push(on_group(group, Describe));
            out
        }
    }
}

/// Returns the command, or the IAM actions, with which an operator allows this client to perform `operations` on a
/// resource.
pub fn grant(args: &KafkaArgs, resource: &Resource, operations: &[Operation]) -> String {
    if args.kafka_auth == KafkaAuth::MskIam {
        let mut actions: Vec<String> = operations
            .iter()
            .flat_map(|operation| actions(resource, *operation))
            .map(|action| format!("kafka-cluster:{action}"))
            .collect();
        actions.dedup();
        let mut text = format!("allow {} on {resource}", actions.join(", "));
        if operations.contains(&Operation::Write) {
            text.push_str(", kafka-cluster:WriteDataIdempotently on the cluster");
        }
        return text;
    }
    let (option, name) = match resource {
        Resource::Topic(name) => ("--topic", name),
        Resource::Group(name) => ("--group", name),
        Resource::TransactionalId(name) => ("--transactional-id", name),
    };
    let operations: String = operations
        .iter()
        .map(|operation| format!(" --operation {}", operation.name()))
        .collect();
    format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal {}{operations} {option} {name}",
        args.brokers,
        principal(args),
    )
}

/// Returns the principal name of this client in Kafka's ACLs.
fn principal(args: &KafkaArgs) -> String {
    match (args.kafka_auth, &args.kafka_username) {
        (KafkaAuth::Scram, Some(name)) => format!("User:{name}"),
        // The settings of the brokers decide which part of the certificate's subject is the principal name.
        (KafkaAuth::Tls, _) if args.kafka_cert_file.is_some() => {
            "User:SUBJECT_OF_THE_CERTIFICATE".to_owned()
        }
        _ => "User:ANONYMOUS".to_owned(),
    }
}

/// Returns the IAM actions for a right. In IAM, no action includes another action, so the result also contains all
/// actions that these actions require.
///
/// The table comes from "Actions, resources, and condition keys for Apache Kafka APIs for Amazon MSK clusters" in
/// AWS's documentation.
fn actions(resource: &Resource, operation: Operation) -> &'static [&'static str] {
    match (resource, operation) {
        (Resource::Topic(_), Operation::Read) => &["DescribeTopic", "ReadData"],
        (Resource::Topic(_), Operation::Write) => &["DescribeTopic", "WriteData"],
        (Resource::Topic(_), Operation::Create) => &["CreateTopic"],
        (Resource::Topic(_), Operation::Delete) => &["DescribeTopic", "DeleteTopic"],
        (Resource::Topic(_), Operation::Describe) => &["DescribeTopic"],
        (Resource::Topic(_), Operation::DescribeConfigs) => &["DescribeTopicDynamicConfiguration"],
        (Resource::Group(_), Operation::Describe) => &["DescribeGroup"],
        (Resource::Group(_), _) => &["DescribeGroup", "AlterGroup"],
        (Resource::TransactionalId(_), _) => &["DescribeTransactionalId", "AlterTransactionalId"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Command, Role, parse_role};

    fn args(line: &str) -> KafkaArgs {
        let options: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse_role(Role::Tail, &options).unwrap().command {
            Command::Tail(tail) => tail.kafka,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_needed_right_that_is_not_reported_is_missing() {
        let need = &needs(KafkaUser::Consume("g"), "t", "d")[0];
        let told = |operations: &[Operation]| Rights::Listed(operations.iter().copied().collect());
        for (rights, missing) in [
            (told(&[Operation::Read, Operation::Write]), Some(vec![])),
            (told(&[Operation::Describe]), Some(vec![Operation::Read])),
            (told(&[]), Some(vec![Operation::Read])),
            (Rights::Denied, Some(vec![Operation::Read])),
            (Rights::Unsupported, None),
            (
                Rights::Unknown {
                    reason: String::new(),
                },
                None,
            ),
        ] {
            assert_eq!(need.missing(&rights), missing, "{rights:?}");
        }
    }

    #[test]
    fn missing_rights_are_named_as_acls_or_as_iam_actions() {
        let topic = Resource::Topic("city-events".to_owned());
        let group = Resource::Group("night".to_owned());
        for (line, resource, operations, told) in [
            (
                "--brokers b:1 --kafka-auth scram --kafka-username ann",
                &topic,
                &[Operation::Create, Operation::DescribeConfigs][..],
                "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal User:ann \
                 --operation Create --operation DescribeConfigs --topic city-events",
            ),
            (
                "--brokers b:1",
                &group,
                &[Operation::Read],
                "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal User:ANONYMOUS \
                 --operation Read --group night",
            ),
            (
                "--kafka-auth msk-iam",
                &topic,
                &[Operation::Write],
                "allow kafka-cluster:DescribeTopic, kafka-cluster:WriteData on topic city-events, \
                 kafka-cluster:WriteDataIdempotently on the cluster",
            ),
            (
                "--kafka-auth msk-iam",
                &group,
                &[Operation::Read],
                "allow kafka-cluster:DescribeGroup, kafka-cluster:AlterGroup on group night",
            ),
        ] {
            assert_eq!(grant(&args(line), resource, operations), told, "{line}");
        }
    }

    /// Checks that the table in the operations guide lists the same rights as this file.
    #[test]
    fn the_operations_guide_has_every_right() {
        let guide = include_str!("../../docs/OPERATIONS.md");
        for (name, user) in [
            ("produce", KafkaUser::Produce),
            ("produce --from-dlq", KafkaUser::FromDlq),
            ("consume", KafkaUser::Consume("citystream")),
            ("notify", KafkaUser::Notify("citystream-notify")),
            ("tail", KafkaUser::Tail),
            ("tail --dlq", KafkaUser::TailDlq),
            ("verify", KafkaUser::Verify("citystream")),
            ("init-tables", KafkaUser::InitTables),
            ("init-tables --delete", KafkaUser::Delete("citystream")),
        ] {
            let needs = needs(user, "city-events", "city-events-dlq");
            let needs: Vec<String> = needs
                .iter()
                .map(|need| {
                    let names = need.operations.iter().map(|o| o.name());
                    let names: Vec<&str> = names.collect();
                    format!("{} on {}", names.join(", "), need.resource)
                })
                .collect();
            let row = format!("| `{name}` | {} |", needs.join("; "));
            assert!(guide.contains(&row), "not in docs/OPERATIONS.md:\n{row}");
        }
    }
}
