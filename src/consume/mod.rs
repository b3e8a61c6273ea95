//! The pipeline from Kafka to DynamoDB.
//!
//! The consumer thread (`kafka::consumer`) tells what happens, the pipeline
//! (`core::pipeline`) decides, the shell (`consume::shell`) carries its decisions to Kafka and
//! DynamoDB, and `consume::locate` finds the facts of a start. Whatever is missing at the start
//! (Kafka, the topic, the tables) is waited for, and said.

mod answers;
mod client;
mod explain;
mod leave;
mod locate;
mod log_limit;
pub(crate) mod progress;
mod report;
mod requests;
mod revokes;
mod shell;
mod status;
mod stop_ends;
mod tables;
mod topic_watch;
mod write_errors;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::core::keys::TableNames;
use crate::core::pipeline::{Options, Pipeline};
use crate::exit::{Exit, SettingsError};
use crate::kafka::budget::Budget;
use crate::kafka::client::{client_config, set_default};
use crate::kafka::consumer::{Consumer, ConsumerOptions};
use crate::kafka::dlq::DeadLetters;
use crate::kafka::second_read::SecondReader;
use crate::settings::{Consume, GroupProtocol, OnDataLoss};
use crate::shutdown::Shutdown;
use crate::store::write::Writer;
use crate::telemetry::Metrics;

use client::{Client, StartClient};
use locate::Locator;
use requests::Requests;
use shell::{Shell, ShellOptions, done_channel};
pub use status::{Status, Wait};

/// Most requests in flight per table. A table answers in 5–10 ms, so this is some 100,000 items a
/// second; more only moves the queue from here into DynamoDB.
const REQUESTS_MAX: u32 = 64;
/// The session timeout unless `--kafka-property` says otherwise: a killed member is noticed in 10 s.
const SESSION_TIMEOUT_MS: u64 = 10_000;

/// Hears of each partition how far it is durable: partition and next offset.
pub type Settled = Arc<dyn Fn(i32, i64) + Send + Sync>;

/// What surrounds a pipeline.
pub struct Host {
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it tells how it is.
    pub status: Arc<Status>,
    /// Who must not run ahead of it, if anybody.
    pub settled: Option<Settled>,
    /// The broker sets no timestamps, and the log need not report it.
    pub producer_time_is_fine: bool,
    /// How long a partition may stand still, in milliseconds: [`PATIENCE_MS`] but in tests.
    pub stall_ms: i64,
}

/// Runs the pipeline with a given DynamoDB client, without an HTTP server of its own.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run_with(
    args: Consume,
    client: aws_sdk_dynamodb::Client,
    host: Host,
    shutdown: Shutdown,
) -> anyhow::Result<Exit> {
    let config = consumer_config(&args)?;
    let session_ms = config
        .get("session.timeout.ms")
        .and_then(|v| v.parse().ok())
        .unwrap_or(SESSION_TIMEOUT_MS);
    let dlq_config = client_config(&args.kafka, "consume")?;
    let names = TableNames::new(&args.tables.table_prefix);
    let writer = Writer::new(
        client.clone(),
        names.clone(),
        args.raw_ttl,
        host.metrics.clone(),
    );
    writer.set_alert_ttl(args.alert_ttl);
    let dead_letters = DeadLetters::new(
        &dlq_config,
        args.kafka.dlq_topic(),
        args.kafka.topic.clone(),
    )
    .context("failed to start the dead-letter producer")?;
    // A revoke may wait as long as the group would wait for this member.
    let drain_max = Duration::from_millis(session_ms / 2);
    // The other half is for what lies outside: fetched pieces, requests under way, the program.
    let second_reader = SecondReader::new(&config, &args.kafka.topic);
    let (topic, budget_bytes) = (args.kafka.topic.clone(), args.memory_budget / 2);
    let start_client: StartClient = Box::new(move || {
        let budget = Arc::new(Budget::new(budget_bytes));
        let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
        let options = ConsumerOptions {
            topic: topic.clone(),
            drain_max: drain_max + Duration::from_millis(500),
            budget: Arc::clone(&budget),
        };
        let consumer = Consumer::start(&config, options, events_in)?;
        Ok((consumer, budget, events))
    });
    let client_error =
        |e: KafkaError| SettingsError::new("the Kafka client cannot start").with_why(e.to_string());
    let kafka = Client::start(start_client).map_err(client_error)?;
    let pipeline = Pipeline::new(Options {
        topic: args.kafka.topic.as_str().into(),
        row_interval_ms: args.row_interval,
        continue_on_loss: args.on_data_loss == OnDataLoss::Continue,
        requests_max: REQUESTS_MAX,
        stall_ms: host.stall_ms,
    });
    let tables = tables::TableSet::new(client, names);
    let topic = args.kafka.topic.clone();
    let locator = Locator::new(kafka.inquiry(), tables, writer.clone(), topic.clone());
    let (done_in, done) = done_channel();
    let requests = Requests::new(writer, locator, dead_letters, second_reader, done_in);
    let options = ShellOptions {
        topic,
        group: args.group.clone(),
        drain_max,
        stop_at_end: args.stop_at_end,
    };
    let shell = Shell::new(pipeline, kafka, requests, done, host, options);
    shell.run(shutdown).await
}

