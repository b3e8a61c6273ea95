//! `citystream check`: parses the settings of a role as the role itself would, and tests everything that the role needs
//! to run.

use std::net::SocketAddr;
use std::path::Path;

use crate::check::{CheckOutcome, CheckTable, dynamo, host, kafka};
use crate::exit::{Exit, print_parser_message};
use crate::kafka::rights::KafkaUser;
use crate::notify::config::{NotifyConfig, SecretReading};
use crate::settings::{Check, Command, KafkaArgs, TableArgs, parse_role};
use crate::shutdown::Shutdown;

/// The port, the Kafka topics and the DynamoDB tables that a role needs.
struct Needs<'a> {
    /// The name of the option that sets the role's port, and the address to listen on.
    port: Option<(&'static str, SocketAddr)>,
    kafka: Option<(&'a KafkaArgs, KafkaUser<'a>)>,
    /// The tables that the role uses, and the topic whose events the tables should count.
    tables: Option<(&'a TableArgs, Option<&'a str>)>,
    /// True if the role needs the table of incidents.
    incidents: bool,
}

/// Runs all tests that apply to the role, and prints the results.
///
/// # Errors
/// Returns an error if `shutdown` is triggered before all tests are done. A failed test does not cause an error, but
/// appears as a row in the printed table.
pub async fn run(args: Check, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let parsed = match parse_role(args.role, &args.options) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(print_parser_message(&error)),
    };
    let mut table = CheckTable::new();
    let accepted = format!("citystream {} accepts them", args.role.name());
    table.add_ok("settings", accepted);
    if let Command::Notify(notify) = &parsed.command {
        check_rules(&mut table, &notify.config);
    }
    let needs = needs_of(&parsed.command);
    let work = async {
        host::check(&mut table, needs.port).await;
        if let Some((kafka, user)) = needs.kafka {
            kafka::check(&mut table, kafka, user).await;
        }
        if let Some((tables, topic)) = needs.tables {
            let role = (args.role, needs.incidents);
            dynamo::check(&mut table, role, tables, topic).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.wait() => anyhow::bail!("stopped before everything was checked"),
    }
    Ok(table.exit())
}

fn check_rules(table: &mut CheckTable, path: &Path) {
    match NotifyConfig::load(path, SecretReading::Check) {
        Ok(config) => {
            let (rules, receivers) = (config.rules.len(), config.receivers.len());
            table.add_ok("rules", format!("{rules} rules, {receivers} receivers"));
        }
        Err(failure) => table.add(
            CheckOutcome::Wrong,
            "rules",
            failure.cause(),
            failure.remedy,
        ),
    }
}

fn needs_of(command: &Command) -> Needs<'_> {
    let (port, kafka, tables) = match command {
        Command::Produce(a) if a.from_dlq => (None, Some((&a.kafka, KafkaUser::FromDlq)), None),
        Command::Produce(a) => {
            let port = ("--listen", a.listen);
            (Some(port), Some((&a.kafka, KafkaUser::Produce)), None)
        }
        Command::Consume(a) => {
            let port = ("--listen", a.listen);
            (
                Some(port),
                Some((&a.kafka, KafkaUser::Consume(&a.group))),
                Some(&a.tables),
            )
        }
        Command::Serve(a) => {
            let port = ("--port", SocketAddr::new(a.bind, a.port));
            (Some(port), None, Some(&a.tables))
        }
        Command::InitTables(a) => {
            let user = if a.delete {
                KafkaUser::Delete(&a.group)
            } else {
                KafkaUser::InitTables
            };
            (None, Some((&a.kafka, user)), Some(&a.tables))
        }
        Command::Tail(a) if a.incidents => (None, None, Some(&a.tables)),
        Command::Tail(a) => {
            let user = if a.dlq {
                KafkaUser::TailDlq
            } else {
                KafkaUser::Tail
            };
            (None, Some((&a.kafka, user)), None)
        }
        Command::Notify(a) => {
            let port = ("--listen", a.listen);
            let user = KafkaUser::Notify(&a.notify_group);
            (Some(port), Some((&a.kafka, user)), Some(&a.tables))
        }
        Command::Verify(a) => {
            let port = a.watch.map(|_| ("--listen", a.listen));
            (
                port,
                Some((&a.kafka, KafkaUser::Verify(&a.group))),
                Some(&a.tables),
            )
        }
        _ => (None, None, None),
    };
    let topic = kafka.map(|(kafka, _)| kafka.topic.as_str());
    Needs {
        port,
        kafka,
        tables: tables.map(|tables| (tables, topic)),
        incidents: match command {
            Command::Notify(_) => true,
            Command::Tail(a) => a.incidents,
            Command::Verify(a) => a.incidents.is_some(),
            Command::InitTables(a) => a.incidents,
            _ => false,
        },
    }
}
