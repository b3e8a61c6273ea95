//! What a role needs of Kafka: names, connections, login, rights, topics as the contract wants them.

use std::time::Duration;

use super::{Outcome, Table};
use crate::failure::chain;
use crate::kafka::admin::{Admin, AdminError, TopicSpec, differences};
use crate::kafka::rights::{Need, Resource, User, grant, needs};
use crate::settings::{KafkaArgs, KafkaAuth};
use crate::sys::{Operation, Rights, TopicError};

/// Longest wait for brokers that do not answer.
const REACH_LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn check(table: &mut Table, args: &KafkaArgs, user: User<'_>) {
    names(table, args).await;
    let admin = match Admin::new(args) {
        Ok(admin) => admin,
        Err(error) => {
            let remedy = "correct the option; citystream config shows where it comes from";
            return table.bad(Outcome::Wrong, "Kafka client", chain(&error), remedy);
        }
    };
    match admin.broker_count(REACH_LIMIT).await {
        Ok(1) => table.ok("Kafka", format!("1 broker answers at {}", args.brokers)),
        Ok(n) => table.ok("Kafka", format!("{n} brokers answer at {}", args.brokers)),
        Err(error) => {
            let remedy = "start Kafka; or correct --brokers, --kafka-auth and what belongs to it, \
                          the security group or the firewall";
            return table.bad(Outcome::Away, "Kafka", chain(&error), remedy);
        }
    }
    if args.kafka_auth == KafkaAuth::MskIam && user == User::FromDlq {
        let remedy = "use a cluster of Kafka 3.8 or later";
        let found =
            "MSK takes them with IAM from Kafka 3.8 on; the brokers do not tell their version";
        table.bad(Outcome::Note, "transactions", found, remedy);
    }
    for need in needs(user, &args.topic, &args.dlq_topic()) {
        match &need.resource {
            Resource::Topic(name) if *name == args.topic => {
                let spec = TopicSpec::events(name, 1, 1);
                topic(table, &admin, args, &need, spec).await;
            }
            Resource::Topic(name) => {
                let spec = TopicSpec::dead_letters(name, 1);
                topic(table, &admin, args, &need, spec).await;
            }
            Resource::Group(name) => {
                if matches!(user, User::Consume(_)) {
                    members(table, &admin, name).await;
                }
                let rights = admin.group_rights(name).await;
                show_rights(table, args, &need, rights);
            }
            // Kafka tells these rights to none but those who use them.
            Resource::TransactionalId(_) => table.bad(
                Outcome::Note,
                "rights on a transactional id",
                "not tried: that would end a run which uses it now",
                &format!(
                    "if the role is refused: {}",
                    grant(args, &need.resource, &need.operations)
                ),
            ),
        }
    }
}

async fn members(table: &mut Table, admin: &Admin, group: &str) {
    let what = format!("group {group}");
    match admin.group_members(group).await {
        Ok(members) => table.ok(&what, counted(members.names.len(), "member")),
        Err(error @ AdminError::Untold { .. }) => {
            table.row(Outcome::Note, &what, chain(&error), None);
        }
        Err(error) => {
            let remedy = "see whether the brokers are well, try again";
            table.bad(Outcome::Note, &what, chain(&error), remedy);
        }
    }
}

/// Resolves every bootstrap server, which librdkafka would only do one at a time.
async fn names(table: &mut Table, args: &KafkaArgs) {
    for server in args.brokers.split(',').map(str::trim) {
        match tokio::net::lookup_host(server).await {
            Ok(mut found) => match found.next() {
                Some(address) => table.ok("name", format!("{server} is {}", address.ip())),
                None => table.bad(
                    Outcome::Away,
                    "name",
                    format!("{server} has no address"),
                    "correct --brokers or the name server",
                ),
            },
            Err(error) => table.bad(
                Outcome::Away,
                "name",
                format!("{server}: {error}"),
                "correct --brokers, or /etc/resolv.conf and the name server",
            ),
        }
    }
}

