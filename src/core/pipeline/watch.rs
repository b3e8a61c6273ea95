//! What time and answers show of the tables and of the Kafka client: when writes stop, and when the client is replaced.

use super::{Halt, Output, Pipeline, Publish};
use crate::event::Offset;
use crate::stall::Look;
use crate::table_identity::Seen;
use crate::worker::Worker;

impl Pipeline {
    /// Decides whether the tables may be written to now.
    pub(super) fn watch_tables(&mut self, boot_ms: i64) {
        if self.workers().next().is_none() {
            // The next partition begins with whatever tables there are then.
            self.identity.forget();
            self.held = self.halted;
            return;
        }
        if !self.halted && self.identity.begin_read(boot_ms) {
            self.outputs.push_back(Output::ReadTables);
        }
        self.held = self.halted || !self.identity.is_trusted(boot_ms);
    }

    /// Takes the tables' id, which was read by a request that began at `asked_ms` of the clock that goes on while the
    /// host sleeps.
    pub fn tables_read(&mut self, tables_id: &str, asked_ms: i64) {
        match self.identity.read(tables_id, asked_ms) {
            Seen::Same => self.restore_progress(asked_ms),
            Seen::Replaced { was } => self.halt_tables(Halt::TablesReplaced {
                was,
                is: tables_id.to_owned(),
            }),
        }
    }

    /// Takes the end of a read of the tables' id that found no answer.
    pub fn tables_unread(&mut self, boot_ms: i64) {
        self.identity.read_failed(boot_ms);
    }

    /// Takes an answer that says that a table, or the config item in it, is missing. `table` is its place in
    /// [`crate::keys::TABLES`].
    ///
    /// A consumer that waited for the table and went on would have to prove that it is the old table with all of its
    /// rows; nothing in DynamoDB proves that. So it stops. Before its partitions run, a consumer waits for tables.
    pub fn table_missing(&mut self, table: usize) {
        if self.workers().next().is_some() {
            self.halt_tables(Halt::TableMissing { table });
        }
    }

    fn halt_tables(&mut self, halt: Halt) {
        self.held = true;
        if !self.halted {
            self.halted = true;
            self.halt(halt);
        }
    }

    /// Returns whether writes wait until the tables' id has been read.
    pub fn holds_writes(&self) -> bool {
        self.held
    }

    /// Takes the answer that there is no progress item to move. Either it was deleted, or the tables were made
    /// again; the tables' id says which.
    pub fn progress_missing(&mut self, boot_ms: i64, publish: Publish) {
        self.missing.push((boot_ms, publish));
        self.identity.read_soon(boot_ms);
    }

    /// Creates missing progress items once an id that was read after them shows that the tables are the same.
    fn restore_progress(&mut self, asked_ms: i64) {
        for (since_ms, publish) in std::mem::take(&mut self.missing) {
            if since_ms > asked_ms {
                self.missing.push((since_ms, publish));
            } else if self.has(publish.partition, publish.assignment) {
                self.outputs.push_back(Output::RestoreProgress(publish));
            }
        }
    }

    /// Takes the ends of logs, as their leaders have just given them. `reading_paused` says that the memory budget
    /// keeps the client from reading.
    pub fn log_ends(&mut self, now_ms: i64, ends: &[(i32, Offset)], reading_paused: bool) {
        let look = |worker: &Worker| {
            let partition = worker.place().partition;
            let (_, log_end) = ends.iter().find(|(p, _)| *p == partition)?;
            Some(Look {
                partition,
                assignment: worker.place().assignment,
                position: worker.position(),
                log_end: *log_end,
                in_flight: worker.in_flight(),
            })
        };
        let looks: Vec<Look> = self.workers().filter_map(look).collect();
        // A failed write holds nothing back once nothing waits for one.
        let writes_wait = self.writes_fail && self.in_flight() > 0;
        let held_back = self.held || writes_wait || reading_paused;
        let stalled = self.stalls.look(now_ms, &looks, held_back);
        if stalled.is_empty() {
            return;
        }
        self.stalls.renewed(&stalled);
        // The new client joins the group as another member, so the next owner of the partitions reads again what is in
        // flight here, and the fences reject what is counted (INV-2).
        let all: Vec<i32> = self.partitions().collect();
        self.revoked(now_ms, &all, true, 0);
        self.commit = None;
        self.outputs.push_back(Output::ReplaceClient { stalled });
    }

    /// Returns the partitions that stand still although the client was replaced.
    pub fn stuck(&self) -> Vec<i32> {
        self.stalls.stuck()
    }
}
