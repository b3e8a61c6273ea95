//! The end-to-end benchmark that `scripts/bench` runs, on a real Kafka, a stub of DynamoDB and DynamoDB Local.
//!
//! It measures first what the libraries alone achieve, then citystream, in turns within one run. `docs/BENCHMARKS.md`
//! explains the method.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    missing_docs
)]

mod ceilings;
mod drain;
mod growth;
mod live;
mod process;
mod report;
mod scenarios;
mod sink;
mod text;
mod world;

use std::time::Duration;

use citystream::core::keys::TableNames;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Measures citystream against real Kafka, a sink that only answers, and DynamoDB Local"
)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Events per run.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How often ceilings and consumer alternate.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Measure only these: drain, delay, counting, local, live, memory, members, cities, produce, growth.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write the table into docs/BENCHMARKS.md.
    #[arg(long)]
    write: bool,
    /// Cargo passes this option.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The processes that the benchmark starts from this program.
#[derive(Subcommand)]
enum Part {
    /// A stub that only answers, in place of DynamoDB.
    Sink {
        behind: String,
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
        #[arg(long)]
        stalled: bool,
    },
    /// Reads and parses records.
    Read {
        brokers: String,
        topic: String,
        count: u64,
    },
    /// Writes raw items and alerts.
    Write {
        endpoint: String,
        prefix: String,
        count: u64,
        in_flight: usize,
        #[arg(long)]
        typed: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    match args.part.take() {
        None => measure(&args),
        Some(Part::Sink {
            behind,
            delay_ms,
            stalled,
        }) => sink::run(Duration::from_millis(delay_ms), stalled, &behind),
        Some(Part::Read {
            brokers,
            topic,
            count,
        }) => ceilings::read(&brokers, &topic, count),
        Some(Part::Write {
            endpoint,
            prefix,
            count,
            in_flight,
            typed,
        }) => {
            let runtime = tokio::runtime::Runtime::new()?;
            let names = TableNames::new(&prefix);
            runtime.block_on(ceilings::write(&endpoint, &names, count, in_flight, typed))
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let known: Vec<&str> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
    if let Some(name) = args
        .only
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        anyhow::bail!("--only {name}: there are {}", known.join(", "));
    }
    let size = scenarios::Size {
        events: args.events,
        rounds: args.rounds.max(1),
    };
    let machine = scenarios::machine();
    println!("{machine}");
    let world = world::World::start()?;
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for (name, scenario) in scenarios::ALL {
        if !args.only.is_empty() && !args.only.iter().any(|n| n == name) {
            continue;
        }
        match scenario(&world, &size) {
            Ok(rows) => {
                for row in rows {
                    println!("{}", row.line());
                    lines.push(row.line());
                }
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    if args.write {
        report::write(&machine, &lines)?;
    }
    Ok(())
}
