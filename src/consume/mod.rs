//! Implements the `consume` command, which counts Kafka records in DynamoDB tables.
//!
//! The consumer thread (`kafka::consumer`) reports records and rebalances. The pipeline (`core::pipeline`) decides what
//! to do. The shell (`consume::shell`) carries out the pipeline's decisions by sending requests to Kafka and DynamoDB.
//! `consume::locate` finds the facts that the consumer needs to start reading a partition. If Kafka, the topic or the
//! tables are missing at the start, the consumer waits and reports the reason.

mod answers;
mod client;
mod explain;
mod leave;
mod locate;
pub(crate) mod progress;
mod report;
mod requests;
mod revokes;
mod rollups;
mod shell;
mod status;
mod stop_ends;
mod tables;
mod topic_watch;
mod trouble;
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
use crate::kafka::client::{client_config, configure_member, set_default};
use crate::kafka::consumer::{Consumer, ConsumerOptions};
use crate::kafka::dlq::DeadLetters;
use crate::kafka::second_read::SecondReader;
use crate::settings::{Consume, GroupProtocol, OnDataLoss};
use crate::shutdown::Shutdown;
use crate::store::rollups::RollupWriter;
use crate::store::write::Writer;
use crate::telemetry::Metrics;

use client::{Client, StartClient};
use locate::Locator;
use requests::Requests;
pub use rollups::RollupPace;
use rollups::Rollups;
use shell::{Shell, ShellOptions, done_channel};
pub use status::{ConsumeStatus, ConsumeWait};

/// Maximum number of requests in flight per table. A table answers in 5 to 10 ms, so 64 requests allow about 100,000
/// items per second. With a higher maximum, items would wait in DynamoDB instead of in this process, and the consumer
/// would not be faster.
const REQUESTS_MAX: u32 = 64;
/// Default session timeout. With this timeout, the group notices a killed member after 10 s. The operator can change
/// the session timeout with `--kafka-property`.
const SESSION_TIMEOUT_MS: u64 = 10_000;

/// A callback that gets the number of a partition and its boundary, the offset below which all records are durable.
pub type SettledCallback = Arc<dyn Fn(i32, i64) + Send + Sync>;

/// The parts of the surrounding process that the pipeline uses, such as the metrics and the status of the process.
pub struct Host {
    /// The metrics that the pipeline updates.
    pub metrics: Metrics,
    /// The status that the pipeline updates.
    pub status: Arc<ConsumeStatus>,
    /// A callback that reports the progress of the consumer to a producer in the same process, so that the producer
    /// does not send faster. The field is `None` if the process has no producer.
    pub settled: Option<SettledCallback>,
    /// True if producers may set the Kafka timestamps of records. If the field is false, the consumer logs a warning
    /// when a producer has set the timestamp of a record.
    pub producer_time_is_fine: bool,
    /// Time after which a partition with lag and without progress counts as stalled, in milliseconds. Only tests use a
    /// value other than [`PATIENCE_MS`](crate::core::stall::PATIENCE_MS).
    pub stall_ms: i64,
    /// The schedule and the speed of rollups, or `None` if the consumer does not roll up hours.
    pub rollups: Option<RollupPace>,
}

/// Runs the pipeline with the given DynamoDB client. The function starts no HTTP server.
///
/// # Errors
/// Returns the error that made the consumer stop.
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
    // The group removes a member that sends nothing for the whole session timeout, so a drain may take at most half of
    // it.
    let drain_max = Duration::from_millis(session_ms / 2);
    let second_reader = SecondReader::new(&config, &args.kafka.topic);
    let start_client = start_client(config, &args, drain_max);
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
    let rollups = host.rollups.map(|pace| {
        let writer = RollupWriter::new(client.clone(), names.clone(), host.metrics.clone());
        Rollups::new(writer, host.metrics.clone(), pace)
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
    let shell = Shell::new(pipeline, kafka, requests, rollups, done, host, options);
    shell.run(shutdown).await
}

/// Returns a function that starts a Kafka client in the consumer group.
fn start_client(config: ClientConfig, args: &Consume, drain_max: Duration) -> StartClient {
    // The pipeline's records may use half of the memory budget. The other half is for fetched data, requests in flight,
    // and the program itself.
    let (topic, budget_bytes) = (args.kafka.topic.clone(), args.memory_budget / 2);
    Box::new(move || {
        let budget = Arc::new(Budget::new(budget_bytes));
        let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
        let options = ConsumerOptions {
            topic: topic.clone(),
            drain_max: drain_max + Duration::from_millis(500),
            budget: Arc::clone(&budget),
        };
        let consumer = Consumer::start(&config, options, events_in)?;
        Ok((consumer, budget, events))
    })
}

/// Checks whether librdkafka accepts the consumer's settings.
///
/// # Errors
/// Returns an error that says which setting is wrong.
pub(crate) fn check_settings(args: &Consume) -> anyhow::Result<()> {
    consumer_config(args).map(drop)
}

/// Returns the consumer's librdkafka settings. The operator's properties override the defaults, and the fixed settings
/// override the operator's properties.
fn consumer_config(args: &Consume) -> anyhow::Result<ClientConfig> {
    let mut config = client_config(&args.kafka, "consume")?;
    // Maximum total size of the record values in librdkafka's queue of fetched records, in KiB. A queue of small
    // records needs about three times this size in memory.
    let queued_kib = (args.memory_budget / 16 / 1024).max(1_024);
    let defaults = [
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("queued.max.messages.kbytes", queued_kib.to_string()),
        ("queued.min.messages", "10000".to_owned()),
        (
            "fetch.max.bytes",
            (args.memory_budget / 16).max(1 << 20).to_string(),
        ),
        // Maximum number of compressed bytes that one fetch response contains for one partition. With librdkafka's
        // default of 1 MiB per partition, six partitions exceeded the memory budget by 100 MiB after decompression.
        // With 128 KiB per partition, 24 partitions exceeded the memory budget by 50 MiB. A limit of 64 KiB per
        // partition is as fast as a higher limit.
        (
            "fetch.message.max.bytes",
            (args.memory_budget / 2_048)
                .clamp(32 << 10, 1 << 20)
                .to_string(),
        ),
        ("fetch.wait.max.ms", "100".to_owned()),
        // Time between two requests for the partitions of the topic, which find a new topic or new partitions.
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
        // With the group protocol of KIP-848, the broker chooses the timeouts and assigns the partitions.
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    if let Some(id) = &args.group_instance_id {
        config.set("group.instance.id", id);
    }
    configure_member(&mut config, &args.group);
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
