//! `citystream dev`: every role in one process, on an embedded broker and an embedded DynamoDB.
//!
//! The broker is librdkafka's mock cluster, in memory; the database is SQLite behind the SDK's own
//! request path, in memory or in `--data-dir`. Neither is meant for more than trying things out. The
//! mock keeps 5 MB or 100,000 records a partition, so the producer waits for the consumer
//! ([`Credit`]). Each start is a new log with a new topic id, so a kept database meets fresh fences
//! and the same input again counts again.
//!
//! One port answers the API, the page, health and the metrics of all roles. Two more lead to the broker
//! and the database, so that every other command works in a second terminal ([`doors`]). The page has a
//! panel more than that of `serve`: it breaks things, and shows that the counts stay right ([`lab`]).

mod broker;
mod consumers;
mod difference;
mod doors;
mod faults;
mod garbage;
mod history;
mod lab;
mod waits;

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
use crate::api::dashboard::Dashboard;
use crate::api::{self, ApiState, ops, server};
use crate::consume::Status;
use crate::core::keys::TableNames;
use crate::core::replay::Replay;
use crate::core::trial::{Stream, Trial};
use crate::exit::{Exit, SettingsError};
use crate::kafka::client::client_config;
use crate::kafka::producer::EventProducer;
use crate::produce::credit::Credit;
use crate::produce::input::Input;
use crate::produce::pump::{self, Plan};
use crate::settings::{Cli, Command, Consume, Dev, Rate};
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::store::reads::DynamoReads;
use crate::tables::dynamodb::Wanted;
use crate::tables::steps::Steps;
use crate::telemetry::{self, Metrics, unix_ms};
use crate::verify::compare::Source;
use crate::{produce, tables};

