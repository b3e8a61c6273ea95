//! Decides when writes to the tables must stop, and when the Kafka client must be replaced.

use super::{Halt, Output, Pipeline, Publish};
use crate::clock::{BootMs, SteadyMs};
use crate::event::Offset;
use crate::stall::Look;
use crate::table_identity::TablesSeen;
use crate::worker::Worker;

impl Pipeline {
    /// Decides whether the pipeline may write to the tables now.
    pub(super) fn watch_tables(&mut self, boot_ms: BootMs) {
        if self.workers().next().is_none() {
            // The consumer has no running partition, so the next partition may start with other tables.
            self.identity.forget();
            self.held = self.halted;
            return;
        }
        if !self.halted && self.identity.begin_read(boot_ms) {
            self.outputs.push_back(Output::ReadTables);
        }
        self.held = self.halted || !self.identity.is_trusted(boot_ms);
    }

    /// Processes the tables' id that a read has returned. The read began at `asked_ms`.
    pub fn tables_read(&mut self, tables_id: &str, asked_ms: BootMs) {
        match self.identity.read(tables_id, asked_ms) {
            TablesSeen::Same => self.restore_progress(asked_ms),
            TablesSeen::Replaced { was } => self.halt_tables(Halt::TablesReplaced {
                was,
                is: tables_id.to_owned(),
            }),
        }
    }

    /// Notes that a read of the tables' id failed.
    pub fn tables_unread(&mut self, boot_ms: BootMs) {
        self.identity.read_failed(boot_ms);
    }

    /// Notes that a table or the config item is missing. `table` is the index of the table in [`crate::keys::TABLES`].
    ///
    /// A consumer with running partitions stops, because a table that reappears may lack rows, and DynamoDB cannot tell
    /// whether rows are missing. A consumer without running partitions waits for the tables.
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

    /// Returns true while writes to the tables are paused.
    pub fn holds_writes(&self) -> bool {
        self.held
    }

    /// Notes that a request to advance a progress item has failed because the item does not exist. A progress item is
    /// missing if it was deleted or if the tables were created again. The next read of the tables' id shows whether the
    /// tables were created again.
    pub fn progress_missing(&mut self, boot_ms: BootMs, publish: Publish) {
        self.missing.push((boot_ms, publish));
        self.identity.read_soon(boot_ms);
    }

    /// Creates missing progress items again, because a read of the tables' id has shown that the tables are still the
    /// same. A progress item is created only if the read began after the pipeline learned that the item is missing.
    fn restore_progress(&mut self, asked_ms: BootMs) {
        for (since_ms, publish) in std::mem::take(&mut self.missing) {
            if since_ms > asked_ms {
                self.missing.push((since_ms, publish));
            } else if self.has(publish.partition, publish.assignment) {
                self.outputs.push_back(Output::RestoreProgress(publish));
            }
        }
    }

    /// Looks for partitions that make no progress. `ends` contains the current end of each log, as the leader of the
    /// partition reports it. `reading_paused` is true if the consumer has paused reading because the memory budget is
    /// used up.
    pub fn log_ends(&mut self, now_ms: SteadyMs, ends: &[(i32, Offset)], reading_paused: bool) {
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
        // Failing writes can also stop the reading of records. Therefore, a lack of progress during failing writes does
        // not mean that the Kafka client is stuck.
        let writes_wait = self.writes_fail && self.in_flight() > 0;
        let held_back = self.held || writes_wait || reading_paused;
        let stalled = self.stalls.look(now_ms, &looks, held_back);
        if stalled.is_empty() {
            return;
        }
        self.stalls.renewed(&stalled);
        // The pipeline gives up all partitions, because the new Kafka client joins the group as a new member. The next
        // owners of the partitions read the records in flight again, and the fences reject updates with records that
        // are already counted (INV-2).
        let all: Vec<i32> = self.partitions().collect();
        self.revoked(now_ms, &all, true, 0);
        self.commit = None;
        self.outputs.push_back(Output::ReplaceClient { stalled });
    }

    /// Returns the partitions that make no progress even after the Kafka client was replaced.
    pub fn stuck(&self) -> Vec<i32> {
        self.stalls.stuck()
    }
}
