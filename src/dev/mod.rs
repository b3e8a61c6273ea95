//! The parts of `citystream dev`: every role in one process, with an embedded broker and database.
//!
//! The broker is librdkafka's mock cluster, which keeps its records in memory. The database is SQLite, and answers the
//! requests of the DynamoDB SDK without a network. The database is either in memory or in `--data-dir`. The embedded
//! broker and database are meant only for trying out the program. The mock cluster keeps at most 5 MB or 100,000
//! records per partition, so the producer waits until the consumer has settled enough records ([`Credit`]). Each start
//! of `dev` creates a new log with a new topic id. The tables in a kept `--data-dir` have no fences for the new log, so
//! `dev` counts the same input again.
//!
//! One port serves the API, the page, the health routes and the metrics of all roles, and accepts events like `produce
//! --accept`. Two other ports let commands in a second terminal reach the broker and the database ([`ports`]). Unlike
//! the page of the role `serve`, the page of `dev` has a panel, which injects faults and shows that the counts stay
//! correct ([`panel`]). The role `notify` runs with three rules, and sends its messages to a route on the port of the
//! page ([`incidents`]).
//!
//! [`Credit`]: crate::produce::credit::Credit

mod bad_events;
pub(crate) mod broker;
pub(crate) mod comparison;
pub(crate) mod consumers;
pub(crate) mod data_dir;
pub(crate) mod faults;
pub(crate) mod greeting;
mod history;
pub(crate) mod incidents;
pub(crate) mod panel;
pub(crate) mod ports;
pub(crate) mod source;
mod waiting;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;

use crate::settings::{Command, Consume, parse};

/// The name of the event topic.
pub(crate) const TOPIC: &str = "city-events";
/// The number of partitions in the event topic.
pub(crate) const PARTITIONS: i32 = 6;
/// Maximum number of unsettled records per partition in the broker, which is half of the mock cluster's limit.
pub(crate) const CREDIT_RECORDS_MAX: usize = 50_000;
/// Maximum size in bytes of all unsettled records of a partition, which is half of the mock cluster's limit. Besides
/// keys and values, the mock cluster counts some additional bytes per record.
pub(crate) const CREDIT_BYTES_MAX: u64 = 2_500_000;

/// Returns a random token, which `dev` passes only to its own page.
///
/// # Errors
/// Returns an error if the operating system provides no random bytes.
pub(crate) fn random_token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the settings of the consumer. The settings are parsed from a command line that this function builds.
///
/// # Errors
/// Returns an error if the parser refuses the command line.
pub(crate) fn consumer_settings(brokers: &str) -> anyhow::Result<Consume> {
    let line = [
        "citystream",
        "consume",
        "--brokers",
        brokers,
        "--topic",
        TOPIC,
        // With short timeouts, the consumer reconnects soon after a stop of the broker, and the group soon detects a
        // killed member.
        "--kafka-property",
        "reconnect.backoff.max.ms=500",
        "--kafka-property",
        "session.timeout.ms=6000",
        "--kafka-property",
        "heartbeat.interval.ms=1000",
        // When a consumer in a second terminal leaves the group, the mock cluster does not answer one of the group's
        // requests. The group waits until the unanswered request times out, by default after 60 s.
        "--kafka-property",
        "socket.timeout.ms=10000",
    ];
    match parse(line.map(OsString::from))?.command {
        Command::Consume(args) => Ok(args),
        _ => unreachable!("the line says consume"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Dev};

    pub(super) fn dev(line: &str) -> Dev {
        match Cli::try_parse_from(line.split(' '))
            .expect("it parses")
            .command
        {
            Command::Dev(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_settings_of_the_consumer_parse() {
        let args = consumer_settings("127.0.0.1:1").expect("the line is valid");
        assert_eq!(args.kafka.brokers, "127.0.0.1:1");
    }
}
