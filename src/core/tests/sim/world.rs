//! Consumers over the simulated log, group and tables, and the schedule that a seed draws.

use std::collections::BTreeSet;

use citystream_core::batch::{Batch, BatchOutcome};
use citystream_core::event::Offset;
use citystream_core::gap::SecondRead;
use citystream_core::keys;
use citystream_core::pipeline::Tables as Rules;
use citystream_core::plan::{Keep, PutTable, RowUpdate, Shown, Ticket, UpdateOutcome};
use citystream_core::restart::StartFacts;
use citystream_core::table_identity::{READ_INTERVAL_MS, TRUST_MS};
use citystream_core::window;
use citystream_core::worker::Record;

use crate::consumer::{Consumer, Float, Request};
use crate::draw::{self, Rng, topic_id};
use crate::durable::{Durable, Logs};
use crate::reference::{Logged, Said};

/// Time between two looks at the ends of the logs.
const LOOK_MS: i64 = 500;
/// Rounds within which consumers must finish once nothing fails any more.
const ROUNDS_MAX: usize = 3_000;

/// Judges what the table answered, by what it shows of the row.
fn judge(update: &RowUpdate, outcome: UpdateOutcome) -> UpdateOutcome {
    let shown = |fence| Shown {
        same_row: true,
        fence: Some(fence),
    };
    match outcome {
        UpdateOutcome::Counted => update.judge_success(shown(update.next)),
        UpdateOutcome::Fenced(fence) => update.judge_refusal(shown(fence)),
        UpdateOutcome::Unknown | UpdateOutcome::Refused => outcome,
    }
}

/// Judges an answer that is not to this update, which never reached the table.
fn judge_wrong(update: &RowUpdate, fate: usize) -> UpdateOutcome {
    let shown = |same_row, fence| Shown {
        same_row,
        fence: Some(fence),
    };
    match fate {
        12 => update.judge_success(shown(false, update.next)),
        13 => update.judge_success(shown(true, update.first)),
        14 => update.judge_refusal(shown(false, update.next)),
        _ => update.judge_refusal(shown(true, update.first)),
    }
}

/// What happened in a run, so that the faults themselves are tested.
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
    /// Every kind of trouble with how often it happened.
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

