//! What the answers of DynamoDB say about its tables: which takes no writes, which are missing, and
//! whether they are others than before.

use std::time::Duration;

use crate::cmd::consume::shell::{Done, Shell, send};
use crate::cmd::consume::status::Wait;
use crate::store::error::{Kind, StoreError};
use crate::telemetry::steady_ms;

impl Shell {
    /// Looks at what a write to one of the tables brought: says an error now and then, and notices missing
    /// tables.
    pub(super) fn notice(&mut self, table: &'static str, error: Option<StoreError>) {
        let Some(error) = error else {
            // While tables are suspect, nothing is sent at all.
            if !self.tables_suspect && self.failing.remove(table).is_some() {
                self.tell_failing();
            }
            return;
        };
        if error.kind().is_retryable() {
            self.failing.insert(table, error.to_string());
            self.tell_failing();
        }
        self.say("sink", || {
            tracing::warn!(%error, "DynamoDB does not take a write, trying again");
        });
        if error.kind() == Kind::NotFound && !self.tables_suspect {
            self.tables_suspect = true;
            self.read_tables(Duration::ZERO);
        }
    }

    /// Notes that no write waits for a table any more: what failed last was another's by then.
    pub(super) fn nothing_waits(&mut self) {
        if !self.tables_suspect && !self.failing.is_empty() {
            self.failing.clear();
            self.tell_failing();
        }
    }

    /// Says which write DynamoDB does not take.
    fn tell_failing(&mut self) {
        let first = self.failing.values().next();
        let waiting = first.map(|error| format!("waiting for DynamoDB to take writes: {error}"));
        if waiting.is_none() {
            self.say("sink again", || {
                tracing::info!("DynamoDB takes writes again")
            });
        }
        self.p.host.status.set_waiting(Wait::Sink, waiting);
    }

    fn read_tables(&self, wait: Duration) {
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let id = locator.tables_id().await;
            send(&done, Done::Tables(id));
        });
    }

    pub(super) fn tables_read(&mut self, id: Option<String>) {
        match id {
            None => {
                self.p
                    .host
                    .status
                    .set_waiting(Wait::Tables, Some("waiting for the tables".to_owned()));
                self.read_tables(Duration::from_secs(1));
            }
            Some(id) => {
                self.tables_suspect = false;
                self.p.host.status.set_waiting(Wait::Tables, None);
                if self.p.pipeline.tables_seen(steady_ms(), &id) {
                    tracing::warn!("the tables are new, every partition starts over");
                }
            }
        }
    }
}
