//! What a role needs of Kafka: names, connections, login, rights, topics as the contract wants them.

use std::time::Duration;

use super::{Outcome, Table};
use crate::cmd::init_tables::steps::chain;
use crate::kafka::admin::{Admin, AdminError, TopicSpec, differences};
use crate::settings::KafkaArgs;

/// Longest wait for brokers that do not answer.
const REACH_LIMIT: Duration = Duration::from_secs(10);

/// What the role does with Kafka.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use<'a> {
    /// Sends events.
    Produce,
    /// Reads them in this group.
    Consume(&'a str),
    /// Makes topics.
    Make,
}

pub(super) async fn check(table: &mut Table, args: &KafkaArgs, usage: Use<'_>) {
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
    let events = TopicSpec::events(&args.topic, 0, 1);
    topic(table, &admin, events, matches!(usage, Use::Make)).await;
    if !matches!(usage, Use::Produce) {
        let letters = TopicSpec::dead_letters(&args.dlq_topic(), 1);
        topic(table, &admin, letters, matches!(usage, Use::Make)).await;
    }
    if let Use::Consume(group) = usage {
        let what = format!("group {group}");
        match admin.group_members(group).await {
            Ok(members) => table.ok(&what, format!("{} members", members.len())),
            Err(error) => {
                let text = chain(&error);
                // Whoever may not describe a group may not join it; other troubles say nothing of it.
                let denied = text.contains("uthorization");
                let outcome = if denied {
                    Outcome::Wrong
                } else {
                    Outcome::Note
                };
                let remedy = format!("allow READ and DESCRIBE on group {group}");
                table.bad(outcome, &what, text, &remedy);
            }
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

async fn topic(table: &mut Table, admin: &Admin, mut spec: TopicSpec, makes: bool) {
    let what = format!("topic {}", spec.name);
    let facts = match admin.topic(&spec.name).await {
        Ok(Some(facts)) => facts,
        Ok(None) if makes => return table.ok(&what, "is not there yet"),
        Ok(None) => {
            let remedy = "run citystream init-tables";
            return table.bad(Outcome::Away, &what, "does not exist", remedy);
        }
        Err(error) => {
            let outcome = match &error {
                AdminError::Describe(crate::sys::TopicError::Unreachable { .. }) => Outcome::Away,
                _ => Outcome::Wrong,
            };
            let remedy = format!("allow DESCRIBE on topic {}", spec.name);
            return table.bad(outcome, &what, chain(&error), &remedy);
        }
    };
    // How many partitions there are is the owner's decision.
    spec.partitions = facts.partitions;
    let found = format!("{} partitions, id {}", facts.partitions, facts.id);
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
        Err(error) => table.bad(
            Outcome::Note,
            &what,
            format!("{found}; its settings cannot be read: {}", chain(&error)),
            &format!(
                "allow DESCRIBE_CONFIGS on topic {} to have them checked",
                spec.name
            ),
        ),
    }
}
