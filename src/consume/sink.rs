//! What the answers of DynamoDB say about its tables: which takes no writes, which are missing, and
//! whether they are others than before. When that keeps from writing is decided by [`crate::core::doubt`].

use std::collections::BTreeSet;
use std::time::Duration;

use crate::consume::locate::Trouble;
use crate::consume::shell::{Done, Shell, send};
use crate::consume::status::Wait;
use crate::core::doubt::Next;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::sys;
use crate::telemetry::steady_ms;

/// Time between two questions while tables are in doubt.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

impl Shell {
    /// Looks at what a write to one of the tables brought: says an error now and then, and notices missing
    /// tables.
    pub(super) fn notice(&mut self, table: usize, error: Option<StoreError>) {
        let Some(error) = error else {
            // While tables are in doubt, nothing is sent: this answers an earlier try.
            if !self.doubt.is_open() && self.failing.remove(&table).is_some() {
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
        if error.kind() == StoreErrorKind::NotFound {
            self.miss(table);
        }
    }

    /// Notes that no write waits for a table any more: what failed last was another's by then.
    pub(super) fn nothing_waits(&mut self) {
        if !self.doubt.is_open() && !self.failing.is_empty() {
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

    /// Notes that a table is missing.
    pub(super) fn miss(&mut self, table: usize) {
        if self.doubt.miss(table) {
            self.ask_tables(Duration::ZERO);
        }
    }

    /// Holds back all writes while the tables are in doubt.
    pub(super) fn mind_tables(&mut self) {
        // Without partitions nobody asks, and whoever gets one asks first.
        let writes = self.p.pipeline.workers().next().is_some();
        if writes && self.doubt.lapse(sys::boot_ms()) {
            tracing::debug!("the tables' id was not read for long, asking before the next write");
            self.ask_tables(Duration::ZERO);
        }
        self.p.pipeline.hold_writes(self.doubt.is_open());
    }

    fn ask_tables(&self, wait: Duration) {
        let (tables, done) = (self.p.locator.tables(), self.done_in.clone());
        let missing = self.doubt.missing().clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let asked_ms = sys::boot_ms();
            let found = tables.id_behind(&missing).await;
            send(&done, Done::Settled(missing, asked_ms, found));
        });
    }

    /// Takes the answer of tables that are in doubt.
    pub(super) fn settled(
        &mut self,
        asked: &BTreeSet<usize>,
        asked_ms: i64,
        found: Result<String, Trouble>,
    ) {
        let (id, why) = match found {
            Ok(id) => {
                let why = "waiting to see that a table stays, which was missing and is back";
                (Some(id), why.to_owned())
            }
            Err(Trouble::Wait(why)) => (None, format!("waiting for {why}")),
            Err(Trouble::Settings(error)) => {
                self.end = Some(Err(error.into()));
                return;
            }
        };
        match self.doubt.answered(sys::boot_ms(), asked, id.as_deref()) {
            Next::Ask => self.ask_tables(Duration::ZERO),
            Next::Wait => {
                self.p.host.status.set_waiting(Wait::Tables, Some(why));
                self.ask_tables(ASK_INTERVAL);
            }
            Next::Write => {
                self.p.host.status.set_waiting(Wait::Tables, None);
                // What failed before may be written to no more.
                self.nothing_waits();
                let id = id.expect("only an id ends the doubt");
                self.tables_read(&id, asked_ms);
            }
        }
    }

    /// Takes the tables' id as the config item gave it to who asked at `asked_ms`.
    pub(super) fn tables_read(&mut self, id: &str, asked_ms: i64) {
        if self.doubt.read(id, asked_ms) && self.p.pipeline.tables_seen(steady_ms(), id) {
            tracing::warn!("the tables are new, every partition starts over");
        }
    }
}
