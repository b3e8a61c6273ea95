//! `citystream init-tables`

use crate::cmd::Exit;
use crate::settings::InitTables;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(
    _args: InitTables,
    _metrics: Metrics,
    _shutdown: Shutdown,
) -> anyhow::Result<Exit> {
    anyhow::bail!("under construction")
}
