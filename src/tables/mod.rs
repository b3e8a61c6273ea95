//! `citystream init-tables`: creates, checks or deletes the tables and topics.
//!
//! The command inspects all tables and topics before it changes anything. `init-tables` changes nothing if a table has
//! unexpected keys, if a frozen setting has a different value, or if Kafka does not answer. A frozen setting, such as
//! the window length, cannot change after the tables are created. A second run with the same settings changes nothing,
//! and only reports existing topics that differ from the settings.
//!
//! | finding | create | `--check` |
//! |---|---|---|
//! | a table, a topic or the config item is missing | created | exit 1 |
//! | a frozen setting, a table's keys or its index differ; fewer shards; tables of another topic | exit 2 | exit 1 |
//! | a table or the config item is missing while a table holds data | exit 2 | exit 1 |
//! | a topic's partitions or settings differ | kept, reported, exit 0 | exit 1 |
//! | DynamoDB or Kafka do not answer within 30 s | exit 1 | exit 1 |
//!
//! With `--delete`, the operator must type the table prefix before the command deletes anything. The command deletes
//! nothing if a table has deletion protection or belongs to another program.
//!
//! The command prints its plan and its progress to standard error, and its findings to standard output.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TableStatus;

use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::failure::Failure;
use crate::kafka::admin::{Admin, AdminError};
use crate::settings::InitTables;
use crate::store::client::describe_target;
use crate::store::config;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::tables::{self as store_tables, TableSpec};
use crate::telemetry::{self, LogLimit};

pub(crate) mod confirm;
pub mod dynamodb;
pub mod explain;
pub(crate) mod plan;
pub(crate) mod rollups;
pub mod steps;
pub mod topics;

use dynamodb::WantedTables;
use steps::{Finding, FindingOutcome, StepDisplay};

/// Maximum wait for the first response from DynamoDB, and also for the first response from Kafka.
const REACH_LIMIT: Duration = Duration::from_secs(30);
/// Minimum time between two log lines about the same wait.
const REACH_LINE_EVERY: Duration = Duration::from_secs(10);
/// The default of `session.timeout.ms` in `citystream consume`, in milliseconds. A killed consumer stays in its group
/// until its session times out.
const SESSION_MS: u64 = 10_000;
/// The default of the broker setting `group.consumer.session.timeout.ms`, in milliseconds. With Kafka's newer group
/// protocol, a killed consumer stays in its group until this timeout has passed.
const SESSION_MS_NEWER: u64 = 45_000;
/// Maximum time that the brokers need to notice that the session of a group member has ended, in milliseconds.
const SESSION_GRACE_MS: u64 = 2_000;
/// Maximum time to wait for the deletion of a table. AWS deletes a table within seconds or minutes.
const DELETE_LIMIT: Duration = Duration::from_secs(300);

/// Converts an error to a [`SettingsError`] if a restart of the program cannot solve the problem.
pub fn mark_settings(error: StoreError) -> anyhow::Error {
    match error.kind() {
        StoreErrorKind::Settings => match error {
            StoreError::Settings(failure) => SettingsError(failure).into(),
            error => SettingsError::new(error.to_string())
                .with_remedy("use another --table-prefix for other tables")
                .into(),
        },
        StoreErrorKind::Transient
        | StoreErrorKind::Throttled
        | StoreErrorKind::Unknown
        | StoreErrorKind::NotFound
        | StoreErrorKind::Conflict
        | StoreErrorKind::Invalid
        | StoreErrorKind::Denied
        | StoreErrorKind::Corrupt => error.into(),
    }
}

/// Creates missing tables and topics. With `--check`, the function only compares existing tables and topics with the
/// settings.
pub(crate) async fn make_or_check(
    args: &InitTables,
    client: &Client,
    admin: &Admin,
    steps: &StepDisplay,
) -> anyhow::Result<Vec<Finding>> {
    let names = TableNames::new(&args.tables.table_prefix);
    reach_dynamodb(client, &names, steps).await?;
    let brokers = reach_kafka(args, admin, steps).await?;
    let topic_specs = topics::specs(args, brokers);
    let wanted = WantedTables::from_args(args);
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
                FindingOutcome::Differs,
                format!("topic id of {}", args.kafka.topic),
                vec![note],
            ));
        }
        return Ok(findings);
    }
    // Both the tables and the topics are inspected before the first change.
    let state = dynamodb::inspect(client, &names, &wanted).await?;
    dynamodb::refuse(client, &names, &state, &wanted).await?;
    // The config item was read before the topic's id is read from Kafka, as `set_topic` requires.
    let known_id = state.config.as_ref().and_then(|c| c.topic_id.clone());
    let found = topics::inspect(admin, &topic_specs).await?;
    topics::refuse(admin, &topic_specs, &found).await?;
    let lacks = dynamodb::check(client, &names, &wanted).await?;
    plan::print_plan(&lacks, &topics::missing(&topic_specs, &found));
    let mut findings = dynamodb::make(client, &names, state, &wanted, steps).await?;
    let (more, facts) = topics::make(admin, &topic_specs, found, steps).await?;
    findings.extend(more);
    let (topic, id) = (&args.kafka.topic, facts.id.as_str());
    config::set_topic(client, &names, topic, id, known_id.as_deref())
        .await
        .map_err(mark_settings)?;
    Ok(findings)
}

