//! Runs the role `notify` in `dev`, with three rules and a receiver of webhooks on the port of the page.
//!
//! The receiver accepts every message. The role `notify` stores the outcome of each message in the row of the incident.
//! The page shows this outcome.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::task::JoinHandle;

use crate::dev::TOPIC;
use crate::notify::config::{NotifyConfig, SecretReading};
use crate::notify::run_with;
use crate::notify::status::NotifyStatus;
use crate::settings::{Command, Notify, parse};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// The HTTP path of the webhook receiver.
const PATH: &str = "/dev/webhook";

/// The configuration of `notify`, with the rules and the receiver. `URL` stands for the receiver's address.
const RULES: &str = r#"
[[rule]]
name = "critical"
severity = ["critical"]
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "traffic-surge"
event_type = ["traffic"]
count = 50
window = "5m"
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "silent-city"
silence = "30m"
group_by = ["city"]

[[receiver]]
name = "page"
type = "webhook"
url = "URL"
allow_private = true
min_interval = "10s"
"#;

/// Starts a task that finds incidents until `shutdown` is triggered, and reports them to the receiver at the address
/// `page`. If the role `notify` fails, the task only logs the error, because the rest of `dev` works without this role.
pub(crate) fn start(
    brokers: String,
    page: SocketAddr,
    client: &Client,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> JoinHandle<()> {
    let (client, metrics, shutdown) = (client.clone(), metrics.clone(), shutdown.clone());
    let role = async move {
        let (settings, config) = (settings(&brokers)?, config(page)?);
        let status = Arc::new(NotifyStatus::default());
        run_with(&settings, config, client, metrics, status, shutdown).await
    };
    tokio::spawn(async {
        if let Err(error) = role.await {
            tracing::warn!(%error, "the role notify ended");
        }
    })
}

/// The receiver of webhooks, which the panel can switch off. All clones share the switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageReceiver(Arc<ReceiverState>);

#[derive(Debug, Default)]
struct ReceiverState {
    is_down: AtomicBool,
    refused: AtomicU64,
}

impl PageReceiver {
    /// Makes the receiver answer with status 503, or take messages again.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Returns the number of requests that were answered with status 503.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::SeqCst)
    }

    /// Returns the route of the receiver.
    pub(crate) fn router(&self) -> Router {
        let receiver = self.clone();
        let answer = async move || receiver.answer();
        Router::new().route(PATH, post(answer))
    }

    fn answer(&self) -> StatusCode {
        if self.0.is_down.load(Ordering::SeqCst) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        StatusCode::NO_CONTENT
    }
}

fn config(page: SocketAddr) -> anyhow::Result<NotifyConfig> {
    let text = RULES.replace("URL", &format!("http://{page}{PATH}"));
    let parsed = NotifyConfig::parse(Path::new("dev"), &text, None, SecretReading::Check);
    parsed.map_err(|mistakes| anyhow::anyhow!("{mistakes}"))
}

/// Returns the settings of the role `notify`. The settings are parsed from a command line that this function builds.
fn settings(brokers: &str) -> anyhow::Result<Notify> {
    let line = [
        "citystream",
        "notify",
        "--config",
        "dev",
        "--from",
        "beginning",
        "--brokers",
        brokers,
        "--topic",
        TOPIC,
        // A short reconnect time lets the role `notify` continue soon after the broker is available again.
        "--kafka-property",
        "reconnect.backoff.max.ms=500",
    ];
    match parse(line.map(OsString::from))?.command {
        Command::Notify(args) => Ok(args),
        _ => unreachable!("the line says notify"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_and_the_rules_are_valid() {
        let page = SocketAddr::from(([127, 0, 0, 1], 8082));
        let config = config(page).expect("the rules are valid");
        assert_eq!((config.rules.len(), config.receivers.len()), (3, 1));
        let settings = settings("127.0.0.1:1").expect("the line is valid");
        assert_eq!(settings.kafka.brokers, "127.0.0.1:1");
    }
}
