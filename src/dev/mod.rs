//! The parts of `citystream dev`: every role in one process, with an embedded broker and database.
//!
//! The broker is librdkafka's mock cluster, in memory. The database is SQLite behind the SDK's own
//! request path, in memory or in `--data-dir`. Both are for trying the program out only. The mock keeps
//! 5 MB or 100,000 records per partition, so the producer waits for the consumer ([`Credit`]). Each
//! start is a new log with a new topic id. A kept database therefore has no fences for it, and the same
//! input counts again.
//!
//! One port serves the API, the page, health and the metrics of all roles. Two more ports lead to the
//! broker and the database, so that every other command works in a second terminal ([`ports`]). The
//! page has a panel that `serve` does not have: it breaks things and shows that the counts stay right
//! ([`panel`]).
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
pub(crate) mod panel;
pub(crate) mod ports;
pub(crate) mod source;
mod waiting;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;

use crate::settings::{Command, Consume, parse};

/// The topic of the events.
pub(crate) const TOPIC: &str = "city-events";
/// Number of its partitions.
pub(crate) const PARTITIONS: i32 = 6;
/// Number of unsettled records per partition. This is half of what the mock broker keeps, because the
/// broker counts a little more than keys and values.
pub(crate) const CREDIT_RECORDS_MAX: usize = 50_000;
/// Bytes of unsettled records per partition, chosen in the same way.
pub(crate) const CREDIT_BYTES_MAX: u64 = 2_500_000;

/// Returns a random token that only the page of this process knows.
///
/// # Errors
/// If the system provides no random bytes.
pub(crate) fn random_token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the consumer's settings, parsed from a command line of its own.
///
/// # Errors
/// If the parser refuses the line.
pub(crate) fn consumer_settings(brokers: &str) -> anyhow::Result<Consume> {
    let line = [
        "citystream",
        "consume",
        "--brokers",
        brokers,
        "--topic",
        TOPIC,
        // A person waits while the consumer reconnects to a stopped broker, and while the group
        // notices a killed member. So both take a few seconds at most.
        "--kafka-property",
        "reconnect.backoff.max.ms=500",
        "--kafka-property",
        "session.timeout.ms=6000",
        "--kafka-property",
        "heartbeat.interval.ms=1000",
        // When a consumer of a second terminal leaves, the mock broker leaves one request unanswered.
        // The group waits until that request times out, after 60 s by default.
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
