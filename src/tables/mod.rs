//! `citystream init-tables`: makes, checks or deletes the tables and topics.
//!
//! Everything is looked at before anything is changed, so a table with other keys, a frozen value
//! that differs or a Kafka that is away leaves all as it was. Running it again changes nothing: what
//! is there is kept, and where it differs from the contract but works, that is told.
//!
//! | finding | make | `--check` |
//! |---|---|---|
//! | something is missing | made | exit 1 |
//! | a frozen value, a table's keys or index differ; fewer shards; the tables of another topic | exit 2 | exit 1 |
//! | a table or the config item is missing while a table holds data | exit 2 | exit 1 |
//! | a topic has other partitions or settings | kept, told, exit 0 | exit 1 |
//! | DynamoDB or Kafka do not answer within 30 s | exit 1 | exit 1 |
//!
//! `--delete` asks for the prefix before it takes anything away, and takes nothing where a table is
//! protected against it or is not one that this program makes.
//!
//! The plan and progress go to standard error, the summary to standard output.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TableStatus;

use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::kafka::admin::{Admin, AdminError};
use crate::settings::InitTables;
use crate::store::client::describe_target;
use crate::store::config;
use crate::store::error::{Kind, StoreError};
use crate::store::tables as store_tables;
use crate::telemetry;

pub(crate) mod confirm;
pub mod dynamodb;
pub mod explain;
pub(crate) mod plan;
pub mod steps;
pub mod topics;

use dynamodb::Wanted;
use steps::{Finding, Outcome, Steps};

/// How long DynamoDB and Kafka are waited for.
const REACH_LIMIT: Duration = Duration::from_secs(30);
/// Least time between two lines about waiting.
const REACH_LINE_EVERY: Duration = Duration::from_secs(10);
/// How long a killed member stays in its group: the `session.timeout.ms` that `consume` sets.
const SESSION_MS: u64 = 10_000;
/// The same where members use the newer group protocol: the default of the brokers'
/// `group.consumer.session.timeout.ms`.
const SESSION_MS_NEWER: u64 = 45_000;
/// Time that the brokers may take to notice the end of a session.
const SESSION_GRACE_MS: u64 = 2_000;
/// How long a table may take to be deleted; AWS takes seconds to minutes.
const DELETE_LIMIT: Duration = Duration::from_secs(300);

/// Returns `error` as a [`SettingsError`] if only a person can mend it.
pub fn mark_settings(error: StoreError) -> anyhow::Error {
    match error.kind() {
        Kind::Settings => match error {
            StoreError::Different { .. } => {
                let todo = "other tables need another --table-prefix";
                SettingsError(format!("{error}; {todo}")).into()
            }
            error => SettingsError(error.to_string()).into(),
        },
        Kind::Transient
        | Kind::Throttled
        | Kind::Unknown
        | Kind::NotFound
        | Kind::Conflict
        | Kind::Invalid
        | Kind::Denied
        | Kind::Corrupt => error.into(),
    }
}

/// Makes what is missing, or with `--check` compares what is there.
pub(crate) async fn make_or_check(
    args: &InitTables,
    client: &Client,
    admin: &Admin,
    steps: &Steps,
) -> anyhow::Result<Vec<Finding>> {
    let names = TableNames::new(&args.tables.table_prefix);
    reach_dynamodb(client, &names, steps).await?;
    let brokers = reach_kafka(args, admin, steps).await?;
    let topic_specs = topics::specs(args, brokers);
    let wanted = Wanted::from_args(args);
    if args.check {
        let mut findings = dynamodb::check(client, &names, &wanted).await?;
        let (more, facts) = topics::check(admin, &topic_specs).await?;
        findings.extend(more);
        if let Ok(Some(config)) = config::read_config(client, &names).await
            && let Some(facts) = facts
            && config.topic_id.as_deref() != Some(facts.id.as_str())
        {
            let note = format!("the config item does not name the topic's id {}", facts.id);
            findings.push(Finding::with_notes(
                Outcome::Differs,
                format!("topic id of {}", args.kafka.topic),
                vec![note],
            ));
        }
        return Ok(findings);
    }
    // Both looks come before the first change.
    let state = dynamodb::inspect(client, &names).await?;
    dynamodb::refuse(client, &names, &state, &wanted).await?;
    let found = topics::inspect(admin, &topic_specs).await?;
    topics::refuse(admin, &topic_specs, &found).await?;
    let lacks = dynamodb::check(client, &names, &wanted).await?;
    plan::tell(&lacks, &topics::lacks(&topic_specs, &found));
    let mut findings = dynamodb::make(client, &names, state, &wanted, steps).await?;
    let (more, facts) = topics::make(admin, &topic_specs, found, steps).await?;
    findings.extend(more);
    config::set_topic(client, &names, &args.kafka.topic, facts.id.as_str())
        .await
        .map_err(mark_settings)?;
    Ok(findings)
}

