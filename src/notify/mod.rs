//! The role `notify`: finds incidents in the log and sends messages about them to receivers.
//!
//! - [`config`]: reads the rules file, which contains rules and receivers
//! - `role`: the main loop, which evaluates records, writes rows and publishes checkpoints
//! - `partitions`: the rows and checkpoints of the assigned partitions
//! - `start`: finds the offset from which a partition continues
//! - `deliveries`: decides when each message is sent
//! - `waiting`: waits for the tables and the topic at the start
//! - `done`: the results that tasks report to the main loop
//! - [`send`]: sends a request and interprets its response
//! - [`receiver`]: turns a message into an HTTP request
//! - [`silences`]: suppresses messages about certain incidents for a limited time
//! - [`secret`]: reads files with URLs, tokens and keys
//! - [`dry_run`], [`test_message`]: print messages without sending them, and send a test message

pub mod config;
mod deliveries;
pub(crate) mod dry_run;
#[cfg(test)]
mod fixture;
mod partitions;
pub mod receiver;
mod role;
pub mod secret;
pub mod send;
pub(crate) mod silences;
mod start;
pub mod status;
mod task_result;
pub(crate) mod test_message;
mod waiting;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use rdkafka::ClientConfig;

use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::kafka::client::{client_config, configure_member, set_default};
use crate::settings::Notify;
use crate::shutdown::Shutdown;
use crate::store::incidents::IncidentTable;
use crate::telemetry::Metrics;
use config::NotifyConfig;
use role::{NotifyRole, RoleOptions};
use send::Receiver;
use start::FirstStart;
use status::NotifyStatus;
use waiting::wait_for_tables;

/// Runs the role until `shutdown` is triggered or the role cannot continue.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run_with(
    args: &Notify,
    config: NotifyConfig,
    client: Client,
    metrics: Metrics,
    status: Arc<NotifyStatus>,
    shutdown: Shutdown,
) -> anyhow::Result<Exit> {
    let (kafka, from) = (consumer_config(args)?, FirstStart::parse(args.from)?);
    let mut receivers = Vec::new();
    for receiver in config.receivers {
        receivers.push(Receiver::new(receiver).await.map_err(SettingsError)?);
    }
    let names = TableNames::new(&args.tables.table_prefix);
    let tables = tokio::select! {
        () = shutdown.wait() => return Ok(Exit::Done),
        tables = wait_for_tables(&client, &names, &args.kafka.topic, &status) => tables?,
    };
    let role = NotifyRole::start(RoleOptions {
        rules: config.rules,
        receivers,
        kafka,
        topic: args.kafka.topic.clone(),
        group: args.notify_group.clone(),
        table: IncidentTable::new(client, &names.incidents).with_metrics(metrics.clone()),
        times: tables.rules,
        from,
        link: args.link.clone(),
        metrics,
        status,
    })?;
    role.run(shutdown).await
}

/// Checks the settings that the command-line parser does not check.
///
/// # Errors
/// Returns an error that says which setting is wrong.
pub(crate) fn check_settings(args: &Notify) -> anyhow::Result<()> {
    consumer_config(args)?;
    FirstStart::parse(args.from)?;
    Ok(())
}

/// Returns the librdkafka settings for a member of the consumer group.
///
/// # Errors
/// Returns an error if librdkafka refuses the settings.
fn consumer_config(args: &Notify) -> anyhow::Result<ClientConfig> {
    let mut config = client_config(&args.kafka, "notify")?;
    let defaults = [
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "5"),
        ("queued.max.messages.kbytes", "8192"),
        ("fetch.message.max.bytes", "262144"),
        ("topic.metadata.refresh.interval.ms", "5000"),
        ("session.timeout.ms", "10000"),
        ("heartbeat.interval.ms", "3000"),
    ];
    for (name, value) in defaults {
        set_default(&mut config, &args.kafka, name, value);
    }
    config.set("partition.assignment.strategy", "cooperative-sticky");
    configure_member(&mut config, &args.notify_group);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    #[test]
    fn a_role_that_sends_messages_starts_at_an_end_of_the_log() {
        let check = |from: &str| {
            let cli = Cli::try_parse_from(["citystream", "notify", "--from", from]).expect(from);
            match cli.command {
                Command::Notify(args) => check_settings(&args),
                other => panic!("{other:?}"),
            }
        };
        for from in ["end", "beginning"] {
            check(from).expect(from);
        }
        for from in ["-1h", "2013-01-01"] {
            let error = check(from).expect_err(from);
            assert_eq!(Exit::of(&error), Exit::Settings);
            let text = error.to_string();
            assert!(
                text.starts_with("--from takes end or beginning without --dry-run"),
                "{text}"
            );
        }
    }
}
