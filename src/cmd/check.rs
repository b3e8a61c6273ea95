//! `citystream check`: takes the settings as a role would, and tries what the role needs.

use crate::check::{Table, dynamo, host, kafka};
use crate::exit::{Exit, print_parser_message};
use crate::kafka::rights::User;
use crate::settings::{Check, Command, parse_role};
use crate::shutdown::Shutdown;

/// Runs the checks.
///
/// # Errors
/// If standard error cannot be written; whatever is wrong with the role is a row.
pub async fn run(args: Check, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let parsed = match parse_role(args.role, &args.options) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(print_parser_message(&error)),
    };
    let mut table = Table::new();
    table.ok(
        "settings",
        format!("citystream {} takes them", args.role.name()),
    );
    let work = async {
        match &parsed.command {
            Command::Produce(a) => {
                host::check(&mut table, args.role, Some(("--listen", a.listen))).await;
                let user = if a.from_dlq {
                    User::FromDlq
                } else {
                    User::Produce
                };
                kafka::check(&mut table, &a.kafka, user).await;
            }
            Command::Consume(a) => {
                host::check(&mut table, args.role, Some(("--listen", a.listen))).await;
                kafka::check(&mut table, &a.kafka, User::Consume(&a.group)).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            Command::Serve(a) => {
                let address = std::net::SocketAddr::new(a.bind, a.port);
                host::check(&mut table, args.role, Some(("--port", address))).await;
                dynamo::check(&mut table, args.role, &a.tables, None).await;
            }
            Command::InitTables(a) => {
                host::check(&mut table, args.role, None).await;
                let user = if a.delete {
                    User::Delete(&a.group)
                } else {
                    User::InitTables
                };
                kafka::check(&mut table, &a.kafka, user).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            Command::Tail(a) => {
                let user = if a.dlq { User::TailDlq } else { User::Tail };
                kafka::check(&mut table, &a.kafka, user).await;
            }
            Command::Verify(a) => {
                let listens = a.watch.map(|_| ("--listen", a.listen));
                host::check(&mut table, args.role, listens).await;
                kafka::check(&mut table, &a.kafka, User::Verify(&a.group)).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            _ => {}
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.wait() => anyhow::bail!("stopped before everything was checked"),
    }
    Ok(table.exit())
}
