//! What the answers of DynamoDB say about its tables: which takes no writes, which are missing, and
//! whether they are others than before.
//!
//! A write that is repeated until it succeeds must not succeed in a table that was made anew: the row would say
//! that all below was counted. So from the first missing table on nothing is written at all, until that table is
//! there and the config item, which is written last, was read after it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cmd::consume::shell::{Done, Shell, send};
use crate::cmd::consume::status::Wait;
use crate::store::error::{Kind, StoreError};
use crate::telemetry::steady_ms;

/// Time between two questions for a missing table.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

impl Shell {
    /// Looks at what a write to one of the tables brought: says an error now and then, and notices missing
    /// tables.
    pub(super) fn notice(&mut self, table: usize, error: Option<StoreError>) {
        let Some(error) = error else {
            // While tables are suspect, nothing is sent at all.
            if !self.tables_are_suspect() && self.failing.remove(&table).is_some() {
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
        if error.kind() == Kind::NotFound {
            self.suspect(table);
        }
    }

    /// Notes that no write waits for a table any more: what failed last was another's by then.
    pub(super) fn nothing_waits(&mut self) {
        if !self.tables_are_suspect() && !self.failing.is_empty() {
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

    /// Tells whether nothing may be written now.
    pub(super) fn tables_are_suspect(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Notes that a table was missing.
    pub(super) fn suspect(&mut self, table: usize) {
        let first = self.suspects.is_empty();
        self.suspects.insert(table);
        if first {
            self.ask_suspects(Duration::ZERO);
        }
    }

    fn ask_suspects(&self, wait: Duration) {
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        let asked: BTreeSet<usize> = self.suspects.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let found = locator.settled(&asked).await;
            send(&done, Done::Settled(asked, found));
        });
    }

    pub(super) fn settled(&mut self, asked: &BTreeSet<usize>, found: Result<String, String>) {
        match found {
            Err(why) => {
                let waiting = format!("waiting for {why}");
                self.p.host.status.set_waiting(Wait::Tables, Some(waiting));
                self.ask_suspects(ASK_INTERVAL);
            }
            // A write that was under way told of another meanwhile.
            Ok(_) if *asked != self.suspects => self.ask_suspects(Duration::ZERO),
            Ok(id) => {
                self.suspects.clear();
                self.p.host.status.set_waiting(Wait::Tables, None);
                self.tables_read(&id);
            }
        }
    }

    /// Takes the tables' id as the config item gives it now.
    pub(super) fn tables_read(&mut self, id: &str) {
        if self.p.pipeline.tables_seen(steady_ms(), id) {
            tracing::warn!("the tables are new, every partition starts over");
        }
    }
}
