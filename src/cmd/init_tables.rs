//! `citystream init-tables`: makes, checks or deletes the tables and topics.

use crate::cmd::{connect_dynamodb, print};
use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::kafka::admin::{Admin, AdminError};
use crate::output;
use crate::settings::InitTables;
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::tables::dynamodb::WantedTables;
use crate::tables::explain::{self, CostQuestion};
use crate::tables::steps::{self, StepDisplay};
use crate::tables::{confirm, delete, make_or_check, plan};
use crate::telemetry::Metrics;

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail; a [`SettingsError`] where only a person can mend it.
pub async fn run(args: InitTables, _metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if let Some(role) = args.print_iam_policy {
        return print::policy(role, &args.tables.table_prefix);
    }
    if let Some(rate) = args.explain {
        let wanted = WantedTables::from_args(&args);
        return explain(rate, &args, &wanted);
    }
    if args.delete {
        confirm::can_ask(args.yes)?;
    }
    let client = connect_dynamodb(ConnectOptions::default()).await?;
    let admin = Admin::new(&args.kafka).map_err(|error| match error {
        AdminError::Settings(error) => SettingsError(steps::chain(&error)).into(),
        other => anyhow::Error::from(other),
    })?;
    let steps = StepDisplay::new();
    let work = async {
        if args.delete {
            delete(&args, &client, &admin, &steps).await
        } else {
            make_or_check(&args, &client, &admin, &steps).await
        }
    };
    let findings = tokio::select! {
        findings = work => findings?,
        () = shutdown.wait() => anyhow::bail!("stopped before all was done; run it again"),
    };
    if args.check {
        plan::print_table(&findings)?;
    } else {
        steps::print(&findings)?;
    }
    let differs = findings.iter().any(|f| f.outcome.is_difference());
    Ok(if args.check && differs {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn explain(rate: f64, args: &InitTables, wanted: &WantedTables) -> anyhow::Result<Exit> {
    let config = wanted.config();
    let question = CostQuestion {
        rate,
        mix: args.mix.clone().unwrap_or_default(),
        shards: config.shards,
        raw: config.raw,
        window_ms: config.rules.window_ms,
        alert_ttl_ms: args.alert_ttl,
    };
    let text = explain::report(&question, &TableNames::new(&args.tables.table_prefix));
    output::print(&text)?;
    Ok(Exit::Done)
}
