//! Which rights each role needs on Kafka: the one list, as `store::rights` is for DynamoDB.
//!
//! `check` compares it with what the brokers say this client may do, and tells whoever hands out
//! rights what is missing in the words of what he hands them out with: Kafka's own tool, or IAM's
//! actions for Amazon MSK. In Kafka, whoever may read, write or delete something may also see it, so
//! Describe stands in the list only where nothing brings it along.

use std::fmt;

use crate::settings::{KafkaArgs, KafkaAuth};
use crate::sys::{Operation, Rights};

/// The group whose commits hold how far `produce --from-dlq` has read the dead letters. It has no members.
pub const RESEND_GROUP: &str = "citystream-from-dlq";

/// Returns the transactional id under which the dead letters of a topic are sent again. Two producers that have it
/// fence each other off.
pub fn resend_transactional_id(topic: &str) -> String {
    format!("{RESEND_GROUP}-{topic}")
}

/// What somebody does with Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User<'a> {
    /// `produce`
    Produce,
    /// `produce --from-dlq`
    FromDlq,
    /// `consume`, in this group
    Consume(&'a str),
    /// `tail`
    Tail,
    /// `tail --dlq`
    TailDlq,
    /// `verify`, of this group
    Verify(&'a str),
    /// `init-tables`
    InitTables,
    /// `init-tables --delete`, unless this group has members
    Delete(&'a str),
}

/// What rights are given on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// The name of a producer that sends all or nothing.
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

/// What a role needs on one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// On what.
    pub resource: Resource,
    /// Which rights.
    pub operations: Vec<Operation>,
}

impl Need {
    /// Returns the need of some of its rights.
    pub fn only(&self, operations: &[Operation]) -> Need {
        Need {
            resource: self.resource.clone(),
            operations: operations.to_vec(),
        }
    }

    /// Returns those of its rights that are missing; `None` where the brokers do not tell.
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

/// Returns all that `user` needs for `topic`, whose dead letters go to `dlq`.
pub fn needs(user: User<'_>, topic: &str, dlq: &str) -> Vec<Need> {
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
        User::Produce => vec![on_topic(topic, &[Write])],
        User::FromDlq => vec![
            on_topic(topic, &[Write]),
            on_topic(dlq, &[Read]),
            on_group(RESEND_GROUP, Read),
            Need {
                resource: Resource::TransactionalId(resend_transactional_id(topic)),
                operations: vec![Write],
            },
        ],
        User::Consume(group) => vec![
            on_topic(topic, &[Read]),
            on_topic(dlq, &[Write]),
            on_group(group, Read),
        ],
        User::Tail => vec![on_topic(topic, &[Read])],
        User::TailDlq => vec![on_topic(dlq, &[Read])],
        User::Verify(group) => vec![
            on_topic(topic, &[Read]),
            on_topic(dlq, &[Read]),
            on_group(group, Describe),
        ],
        User::InitTables => [topic, dlq]
            .map(|name| on_topic(name, &[Create, Describe, DescribeConfigs]))
            .to_vec(),
        User::Delete(group) => {
            let mut out = [topic, dlq].map(|name| on_topic(name, &[Delete])).to_vec();
            out.push(on_group(group, Describe));
            out
        }
    }
}

/// Returns what to do so that this client gets rights on something.
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

/// Returns the name that Kafka has for this client.
fn principal(args: &KafkaArgs) -> String {
    match (args.kafka_auth, &args.kafka_username) {
        (KafkaAuth::Scram, Some(name)) => format!("User:{name}"),
        // Which part of it is the brokers' decision.
        (KafkaAuth::Tls, _) if args.kafka_cert_file.is_some() => {
            "User:SUBJECT_OF_THE_CERTIFICATE".to_owned()
        }
        _ => "User:ANONYMOUS".to_owned(),
    }
}

/// Returns IAM's names of a right, by AWS's table of actions for Amazon MSK, with those it needs
/// beside it: IAM implies none.
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
    fn what_is_missing_is_what_is_needed_and_not_told() {
        let need = &needs(User::Consume("g"), "t", "d")[0];
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
    fn rights_are_asked_for_in_the_words_of_who_gives_them() {
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

    /// The guide shows the list; it is this one.
    #[test]
    fn the_operations_guide_has_every_right() {
        let guide = include_str!("../../docs/OPERATIONS.md");
        for (name, user) in [
            ("produce", User::Produce),
            ("produce --from-dlq", User::FromDlq),
            ("consume", User::Consume("citystream")),
            ("tail", User::Tail),
            ("tail --dlq", User::TailDlq),
            ("verify", User::Verify("citystream")),
            ("init-tables", User::InitTables),
            ("init-tables --delete", User::Delete("citystream")),
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
