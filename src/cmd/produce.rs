//! `citystream produce`

use crate::cmd::Exit;
use crate::settings::Produce;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(_args: Produce, _metrics: Metrics, _shutdown: Shutdown) -> anyhow::Result<Exit> {
    anyhow::bail!("under construction")
}