/// Returns an error if the settings cannot make a Kafka client.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check_settings(args: &Consume) -> anyhow::Result<()> {
    consumer_config(args).map(drop)
}

/// Returns the consumer's librdkafka settings: ours below the user's, the fixed ones above.
fn consumer_config(args: &Consume) -> anyhow::Result<ClientConfig> {
    let mut config = client_config(&args.kafka, "consume")?;
    // What is fetched and not yet taken, in KiB of values; librdkafka needs about three times that
    // for small records.
    let queued_kib = (args.memory_budget / 16 / 1024).max(1_024);
    let defaults = [
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("queued.max.messages.kbytes", queued_kib.to_string()),
        ("queued.min.messages", "10000".to_owned()),
        (
            "fetch.max.bytes",
            (args.memory_budget / 16).max(1 << 20).to_string(),
        ),
        // Of each partition in one answer, still compressed. Six at librdkafka's default of 1 MiB,
        // unpacked, were 100 MiB beyond the budget, and 24 at 128 KiB were 50; at 64 KiB a broker is read
        // no slower.
        (
            "fetch.message.max.bytes",
            (args.memory_budget / 2_048)
                .clamp(32 << 10, 1 << 20)
                .to_string(),
        ),
        ("fetch.wait.max.ms", "100".to_owned()),
        // How soon a new topic or new partitions are noticed.
        ("topic.metadata.refresh.interval.ms", "5000".to_owned()),
    ];
    for (name, value) in defaults {
        set_default(&mut config, &args.kafka, name, &value);
    }
    match args.group_protocol {
        GroupProtocol::Classic => {
            let session_ms = SESSION_TIMEOUT_MS.to_string();
            set_default(&mut config, &args.kafka, "session.timeout.ms", &session_ms);
            set_default(&mut config, &args.kafka, "heartbeat.interval.ms", "3000");
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        // Timeouts and the way to assign are the broker's.
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    if let Some(id) = &args.group_instance_id {
        config.set("group.instance.id", id);
    }
    config
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use rdkafka::consumer::BaseConsumer;

    #[test]
    fn a_group_that_the_broker_leads_has_no_timeouts_of_its_members() {
        let of = |line: &str| {
            let line = format!("citystream consume {line}");
            match crate::settings::Cli::try_parse_from(line.split_whitespace()) {
                Ok(crate::settings::Cli {
                    command: crate::settings::Command::Consume(args),
                    ..
                }) => consumer_config(&args).expect("the settings are fine"),
                other => panic!("{other:?}"),
            }
        };
        let members = [
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "partition.assignment.strategy",
        ];
        let (classic, new) = (of(""), of("--group-protocol consumer"));
        for name in members {
            assert!(classic.get(name).is_some(), "{name}");
            assert_eq!(new.get(name), None, "{name}");
        }
        assert_eq!(classic.get("group.protocol"), None);
        assert_eq!(new.get("group.protocol"), Some("consumer"));
        for config in [classic, new] {
            let client: Result<BaseConsumer, _> = config.create();
            client.expect("librdkafka takes all of it");
        }
    }
}
