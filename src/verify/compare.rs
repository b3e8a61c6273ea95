//! Compares the log and the tables in slices, which are ranges of rows that fit into memory.
//!
//! The following order of the reads keeps the comparison exact while consumers run:
//!
//! 1. the topic's id, and the hour before which all hours are rolled up;
//! 2. the claims of the consumers: the offsets in progress items and commits, below which all records are stored;
//! 3. the rows, which contain at least the claimed records; the fences show which other records the rows contain;
//! 4. the end of the log, which is at or after every fence;
//! 5. the log;
//! 6. the rows that an index may not show yet, each read by its key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::ClientConfig;

use crate::blocking::run_blocking;
use crate::core::RULES;
use crate::core::audit::{
    AuditName, AuditOutcome, Counts, Key, Log, Published, RowPlace, Scope, Slice, Stamp,
};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::keys::TableNames;
use crate::core::restart::Metadata;
use crate::core::stretch::Sum;
use crate::exit::SettingsError;
use crate::failure::Failure;
use crate::kafka::reader::{LogReader, LogRecord, ReadRange, ReadStart, ReadStep};
use crate::kafka::survey::Survey;
use crate::shutdown::Shutdown;
use crate::store::config::ConfigItem;
use crate::store::error::StoreErrorKind;
use crate::store::reads::audit::{Audit, AuditView, RollupView};
use crate::telemetry::{Metrics, unix_ms};
use crate::verify::key_pages::KeyPages;
use crate::verify::report::VerifyReport;

/// Maximum wait for the next record while the log still has unread records.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Maximum number of times that the rows of one slice are read. The list of rows may be incomplete at first, because
/// indexes lag behind their tables.
const AGAIN_MAX: u32 = 3;

/// The log and the tables that a comparison reads.
#[derive(Clone)]
pub struct CompareSource {
    /// The connection to DynamoDB.
    pub client: aws_sdk_dynamodb::Client,
    /// The names of the tables.
    pub names: TableNames,
    /// The settings of the Kafka client.
    pub kafka: ClientConfig,
    /// The topic of events. The dead-letter topic is `<topic>-dlq`.
    pub topic: String,
    /// The consumer group.
    pub group: String,
}

/// The settings of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions {
    /// The beginning of the range of event times and window starts. `None` means that the range has no beginning.
    pub from_ms: Option<UnixMs>,
    /// The first instant after the range. `None` means that the range has no end.
    pub until_ms: Option<UnixMs>,
    /// Lifetime of raw events, in milliseconds.
    pub raw_ttl_ms: i64,
    /// Lifetime of alerts, in milliseconds, or `None` if alerts are kept forever.
    pub alert_ttl_ms: Option<i64>,
    /// Maximum memory for rows, in bytes.
    pub memory_bytes: usize,
}

/// The first instant after the largest possible event time.
const UNTIL_MS_MAX: UnixMs = crate::core::time::TIME_MS_END;