/// Deletes the tables and topics.
pub(crate) async fn delete(
    args: &InitTables,
    client: &Client,
    admin: &Admin,
    steps: &Steps,
) -> anyhow::Result<Vec<Finding>> {
    let names = TableNames::new(&args.tables.table_prefix);
    reach_dynamodb(client, &names, steps).await?;
    reach_kafka(args, admin, steps).await?;
    let members = members_left(args, admin, steps).await?;
    if !members.is_empty() {
        anyhow::bail!(
            "nothing was deleted: group {} still has members: {}; stop them first, or name the group of \
             these tables (--group)",
            args.group,
            members.join(", ")
        );
    }
    // A damaged item does not keep anybody from deleting it.
    if let Ok(Some(config)) = config::read_config(client, &names).await
        && let Some(topic) = config.topic.filter(|topic| *topic != args.kafka.topic)
    {
        return Err(SettingsError(format!(
            "nothing was deleted: the tables of prefix {} count topic {topic}, not {}; \
             give --topic {topic}",
            args.tables.table_prefix, args.kafka.topic
        ))
        .into());
    }
    refuse_kept(client, &names).await?;
    let topics = [args.kafka.topic.clone(), args.kafka.dlq_topic()];
    if !args.yes {
        confirm::ask(&args.tables.table_prefix, &names, &topics).await?;
    }
    let mut findings = Vec::new();
    // Topics come last: while a table stays, so does the log that it can be counted from again.
    for name in names.all() {
        let step = steps.begin(format!("deleting table {name}"));
        let deleted = store_tables::delete(client, name, DELETE_LIMIT).await?;
        let outcome = if deleted {
            Outcome::Deleted
        } else {
            Outcome::Absent
        };
        step.end(outcome);
        findings.push(Finding::new(outcome, format!("table {name}")));
    }
    for name in topics {
        findings.push(topics::delete(admin, &name, steps).await?);
    }
    Ok(findings)
}

