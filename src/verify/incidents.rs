//! `verify --incidents`: evaluates the rules on the log again, and compares the resulting incidents with the stored
//! rows.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::blocking::run_blocking;
use crate::core::event::Offset;
use crate::core::incident::Incident;
use crate::core::incident::audit::{Base, IncidentAudit, IncidentAuditOutcome};
use crate::core::incident::fold::IncidentSource;
use crate::core::incident::rule::{Rule, fingerprint};
use crate::kafka::reader::LogRecord;
use crate::settings::VerifyOutput;
use crate::shutdown::Shutdown;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::incidents::{IncidentTable, StoredCheckpoint, describe_missing_table};
use crate::telemetry::Metrics;
use crate::verify::compare::{CompareSource, Facts};

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct IncidentReport {
    /// The result of comparing the rows of incidents with the log.
    pub outcome: IncidentAuditOutcome,
    /// The number of records that the comparison evaluated.
    pub records: u64,
    /// The partitions that cannot be compared, each with the reason.
    pub incomparable: BTreeMap<i32, &'static str>,
}

impl IncidentReport {
    /// Returns true if every compared row agrees with the log. Returns false if no row was compared and at least one
    /// partition could not be compared.
    pub fn agrees(&self) -> bool {
        let was_possible = self.incomparable.is_empty() || self.outcome.compared > 0;
        self.outcome.difference_count == 0 && was_possible
    }

    /// Writes the report as text or as one JSON object.
    pub(super) fn write(&self, output: VerifyOutput, out: &mut dyn Write) -> io::Result<()> {
        if output == VerifyOutput::Json {
            writeln!(out, "{}", self.json())?;
            return out.flush();
        }
        for one in &self.outcome.differences {
            let (rule, id) = &one.name;
            writeln!(out, "incident {rule}#{id}: {}", one.what)?;
        }
        for (partition, why) in &self.incomparable {
            writeln!(out, "partition {partition} cannot be compared: {why}")?;
        }
        let [compared, records, differences] = [
            self.outcome.compared,
            self.records,
            self.outcome.difference_count,
        ]
        .map(HumanCount);
        writeln!(
            out,
            "compared {compared} incidents with {records} records of the log, difference {differences}"
        )?;
        out.flush()
    }

    fn json(&self) -> Value {
        let differences = self.outcome.differences.iter();
        let differences = differences.map(|one| {
            let (rule, incident) = &one.name;
            json!({"rule": &**rule, "incident": &**incident, "what": one.what})
        });
        json!({
            "agrees": self.agrees(),
            "incidents": self.outcome.compared,
            "records": self.records,
            "difference_count": self.outcome.difference_count,
            "differences": differences.collect::<Vec<_>>(),
            "incomparable": self.incomparable,
        })
    }
}

/// The comparisons of all partitions, and the number of records that were read.
struct Audits {
    partitions: BTreeMap<i32, IncidentAudit>,
    records: u64,
}

/// Compares the rows of incidents with the log. `rules` contains the rules of `notify`. Returns `None` if `shutdown` is
/// triggered.
///
/// # Errors
/// Returns an error if the log or the tables cannot be read.
pub async fn compare_incidents(
    source: &CompareSource,
    rules: &[Rule],
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<IncidentReport>> {
    let facts = Facts::find(source, metrics).await?;
    let table = IncidentTable::new(source.client.clone(), &source.names.incidents);
    // The checkpoints are read before the rows, so the rows contain all changes up to the checkpoints.
    let explain = |error| explain(error, source);
    let stored = table.checkpoints(&facts.topic_id).await.map_err(explain)?;
    let begins = begins(&facts).await?;
    let mut report = IncidentReport::default();
    let mut bases = BTreeMap::new();
    let print = fingerprint(rules, &facts.config.rules);
    for (partition, begin) in begins {
        match find_base(stored.get(&partition), &print, begin) {
            Ok(found) => drop(bases.insert(partition, found)),
            Err(why) => drop(report.incomparable.insert(partition, why)),
        }
    }
    let rows = read_rows(&table, rules, &facts.topic_id, &bases).await;
    let mut rows = rows.map_err(explain)?;
    let audit = |(partition, (base, claim)): (i32, (Base, Offset))| {
        let source = IncidentSource {
            topic: source.topic.as_str().into(),
            topic_id: facts.topic_id.as_str().into(),
            partition,
            times: facts.config.rules,
        };
        let rows = rows.remove(&partition).unwrap_or_default();
        let audit = IncidentAudit::new(source, rules, base, claim, rows);
        (partition, audit)
    };
    let audits = Audits {
        partitions: bases.into_iter().map(audit).collect(),
        records: 0,
    };
    let Some(audits) = facts.each_record(shutdown, audits, take).await? else {
        return Ok(None);
    };
    report.records = audits.records;
    for audit in audits.partitions.into_values() {
        report.outcome.merge(audit.outcome());
    }
    Ok(Some(report))
}

fn explain(error: StoreError, source: &CompareSource) -> anyhow::Error {
    match error.kind() {
        StoreErrorKind::NotFound => describe_missing_table(&source.names).into(),
        _ => anyhow::Error::new(error).context("failed to read the incidents"),
    }
}

/// Returns the offset of the oldest record of each partition.
async fn begins(facts: &Facts) -> anyhow::Result<BTreeMap<i32, Offset>> {
    let (survey, partitions) = (Arc::clone(&facts.survey), facts.partitions);
    let ends = run_blocking(move || survey.ends(partitions)).await;
    let ends = ends.context("failed to ask Kafka where the log begins and ends")?;
    Ok(ends.into_iter().map(|(p, (begin, _))| (p, begin)).collect())
}

/// Returns the oldest base for which the log still contains all later records, together with an offset. A base is a
/// checkpoint from which the rules can be evaluated again. The rows of incidents contain the effects of all records
/// below the returned offset.
fn find_base(
    stored: Option<&StoredCheckpoint>,
    print: &str,
    begin: Offset,
) -> Result<(Base, Offset), &'static str> {
    let stored = stored.ok_or("notify has not published a checkpoint")?;
    if stored.rules != print {
        return Err("notify has not published a checkpoint under these rules");
    }
    let mut bases = stored.bases.iter().map(|kept| kept.base);
    let base = bases.find(|base| base.start.next >= begin);
    let base = base.ok_or("the log no longer has the records since a checkpoint that was kept")?;
    Ok((base, stored.checkpoint.next))
}

