//! Tests Kafka for `citystream check`: host names, connections, the login, rights, and topic settings.

use std::time::Duration;

use super::{CheckOutcome, CheckTable};
use crate::failure::chain;
use crate::kafka::admin::{Admin, AdminError};
use crate::kafka::rights::{KafkaUser, Need, Resource, grant, needs};
use crate::kafka::topic_spec::{TopicSpec, differences};
use crate::settings::{KafkaArgs, KafkaAuth};
use crate::sys::{Operation, Rights, TopicError};

/// Maximum wait for an answer from a broker.
const REACH_LIMIT: Duration = Duration::from_secs(10);
const BROKERS_REMEDY: &str = "check the state of the brokers, and try again";

pub(crate) async fn check(table: &mut CheckTable, args: &KafkaArgs, user: KafkaUser<'_>) {
    check_names(table, args).await;
    if args.kafka_auth == KafkaAuth::MskIam && user == KafkaUser::FromDlq {
        // Brokers do not report their version, so `check` cannot test whether the brokers support transactions with
        // IAM.
        let found = "MSK accepts them with msk-iam from Kafka 3.8 on";
        let remedy = "use a cluster with Kafka 3.8 or later";
        table.add_bad(CheckOutcome::Note, "transactions", found, remedy);
    }
    let admin = match Admin::new(args) {
        Ok(admin) => admin,
        Err(error) => {
            let remedy = "correct the option; citystream config shows where it comes from";
            return table.add_bad(CheckOutcome::Wrong, "Kafka client", chain(&error), remedy);
        }
    };
    match admin.broker_count(REACH_LIMIT).await {
        Ok(1) => table.add_ok("Kafka", format!("1 broker answers at {}", args.brokers)),
        Ok(n) => table.add_ok("Kafka", format!("{n} brokers answer at {}", args.brokers)),
        Err(error) => {
            let remedy = "start Kafka, or correct --brokers, --kafka-auth and its options, the security \
                          group or the firewall";
            return table.add_bad(CheckOutcome::Away, "Kafka", chain(&error), remedy);
        }
    }
    for need in needs(user, &args.topic, &args.dlq_topic()) {
        match &need.resource {
            Resource::Topic(name) if *name == args.topic => {
                let spec = TopicSpec::events(name, 1, 1);
                check_topic(table, &admin, args, &need, spec).await;
            }
            Resource::Topic(name) => {
                let spec = TopicSpec::dead_letters(name, 1);
                check_topic(table, &admin, args, &need, spec).await;
            }
            Resource::Group(name) => {
                if matches!(user, KafkaUser::Consume(_)) {
                    check_members(table, &admin, name).await;
                }
                let rights = admin.group_rights(name).await;
                add_rights(table, args, &need, rights);
            }
            // Kafka reports the rights on a transactional id only to a client that uses this id.
            Resource::TransactionalId(_) => table.add_bad(
                CheckOutcome::Note,
                "rights on a transactional id",
                "not tested, because the test would end a run that uses the id now",
                &format!(
                    "if Kafka refuses the role: {}",
                    grant(args, &need.resource, &need.operations)
                ),
            ),
        }
    }
}

async fn check_members(table: &mut CheckTable, admin: &Admin, group: &str) {
    let what = format!("group {group}");
    match admin.group_members(group).await {
        Ok(members) => table.add_ok(&what, counted(members.names.len(), "member")),
        Err(error @ AdminError::Unsupported { .. }) => {
            table.add(CheckOutcome::Note, &what, chain(&error), None);
        }
        Err(error) => {
            table.add_bad(CheckOutcome::Note, &what, chain(&error), BROKERS_REMEDY);
        }
    }
}

/// Resolves the host name of every bootstrap server. librdkafka itself resolves the name of a server only when it
/// connects to that server, so `check` resolves all names.
async fn check_names(table: &mut CheckTable, args: &KafkaArgs) {
    for server in args.brokers.split(',').map(str::trim) {
        match tokio::net::lookup_host(server).await {
            Ok(mut found) => match found.next() {
                Some(address) => table.add_ok("name", format!("{server} is {}", address.ip())),
                None => table.add_bad(
                    CheckOutcome::Away,
                    "name",
                    format!("{server} has no address"),
                    "correct --brokers or the name server",
                ),
            },
            Err(error) => table.add_bad(
                CheckOutcome::Away,
                "name",
                format!("{server}: {error}"),
                "correct --brokers, or /etc/resolv.conf and the name server",
            ),
        }
    }
}

