//! What the answers of DynamoDB say about its tables: which takes no writes, which are missing, and
//! whether they are others than before.
//!
//! An update of a row is repeated until it succeeds, and must not succeed in a table that was made anew: the
//! fence it leaves there would say that all below was counted. So nothing is written
//!
//! - from the first missing table on, until that table is there and the config item, which is written last, was
//!   read after it. If the tables have their old id then, the table may have been restored, or the config item
//!   may stand in a table that is about to go: the id must stay for [`SETTLE`];
//! - where the tables' id was not read for [`SURE_MAX`], until it was: this process may have slept, or been cut
//!   off, for as long as it takes to make tables.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::cmd::consume::locate::Trouble;
use crate::cmd::consume::shell::{Done, Shell, send};
use crate::cmd::consume::status::Wait;
use crate::cmd::consume::watch::TABLES_INTERVAL;
use crate::store::error::{Kind, StoreError};
use crate::sys;
use crate::telemetry::steady_ms;

/// Time between two questions while tables are in doubt.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may be since the tables' id was read: one look may fail.
const SURE_MAX: Duration = TABLES_INTERVAL.saturating_mul(2);
/// How long tables of which one was missing must have their old id; AWS deletes a table in less.
const SETTLE: Duration = Duration::from_secs(30);

/// What a consumer knows of its tables.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// Their id, and when it was asked for last, since boot.
    id: Option<(String, Duration)>,
    /// Tables that were missing.
    missing: BTreeSet<usize>,
    /// Since when all of these are there again, under the old id.
    back_since: Option<Instant>,
    /// The id was not read for too long.
    stale: bool,
}

impl Knowledge {
    /// Tells whether nothing may be written now.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.stale || !self.missing.is_empty()
    }
}

impl Shell {
    /// Looks at what a write to one of the tables brought: says an error now and then, and notices missing
    /// tables.
    pub(super) fn notice(&mut self, table: usize, error: Option<StoreError>) {
        let Some(error) = error else {
            // While tables are in doubt, nothing is sent: this answers an earlier try.
            if !self.tables.are_in_doubt() && self.failing.remove(&table).is_some() {
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
            self.miss(table);
        }
    }

    /// Notes that no write waits for a table any more: what failed last was another's by then.
    pub(super) fn nothing_waits(&mut self) {
        if !self.tables.are_in_doubt() && !self.failing.is_empty() {
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
        let known = self.tables.are_in_doubt();
        self.tables.missing.insert(table);
        if !known {
            self.ask_tables(Duration::ZERO);
        }
    }

    /// Holds back all writes while the tables are in doubt.
    pub(super) fn mind_tables(&mut self) {
        let too_long = |(_, asked_at): &(String, Duration)| {
            sys::since_boot().saturating_sub(*asked_at) > SURE_MAX
        };
        // Without partitions nobody asks, and whoever gets one asks first.
        let writes = self.p.pipeline.workers().next().is_some();
        if writes && !self.tables.are_in_doubt() && self.tables.id.as_ref().is_some_and(too_long) {
            tracing::debug!("the tables' id was not read for long, asking before the next write");
            self.tables.stale = true;
            self.ask_tables(Duration::ZERO);
        }
        self.p.pipeline.hold_writes(self.tables.are_in_doubt());
    }

    fn ask_tables(&self, wait: Duration) {
        let (tables, done) = (self.p.locator.tables(), self.done_in.clone());
        let missing = self.tables.missing.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let asked_at = sys::since_boot();
            let found = tables.id_behind(&missing).await;
            send(&done, Done::Settled(missing, asked_at, found));
        });
    }

    /// Takes the answer of tables that are in doubt.
    pub(super) fn settled(
        &mut self,
        asked: &BTreeSet<usize>,
        asked_at: Duration,
        found: Result<String, Trouble>,
    ) {
        let id = match found {
            Err(Trouble::Settings(error)) => {
                self.end = Some(Err(error.into()));
                return;
            }
            Err(Trouble::Wait(why)) => {
                self.tables.back_since = None;
                return self.wait_for_tables(format!("waiting for {why}"));
            }
            Ok(id) => id,
        };
        if *asked != self.tables.missing {
            // A write that was under way told of another meanwhile.
            return self.ask_tables(Duration::ZERO);
        }
        let is_old = self.tables.id.as_ref().is_some_and(|(old, _)| *old == id);
        if is_old && !asked.is_empty() {
            let since = self.tables.back_since.get_or_insert_with(Instant::now);
            if since.elapsed() < SETTLE {
                let what = "a table was missing and is back, waiting to see that it stays";
                return self.wait_for_tables(what.to_owned());
            }
        }
        self.tables.missing.clear();
        self.tables.back_since = None;
        self.tables.stale = false;
        self.p.host.status.set_waiting(Wait::Tables, None);
        // What failed before may be written to no more.
        self.nothing_waits();
        self.tables_read(id, asked_at);
    }

    fn wait_for_tables(&self, what: String) {
        self.p.host.status.set_waiting(Wait::Tables, Some(what));
        self.ask_tables(ASK_INTERVAL);
    }

    /// Takes the tables' id as the config item gave it to who asked at `asked_at`.
    pub(super) fn tables_read(&mut self, id: String, asked_at: Duration) {
        let known = self.tables.id.as_ref();
        if known.is_some_and(|(_, known_at)| *known_at > asked_at) {
            // Of two questions the older one was answered last.
            return;
        }
        if self.p.pipeline.tables_seen(steady_ms(), &id) {
            tracing::warn!("the tables are new, every partition starts over");
        }
        // While they are in doubt, what is known is what was before.
        if !self.tables.are_in_doubt() {
            self.tables.id = Some((id, asked_at));
        }
    }
}
