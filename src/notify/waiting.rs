//! Waits at the start of the role until the tables and the topic can be used. Describes what the role waits for.

use std::time::Duration;

use aws_sdk_dynamodb::Client;

use crate::blocking::run_blocking;
use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::kafka::consumer::Inquiry;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY};
use crate::notify::status::{NotifyStatus, NotifyWait};
use crate::remedy;
use crate::store::config::{ConfigItem, read_config};
use crate::store::error::StoreError;
use crate::telemetry::LogLimit;

/// Pause between two attempts to use a service.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Maximum wait for an answer from Kafka.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until the tables have a config item, and returns the config item.
///
/// # Errors
/// Returns an error if the role cannot use the tables, for example because they belong to another topic.
pub(super) async fn wait_for_tables(
    client: &Client,
    names: &TableNames,
    topic: &str,
    status: &NotifyStatus,
) -> Result<ConfigItem, SettingsError> {
    let totals = &names.totals;
    let log_limit = LogLimit::default();
    loop {
        let what = match read_config(client, names).await {
            Ok(Some(config)) => match config.mismatch(names, topic) {
                None => return Ok(config),
                Some(failure) => return Err(SettingsError(failure)),
            },
            Ok(None) => {
                format!("the config item of {totals} (citystream init-tables creates it)")
            }
            Err(error) if error.kind().is_retryable() => dynamodb_error(&error),
            Err(error) => {
                let what = format!("table {totals} is not as citystream init-tables creates it");
                return Err(SettingsError::new(what)
                    .with_why(error.to_string())
                    .with_remedy("use another --table-prefix, or create the tables again"));
            }
        };
        pause(&what, status, &log_limit).await;
    }
}

/// Waits until the topic exists, and returns the topic's id.
pub(super) async fn wait_for_topic(
    inquiry: &Inquiry,
    topic: &str,
    status: &NotifyStatus,
) -> String {
    let log_limit = LogLimit::default();
    loop {
        match topic_id(inquiry.clone(), topic).await {
            Ok(id) => return id,
            Err(what) => pause(&what, status, &log_limit).await,
        }
    }
}

/// Requests the topic's id from Kafka.
///
/// # Errors
/// Returns what the role waits for if Kafka does not answer or the topic does not exist.
pub(super) async fn topic_id(inquiry: Inquiry, topic: &str) -> Result<String, String> {
    match run_blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await {
        Ok(Some(facts)) => Ok(facts.id.to_string()),
        Ok(None) => Err(format!("topic {topic} to exist ({MISSING_REMEDY})")),
        Err(error) => Err(format!("Kafka: {error}; {REACH_REMEDY}")),
    }
}

/// Shows in `/readyz` and in the log what the role waits for, and waits until the next attempt.
async fn pause(what: &str, status: &NotifyStatus, log_limit: &LogLimit) {
    let waiting = format!("waiting for {what}");
    if log_limit.allows() {
        tracing::warn!("{waiting}");
    }
    status.set_waiting(NotifyWait::Start, Some(waiting));
    status.beat();
    tokio::time::sleep(RETRY_PAUSE).await;
}

/// Returns a text about an error of DynamoDB, with the remedy.
pub(super) fn dynamodb_error(error: &StoreError) -> String {
    match remedy::of_store(error) {
        Some(remedy) => format!("DynamoDB: {error}; {remedy}"),
        None => format!("DynamoDB: {error}"),
    }
}
