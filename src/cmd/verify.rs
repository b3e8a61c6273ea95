//! `citystream verify`: compares the log with the tables, either once or repeatedly.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;

use crate::cmd::connect_dynamodb;
use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::kafka::client::client_config;
use crate::notify::config::{NotifyConfig, SecretReading};
use crate::settings::Verify;
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::telemetry::{Metrics, can_draw, unix_ms};
use crate::verify::compare::{CompareSource, compare};
use crate::verify::incidents::compare_incidents;
use crate::verify::{explain, options, print_incidents, print_report, show_progress, watch};

/// Runs the role until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run(args: Verify, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let kafka = client_config(&args.kafka, "verify")?;
    let client = connect_dynamodb(ConnectOptions::default()).await?;
    let source = CompareSource {
        client,
        names: TableNames::new(&args.tables.table_prefix),
        kafka,
        topic: args.kafka.topic.clone(),
        group: args.group.clone(),
    };
    let now_ms = unix_ms();
    let ends = (
        args.from.map(|m| m.at(now_ms)),
        args.until.map(|m| m.at(now_ms)),
    );
    if let (Some(from), Some(until)) = ends
        && from >= until
    {
        return Err(SettingsError::new("--from must be before --until").into());
    }
    if let Some(window) = args.explain {
        let out = Arc::new(Mutex::new(io::stdout()));
        return explain::explain_window(&source, window, args.output, out, &metrics, &shutdown)
            .await;
    }
    if let Some(path) = &args.incidents {
        let config = NotifyConfig::load(path, SecretReading::Skip).map_err(SettingsError)?;
        let compared = compare_incidents(&source, &config.rules, &metrics, &shutdown).await?;
        let report = compared.context("stopped before the comparison was done")?;
        print_incidents(&report, args.output, &mut io::stdout())?;
        return Ok(exit(report.agrees()));
    }
    if args.watch.is_some() {
        return watch::watch(&args, &source, &metrics, &shutdown).await;
    }
    let read = Arc::new(AtomicU64::new(0));
    let bar = can_draw(&io::stderr()).then(|| show_progress(&read));
    let compared = compare(&source, &options(&args), &metrics, &read, &shutdown).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let Some(report) = compared? else {
        anyhow::bail!("stopped before the comparison was done");
    };
    print_report(&report, args.output, &mut io::stdout())?;
    Ok(exit(report.agrees() && report.has_rows()))
}

fn exit(agrees: bool) -> Exit {
    if agrees { Exit::Done } else { Exit::Failed }
}