/// Waits until DynamoDB answers.
async fn reach_dynamodb(client: &Client, names: &TableNames, steps: &Steps) -> anyhow::Result<()> {
    let target = describe_target(client);
    let step = steps.begin(format!("reaching {target}"));
    let begin = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        match store_tables::describe(client, &names.totals).await {
            Ok(_) => break,
            Err(error) => {
                let hopeless = !error.kind().is_retryable() || error.kind() == Kind::Denied;
                if hopeless || begin.elapsed() >= REACH_LIMIT {
                    return Err(mark_settings(error))
                        .with_context(|| format!("failed to use {target}"));
                }
                if told.is_none_or(|told| told.elapsed() >= REACH_LINE_EVERY) {
                    tracing::warn!(%error, target, "waiting for dynamodb");
                    told = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    step.end(Outcome::Kept);
    Ok(())
}

/// Waits until Kafka answers; returns the number of brokers.
async fn reach_kafka(args: &InitTables, admin: &Admin, steps: &Steps) -> anyhow::Result<usize> {
    let step = steps.begin(format!("reaching Kafka at {}", args.kafka.brokers));
    let brokers = admin.broker_count(REACH_LIMIT).await;
    if let Err(AdminError::Refused(refusal)) = brokers {
        return Err(SettingsError(refusal.to_string()).into());
    }
    let brokers = brokers.with_context(|| {
        format!(
            "no Kafka at {} (--brokers) within {} s",
            args.kafka.brokers,
            REACH_LIMIT.as_secs()
        )
    })?;
    step.end(Outcome::Kept);
    Ok(brokers)
}

/// Waits for members of the group that have ended without leaving it, and returns those that stay.
async fn members_left(
    args: &InitTables,
    admin: &Admin,
    steps: &Steps,
) -> anyhow::Result<Vec<String>> {
    let group = &args.group;
    let mut members = match admin.group_members(group).await {
        Err(error @ AdminError::Untold { .. }) => anyhow::bail!(
            "nothing was deleted: {error}; if they are those of citystream dev, stop that: it forgets everything then, \
             unless it has a --data-dir"
        ),
        answer => answer?,
    };
    if members.names.is_empty() {
        return Ok(members.names);
    }
    let limit = leave_limit(&args.kafka.kafka_properties, members.is_newer);
    telemetry::print_stderr(&format!(
        "group {group} has members: {}; waiting up to {} s, because a killed member stays listed until its session is over",
        members.names.join(", "),
        limit.as_secs()
    ));
    let step = steps.begin(format!("waiting for the members of group {group} to leave"));
    let begin = Instant::now();
    while !members.names.is_empty() && begin.elapsed() < limit {
        tokio::time::sleep(Duration::from_secs(1)).await;
        members = admin.group_members(group).await?;
    }
    if members.names.is_empty() {
        step.end(Outcome::Kept);
    }
    Ok(members.names)
}

/// Returns how long a killed member may stay in its group. The session of a member is its own
/// setting; one that differs from the default of `consume` is known only if it is given here as well.
fn leave_limit(properties: &[(String, String)], is_newer: bool) -> Duration {
    let given = properties
        .iter()
        .rfind(|(name, _)| name == "session.timeout.ms");
    let given = given.and_then(|(_, value)| value.parse::<u64>().ok());
    let session_ms = match given {
        _ if is_newer => SESSION_MS_NEWER,
        Some(ms) => ms,
        None => SESSION_MS,
    };
    Duration::from_millis(session_ms + SESSION_GRACE_MS)
}

/// Returns an error if a table may not be deleted, before anything is gone: protected ones, and those of
/// another program, such as the system that this one replaces.
async fn refuse_kept(client: &Client, names: &TableNames) -> anyhow::Result<()> {
    let mut protected = Vec::new();
    for spec in store_tables::specs(names) {
        let Some(found) = store_tables::describe(client, &spec.name).await? else {
            continue;
        };
        let differences = store_tables::differences(&spec, &found);
        if found.table_status() == Some(&TableStatus::Active) && !differences.is_empty() {
            return Err(SettingsError(format!(
                "nothing was deleted: table {} is not one of citystream's: {}; name your tables by \
                 --table-prefix, or delete this one by aws dynamodb delete-table",
                spec.name,
                differences.join(", ")
            ))
            .into());
        }
        if found.deletion_protection_enabled() == Some(true) {
            protected.push(spec.name);
        }
    }
    match protected.first() {
        None => Ok(()),
        Some(first) => Err(SettingsError(format!(
            "nothing was deleted: deletion protection is on for {}; switch it off one by one: aws \
             dynamodb update-table --no-deletion-protection-enabled --table-name {first}",
            protected.join(", ")
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_member_is_waited_for_as_long_as_its_session_may_last() {
        let given = |ms: &str| vec![("session.timeout.ms".to_owned(), ms.to_owned())];
        for (properties, is_newer, seconds) in [
            (Vec::new(), false, 12),
            (given("30000"), false, 32),
            (given("30000"), true, 47),
            (Vec::new(), true, 47),
        ] {
            let limit = leave_limit(&properties, is_newer);
            assert_eq!(limit.as_secs(), seconds, "{properties:?} {is_newer}");
        }
    }
}
