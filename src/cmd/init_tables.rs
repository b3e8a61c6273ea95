//! `citystream init-tables`: creates, checks or deletes the tables and topics.

use crate::bundle;
use crate::cmd::connect_dynamodb;
use crate::core::keys::TableNames;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kafka::admin::{Admin, AdminError};
use crate::output;
use crate::settings::InitTables;
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::tables::dynamodb::WantedTables;
use crate::tables::explain::{self, CostQuestion};
use crate::tables::rollups::roll_up;
use crate::tables::steps::{self, StepDisplay};
use crate::tables::{confirm, delete, make_or_check, plan};
use crate::telemetry::Metrics;

/// Runs the command until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the command ended. The error is a [`SettingsError`] if an operator must repair its
/// cause.
///
/// [`SettingsError`]: crate::exit::SettingsError
pub async fn run(args: InitTables, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if let Some(role) = args.print_iam_policy {
        output::print(&bundle::policy(role, &args.tables.table_prefix)?)?;
        return Ok(Exit::Done);
    }
    if let Some(rate) = args.explain {
        let wanted = WantedTables::from_args(&args);
        return print_cost_report(rate, &args, &wanted);
    }
    if args.delete {
        confirm::can_ask(args.yes)?;
    }
    let client = connect_dynamodb(ConnectOptions::default()).await?;
    let admin = Admin::new(&args.kafka).map_err(|error| match error {
        AdminError::Settings(error) => anyhow::Error::from(error),
        other => other.into(),
    })?;
    let steps = StepDisplay::new();
    let work = async {
        if args.delete {
            delete(&args, &client, &admin, &steps).await
        } else if args.rollups {
            roll_up(&args, &client, metrics).await
        } else {
            make_or_check(&args, &client, &admin, &steps).await
        }
    };
    let findings = tokio::select! {
        findings = work => findings?,
        () = shutdown.wait() => anyhow::bail!(Failure::new("stopped before everything was done").with_remedy("run it again")),
    };
    if args.check {
        plan::print_table(&findings)?;
    } else {
        steps::print_findings(&findings)?;
    }
    let differs = findings.iter().any(|f| f.outcome.is_difference());
    Ok(if args.check && differs {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn print_cost_report(rate: f64, args: &InitTables, wanted: &WantedTables) -> anyhow::Result<Exit> {
    let config = wanted.config();
    let question = CostQuestion {
        rate,
        mix: args.mix.clone().unwrap_or_default(),
        shards: config.shards,
        raw: config.raw,
        window_ms: config.rules.window_ms,
        alert_ttl_ms: args.alert_ttl,
    };
    let text = explain::cost_report(&question, &TableNames::new(&args.tables.table_prefix));
    output::print(&text)?;
    Ok(Exit::Done)
}
