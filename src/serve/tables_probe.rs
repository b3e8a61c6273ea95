//! Checks periodically whether the DynamoDB tables can be read, and reports the result in `/readyz` and the log.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;

use crate::api::ops::Probe;
use crate::api::state::public_reason;
use crate::core::keys::TableNames;
use crate::remedy;
use crate::shutdown::Shutdown;
use crate::store::config::read_config;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::former;
use crate::store::reads::Reads;
use crate::store::rights::TableUser;

/// Time between two checks of the tables. Each check costs half a DynamoDB read unit.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Maximum duration of one check of the tables.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// A probe that stores the result of the last check of the tables.
pub(crate) struct TablesProbe {
    state: Mutex<Result<(), String>>,
    client: Client,
    names: TableNames,
}

impl TablesProbe {
    /// Returns a probe that reports "not ready" until the first check has succeeded.
    pub(crate) fn new(client: Client, names: TableNames) -> TablesProbe {
        TablesProbe {
            state: Mutex::new(Err("waiting for DynamoDB".to_owned())),
            client,
            names,
        }
    }

    /// Checks the tables periodically until `shutdown` is triggered, and logs each change of the result once.
    pub(crate) async fn watch(self: Arc<TablesProbe>, reads: Arc<dyn Reads>, shutdown: Shutdown) {
        loop {
            let state = match tokio::time::timeout(CHECK_TIMEOUT, reads.ping()).await {
                Ok(result) => result,
                Err(_elapsed) => Err(StoreError::Waited {
                    what: "DynamoDB".to_owned(),
                    seconds: CHECK_TIMEOUT.as_secs(),
                }),
            };
            let are_former = match &state {
                Err(error) => self.are_former(error).await,
                Ok(()) => false,
            };
            self.set(&state, are_former);
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
        }
    }

    /// Returns true if the tables with the configured prefix belong to the former system, which citystream replaces.
    /// The former system has a table of windows, but no table of totals.
    async fn are_former(&self, error: &StoreError) -> bool {
        let (client, names) = (&self.client, &self.names);
        error.kind() == StoreErrorKind::NotFound
            && matches!(read_config(client, names).await, Err(error) if error.kind() == StoreErrorKind::NotFound)
            && former::has_windows(client, names, TableUser::Serve).await
    }

    fn set(&self, state: &Result<(), StoreError>, are_former: bool) {
        let public = match state {
            Ok(()) => Ok(()),
            Err(_) if are_former => {
                Err("waiting: there is a table of windows, but no table of totals".to_owned())
            }
            Err(error) => Err(format!("waiting: {}", public_reason(error))),
        };
        let mut held = self.state.lock().expect("no panic holds the state");
        if *held == public {
            return;
        }
        match state {
            Ok(()) => tracing::info!("the tables can be read"),
            Err(error) => {
                let todo = if are_former {
                    Some(former::REMEDY)
                } else {
                    remedy::of_store(error)
                };
                tracing::warn!(%error, todo, "waiting for the tables");
            }
        }
        *held = public;
    }
}

impl Probe for TablesProbe {
    /// The `serve` role always counts as alive, because a restart cannot restore a table.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.state.lock().expect("no panic holds the state").clone()
    }
}
