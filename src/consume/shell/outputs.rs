//! Carries out the outputs of the pipeline.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Shell;
use crate::consume::explain::{Names, explain_halt};
use crate::consume::report::{forget_partition, report_counts};
use crate::core::clock::SteadyMs;
use crate::core::gap::Verdict;
use crate::core::pipeline::{CommitPart, Halt, Output, Publish};
use crate::kafka::second_read;
use crate::sys;
use crate::telemetry::{join_list, steady_ms};

impl Shell {
    /// Passes the current time to the pipeline, and carries out the pipeline's decisions.
    pub(in crate::consume) fn act(&mut self) {
        let now_ms = steady_ms();
        self.pipeline.pump(now_ms, sys::boot_ms());
        // The map groups the partitions by the time of their start, so that one request to Kafka covers all partitions
        // with the same time.
        let mut starts: BTreeMap<SteadyMs, Vec<(i32, u64)>> = BTreeMap::new();
        while let Some(output) = self.pipeline.poll_output() {
            match output {
                Output::Locate {
                    partition,
                    assignment,
                    not_before_ms,
                } => {
                    let at = starts.entry(not_before_ms).or_default();
                    at.push((partition, assignment));
                }
                output => self.start(output),
            }
        }
        for (at_ms, wanted) in starts {
            self.requests.locate(wanted, wait_until(at_ms, now_ms));
        }
        if self.client.budget().is_tight() {
            self.pipeline.make_room();
        }
        self.requests.end_former_letters(&self.pipeline);
        report_counts(&mut self.pipeline, &self.host, self.client.budget());
    }

    fn start(&mut self, output: Output) {
        match output {
            Output::Put(batch) => self.requests.put(batch),
            Output::Update(update) => self.requests.update(update),
            Output::Reject(ticket, rejected) => self.requests.reject(ticket, rejected),
            Output::Refused(table, put) => self.requests.refuse(table, put),
            Output::CreateProgress(publish) => self.requests.create_progress(publish),
            Output::RestoreProgress(publish) => self.requests.restore_progress(publish),
            Output::Publish(publish) => self.requests.publish(publish),
            Output::ReadTables => self.requests.read_tables(),
            Output::CheckTopic => self.requests.check_topic(),
            Output::Commit(parts) => self.requests.commit(parts),
            Output::Hold { partition } => {
                tracing::info!(partition, "restarting the partition");
                self.forget(partition);
                self.client.hold(partition);
            }
            Output::Begin {
                partition,
                assignment,
                next,
            } => {
                tracing::info!(partition, next = next.0, "partition begins");
                self.client.begin(partition, assignment, next);
            }
            Output::Released {
                partition,
                commit,
                publish,
            } => self.released(partition, commit.as_ref(), publish),
            Output::Lost {
                partition,
                from,
                to,
            } => {
                let lost = to.0 - from.0;
                tracing::error!(
                    partition,
                    from = from.0,
                    to = to.0,
                    lost,
                    "records are lost; counts across this range are not exact"
                );
                self.host.metrics.records_lost.inc_by(lost.unsigned_abs());
            }
            Output::Skipped {
                partition,
                gap,
                found,
            } => second_read::warn_if_skipped(partition, gap, Verdict::Skipped { found }),
            Output::CheckGap {
                partition,
                assignment,
                gap,
                not_before_ms,
            } => {
                let wait = wait_until(not_before_ms, steady_ms());
                self.requests.read_gap(partition, assignment, gap, wait);
            }
            Output::ReplaceClient { stalled } => self.replace_client(&stalled),
            Output::Halt(halt) => self.halt(&halt),
            Output::Locate { .. } => unreachable!("gathered by the caller"),
        }
    }

    /// Replaces the Kafka client. The shell does not wait until the old Kafka client has left the group.
    fn replace_client(&mut self, stalled: &[i32]) {
        tracing::warn!(
            partitions = join_list(stalled),
            "partitions have records to read but make no progress, creating a new Kafka client"
        );
        self.host.metrics.stalls.inc();
        // The pipeline has already given up all partitions. The shell must first return the memory of the given-up
        // records to the budget of the old Kafka client.
        report_counts(&mut self.pipeline, &self.host, self.client.budget());
        if let Err(error) = self.client.replace() {
            return self.fail(&format!("failed to create a new Kafka client: {error}"));
        }
        // The rollup task must end, because it uses the old Kafka client.
        self.stop_rollups();
        self.requests.use_client(self.client.inquiry());
        self.topic.look_ended();
    }

    /// Ends the rollup task. A new rollup task starts with the next assignment of partition 0.
    pub(in crate::consume) fn stop_rollups(&mut self) {
        if let Some(rollups) = &mut self.rollups {
            rollups.stop();
        }
    }

    fn halt(&mut self, halt: &Halt) {
        let tables = self.requests.locator().tables();
        let names = Names {
            topic: &self.options.topic,
            topic_id: self.requests.topic_id(),
            group: &self.options.group,
            tables: tables.names(),
        };
        self.end = Some(Err(explain_halt(halt, &names).into()));
    }

    fn released(&mut self, partition: i32, commit: Option<&CommitPart>, publish: Option<Publish>) {
        self.forget(partition);
        if let Some(publish) = publish {
            self.requests.publish(publish);
        }
        self.revokes.release(partition, commit);
    }

    /// Removes the metrics of a partition, and the reason why the consumer cannot start reading it.
    pub(super) fn forget(&mut self, partition: i32) {
        if self.starts.end(partition) {
            self.show_waiting_starts();
        }
        forget_partition(&self.host, &self.options.topic, partition);
    }
}

/// Returns the duration from `now_ms` to `at_ms`, or zero if `at_ms` is in the past.
fn wait_until(at_ms: SteadyMs, now_ms: SteadyMs) -> Duration {
    Duration::from_millis(u64::try_from(at_ms - now_ms).unwrap_or(0))
}