/// Tests whether a topic has the expected settings, and whether the role has the rights that it needs on the topic.
///
/// `spec` contains the expected settings of the topic. The function takes the number of partitions from the existing
/// topic, because the operator chooses the number of partitions.
async fn check_topic(
    table: &mut CheckTable,
    admin: &Admin,
    args: &KafkaArgs,
    need: &Need,
    mut spec: TopicSpec,
) {
    let what = need.resource.to_string();
    let (facts, rights) = match admin.topic_and_rights(&spec.name).await {
        Ok(Some(found)) => found,
        Ok(None) => return check_missing_topic(table, admin, args, need, &spec).await,
        Err(AdminError::Describe(TopicError::Denied { .. })) => {
            // Without the right to describe the topic, the client cannot find out whether the topic exists.
            return add_rights(table, args, need, Ok(Rights::Denied));
        }
        Err(error) => {
            let outcome = match &error {
                AdminError::Describe(TopicError::Unreachable { .. }) => CheckOutcome::Away,
                _ => CheckOutcome::Wrong,
            };
            let remedy = "fix the problem that the brokers report";
            return table.add_bad(outcome, &what, chain(&error), remedy);
        }
    };
    spec.partitions = facts.partitions;
    let partitions = counted(facts.partitions, "partition");
    let found = format!("{partitions}, id {}", facts.id);
    match admin.topic_config(&spec.name).await {
        Ok(actual) => {
            let notes = differences(&spec, facts.partitions, &actual);
            if notes.is_empty() {
                table.add_ok(&what, found);
            } else {
                let remedy = "correct it with kafka-configs.sh --alter, unless you intend it";
                table.add_bad(CheckOutcome::Note, &what, notes.join("; "), remedy);
            }
        }
        Err(error @ AdminError::Unsupported { .. }) => {
            let found = format!("{found}; {}", chain(&error));
            table.add(CheckOutcome::Note, &what, found, None);
        }
        Err(error) => table.add_bad(
            CheckOutcome::Note,
            &what,
            format!("{found}; failed to read its settings: {}", chain(&error)),
            &format!(
                "to have them tested: {}",
                grant(args, &need.resource, &[Operation::DescribeConfigs])
            ),
        ),
    }
    // The topic already exists, so the role does not need the right to create the topic.
    let others = need.operations.iter().copied();
    let others: Vec<Operation> = others.filter(|o| *o != Operation::Create).collect();
    let need = need.only(&others);
    add_rights(table, args, &need, Ok(rights));
}

/// Adds a row about a missing topic to the printed table. If the role would create the topic, the function also tests
/// the right to create the topic.
async fn check_missing_topic(
    table: &mut CheckTable,
    admin: &Admin,
    args: &KafkaArgs,
    need: &Need,
    spec: &TopicSpec,
) {
    let what = need.resource.to_string();
    if !need.operations.contains(&Operation::Create) {
        if need.operations.contains(&Operation::Delete) {
            return table.add_ok(&what, "does not exist");
        }
        let remedy = "run citystream init-tables";
        return table.add_bad(CheckOutcome::Away, &what, "does not exist", remedy);
    }
    table.add_ok(&what, "does not exist yet");
    let tried = admin.may_create_topic(spec).await;
    if let Err(error @ AdminError::NoController { .. }) = &tried {
        return table.add_bad(CheckOutcome::Away, &what, chain(error), BROKERS_REMEDY);
    }
    let rights = tried.map(|may_create| {
        let operations = may_create.then_some(Operation::Create);
        Rights::Listed(operations.into_iter().collect())
    });
    add_rights(table, args, &need.only(&[Operation::Create]), rights);
}

/// Returns a number together with its noun, such as `1 partition` or `6 partitions`.
fn counted(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(0) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Compares the rights that the role needs with the rights that the client has.
fn add_rights(
    table: &mut CheckTable,
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
            table.add_ok(&what, names(&need.operations));
        }
        (Some(missing), rights) => {
            let seen = match rights {
                Rights::Denied => ", and the right to describe it",
                _ => "",
            };
            table.add_bad(
                CheckOutcome::Wrong,
                &what,
                format!("lacks {}{seen}", names(&missing)),
                &grant(args, &need.resource, &missing),
            );
        }
        (None, Rights::Unsupported) => {
            let found = "these brokers do not report rights";
            table.add(CheckOutcome::Note, &what, found, None);
        }
        (None, Rights::Unknown { reason }) => table.add_bad(
            CheckOutcome::Note,
            &what,
            format!("no answer from the brokers: {reason}"),
            &format!(
                "if Kafka refuses the role: {}",
                grant(args, &need.resource, &need.operations)
            ),
        ),
        (None, _) => {}
    }
}