/// Deletes the tables and topics.
pub(crate) async fn delete(
    args: &InitTables,
    client: &Client,
    admin: &Admin,
    steps: &StepDisplay,
) -> anyhow::Result<Vec<Finding>> {
    let names = TableNames::new(&args.tables.table_prefix);
    reach_dynamodb(client, &names, steps).await?;
    reach_kafka(args, admin, steps).await?;
    let members = members_left(args, admin, steps).await?;
    if !members.is_empty() {
        let why = format!(
            "group {} still has members: {}",
            args.group,
            members.join(", ")
        );
        anyhow::bail!(
            Failure::new("nothing was deleted")
                .with_why(why)
                .with_remedy("stop them first, or name the group of these tables (--group)")
        );
    }
    // A damaged config item must not prevent the deletion of the tables.
    if let Ok(Some(config)) = config::read_config(client, &names).await
        && let Some(topic) = config.topic.filter(|topic| *topic != args.kafka.topic)
    {
        let why = format!(
            "the tables of prefix {} count topic {topic}, not {}",
            args.tables.table_prefix, args.kafka.topic
        );
        return Err(SettingsError::new("nothing was deleted")
            .with_why(why)
            .with_remedy(format!("give --topic {topic}"))
            .into());
    }
    let tables = deletable(client, &names).await?;
    refuse_kept(client, &tables).await?;
    let topics = [args.kafka.topic.clone(), args.kafka.dlq_topic()];
    if !args.yes {
        confirm::ask(&args.tables.table_prefix, &tables, &topics).await?;
    }
    let mut findings = Vec::new();
    // The topics are deleted last. If the command fails midway, the remaining tables can still be rebuilt from the
    // topics.
    for TableSpec { name, .. } in tables {
        let step = steps.begin(format!("deleting table {name}"));
        let deleted = store_tables::delete(client, &name, DELETE_LIMIT).await?;
        let outcome = if deleted {
            FindingOutcome::Deleted
        } else {
            FindingOutcome::Absent
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
async fn reach_dynamodb(
    client: &Client,
    names: &TableNames,
    steps: &StepDisplay,
) -> anyhow::Result<()> {
    let target = describe_target(client);
    let step = steps.begin(format!("reaching {target}"));
    step.announce_wait(REACH_LIMIT, try_dynamodb(client, names, &target))
        .await?;
    step.end(FindingOutcome::Kept);
    Ok(())
}

/// Requests the description of a table until DynamoDB answers or the time limit is reached. The function stops at the
/// first permanent error, because a repeated request would fail as well.
async fn try_dynamodb(client: &Client, names: &TableNames, target: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    let log_limit = LogLimit::every(REACH_LINE_EVERY);
    loop {
        match store_tables::describe_table(client, &names.totals).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let is_final =
                    !error.kind().is_retryable() || error.kind() == StoreErrorKind::Denied;
                if is_final || begin.elapsed() >= REACH_LIMIT {
                    return Err(mark_settings(error))
                        .with_context(|| format!("failed to use {target}"));
                }
                if log_limit.allows() {
                    tracing::warn!(%error, target, "waiting for DynamoDB");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Waits until Kafka answers. Returns the number of brokers.
async fn reach_kafka(
    args: &InitTables,
    admin: &Admin,
    steps: &StepDisplay,
) -> anyhow::Result<usize> {
    let step = steps.begin(format!("reaching Kafka at {}", args.kafka.brokers));
    let count = admin.broker_count(REACH_LIMIT);
    let brokers = step.announce_wait(REACH_LIMIT, count).await;
    if let Err(AdminError::Refused(refusal)) = brokers {
        return Err(SettingsError((&refusal).into()).into());
    }
    let brokers = brokers.with_context(|| {
        format!(
            "no Kafka at {} (--brokers) within {} s",
            args.kafka.brokers,
            REACH_LIMIT.as_secs()
        )
    })?;
    step.end(FindingOutcome::Kept);
    Ok(brokers)
}

/// Waits until the sessions of killed group members have ended. Returns the members that are still in the group after
/// the wait.
async fn members_left(
    args: &InitTables,
    admin: &Admin,
    steps: &StepDisplay,
) -> anyhow::Result<Vec<String>> {
    let group = &args.group;
    let mut members = match admin.group_members(group).await {
        Err(error @ AdminError::Unsupported { .. }) => anyhow::bail!(
            Failure::new("nothing was deleted")
                .with_why(error.to_string())
                .with_remedy(
                    "if they are those of citystream dev, stop that: it forgets everything then, \
                     unless it has a --data-dir"
                )
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
        step.end(FindingOutcome::Kept);
    }
    Ok(members.names)
}

/// Returns the maximum time for which a killed member stays in its group. Each member chooses its own session timeout.
/// If `consume` runs with its own `session.timeout.ms`, the operator must pass the same value to `init-tables`.
///
/// A member that was killed while joining the group may stay in the group for two session timeouts. The session of a
/// joining member begins only after the rebalance. The rebalance may wait until the session of another killed member
/// has ended. With the newer group protocol, the sessions of different members are independent of each other.
fn leave_limit(properties: &[(String, String)], is_newer: bool) -> Duration {
    let given = properties
        .iter()
        .rfind(|(name, _)| name == "session.timeout.ms");
    let given = given.and_then(|(_, value)| value.parse::<u64>().ok());
    let listed_ms = match given {
        _ if is_newer => SESSION_MS_NEWER,
        Some(ms) => 2 * ms,
        None => 2 * SESSION_MS,
    };
    Duration::from_millis(listed_ms + SESSION_GRACE_MS)
}

/// Returns the definitions of the tables that `--delete` deletes: the four tables, and the incident table if there is
/// one.
async fn deletable(client: &Client, names: &TableNames) -> Result<Vec<TableSpec>, StoreError> {
    let incidents = match store_tables::describe_table(client, &names.incidents).await {
        Ok(found) => found.map(|_| store_tables::incidents_spec(names)),
        // If the IAM policy does not allow access to the table of incidents, the installation does not use incidents.
        Err(error) if error.kind() == StoreErrorKind::Denied => None,
        Err(error) => return Err(error),
    };
    let specs = store_tables::specs(names);
    Ok(specs.into_iter().chain(incidents).collect())
}

/// Returns an error if a table has deletion protection or belongs to another program, such as the system that
/// citystream replaces. The caller must call this function before it deletes a table.
async fn refuse_kept(client: &Client, tables: &[TableSpec]) -> anyhow::Result<()> {
    let mut protected = Vec::new();
    for spec in tables {
        let Some(found) = store_tables::describe_table(client, &spec.name).await? else {
            continue;
        };
        let differences = store_tables::differences(spec, &found);
        if found.table_status() == Some(&TableStatus::Active) && !differences.is_empty() {
            let why = format!(
                "table {} is not one of citystream's: {}",
                spec.name,
                differences.join(", ")
            );
            return Err(SettingsError::new("nothing was deleted")
                .with_why(why)
                .with_remedy(
                    "name your tables by --table-prefix, or delete this one by aws dynamodb \
                     delete-table",
                )
                .into());
        }
        if found.deletion_protection_enabled() == Some(true) {
            protected.push(spec.name.as_str());
        }
    }
    match protected.first() {
        None => Ok(()),
        Some(first) => Err(SettingsError::new("nothing was deleted")
            .with_why(format!(
                "deletion protection is on for {}",
                protected.join(", ")
            ))
            .with_remedy(format!(
                "switch it off one by one: aws dynamodb update-table \
                 --no-deletion-protection-enabled --table-name {first}"
            ))
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_tables_waits_for_a_killed_member_as_long_as_its_session_may_last() {
        let given = |ms: &str| vec![("session.timeout.ms".to_owned(), ms.to_owned())];
        for (properties, is_newer, seconds) in [
            (Vec::new(), false, 22),
            (given("30000"), false, 62),
            (given("30000"), true, 47),
            (Vec::new(), true, 47),
        ] {
            let limit = leave_limit(&properties, is_newer);
            assert_eq!(limit.as_secs(), seconds, "{properties:?} {is_newer}");
        }
    }

    #[cfg(feature = "dev")]
    #[tokio::test]
    async fn an_incident_table_of_another_program_prevents_every_deletion() {
        let db = dynoxide::Database::memory().unwrap();
        let client = crate::store::embedded::client(db).await.unwrap();
        let names = TableNames::new("citystream");
        let four = store_tables::specs(&names);
        for spec in &four {
            store_tables::create(&client, spec).await.unwrap();
        }
        let tables = deletable(&client, &names).await.unwrap();
        assert_eq!(tables, four);
        refuse_kept(&client, &tables).await.unwrap();
        let foreign = TableSpec {
            name: names.incidents.clone(),
            ..four[1].clone()
        };
        store_tables::create(&client, &foreign).await.unwrap();
        let tables = deletable(&client, &names).await.unwrap();
        assert_eq!(tables[4], store_tables::incidents_spec(&names));
        let error = refuse_kept(&client, &tables).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("citystream-incidents is not one of citystream's"),
            "{text}"
        );
    }
}