/// Looks at a topic the role uses, and at what it may do there. `spec` is how it should be; how many
/// partitions there are is the owner's decision.
async fn topic(
    table: &mut Table,
    admin: &Admin,
    args: &KafkaArgs,
    need: &Need,
    mut spec: TopicSpec,
) {
    let what = need.resource.to_string();
    let makes = need.operations.contains(&Operation::Create);
    let (facts, rights) = match admin.topic_and_rights(&spec.name).await {
        Ok(Some(found)) => found,
        Ok(None) if makes => {
            table.ok(&what, "is not there yet");
            let tried = admin.may_create_topic(&spec).await;
            if let Err(error @ AdminError::NoController { .. }) = &tried {
                let remedy = "see whether the brokers are well, try again";
                return table.bad(Outcome::Away, &what, chain(error), remedy);
            }
            let rights = tried.map(|may| {
                let told = may.then_some(Operation::Create);
                Rights::Told(told.into_iter().collect())
            });
            return show_rights(table, args, &need.only(&[Operation::Create]), rights);
        }
        Ok(None) if need.operations.contains(&Operation::Delete) => {
            return table.ok(&what, "is not there");
        }
        Ok(None) => {
            let remedy = "run citystream init-tables";
            return table.bad(Outcome::Away, &what, "does not exist", remedy);
        }
        Err(AdminError::Describe(TopicError::Denied { .. })) => {
            // Whether it is there cannot be seen either.
            return show_rights(table, args, need, Ok(Rights::Denied));
        }
        Err(error) => {
            let outcome = match &error {
                AdminError::Describe(TopicError::Unreachable { .. }) => Outcome::Away,
                _ => Outcome::Wrong,
            };
            let remedy = "see what the brokers say";
            return table.bad(outcome, &what, chain(&error), remedy);
        }
    };
    spec.partitions = facts.partitions;
    let partitions = counted(facts.partitions, "partition");
    let found = format!("{partitions}, id {}", facts.id);
    match admin.topic_config(&spec.name).await {
        Ok(actual) => {
            let notes = differences(&spec, facts.partitions, &actual);
            if notes.is_empty() {
                table.ok(&what, found);
            } else {
                let remedy = "kafka-configs.sh --alter, unless it is meant to be so";
                table.bad(Outcome::Note, &what, notes.join("; "), remedy);
            }
        }
        Err(error @ AdminError::Untold { .. }) => {
            let found = format!("{found}; {}", chain(&error));
            table.row(Outcome::Note, &what, found, None);
        }
        Err(error) => table.bad(
            Outcome::Note,
            &what,
            format!("{found}; its settings cannot be read: {}", chain(&error)),
            &format!(
                "to have them checked: {}",
                grant(args, &need.resource, &[Operation::DescribeConfigs])
            ),
        ),
    }
    // What is there need not be made.
    let others = need.operations.iter().copied();
    let others: Vec<Operation> = others.filter(|o| *o != Operation::Create).collect();
    let need = need.only(&others);
    show_rights(table, args, &need, Ok(rights));
}

/// Returns `1 partition` or `6 partitions`.
fn counted(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(0) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Compares what the role needs with what it has.
fn show_rights(
    table: &mut Table,
    args: &KafkaArgs,
    need: &Need,
    rights: Result<Rights, AdminError>,
) {
    let what = format!("rights on {}", need.resource);
    let rights = rights.unwrap_or_else(|error| Rights::Unknown {
        reason: chain(&error),
    });
    let names = |operations: &[Operation]| {
        let names: Vec<&str> = operations.iter().map(|o| o.name()).collect();
        names.join(", ")
    };
    match (need.missing(&rights), rights) {
        (Some(missing), _) if missing.is_empty() => {
            table.ok(&what, names(&need.operations));
        }
        (Some(missing), rights) => {
            let seen = match rights {
                Rights::Denied => ", and may not see it either",
                _ => "",
            };
            table.bad(
                Outcome::Wrong,
                &what,
                format!("lacks {}{seen}", names(&missing)),
                &grant(args, &need.resource, &missing),
            );
        }
        (None, Rights::Untold) => {
            let found = "these brokers do not tell rights";
            table.row(Outcome::Note, &what, found, None);
        }
        (None, Rights::Unknown { reason }) => table.bad(
            Outcome::Note,
            &what,
            format!("no answer from the brokers: {reason}"),
            &format!(
                "if the role is refused: {}",
                grant(args, &need.resource, &need.operations)
            ),
        ),
        (None, _) => {}
    }
}