/// Compares the log and the tables once. `read` counts the records that were read from the log. Returns `None` if
/// `shutdown` is triggered.
///
/// # Errors
/// Returns an error if the log or the tables cannot be read (exit code 1) or do not belong together (exit code 2).
pub async fn compare(
    source: &CompareSource,
    options: &CompareOptions,
    metrics: &Metrics,
    read: &Arc<AtomicU64>,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<VerifyReport>> {
    tokio::select! {
        compared = compare_all(source, options, metrics, read, shutdown) => compared,
        () = shutdown.wait() => Ok(None),
    }
}

async fn compare_all(
    source: &CompareSource,
    options: &CompareOptions,
    metrics: &Metrics,
    read: &Arc<AtomicU64>,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<VerifyReport>> {
    let begun = Instant::now();
    let facts = Facts::find(source, metrics).await?;
    let from_ms = options.from_ms.unwrap_or(UnixMs(0));
    let from_ms = from_ms.clamp(UnixMs(0), UNTIL_MS_MAX);
    let until_ms = options.until_ms.unwrap_or(UNTIL_MS_MAX);
    let range = (from_ms, until_ms.clamp(from_ms, UNTIL_MS_MAX));
    let mut report = VerifyReport {
        ranged: options.from_ms.is_some() || options.until_ms.is_some(),
        range,
        ..VerifyReport::default()
    };
    let mut lo: Option<RowPlace> = None;
    loop {
        let judged = facts.slice(lo.as_ref(), range, options, read, shutdown);
        let Some(judged) = judged.await? else {
            return Ok(None);
        };
        report.passes += judged.passes;
        report.bytes_peak = report.bytes_peak.max(judged.slice.bytes_peak());
        report.seen = judged.slice.seen();
        report.outcome.merge(judged.outcome);
        lo = judged.slice.hi().cloned();
        if lo.is_none() {
            report.seconds = begun.elapsed().as_secs_f64();
            return Ok(Some(report));
        }
    }
}

/// A slice that has been compared.
struct JudgedSlice {
    slice: Slice,
    outcome: AuditOutcome,
    passes: u32,
}

/// Facts about the topic and the tables that stay the same during the whole comparison.
pub(super) struct Facts {
    source: CompareSource,
    pub(super) audit: Audit,
    pub(super) config: ConfigItem,
    pub(super) survey: Arc<Survey>,
    pub(super) topic_id: String,
    pub(super) partitions: i32,
    made_ms: UnixMs,
}

/// The claims of the consumers. A claim is an offset before which, according to the consumers, all records are stored.
pub(super) struct Claims {
    pub(super) logs: BTreeMap<i32, Log>,
    /// For each restart point: the partition, the offset, and the sums of all earlier records, if the sums are known.
    pub(super) sums: Vec<(i32, Offset, Option<Sum>)>,
    /// True if the tables also contain counts of an earlier topic with the same name.
    remade: bool,
}

impl Facts {
    /// Checks that the log and the tables exist and belong together.
    pub(super) async fn find(source: &CompareSource, metrics: &Metrics) -> anyhow::Result<Facts> {
        let names = source.names.clone();
        let audit = Audit::new(source.client.clone(), names, metrics.clone());
        let config = audit.config().await.map_err(|error| match error.kind() {
            StoreErrorKind::NotFound => {
                Failure::new(format!("there is no table {}", source.names.totals))
                    .with_remedy("citystream init-tables creates it, or says how to restore it")
                    .into()
            }
            _ => anyhow::Error::new(error).context("failed to read the config item"),
        })?;
        let topic = &source.topic;
        if let Some(owner) = config.topic.as_ref().filter(|owner| *owner != topic) {
            bail!(
                SettingsError::new(format!(
                    "the tables {}… count topic {owner}, not {topic}",
                    source.names.totals
                ))
                .with_remedy("give the --topic and the --table-prefix that belong together")
            );
        }
        if config.rules_number != RULES {
            bail!(
                SettingsError::new(format!(
                    "the tables {}… were created with version {} of the rules, but this program has version {RULES}",
                    source.names.totals, config.rules_number
                ))
                .with_remedy("use the matching version")
            );
        }
        let survey = Survey::new(&source.kafka, topic, &source.group).map_err(|e| {
            SettingsError::new("the Kafka client cannot start").with_why(e.to_string())
        })?;
        let survey = Arc::new(survey);
        let asked = Arc::clone(&survey);
        let found = run_blocking(move || asked.topic()).await;
        let found = found.with_context(|| super::unreached(&source.kafka))?;
        let found = found.ok_or_else(|| {
            Failure::new(format!("there is no topic {topic}"))
                .with_remedy(crate::kafka::MISSING_REMEDY)
        })?;
        let made_ms = audit.made_ms().await;
        Ok(Facts {
            source: source.clone(),
            audit,
            config,
            survey,
            topic_id: found.id.to_string(),
            partitions: found.partitions,
            made_ms,
        })
    }

    pub(super) fn view(&self, range: (UnixMs, UnixMs), rollups: RollupView) -> AuditView {
        AuditView {
            topic_id: self.topic_id.clone(),
            shards: self.config.shards,
            window_ms: self.config.rules.window_ms,
            raw_rows: self.config.raw,
            range,
            now_ms: unix_ms(),
            rollups,
        }
    }

    /// Reads the claims of the consumers. The caller must read these claims before the rows, because claims that are
    /// newer than the rows could include records that the rows lack.
    pub(super) async fn claims(&self) -> anyhow::Result<Claims> {
        let progress = self.audit.progress().await?;
        let (survey, partitions) = (Arc::clone(&self.survey), self.partitions);
        let (commits, ends) =
            run_blocking(move || (survey.commits(partitions), survey.ends(partitions))).await;
        let ends = ends.context("failed to ask Kafka where the log begins and ends")?;
        let commits = commits.unwrap_or_else(|error| {
            // The progress items contain slightly older restart points, which the comparison can use as well.
            tracing::warn!(group = self.source.group, %error, "failed to read the group's commits");
            BTreeMap::new()
        });
        let remade = progress.iter().any(|item| item.topic_id != self.topic_id);
        // Each restart point consists of a partition, the next offset, and the largest event time before that offset.
        let mut points: Vec<(i32, Offset, Option<UnixMs>)> = Vec::new();
        let (mut published, mut sums) = (BTreeMap::new(), Vec::new());
        for item in progress.iter().filter(|i| i.topic_id == self.topic_id) {
            points.push((item.partition, item.next, item.max_ms));
            sums.push((item.partition, item.next, item.sums));
            published.insert(item.partition, item);
        }
        for (partition, commit) in &commits {
            let ours = Metadata::parse(&commit.metadata)
                .filter(|m| m.topic_id == self.topic_id && m.tables_id == self.config.tables_id);
            if let Some(m) = ours {
                points.push((*partition, commit.next, m.max.max_ms()));
                sums.push((*partition, commit.next, m.sums));
            }
        }
        let log = |(partition, (start, end)): (i32, (Offset, Offset))| {
            let own = points.iter().filter(|(p, _, _)| *p == partition);
            let claim = own.clone().map(|(_, next, _)| *next).max();
            // If the log still contains the offset of a restart point, all records that Kafka has deleted are before
            // the restart point.
            let bounds = own.filter(|(_, next, _)| *next >= start);
            let before_max_ms = bounds.map(|(_, _, max)| max.unwrap_or(UnixMs::MIN)).min();
            let log = Log {
                start,
                claim: claim.unwrap_or(Offset(0)),
                before_max_ms,
                published: published.get(&partition).map(|item| Published {
                    next: item.next,
                    sums: item.sums.map(counts),
                    whole: item.next <= end,
                }),
            };
            (partition, log)
        };
        Ok(Claims {
            logs: ends.into_iter().map(log).collect(),
            sums,
            remade,
        })
    }

    /// Compares the next slice: as many rows as fit into memory, beginning at the key `lo`.
    async fn slice(
        &self,
        lo: Option<&RowPlace>,
        range: (UnixMs, UnixMs),
        options: &CompareOptions,
        read: &Arc<AtomicU64>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<JudgedSlice>> {
        let (mut extra, mut limit) = (BTreeSet::new(), None);
        let mut passes = 0;
        loop {
            let mark = self.mark().await?;
            let claims = self.claims().await?;
            let view = self.view(range, self.rollups(mark, &claims).await?);
            let scope = Scope {
                topic: self.source.topic.clone(),
                rules: self.config.rules,
                raw_rows: self.config.raw,
                range,
                remade: claims.remade,
                rolled_until_ms: view.rollups.until_ms,
                raw_ttl_ms: options.raw_ttl_ms,
                alert_ttl_ms: options.alert_ttl_ms,
                made_ms: self.made_ms,
                now_ms: view.now_ms,
                bytes_max: options.memory_bytes,
            };
            let mut slice = Slice::new(scope, lo.cloned(), &claims.logs);
            let filling = self
                .audit
                .fill(&mut slice, lo, limit.as_ref(), &extra, &view);
            filling.await.context("failed to read the tables")?;
            passes += 1;
            let passed = self.read_log(slice, read, shutdown).await?;
            let Some(mut slice) = passed else {
                return Ok(None);
            };
            self.check_log(&mut slice).await?;

            let known = extra.len();
            let mut pages = KeyPages::default();
            while let Some(missing) = pages.next(|after, max| slice.missing_rows(after, max)) {
                extra.extend(self.audit.rows(missing, &view).await?.into_keys());
            }
            if extra.len() > known && passes < AGAIN_MAX {
                // The list of rows is incomplete, because an index lags behind its table, or because totals rows are
                // missing.
                limit = slice.hi().cloned();
                continue;
            }
            self.look_again(&mut slice, view.now_ms).await?;
            self.look_at_rollups(&mut slice, &view).await?;
            let outcome = slice.outcome();
            return Ok(Some(JudgedSlice {
                slice,
                outcome,
                passes,
            }));
        }
    }

    /// Rereads raw events and alerts that seem to differ from the log. Also finds items that DynamoDB refused.
    async fn look_again(&self, slice: &mut Slice, now_ms: UnixMs) -> anyhow::Result<()> {
        let mut pages = KeyPages::default();
        while let Some(keys) = pages.next(|after, max| slice.suspects(after, max)) {
            let mut now = self.audit.puts(keys.clone(), now_ms).await?;
            for key in &keys {
                slice.look_again(key, now.remove(key));
            }
        }
        // An alert does not contain the position of its Kafka record, but the raw event of the record does.
        let mut pages = KeyPages::default();
        while let Some(keys) = pages.next(|after, max| slice.unknown_alerts(after, max)) {
            let raw = |key: &Key| match &key.name {
                AuditName::Alert(id) => Some(Key::raw(key.place.city(), key.place.time_ms, id)),
                _ => None,
            };
            let pairs: Vec<(Key, &Key)> = keys.iter().filter_map(|k| Some((raw(k)?, k))).collect();
            let raws = pairs.iter().map(|(raw, _)| raw.clone()).collect();
            let found = self.audit.puts(raws, now_ms).await?;
            for (raw, alert) in pairs {
                if let Some(source) = found.get(&raw).and_then(|put| put.source) {
                    slice.trace(alert, source);
                }
            }
        }
        if slice.misses_puts() {
            let (survey, topic_id) = (Arc::clone(&self.survey), self.topic_id.clone());
            let letters = format!("{}-dlq", self.source.topic);
            let refused = run_blocking(move || survey.refused(&letters, &topic_id)).await;
            slice.excuse(&refused.context("failed to read the dead letters")?);
        }
        Ok(())
    }

    /// Checks that the topic was not recreated while the log was read. The function also removes from the slice all
    /// records that Kafka deleted during the read.
    async fn check_log(&self, slice: &mut Slice) -> anyhow::Result<()> {
        let (survey, partitions) = (Arc::clone(&self.survey), self.partitions);
        let (topic, ends) = run_blocking(move || (survey.topic(), survey.ends(partitions))).await;
        let topic = topic.with_context(|| super::unreached(&self.source.kafka))?;
        if topic.is_none_or(|topic| topic.id.as_str() != self.topic_id) {
            bail!(
                Failure::new(format!(
                    "topic {} was recreated in the meantime",
                    self.source.topic
                ))
                .with_remedy("compare again")
            );
        }
        let ends = ends.context("failed to ask Kafka where the log begins")?;
        let starts = ends.into_iter().map(|(p, (start, _))| (p, start));
        slice.begin_at(&starts.collect());
        Ok(())
    }

    /// Passes each record of the log to `slice`, and returns `slice`. Returns `None` if `shutdown` is triggered.
    async fn read_log(
        &self,
        slice: Slice,
        read: &Arc<AtomicU64>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Slice>> {
        let read = Arc::clone(read);
        self.each_record(shutdown, slice, move |slice, r| {
            slice.take(r.partition, r.offset, stamp(r), &r.body);
            read.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// Reads the whole log, and calls `take(state, record)` for each record. Returns `state` at the end of the log, or
    /// `None` if `shutdown` is triggered.
    pub(super) async fn each_record<T: Send + 'static>(
        &self,
        shutdown: &Shutdown,
        mut state: T,
        mut take: impl FnMut(&mut T, &LogRecord) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let (config, topic) = (self.source.kafka.clone(), self.source.topic.clone());
        let shutdown = shutdown.clone();
        run_blocking(move || {
            let reader = LogReader::new(config, &topic)?;
            let range = ReadRange {
                start: ReadStart::Beginning,
                until_ms: None,
                stop_at_end: true,
            };
            let mut last = Instant::now();
            let mut failed = None;
            reader.run(&range, &shutdown, &mut |step| {
                match step {
                    ReadStep::Record(record) => {
                        last = Instant::now();
                        failed = take(&mut state, &record).err();
                    }
                    ReadStep::Idle if last.elapsed() > SILENCE_MAX => {
                        failed = Some(anyhow!(
                            "Kafka gave no record of topic {topic} for {} s, before the log's end",
                            SILENCE_MAX.as_secs()
                        ));
                    }
                    ReadStep::Idle
                    | ReadStep::Behind(_)
                    | ReadStep::Waiting(_)
                    | ReadStep::Letter(_) => {}
                }
                if failed.is_some() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            match failed {
                Some(error) => Err(error),
                None if shutdown.is_triggered() => Ok(None),
                None => Ok(Some(state)),
            }
        })
        .await
    }
}

/// Returns the timestamp of a record, and whether the broker set the timestamp.
pub(super) fn stamp(record: &LogRecord) -> Stamp {
    Stamp {
        ms: record.record_ms,
        by_broker: record.by_broker,
    }
}

/// Returns the sums of a progress item as signed numbers.
fn counts(sums: Sum) -> Counts {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Counts {
        event_count: signed(sums.event_count),
        late_count: signed(sums.late_count),
        severities: sums.severities.map(signed),
    }
}
