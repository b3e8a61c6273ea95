//! `citystream dev`: every role in one process, on an embedded broker and an embedded DynamoDB.
//!
//! The broker is librdkafka's mock cluster, in memory; the database is SQLite behind the SDK's own
//! request path, in memory or in `--data-dir`. Neither is meant for more than trying things out. The
//! mock keeps 5 MB or 100,000 records a partition, so the producer waits for the consumer
//! ([`Credit`]). Each start is a new log with a new topic id, so a kept database meets fresh fences
//! and the same input again counts again.
//!
//! One port answers everything: the API, the page, health and the metrics of all roles. The page has a
//! panel more than that of `serve`: it breaks things, and shows that the counts stay right ([`lab`]).

mod broker;
mod consumers;
mod difference;
mod faults;
mod garbage;
mod lab;

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use dynoxide::Database;
use tokio::sync::Notify;

use self::broker::Broker;
use self::consumers::Consumers;
use self::faults::Faults;
use self::lab::{Lab, Parts};
use crate::api::page::Page;
use crate::api::{self, ApiState, ops, server};
use crate::cmd::consume::Status;
use crate::cmd::init_tables::steps::Steps;
use crate::cmd::init_tables::tables::Wanted;
use crate::cmd::verify::compare::Source;
use crate::cmd::{Exit, SettingsError, init_tables, produce};
use crate::core::keys::TableNames;
use crate::core::replay::Replay;
use crate::core::trial::{Stream, Trial};
use crate::kafka::client::client_config;
use crate::kafka::credit::Credit;
use crate::kafka::producer::EventProducer;
use crate::kafka::pump::{self, Plan};
use crate::settings::{Cli, Command, Consume, Dev};
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::store::reads::DynamoReads;
use crate::telemetry::{self, Metrics};

const TOPIC: &str = "city-events";
const PARTITIONS: i32 = 6;
/// Half of what the mock broker keeps, since it counts a little more than keys and values.
const CREDIT_RECORDS_MAX: usize = 50_000;
const CREDIT_BYTES_MAX: u64 = 2_500_000;
/// Time between two heartbeats of synthetic events.
const HEARTBEAT_MS: i64 = 60_000;

/// Runs the role until `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(args: Dev, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = server::bind(address, "--port").await?;
    let address = listener.local_addr().context("failed to read the port")?;
    let source = source(&args)?;

    let (database, _lock) = open_database(args.data_dir.as_deref())?;
    let client = embedded::client(database.clone()).await?;
    let names = TableNames::new("citystream");
    init_tables::tables::ensure(&client, &names, &Wanted::default(), &Steps::silent()).await?;

    let topics = vec![(TOPIC.to_owned(), PARTITIONS), (format!("{TOPIC}-dlq"), 1)];
    let broker = Broker::start(topics)?;
    let servers = broker.servers.clone();
    let consume_args = consume_args(&servers)?;
    let config = client_config(&consume_args.kafka, "dev")?;
    let producer = Arc::new(EventProducer::new(config, TOPIC, &metrics)?);
    let credit = Credit::new(6, CREDIT_RECORDS_MAX, CREDIT_BYTES_MAX);

    let status = Arc::new(Status::new());
    let faults = Faults::default();
    let through = faults.wrap(embedded::embedded(database.clone()));
    let consumers = Consumers {
        args: consume_args,
        database,
        client: embedded::client_through(through).await?,
        metrics: metrics.clone(),
        status: Arc::clone(&status),
        settled: {
            let credit = credit.clone();
            Arc::new(move |partition, next| credit.settle(partition, next))
        },
        killer: Arc::new(Notify::new()),
    };
    let token = token().context("failed to draw a token")?;
    let lab = Lab::new(
        Parts {
            consumers: consumers.clone(),
            faults,
            broker,
            producer: Arc::clone(&producer),
            credit: credit.clone(),
            partitions: PARTITIONS,
            shutdown: shutdown.clone(),
        },
        token.clone(),
    );
    let compared = tokio::spawn(difference::watch(
        lab.clone(),
        Source {
            client: client.clone(),
            names: names.clone(),
            kafka: client_config(&consumers.args.kafka, "dev")?,
            topic: TOPIC.to_owned(),
            group: consumers.args.group.clone(),
        },
        consumers.args.raw_ttl,
        shutdown.clone(),
    ));
    let reads = Arc::new(DynamoReads::new(client, names, metrics.clone()));
    let state = ApiState::new(reads, metrics.clone())
        .with_page(Page::with_token(&token))
        .with_shutdown(shutdown.clone());
    let router = api::router(state)
        .merge(lab.router())
        .merge(ops::router(metrics, status as Arc<dyn ops::Probe>));
    let served = server::Options::without_login(&args.allowed_host);
    let http = tokio::spawn(server::serve_with(
        listener,
        router,
        served,
        shutdown.clone(),
    ));
    telemetry::show(&greeting(&args, address, &servers));

    let producing = {
        let (plan, stop) = (plan(&args, credit), shutdown.clone());
        tokio::task::spawn_blocking(move || {
            let pumped = pump::run(source, &producer, &plan, &stop, &mut |line, reject| {
                tracing::warn!(line, reason = %reject.reason, detail = reject.detail, "bad line skipped");
            });
            producer.finish(&stop);
            let counts = producer.tally().counts();
            tracing::info!(
                sent = counts.acked,
                bad = counts.bad,
                "the source has ended"
            );
            pumped
        })
    };
    let result = consumers.run(&shutdown).await;
    // A consumer that failed must not leave the producer waiting for it.
    shutdown.trigger();
    producing.await.context("the producer panicked")??;
    compared.await.context("the comparison panicked")?;
    http.await.context("the HTTP server panicked")?;
    // The panel holds the broker, which everything above needed to the end.
    drop(lab);
    result
}

