//! Counts the faults in a run, so that a test can check that all kinds of faults occur.

/// Counts the faults in a run, so that a test can check that all kinds of faults occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) crashes: u64,
    pub(crate) conflicts: u64,
    pub(crate) lost_requests: u64,
    pub(crate) lost_replies: u64,
    pub(crate) throttled: u64,
    pub(crate) zombie_writes: u64,
    pub(crate) landed_late: u64,
    pub(crate) lost_commits: u64,
    pub(crate) late: u64,
    pub(crate) future: u64,
    pub(crate) rejected: u64,
    pub(crate) refused: u64,
    pub(crate) unprocessed: u64,
    pub(crate) remade_topics: u64,
    pub(crate) lost_groups: u64,
    pub(crate) remade_tables: u64,
    pub(crate) retained: u64,
    pub(crate) out_of_range: u64,
    pub(crate) added_partitions: u64,
    pub(crate) drained: u64,
    pub(crate) stale_publishes: u64,
    pub(crate) skipped: u64,
    pub(crate) real_gaps: u64,
    pub(crate) refuted_gaps: u64,
    pub(crate) wrong_answers: u64,
    pub(crate) older_versions: u64,
    pub(crate) halted: u64,
    pub(crate) deleted_progress: u64,
    pub(crate) replaced_clients: u64,
}

impl Seen {
    /// Returns the name and the count of every kind of fault.
    pub(crate) fn all(&self) -> [(&'static str, u64); 29] {
        [
            ("crashes", self.crashes),
            ("conflicts", self.conflicts),
            ("lost requests", self.lost_requests),
            ("lost replies", self.lost_replies),
            ("throttled", self.throttled),
            ("zombie writes", self.zombie_writes),
            ("landed late", self.landed_late),
            ("lost commits", self.lost_commits),
            ("late events", self.late),
            ("future events", self.future),
            ("rejected records", self.rejected),
            ("refused items", self.refused),
            ("unprocessed items", self.unprocessed),
            ("remade topics", self.remade_topics),
            ("lost groups", self.lost_groups),
            ("remade tables", self.remade_tables),
            ("retention", self.retained),
            ("out of range", self.out_of_range),
            ("added partitions", self.added_partitions),
            ("drained partitions", self.drained),
            ("publishes after other tables", self.stale_publishes),
            ("skipped records", self.skipped),
            ("real gaps", self.real_gaps),
            ("refuted gaps", self.refuted_gaps),
            ("wrong answers", self.wrong_answers),
            ("sums forgotten by an older version", self.older_versions),
            (
                "consumers that stop because their tables are gone",
                self.halted,
            ),
            ("deleted progress items", self.deleted_progress),
            ("replaced clients", self.replaced_clients),
        ]
    }
}