#[derive(Clone)]
pub(crate) struct World {
    rng: Rng,
    now_ms: i64,
    pub(crate) durable: Durable,
    floats: Vec<Float>,
    /// Puts that a wrong answer has refused: none is refused so twice.
    refused_wrongly: BTreeSet<(PutTable, Ticket)>,
    consumers: Vec<Option<Consumer>>,
    faults: bool,
    /// How many of the topic's partitions there are so far.
    partitions: i32,
    seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let partitions = 1 + rng.below(3);
        let topics = 1 + usize::from(rng.one_in(3));
        let grown = partitions + usize::from(rng.one_in(3));
        let logs = (0..topics).map(|_| (0..grown).map(|_| draw::log(&mut rng)).collect());
        let durable = Durable::new(Logs::new(logs.collect()));
        let consumers = 1 + rng.below(4);
        World {
            rng,
            now_ms: 1_000_000,
            durable,
            floats: Vec::new(),
            refused_wrongly: BTreeSet::new(),
            consumers: vec![None; consumers],
            faults: true,
            partitions: partitions as i32,
            seen: Seen::default(),
        }
    }

    /// Runs to the end: trouble first, then none.
    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for _ in 0..self.draw_steps() {
            self.step()?;
        }
        self.durable.check_rows()?;
        self.heal()?;
        self.ends_exact()?;
        Ok(self.seen)
    }

    pub(crate) fn draw_steps(&mut self) -> usize {
        200 + self.rng.below(1_500)
    }

    /// The tables equal the log, before and after the writes that were delayed past the end.
    fn ends_exact(&mut self) -> Result<(), String> {
        self.durable.compare(self.partitions)?;
        while !self.floats.is_empty() {
            self.land_float()?;
        }
        self.durable.compare(self.partitions)
    }

    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.now_ms += self.rng.below(60) as i64;
        let who = self.rng.below(self.consumers.len());
        if self.consumers[who].is_none() {
            let interval = [0, 20, 250][self.rng.below(3)];
            self.consumers[who] = Some(Consumer::new(interval));
        }
        match self.rng.below(100) {
            0..=4 => self.rebalance(who),
            5..=44 => self.deliver(who),
            45..=89 => self.answer(who)?,
            90..=91 => self.crash(who),
            94 if self.rng.one_in(8) => {
                let partition = self.rng.below(self.partitions as usize);
                self.durable.forget_sums(partition as i32);
                self.seen.older_versions += 1;
            }
            92..=94 if !self.floats.is_empty() => self.land_float()?,
            95 if self.rng.one_in(4) => self.remake_topic(),
            96 if self.rng.one_in(4) => {
                self.durable.commits.clear();
                self.seen.lost_groups += 1;
            }
            97 if self.rng.one_in(8) => self.remake_tables(),
            97 if self.rng.one_in(8) => self.delete_progress(),
            97 if self.rng.one_in(8) => self.stick(who),
            98 if self.rng.one_in(4) => self.add_partition(),
            98..=99 => self.retain(),
            _ => {}
        }
        self.pump(who)
    }

    /// Gives a partition to a consumer; the former owner learns it now, later, or never.
    fn rebalance(&mut self, to: usize) {
        let partition = self.rng.below(self.partitions as usize) as i32;
        for other in (0..self.consumers.len()).filter(|other| *other != to) {
            let silent = self.rng.one_in(3);
            let lost = self.rng.one_in(3);
            let Some(c) = &mut self.consumers[other] else {
                continue;
            };
            if !c.has(partition) {
                continue;
            }
            if silent {
                c.zombie.push(partition);
            } else {
                self.seen.drained += u64::from(!lost);
                c.reading.remove(&partition);
                c.pipeline.revoked(self.now_ms, &[partition], lost, 500);
            }
        }
        self.assign(to, &[partition]);
    }

    fn assign(&mut self, to: usize, partitions: &[i32]) {
        let now_ms = self.now_ms;
        let c = self.consumer(to);
        for partition in partitions {
            c.reading.remove(partition);
            c.zombie.retain(|p| p != partition);
        }
        c.pipeline.assigned(now_ms, partitions);
    }

    fn deliver(&mut self, who: usize) {
        let count = 1 + self.rng.below(8);
        let pick = self.rng.next() as usize;
        let now_ms = self.now_ms;
        let Some(c) = &mut self.consumers[who] else {
            return;
        };
        if c.reading.is_empty() {
            return;
        }
        let at = c.reading.iter().nth(pick % c.reading.len());
        let (&partition, &(assignment, from)) = at.expect("not empty");
        if c.stuck.contains(&partition) {
            return;
        }
        let of_this_log = c.topics.get(&(partition, assignment)) == Some(&self.durable.topic);
        // What is read between a topic's deletion and its detection is promised nothing, so it is
        // left out: the position lies outside the new log.
        if !of_this_log || from < self.durable.starts[partition as usize] {
            c.reading.remove(&partition);
            c.pipeline.out_of_range(partition, assignment);
            self.seen.out_of_range += 1;
            return;
        }
        let from = self.skip(partition, from);
        let Some(c) = &mut self.consumers[who] else {
            return;
        };
        let log = self.durable.log(partition);
        let to = log.len().min(from + count);
        let records: Vec<Record> = (from..to)
            .filter_map(|at| draw::record(self.durable.topic, partition, at, &log[at]))
            .collect();
        c.reading.insert(partition, (assignment, to));
        c.pipeline.records(now_ms, partition, assignment, records);
        if to == log.len() {
            let end = Offset(to as i64);
            c.pipeline.reached_end(now_ms, partition, assignment, end);
        }
    }

    /// The Kafka client skips records now and then, or jumps to the end of the log.
    fn skip(&mut self, partition: i32, from: usize) -> usize {
        if !self.faults || !self.rng.one_in(16) {
            return from;
        }
        let end = self.durable.log(partition).len();
        let to = match self.rng.below(4) {
            0 => end,
            _ => end.min(from + 1 + self.rng.below(4)),
        };
        let skipped = |logged: &Logged| !matches!(logged.said, Said::Control);
        let log = &self.durable.log(partition)[from.min(to)..to];
        self.seen.skipped += u64::from(log.iter().any(skipped));
        to.max(from)
    }

    /// Retention removes what lies below the progress item, even where an older commit may still
    /// land: the start rule knows both.
    fn retain(&mut self) {
        let partition = self.rng.below(self.partitions as usize);
        let log_key = self.durable.log_key(partition as i32);
        let Some(progress) = self.durable.progress.get(&log_key) else {
            return;
        };
        let start = &mut self.durable.starts[partition];
        let next = progress.next.0 as usize;
        if next > *start {
            *start += 1 + self.rng.below(next - *start);
            self.seen.retained += 1;
        }
    }

    /// The topic is deleted and made again under its name. Brokers drop a deleted topic's offsets.
    fn remake_topic(&mut self) {
        let d = &mut self.durable;
        if d.topic + 1 < d.logs.records.len() {
            d.topic += 1;
            d.starts.fill(0);
            d.commits.clear();
            self.seen.remade_topics += 1;
        }
    }

    fn add_partition(&mut self) {
        if (self.partitions as usize) < self.durable.logs.records[0].len() {
            self.partitions += 1;
            self.seen.added_partitions += 1;
        }
    }

    /// The tables are deleted and made again, which takes longer than a consumer trusts an id that it has read.
    /// Writes that are under way meet no table. Some consumers sleep meanwhile.
    fn remake_tables(&mut self) {
        let d = &mut self.durable;
        // New tables want the whole log, and an older one is gone.
        if d.topic > 0 || d.starts.iter().any(|start| *start > 0) {
            return;
        }
        d.tables_made += 1;
        self.seen.remade_tables += 1;
        d.tables = Default::default();
        d.fences.clear();
        d.progress.clear();
        self.floats.clear();
        self.now_ms += TRUST_MS + 1;
        for consumer in self.consumers.iter_mut().flatten() {
            for request in &mut consumer.requests {
                let sent = std::mem::replace(request, Request::CheckTopic);
                *request = match sent {
                    Request::Publish(publish) => Request::StalePublish(publish),
                    Request::Put(_)
                    | Request::Update(_)
                    | Request::Create(_)
                    | Request::Restore(_)
                    | Request::ReadTables => Request::Gone(Box::new(sent)),
                    sent => sent,
                };
            }
        }
    }

    /// Somebody deletes a progress item, whose log has its beginning still.
    fn delete_progress(&mut self) {
        let partition = self.rng.below(self.partitions as usize);
        let log_key = self.durable.log_key(partition as i32);
        if self.durable.starts[partition] == 0 && self.durable.progress.remove(&log_key).is_some() {
            self.seen.deleted_progress += 1;
        }
    }

    /// The client reads one of its partitions no further.
    fn stick(&mut self, who: usize) {
        let pick = self.rng.next() as usize;
        let c = self.consumer(who);
        if !c.reading.is_empty() {
            let at = c.reading.keys().nth(pick % c.reading.len());
            c.stuck.insert(*at.expect("not empty"));
        }
    }

    fn crash(&mut self, who: usize) {
        let Some(c) = self.consumers[who].take() else {
            return;
        };
        self.seen.crashes += 1;
        for request in c.requests {
            if self.rng.one_in(2) {
                self.floats.extend(request.float());
            }
        }
    }

    fn pump(&mut self, who: usize) -> Result<(), String> {
        let Some(c) = &mut self.consumers[who] else {
            return Ok(());
        };
        let (leaves, report) = c.pump(self.now_ms, self.now_ms)?;
        for part in leaves {
            self.durable.commit(&part)?;
        }
        let ledger = report.ledger;
        self.seen.future += report.tally.future;
        self.seen.real_gaps += report.tally.gaps_real;
        self.seen.refuted_gaps += report.tally.gaps_skipped;
        self.seen.late = self.seen.late.max(ledger.late);
        let rejected = ledger.rejected.iter().sum();
        self.seen.rejected = self.seen.rejected.max(rejected);
        self.look(who);
        Ok(())
    }

    /// Asks for the ends of the logs now and then. A consumer that has stopped is started by hand, as another one; one
    /// that replaced its client gets its partitions back.
    fn look(&mut self, who: usize) {
        let c = self.consumers[who].as_mut().expect("just pumped");
        if c.halted {
            self.seen.halted += 1;
            self.consumers[who] = None;
            return;
        }
        if self.now_ms - c.looked_ms >= LOOK_MS {
            c.looked_ms = self.now_ms;
            let end = |p: &i32| (*p, Offset(self.durable.log(*p).len() as i64));
            let ends: Vec<(i32, Offset)> = c.reading.keys().map(end).collect();
            c.pipeline.log_ends(self.now_ms, &ends, false);
        }
        let rejoins = std::mem::take(&mut c.rejoins);
        if !rejoins.is_empty() {
            self.seen.replaced_clients += 1;
            self.assign(who, &rejoins);
        }
    }

    /// Lets one request of a consumer end, in one of the ways requests end.
    fn answer(&mut self, who: usize) -> Result<(), String> {
        let Some(c) = &self.consumers[who] else {
            return Ok(());
        };
        if c.requests.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(c.requests.len());
        let publish = matches!(c.requests[at], Request::Publish(_));
        // At any time this meets a publish too seldom.
        if publish && self.faults && self.rng.one_in(6) {
            self.remake_tables();
        }
        let c = self.consumer(who);
        let request = c.requests.swap_remove(at);
        let zombie = !c.zombie.is_empty();
        let fate = if self.faults { self.rng.below(16) } else { 11 };
        let chance = self.rng.next() as u32;
        let now = self.now_ms;
        match request {
            Request::Put(batch) => {
                let outcome = match fate {
                    0 => {
                        self.seen.throttled += 1;
                        BatchOutcome::Failed { throttled: true }
                    }
                    1 => {
                        self.durable.store(&batch, &[])?;
                        self.seen.lost_replies += 1;
                        BatchOutcome::Failed { throttled: false }
                    }
                    2 => {
                        self.floats.push(Float::Put(batch.clone()));
                        BatchOutcome::Failed { throttled: false }
                    }
                    3 => {
                        let all = 0..batch.puts.len();
                        let left: Vec<usize> = all.filter(|_| self.rng.one_in(3)).collect();
                        self.seen.unprocessed += left.len() as u64;
                        self.durable.store(&batch, &left)?
                    }
                    12 | 13 => self.answer_wrongly(who, fate, &batch)?,
                    _ => self.durable.store(&batch, &[])?,
                };
                let pipeline = &mut self.consumer(who).pipeline;
                pipeline.batch_answered(now, batch, &outcome, chance);
            }
            Request::Update(update) => {
                let outcome = match fate {
                    0 => {
                        self.seen.throttled += 1;
                        UpdateOutcome::Refused
                    }
                    1 | 2 => {
                        self.durable.update(&update);
                        self.seen.lost_replies += 1;
                        UpdateOutcome::Unknown
                    }
                    3 => {
                        self.floats.push(Float::Update(update.clone()));
                        UpdateOutcome::Unknown
                    }
                    4 => {
                        self.seen.lost_requests += 1;
                        UpdateOutcome::Unknown
                    }
                    5 => {
                        // Something below sends it twice.
                        self.durable.update(&update);
                        judge(&update, self.durable.update(&update))
                    }
                    12..=15 => {
                        self.seen.wrong_answers += 1;
                        judge_wrong(&update, fate)
                    }
                    _ => judge(&update, self.durable.update(&update)),
                };
                let conflict = matches!(outcome, UpdateOutcome::Fenced(_));
                self.seen.conflicts += u64::from(conflict);
                self.seen.zombie_writes += u64::from(zombie);
                let pipeline = &mut self.consumer(who).pipeline;
                pipeline.update_answered(now, &update, outcome, chance);
            }
            Request::Reject(ticket, rejected) => {
                if fate == 0 {
                    let again = Request::Reject(ticket, rejected);
                    self.consumer(who).requests.push(again);
                } else {
                    let offset = rejected.offset.0 as usize;
                    let dead = (rejected.detail.clone(), rejected.partition, offset);
                    self.durable.tables.dead.insert(dead);
                    self.consumer(who).pipeline.reject_done(ticket);
                }
            }
            Request::Refused(table, put) => {
                if fate == 0 {
                    let again = Request::Refused(table, put);
                    self.consumer(who).requests.push(again);
                } else {
                    self.seen.refused += 1;
                    self.durable.refuse(table, &put);
                    let pipeline = &mut self.consumer(who).pipeline;
                    pipeline.refused_done(table, put.ticket);
                }
            }
            Request::Create(publish) => {
                let progress = &mut self.durable.progress;
                let item = progress.entry(publish.log_key.to_string());
                item.or_insert(publish.boundary);
                let locate = Request::Locate(publish.partition, publish.assignment);
                self.consumer(who).requests.push(locate);
            }
            Request::Restore(publish) => {
                let item = self.durable.progress.entry(publish.log_key.to_string());
                item.or_insert(publish.boundary);
                self.consumer(who).pipeline.published(now, &publish);
            }
            Request::StalePublish(publish) => {
                self.seen.stale_publishes += 1;
                // An item that an heir has made meanwhile would take it: whoever makes tables anew under
                // living consumers has to stop them.
                let made = self.durable.progress.contains_key(&*publish.log_key);
                if !made && !self.durable.publish(&publish)? {
                    self.consumer(who).pipeline.progress_missing(now, publish);
                }
            }
            Request::Publish(publish) => match fate {
                0 => self.floats.push(Float::Publish(publish)),
                _ => {
                    let moved = self.durable.publish(&publish)?;
                    let pipeline = &mut self.consumer(who).pipeline;
                    if moved {
                        pipeline.published(now, &publish);
                    } else {
                        pipeline.progress_missing(now, publish);
                    }
                }
            },
            Request::ReadTables => {
                let id = self.durable.tables_id();
                let pipeline = &mut self.consumer(who).pipeline;
                match fate {
                    0 => pipeline.tables_unread(now),
                    _ => pipeline.tables_read(&id, now),
                }
            }
            Request::Gone(request) => self.answer_gone(who, *request, fate),
            Request::Locate(partition, assignment) => self.locate(who, partition, assignment),
            Request::CheckGap(partition, assignment, gap) => {
                let topic = self.consumer(who).topics.get(&(partition, assignment));
                let of_this_log = topic.copied() == Some(self.durable.topic);
                let second = if fate == 0 || !of_this_log {
                    SecondRead::NoAnswer
                } else {
                    self.durable.second_read(partition, gap)
                };
                let pipeline = &mut self.consumer(who).pipeline;
                pipeline.gap_checked(now, partition, assignment, gap, second);
            }
            Request::CheckTopic => {
                let id = (fate != 0).then(|| topic_id(self.durable.topic));
                self.consumer(who)
                    .pipeline
                    .topic_checked(now, id.as_deref());
            }
            Request::Commit(parts) => {
                match fate {
                    0 => self.seen.lost_commits += 1,
                    1 => self.floats.push(Float::Commit(parts)),
                    _ => {
                        for part in &parts {
                            self.durable.commit(part)?;
                        }
                    }
                }
                self.consumer(who).pipeline.commit_done(now, fate > 1);
            }
        }
        Ok(())
    }

    /// Ends a request that was sent to tables that are gone.
    fn answer_gone(&mut self, who: usize, request: Request, fate: usize) {
        let now = self.now_ms;
        let pipeline = &mut self.consumer(who).pipeline;
        if fate.is_multiple_of(2) {
            pipeline.table_missing(keys::TOTALS);
        }
        match request {
            Request::Put(batch) => {
                let failed = BatchOutcome::Failed { throttled: false };
                pipeline.batch_answered(now, batch, &failed, 0);
            }
            Request::Update(update) => {
                pipeline.update_answered(now, &update, UpdateOutcome::Unknown, 0);
            }
            Request::Create(publish) => {
                pipeline.not_located(now, publish.partition, publish.assignment);
            }
            Request::ReadTables => pipeline.tables_unread(now),
            Request::Restore(_) => {}
            other => unreachable!("{other:?} meets no table"),
        }
    }

    /// Answers a batch by what is not understood, or by another request's refusal.
    fn answer_wrongly(
        &mut self,
        who: usize,
        fate: usize,
        batch: &Batch,
    ) -> Result<BatchOutcome, String> {
        let name = |ticket: Ticket| Ticket {
            // Assignments of two consumers may have one number.
            assignment: ticket.assignment * 64 + who as u64,
            ..ticket
        };
        let mut names = batch.puts.iter().map(|put| (batch.table, name(put.ticket)));
        if fate == 13 && !names.any(|put| self.refused_wrongly.contains(&put)) {
            self.seen.wrong_answers += 1;
            let names = batch.puts.iter().map(|put| (batch.table, name(put.ticket)));
            self.refused_wrongly.extend(names);
            return Ok(BatchOutcome::Invalid);
        }
        Ok(match self.durable.store(batch, &[])? {
            BatchOutcome::Stored { .. } if fate == 12 => {
                self.seen.wrong_answers += 1;
                let unprocessed = (0..batch.puts.len()).collect();
                BatchOutcome::Stored { unprocessed }
            }
            other => other,
        })
    }

    fn consumer(&mut self, who: usize) -> &mut Consumer {
        self.consumers[who].as_mut().expect("asked of the living")
    }

    fn locate(&mut self, who: usize, partition: i32, assignment: u64) {
        let d = &self.durable;
        let start = Offset(d.starts[partition as usize] as i64);
        let facts = StartFacts {
            progress: d.progress.get(&d.log_key(partition)).copied(),
            topic_id: topic_id(d.topic),
            tables_id: d.tables_id(),
            tables_read_ms: self.now_ms,
            commit: d.commits.get(&partition).cloned(),
            log: (start, Offset(d.log(partition).len() as i64)),
        };
        let tables = Rules {
            rules: window::Rules::default(),
            keep: Keep::All,
        };
        let (now, topic) = (self.now_ms, d.topic);
        let c = self.consumer(who);
        c.topics.insert((partition, assignment), topic);
        c.pipeline
            .located(now, partition, assignment, &facts, &tables);
    }

    fn land_float(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.floats.len());
        self.seen.landed_late += 1;
        match self.floats.swap_remove(at) {
            Float::Put(batch) => drop(self.durable.store(&batch, &[])?),
            Float::Update(update) => drop(self.durable.update(&update)),
            Float::Commit(parts) => {
                for part in &parts {
                    self.durable.commit(part)?;
                }
            }
            Float::Publish(publish) => drop(self.durable.publish(&publish)?),
        }
        Ok(())
    }

    /// No more faults: whoever is left must finish. Drawn are who dies, who stays as a zombie
    /// beside the others, and whether fresh consumers take the partitions or old ones keep them.
    fn heal(&mut self) -> Result<(), String> {
        for who in 0..self.consumers.len() {
            if self.rng.one_in(3) {
                self.crash(who);
            }
        }
        let owners = 1 + self.rng.below(3);
        let (fresh, replaces) = (Consumer::new(20), self.rng.one_in(2));
        let mut owner_of = Vec::new();
        for n in 0..owners {
            let who = n % self.consumers.len();
            if replaces {
                // The old one goes on beside the new one, as long as it has something to do.
                let old = self.consumers[who].replace(fresh.clone());
                self.consumers.push(old);
            } else if self.consumers[who].is_none() {
                self.consumers[who] = Some(fresh.clone());
            }
            owner_of.push(who);
        }
        self.finish(&owner_of)
    }

    /// Every consumer dies here and now; what they sent may land now, later or never. `resumed`
    /// fresh ones divide the partitions and must come to tables that equal the log.
    pub(crate) fn stop_and_resume(mut self, resumed: usize) -> Result<(), String> {
        for who in 0..self.consumers.len() {
            self.crash(who);
        }
        self.consumers = (0..resumed).map(|_| Some(Consumer::new(20))).collect();
        let owners: Vec<usize> = (0..resumed).collect();
        self.finish(&owners)?;
        self.ends_exact()
    }

    /// Every consumer reads its tables' id, which it does every few seconds. Those whose tables are gone stop.
    fn look_at_tables(&mut self) -> Result<(), String> {
        self.now_ms += READ_INTERVAL_MS;
        for who in 0..self.consumers.len() {
            if self.consumers[who].is_none() {
                continue;
            }
            self.pump(who)?;
            let id = self.durable.tables_id();
            let now = self.now_ms;
            if let Some(c) = &mut self.consumers[who] {
                c.requests.retain(|r| !matches!(r, Request::ReadTables));
                c.pipeline.tables_read(&id, now);
                self.pump(who)?;
            }
        }
        Ok(())
    }

    /// The owners divide the partitions and read them to the end.
    fn finish(&mut self, owners: &[usize]) -> Result<(), String> {
        self.faults = false;
        self.look_at_tables()?;
        for who in owners {
            self.consumers[*who].get_or_insert_with(|| Consumer::new(20));
        }
        let all: Vec<i32> = (0..self.partitions).collect();
        let owner_of = |partition: i32| owners[partition as usize % owners.len()];
        for &partition in &all {
            let owner = owner_of(partition);
            // One that is being drained is no longer its own.
            let reads = self.consumer(owner).reading.contains_key(&partition);
            let kept = reads && self.rng.one_in(2);
            for other in (0..self.consumers.len()).filter(|other| *other != owner) {
                let silent = self.rng.one_in(4);
                if let Some(c) = &mut self.consumers[other]
                    && c.has(partition)
                    && !silent
                {
                    c.reading.remove(&partition);
                    c.pipeline.revoked(self.now_ms, &[partition], false, 500);
                }
            }
            if !kept {
                self.assign(owner, &[partition]);
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.now_ms += 20;
            for who in 0..self.consumers.len() {
                self.deliver(who);
                self.pump(who)?;
                for _ in 0..8 {
                    self.answer(who)?;
                    self.pump(who)?;
                }
            }
            // Not the group's commits: a zombie may commit an older, valid restart point last.
            let done = |p: &i32| {
                let end = self.durable.log(*p).len() as i64;
                let owner = self.consumers[owner_of(*p)].as_ref();
                let owner = owner.expect("an owner lives");
                let mut workers = owner.pipeline.workers();
                let worker = workers.find(|w| w.place().partition == *p);
                worker.is_some_and(|w| {
                    let told = owner.topics.get(&(*p, w.place().assignment));
                    w.durable().next.0 == end && told == Some(&self.durable.topic)
                })
            };
            if all.iter().all(done) {
                return Ok(());
            }
        }
        Err(format!("nobody finishes within {ROUNDS_MAX} rounds"))
    }
}