/// Returns what only this process's page knows.
fn token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn source(args: &Dev) -> anyhow::Result<pump::Source> {
    Ok(match &args.input {
        Some(path) => pump::Source::Input(produce::open(path)?, Replay::default()),
        None => pump::Source::Synthetic(Stream::new(fastrand::u64(..), Trial::default())),
    })
}

fn plan(args: &Dev, credit: Credit) -> Plan {
    let synthetic = args.input.is_none();
    let interval = produce::rate_of_interval(args.interval);
    Plan {
        rate: args.rate.unwrap_or(if synthetic {
            interval
        } else {
            crate::settings::Rate::Max
        }),
        count: None,
        patient: true,
        heartbeat_ms: synthetic.then_some(HEARTBEAT_MS),
        credit: Some(credit),
    }
}

/// Returns the database, and what keeps another process from the same folder.
fn open_database(dir: Option<&Path>) -> anyhow::Result<(Database, Option<File>)> {
    let Some(dir) = dir else {
        let database = Database::memory().map_err(|e| anyhow::anyhow!("{e}"))?;
        return Ok((database, None));
    };
    let failed = |what: String| {
        SettingsError(format!(
            "failed to use {} (--data-dir): {what}",
            dir.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(|e| failed(e.to_string()))?;
    // Whoever else may write to the folder must not have another file opened by it.
    let path = dir.join("dynamodb.sqlite");
    if path.is_symlink() {
        return Err(failed("dynamodb.sqlite is a symbolic link; remove it".to_owned()).into());
    }
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join("lock"))
        .map_err(|e| failed(format!("lock: {e}; it must be a file of its own, no link")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "{} (--data-dir) is in use by another citystream dev; stop it, or give another folder",
            dir.display()
        ),
        Err(TryLockError::Error(e)) => return Err(failed(e.to_string()).into()),
    }
    let database = Database::new(&path.to_string_lossy()).map_err(|e| failed(e.to_string()))?;
    // Without waiting for the disk after each request: several times as fast, and what a kill of the
    // process leaves is whole all the same; only a power cut could cost the folder.
    database
        .enable_bulk_loading()
        .map_err(|e| failed(e.to_string()))?;
    Ok((database, Some(lock)))
}

/// Returns the consumer's settings, as its own command line would give them.
fn consume_args(brokers: &str) -> anyhow::Result<Consume> {
    let line = [
        "citystream",
        "consume",
        "--brokers",
        brokers,
        "--topic",
        TOPIC,
    ];
    match Cli::try_parse_from(line)?.command {
        Command::Consume(args) => Ok(args),
        _ => unreachable!("the line says consume"),
    }
}

/// What `dev` begins with: where everything is, and what to try.
fn greeting(args: &Dev, address: SocketAddr, brokers: &str) -> String {
    let what = match &args.input {
        Some(path) => format!("loading {}", path.display()),
        None => "making up events".to_owned(),
    };
    let tables = match &args.data_dir {
        Some(dir) => format!("in {}", dir.display()),
        None => "in memory".to_owned(),
    };
    format!(
        "citystream dev: {what}; Ctrl-C stops it\n\n  \
         http://{address}/\n\n\
         That is the page, the API below /api/v1, and all metrics at /metrics.\n\
         Kafka is embedded at {brokers}, with topic {TOPIC}; DynamoDB {tables}.\n\n\
         Try in another terminal:\n  \
         curl http://{address}/api/v1/stats\n  \
         curl 'http://{address}/api/v1/events/NYC?limit=3'\n  \
         citystream tail --brokers {brokers}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_links_in_it_is_refused_and_what_they_name_stays() {
        for name in ["lock", "dynamodb.sqlite"] {
            let dir = tempfile::tempdir().expect("a folder");
            let other = dir.path().join("other");
            std::fs::write(&other, "kept").expect("a file");
            let data = dir.path().join("data");
            std::fs::create_dir(&data).expect("a folder");
            std::os::unix::fs::symlink(&other, data.join(name)).expect("a link");
            let error = open_database(Some(&data)).err().expect("a link");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(std::fs::read(&other).expect("it is there"), b"kept");
        }
    }

    #[test]
    fn the_greeting_tells_the_ports_the_page_and_three_commands() {
        let line = ["citystream", "dev", "--data-dir", "kept"];
        let Command::Dev(args) = Cli::try_parse_from(line).expect("it parses").command else {
            unreachable!("the line says dev");
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8082));
        let text = greeting(&args, address, "127.0.0.1:9");
        assert_eq!(
            text,
            "citystream dev: making up events; Ctrl-C stops it\n\n  http://127.0.0.1:8082/\n\n\
             That is the page, the API below /api/v1, and all metrics at /metrics.\n\
             Kafka is embedded at 127.0.0.1:9, with topic city-events; DynamoDB in kept.\n\n\
             Try in another terminal:\n  curl http://127.0.0.1:8082/api/v1/stats\n  \
             curl 'http://127.0.0.1:8082/api/v1/events/NYC?limit=3'\n  \
             citystream tail --brokers 127.0.0.1:9\n\n"
        );
    }
}