/// Reads the incidents that the comparisons need, grouped by partition.
async fn read_rows(
    table: &IncidentTable,
    rules: &[Rule],
    topic_id: &str,
    bases: &BTreeMap<i32, (Base, Offset)>,
) -> Result<BTreeMap<i32, Vec<Incident>>, StoreError> {
    let mut out = BTreeMap::<i32, Vec<Incident>>::new();
    for rule in rules {
        for stored in table.of_rule(&rule.name).await? {
            let incident = stored.incident;
            let Some(partition) = partition_of(&incident, topic_id) else {
                continue;
            };
            let base = bases.get(&partition);
            if base.is_some_and(|(base, _)| IncidentAudit::needs(base, &incident)) {
                out.entry(partition).or_default().push(incident);
            }
        }
    }
    Ok(out)
}

/// Returns the partition of an incident, or `None` if the incident belongs to another topic.
fn partition_of(incident: &Incident, topic_id: &str) -> Option<i32> {
    let rest = incident.id.strip_prefix(topic_id)?.strip_prefix('#')?;
    rest.split_once('#')?.0.parse().ok()
}

fn take(audits: &mut Audits, record: &LogRecord) -> anyhow::Result<()> {
    audits.records += 1;
    if let Some(audit) = audits.partitions.get_mut(&record.partition) {
        let body = record.body.as_ref().ok();
        audit.take(record.offset, record.record_ms, body);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::UnixMs;
    use crate::core::incident::fold::{Checkpoint, RuleStart};
    use crate::core::watermark::MaxTime;
    use crate::store::incidents::StoredBase;

    #[test]
    fn incidents_agree_only_if_some_could_be_compared() {
        for (compared, incomparable, agrees) in [
            (0, false, true),
            (0, true, false),
            (1, true, true),
            (1, false, true),
        ] {
            let reason = "notify has not published a checkpoint";
            let mut report = IncidentReport {
                incomparable: incomparable.then_some((0, reason)).into_iter().collect(),
                ..IncidentReport::default()
            };
            report.outcome.compared = compared;
            assert_eq!(report.agrees(), agrees, "{report:?}");
            report.outcome.difference_count = 1;
            assert!(!report.agrees(), "{report:?}");
        }
    }

    #[test]
    fn the_oldest_base_that_the_log_still_has_is_chosen() {
        let base = |next| Base {
            start: RuleStart {
                next: Offset(next),
                max: MaxTime::default(),
            },
            next: Offset(next + 1),
        };
        let kept = |next| StoredBase {
            base: base(next),
            made_ms: UnixMs(0),
        };
        let stored = StoredCheckpoint {
            checkpoint: Checkpoint::begin(Offset(90)),
            owed: Vec::new(),
            rules: "a".to_owned(),
            bases: vec![kept(10), kept(20)],
        };
        let find = |print, begin| find_base(Some(&stored), print, Offset(begin));
        assert_eq!(find("a", 5), Ok((base(10), Offset(90))));
        assert_eq!(find("a", 11), Ok((base(20), Offset(90))));
        assert!(find("a", 21).is_err());
        assert!(find("b", 5).is_err());
        assert!(find_base(None, "a", Offset(5)).is_err());
    }
}
