//! Finds the offset and the state from which a partition continues.

use std::sync::Arc;

use crate::blocking::run_blocking;
use crate::core::event::Offset;
use crate::core::incident::Incident;
use crate::core::incident::audit::Base;
use crate::core::incident::fold::{Checkpoint, Fold, IncidentSource};
use crate::core::incident::owner::name_of;
use crate::core::incident::rule::Rule;
use crate::core::window::Rules;
use crate::exit::SettingsError;
use crate::kafka::REACH_REMEDY;
use crate::kafka::consumer::Inquiry;
use crate::notify::waiting::{ANSWER_TIMEOUT, dynamodb_error};
use crate::settings::StartFrom;
use crate::store::incidents::{IncidentTable, StoredBase, StoredCheckpoint, StoredIncident};
use crate::telemetry::unix_ms;

/// The position in the log at which a partition without a checkpoint starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstStart {
    /// The partition starts with its oldest record.
    Beginning,
    /// The partition starts with the next record that is written.
    End,
}

impl FirstStart {
    /// Converts the value of `--from`.
    ///
    /// # Errors
    /// Returns an error if `--from` is a time. Only a dry run can start at a time.
    pub(super) fn parse(from: StartFrom) -> Result<FirstStart, SettingsError> {
        match from {
            StartFrom::Beginning => Ok(FirstStart::Beginning),
            StartFrom::End => Ok(FirstStart::End),
            StartFrom::Ago(_) | StartFrom::At(_) => {
                let error = SettingsError::new("--from takes end or beginning without --dry-run");
                Err(error.with_remedy("choose --from end or --from beginning, or add --dry-run"))
            }
        }
    }
}

/// The services and settings that are needed to start a partition.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) inquiry: Inquiry,
    pub(super) table: IncidentTable,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Arc<str>,
    pub(super) rules: Arc<[Rule]>,
    /// The fingerprint of the rules.
    pub(super) rules_print: Arc<str>,
    pub(super) times: Rules,
    pub(super) from: FirstStart,
}

/// A partition that is ready to be read.
pub(super) struct Started {
    pub(super) fold: Fold,
    /// The offset of the first record to read.
    pub(super) next: Offset,
    /// The incidents that are open, or whose messages may not have reached a receiver yet.
    pub(super) rows: Vec<StoredIncident>,
    /// Earlier checkpoints that were created with the same rules.
    pub(super) bases: Vec<StoredBase>,
}

impl Starter {
    /// Returns the state from which the partition continues.
    ///
    /// # Errors
    /// Returns the reason and the remedy if Kafka or DynamoDB does not answer. The caller may repeat the call.
    pub(super) async fn start(&self, partition: i32) -> Result<Started, String> {
        let inquiry = self.inquiry.clone();
        let range = run_blocking(move || inquiry.log_range(partition, ANSWER_TIMEOUT)).await;
        let describe = |error| format!("Kafka: {error}; {REACH_REMEDY}");
        let (begin, end) = range.map_err(describe)?;
        let mut stored = self.find_checkpoint(partition, begin, end).await?;
        let mut is_new_base = *stored.rules != *self.rules_print || stored.bases.is_empty();
        let at = &mut stored.checkpoint;
        if at.start.next < begin {
            if at.next < begin {
                let (from, to) = (at.next.0, begin.0);
                tracing::error!(
                    partition,
                    from,
                    to,
                    "retention deleted records before any rule evaluated them"
                );
            } else {
                // The rules have evaluated the deleted records. Only a second evaluation restores the counts of the
                // windows that were open at the checkpoint.
                let (from, to) = (at.start.next.0, begin.0);
                tracing::warn!(
                    partition,
                    from,
                    to,
                    "retention deleted records of open windows; a rule that counts events may count too few"
                );
            }
            at.start.next = begin;
            at.next = at.next.max(begin);
            is_new_base = true;
        }
        if is_new_base {
            // This assignment drops all earlier bases, because an evaluation that starts at an earlier base would no
            // longer reproduce the stored rows.
            stored.bases = vec![StoredBase {
                base: Base::of(at),
                made_ms: unix_ms(),
            }];
        }
        let names: Vec<_> = at.open.iter().chain(&stored.owed).cloned().collect();
        let rows = self
            .table
            .read(&names)
            .await
            .map_err(|e| dynamodb_error(&e))?;
        let open: Vec<Incident> = rows
            .iter()
            .filter(|row| stored.checkpoint.open.contains(&name_of(&row.incident)))
            .map(|row| row.incident.clone())
            .collect();
        let source = IncidentSource {
            topic: Arc::clone(&self.topic),
            topic_id: Arc::clone(&self.topic_id),
            partition,
            times: self.times,
        };
        Ok(Started {
            next: stored.checkpoint.start.next,
            fold: Fold::new(source, &self.rules, &stored.checkpoint, &open),
            rows,
            bases: stored.bases,
        })
    }

    /// Returns the stored checkpoint. If no checkpoint is stored, creates the first checkpoint. The first checkpoint is
    /// at the beginning of the log if the topic was recreated, and otherwise at the position that `--from` chooses.
    async fn find_checkpoint(
        &self,
        partition: i32,
        begin: Offset,
        end: Offset,
    ) -> Result<StoredCheckpoint, String> {
        let (table, topic_id) = (&self.table, &self.topic_id);
        if let Some(stored) = table
            .checkpoint(topic_id, partition)
            .await
            .map_err(|e| dynamodb_error(&e))?
        {
            return Ok(stored);
        }
        let is_new_log = table
            .knows_another_topic(topic_id)
            .await
            .map_err(|e| dynamodb_error(&e))?;
        let next = match self.from {
            _ if is_new_log => begin,
            FirstStart::Beginning => begin,
            FirstStart::End => end,
        };
        let first = StoredCheckpoint {
            checkpoint: Checkpoint::begin(next),
            owed: Vec::new(),
            rules: String::new(),
            bases: Vec::new(),
        };
        table
            .create_checkpoint(topic_id, partition, &first)
            .await
            .map_err(|e| dynamodb_error(&e))?;
        let stored = table
            .checkpoint(topic_id, partition)
            .await
            .map_err(|e| dynamodb_error(&e))?;
        stored.ok_or_else(|| "the checkpoint that was just stored is gone".to_owned())
    }
}
