//! Waits until a table is active, accepts a change, or no longer exists.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{IndexStatus, TableDescription, TableStatus};

use super::describe_table;
use crate::failure::Failure;
use crate::store::error::{StoreError, StoreErrorKind};

/// Maximum time for a table to become active or to accept a change. AWS usually needs only a few seconds to create or
/// change a table. A new table accepts point-in-time recovery only after a few minutes.
pub const CHANGE_LIMIT: Duration = Duration::from_secs(300);
/// First pause between two requests for the status of a table. The pause doubles up to [`POLL_MAX`].
const POLL_FIRST: Duration = Duration::from_millis(50);
/// Maximum pause between two requests for the status of a table.
const POLL_MAX: Duration = Duration::from_secs(2);
/// Minimum time between two log lines while the program waits for a table.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Waits until a table and its indexes are active.
///
/// # Errors
/// Returns [`StoreError::Waited`] when the time `limit` is over, or the error from DynamoDB.
pub async fn wait_active(
    client: &Client,
    table: &str,
    limit: Duration,
) -> Result<TableDescription, StoreError> {
    let mut wait = TableWait::new(limit);
    loop {
        let state = match describe_table(client, table).await? {
            None => "it does not exist".to_owned(),
            Some(found) => match readiness(&found) {
                TableReadiness::Ready => return Ok(found),
                TableReadiness::Wait(state) => state,
                TableReadiness::Never(failure) => return Err(StoreError::Settings(failure)),
            },
        };
        let what = || format!("table {table} to become active ({state})");
        wait.pause(what).await?;
    }
}

/// Says whether a table accepts changes and answers requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableReadiness {
    /// The table and its indexes are active.
    Ready,
    /// DynamoDB is still creating, changing or deleting the table or its index. The text names the status of the table
    /// or of the index.
    Wait(String),
    /// The table becomes ready only after an operator has fixed the problem in the failure message.
    Never(Failure),
}

/// Returns the readiness of a table, based on its status and the status of its indexes.
///
/// The states come from `TableStatus` and `IndexStatus` in the API reference of DynamoDB.
pub fn readiness(found: &TableDescription) -> TableReadiness {
    let name = found.table_name().unwrap_or_default();
    let status = found.table_status().map_or("unknown", TableStatus::as_str);
    let remedy = match found.table_status() {
        Some(TableStatus::Active) => None,
        Some(TableStatus::InaccessibleEncryptionCredentials) => {
            Some("enable its KMS key again, and let DynamoDB use it")
        }
        Some(TableStatus::Archiving | TableStatus::Archived) => {
            Some("restore its backup under another --table-prefix")
        }
        Some(TableStatus::ReplicationNotAuthorized) => {
            Some("give back the right to replicate it to the other Regions")
        }
        _ => return TableReadiness::Wait(format!("its status is {status}")),
    };
    if let Some(remedy) = remedy {
        return TableReadiness::Never(
            Failure::new(format!("table {name} cannot be used"))
                .with_why(format!("its status is {status}"))
                .with_remedy(remedy),
        );
    }
    for index in found.global_secondary_indexes() {
        let name = index.index_name().unwrap_or_default();
        match index.index_status() {
            None | Some(IndexStatus::Active) => {}
            Some(status) => {
                let filling = match index.backfilling() {
                    Some(true) => ", DynamoDB is filling it",
                    _ => "",
                };
                let status = status.as_str();
                return TableReadiness::Wait(format!(
                    "the status of index {name} is {status}{filling}"
                ));
            }
        }
    }
    TableReadiness::Ready
}

/// Repeats a change to a table until DynamoDB accepts it. DynamoDB refuses changes while it creates or updates the
/// table, and refuses point-in-time recovery for a few minutes after it has created the table.
///
/// # Errors
/// Returns the last refusal when the time `limit` is over, and returns any other error immediately.
pub async fn repeat_while_busy<T>(
    table: &str,
    limit: Duration,
    change: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut wait = TableWait::new(limit);
    wait.logged = None;
    loop {
        let error = match change().await {
            Err(error) if error.is_busy() => error,
            done => return done,
        };
        let what = || format!("table {table} to accept a change ({error})");
        wait.pause(what).await?;
    }
}

/// Deletes a table and waits until it no longer exists. Returns `false` if the table did not exist.
///
/// The function repeats the request while DynamoDB creates or updates the table, because DynamoDB then refuses it.
///
/// # Errors
/// Returns [`StoreError::Waited`] when the time `limit` is over, or the error from DynamoDB.
pub async fn delete(client: &Client, table: &str, limit: Duration) -> Result<bool, StoreError> {
    let request = async || {
        let sent = client.delete_table().table_name(table).send().await;
        sent.map_err(|error| StoreError::from_sdk("DeleteTable", table, error))
    };
    match repeat_while_busy(table, limit, request).await {
        Ok(_) => {}
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    wait_gone(client, table, limit).await?;
    Ok(true)
}

/// Waits until a table that DynamoDB is deleting no longer exists.
///
/// # Errors
/// Returns [`StoreError::Waited`] when the time `limit` is over, or the error from DynamoDB.
pub async fn wait_gone(client: &Client, table: &str, limit: Duration) -> Result<(), StoreError> {
    let mut wait = TableWait::new(limit);
    while describe_table(client, table).await?.is_some() {
        let what = || format!("table {table} to be deleted");
        wait.pause(what).await?;
    }
    Ok(())
}

/// The state of a loop that requests the status of a table, with growing pauses and a time limit. The loop regularly
/// logs the condition for which it waits.
struct TableWait {
    begin: Instant,
    limit: Duration,
    pause: Duration,
    /// The time of the last log line of the loop. If the time is `None`, the loop logs before the next pause.
    logged: Option<Instant>,
}

impl TableWait {
    fn new(limit: Duration) -> TableWait {
        let begin = Instant::now();
        TableWait {
            begin,
            limit,
            pause: POLL_FIRST,
            logged: Some(begin),
        }
    }

    /// Sleeps before the next request for the status of the table.
    ///
    /// # Errors
    /// Returns [`StoreError::Waited`] when the time limit is reached.
    async fn pause(&mut self, what: impl Fn() -> String) -> Result<(), StoreError> {
        if self.begin.elapsed() + self.pause > self.limit {
            return Err(StoreError::Waited {
                what: what(),
                seconds: self.limit.as_secs(),
            });
        }
        if self.logged.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            let seconds = self.begin.elapsed().as_secs();
            tracing::info!(what = what(), seconds, "still waiting");
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(POLL_MAX);
        Ok(())
    }
}