/// The name of the program.
const NAME: &str = "citystream";
const TOPIC: &str = "city-events";
const PARTITIONS: i32 = 6;
/// Most bad lines of the input that the log names.
const BAD_LINES_SHOWN: u32 = 10;
/// How long after January's first event the first flight leaves, in seconds. Before that there are only
/// three weather reports an hour.
const FIRST_FLIGHT_SECONDS: f64 = 15_420.0;
/// The real events that `--replay` plays without `--input`.
const JANUARY: &[u8] = include_bytes!("../../data/city-events-2013-01.ndjson.gz");
/// The file of the tables in `--data-dir`.
const DATABASE: &str = "dynamodb.sqlite";
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
    let kafka_door = doors::open(args.kafka_port, doors::KAFKA_PORT, "--kafka-port").await?;
    let tables_door =
        doors::open(args.dynamodb_port, doors::DYNAMODB_PORT, "--dynamodb-port").await?;
    let reached = Reached {
        page: address,
        kafka: kafka_door.local_addr().context("failed to read the port")?,
        dynamodb: tables_door
            .local_addr()
            .context("failed to read the port")?,
    };

    let is_new = !has_tables(args.data_dir.as_deref());
    let (database, _lock) = open_database(args.data_dir.as_deref())?;
    let client = embedded::client(database.clone()).await?;
    let names = TableNames::new("citystream");
    tables::dynamodb::ensure(&client, &names, &Wanted::default(), &Steps::silent()).await?;

    let topics = vec![(TOPIC.to_owned(), PARTITIONS), (format!("{TOPIC}-dlq"), 1)];
    let broker = Broker::start(topics)?;
    let servers = broker.servers.clone();
    let behind = servers
        .parse()
        .context("failed to read the broker's address")?;
    tokio::spawn(doors::forward(kafka_door, behind, shutdown.clone()));
    tokio::spawn(doors::serve_database(
        tables_door,
        database.clone(),
        shutdown.clone(),
    ));
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
        .with_dashboard(Dashboard::with_token(&token))
        .with_shutdown(shutdown.clone());
    let probe = status as Arc<dyn ops::Probe>;
    let router = api::router(state)
        .merge(lab.router())
        .merge(ops::actuator(metrics.clone(), Arc::clone(&probe)))
        .merge(ops::router(metrics, probe));
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let http = tokio::spawn(server::serve(listener, router, served, shutdown.clone()));
    telemetry::show(&greeting(&args, reached, &own_name()));

    let producing = {
        let before = history_of(&args).filter(|_| is_new);
        let (plan, stop) = (plan(&args, credit.clone()), shutdown.clone());
        tokio::task::spawn_blocking(move || {
            if let Some((ms, rate)) = before {
                let span = (unix_ms(), ms, rate);
                let events = history::send(&producer, &credit, PARTITIONS, span, &stop)?;
                tracing::info!(events, "sent the history");
            }
            let mut shown = 0;
            let pumped = pump::run(source, &producer, &plan, &stop, &mut |line, reject| {
                if shown < BAD_LINES_SHOWN {
                    tracing::warn!(line, reason = %reject.reason, detail = reject.detail, "skipped a bad line");
                } else if shown == BAD_LINES_SHOWN {
                    tracing::warn!("skipped more bad lines, which are not shown");
                }
                shown += 1;
            });
            producer.finish(&stop);
            let counts = producer.tally().counts();
            let (sent, bad) = (counts.acked, counts.bad);
            if sent == 0 && bad > 0 {
                tracing::warn!(bad, "the file holds no event; docs/EVENTS.md describes one");
            } else {
                tracing::info!(sent, bad, "the source has ended");
            }
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
    let replay = match args.replay {
        Some(speed) => Replay::at_speed(Some(speed)).restamped(unix_ms(), None),
        None => Replay::default(),
    };
    Ok(match &args.input {
        Some(path) => pump::Source::Input(produce::open(path)?, replay),
        None if args.replay.is_some() => pump::Source::Input(Input::from_reader(JANUARY)?, replay),
        None => pump::Source::Synthetic(Stream::new(fastrand::u64(..), Trial::default())),
    })
}

fn is_synthetic(args: &Dev) -> bool {
    args.input.is_none() && args.replay.is_none()
}

/// Returns how far back the history goes and the rate of its events, if there is to be one.
fn history_of(args: &Dev) -> Option<(i64, Rate)> {
    let rate = args
        .rate
        .unwrap_or(produce::rate_of_interval(args.interval));
    (is_synthetic(args) && args.history > 0).then_some((args.history, rate))
}

/// Tells whether a folder of `--data-dir` has tables of an earlier run.
fn has_tables(dir: Option<&Path>) -> bool {
    dir.is_some_and(|dir| dir.join(DATABASE).exists())
}

fn plan(args: &Dev, credit: Credit) -> Plan {
    let synthetic = is_synthetic(args);
    let interval = produce::rate_of_interval(args.interval);
    Plan {
        rate: args
            .rate
            .unwrap_or(if synthetic { interval } else { Rate::Max }),
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
    // A link by another user of the folder could make this program open a file elsewhere.
    let path = dir.join(DATABASE);
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
        // A broker that was stopped is found again, and a dead member forgotten, as fast as a
        // person waits.
        "--kafka-property",
        "reconnect.backoff.max.ms=500",
        "--kafka-property",
        "session.timeout.ms=6000",
        "--kafka-property",
        "heartbeat.interval.ms=1000",
        // When a consumer of a second terminal leaves, the mock broker leaves one request without an
        // answer, and the group waits until that request times out: 60 s by default.
        "--kafka-property",
        "socket.timeout.ms=10000",
    ];
    match Cli::try_parse_from(line)?.command {
        Command::Consume(args) => Ok(args),
        _ => unreachable!("the line says consume"),
    }
}

/// Where everything is reached.
#[derive(Clone, Copy, Debug)]
struct Reached {
    page: SocketAddr,
    kafka: SocketAddr,
    dynamodb: SocketAddr,
}

/// Returns how this program is called in a shell: by its name if that is what the search path finds,
/// else by its path.
fn own_name() -> String {
    let Ok(own) = std::env::current_exe() else {
        return NAME.to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file());
    let is_own = found.and_then(|path| path.canonicalize().ok()).as_ref()
        == own.canonicalize().ok().as_ref();
    if is_own {
        NAME.to_owned()
    } else {
        in_shell(&own.to_string_lossy())
    }
}

/// Quotes a word of a command line where it needs that.
fn in_shell(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What `dev` begins with: where everything is, and what to try.
fn greeting(args: &Dev, reached: Reached, own: &str) -> String {
    let Reached {
        page,
        kafka,
        dynamodb,
    } = reached;
    let from = match &args.input {
        Some(path) => path.display().to_string(),
        None => "the events of January 2013".to_owned(),
    };
    let what = match (args.replay, &args.input) {
        (Some(speed), _) => format!("playing {from} as if it were now, {speed}x as fast"),
        (None, Some(_)) => format!("loading {from}"),
        (None, None) => "making up events".to_owned(),
    };
    let night = match (args.replay, &args.input) {
        (Some(speed), None) => format!(
            "It begins at night, with a few weather reports; the first flight leaves after {:.0} seconds.\n",
            FIRST_FLIGHT_SECONDS / speed
        ),
        _ => String::new(),
    };
    let tables = match &args.data_dir {
        Some(dir) => format!("in {}", dir.display()),
        None => "in memory".to_owned(),
    };
    format!(
        "citystream dev: {what}; Ctrl-C stops it\n{night}\n  \
         http://{page}/\n\n\
         That is the page, the API below /api/v1, and all metrics at /metrics.\n\
         Kafka is embedded at {kafka}, with topic {TOPIC}; DynamoDB, {tables}, at {dynamodb}.\n\n\
         Try in another terminal:\n  \
         curl http://{page}/api/v1/stats\n  \
         curl 'http://{page}/api/v1/events/NYC?limit=3'\n\n\
         With these variables, the other commands work there too:\n  \
         export KAFKA_BOOTSTRAP_SERVERS={kafka}\n  \
         export AWS_ENDPOINT_URL_DYNAMODB=http://{dynamodb}\n  \
         export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev\n  \
         {own} tail\n  \
         {own} verify\n  \
         aws dynamodb list-tables\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(line: &str) -> Dev {
        match Cli::try_parse_from(line.split(' '))
            .expect("it parses")
            .command
        {
            Command::Dev(args) => args,
            other => panic!("{other:?}"),
        }
    }

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
    fn the_greeting_tells_the_ports_the_page_and_what_to_type() {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let reached = Reached {
            page: at(8082),
            kafka: at(9092),
            dynamodb: at(8000),
        };
        let text = greeting(
            &dev("citystream dev --data-dir kept"),
            reached,
            "target/citystream",
        );
        assert_eq!(
            text,
            "citystream dev: making up events; Ctrl-C stops it\n\n  http://127.0.0.1:8082/\n\n\
             That is the page, the API below /api/v1, and all metrics at /metrics.\n\
             Kafka is embedded at 127.0.0.1:9092, with topic city-events; DynamoDB, in kept, at 127.0.0.1:8000.\n\n\
             Try in another terminal:\n  curl http://127.0.0.1:8082/api/v1/stats\n  \
             curl 'http://127.0.0.1:8082/api/v1/events/NYC?limit=3'\n\n\
             With these variables, the other commands work there too:\n  \
             export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092\n  \
             export AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000\n  \
             export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev\n  \
             target/citystream tail\n  target/citystream verify\n  aws dynamodb list-tables\n\n"
        );
        let replayed = greeting(&dev("citystream dev --replay 60x"), reached, NAME);
        assert!(
            replayed.starts_with(
                "citystream dev: playing the events of January 2013 as if it were now, 60x as fast; Ctrl-C stops it\n\
                 It begins at night, with a few weather reports; the first flight leaves after 257 seconds.\n\n"
            ),
            "{replayed}"
        );
    }

    #[test]
    fn a_word_that_the_shell_would_split_is_quoted() {
        assert_eq!(in_shell("/a/b-1.0/citystream"), "/a/b-1.0/citystream");
        assert_eq!(in_shell("/my programs/it's"), "'/my programs/it'\\''s'");
    }

    #[test]
    fn only_synthetic_events_have_a_history() {
        let of = |line: &str| history_of(&dev(line));
        assert_eq!(
            of("citystream dev"),
            Some((10_800_000, Rate::PerSecond(2.0)))
        );
        for line in [
            "citystream dev --history off",
            "citystream dev --input x",
            "citystream dev --replay 60x",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
