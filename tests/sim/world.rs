//! The simulated log, group and table, and the schedule that a seed draws.

use std::collections::BTreeMap;

use citystream::core::batch::{Batch, BatchOutcome};
use citystream::core::event::{Event, Offset, Severity};
use citystream::core::keys;
use citystream::core::mutant::{self, Mutant};
use citystream::core::parse::{Body, Reason};
use citystream::core::pipeline::{CommitPart, Options, Output, Pipeline, Publish, Tables as Rules};
use citystream::core::plan::{Keep, PutTable, RowUpdate, Ticket, UpdateOutcome};
use citystream::core::restart::{Boundary, Commit, StartFacts};
use citystream::core::watermark::MaxTime;
use citystream::core::window;
use citystream::core::worker::{Content, Record, Rejected};

use crate::reference::{self, Counts, Logged, Said, Tables};

/// What happened in a run, so that the faults themselves are tested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) crashes: u64,
    pub(crate) conflicts: u64,
    pub(crate) lost_replies: u64,
    pub(crate) zombie_writes: u64,
    pub(crate) late: u64,
    pub(crate) unprocessed: u64,
    pub(crate) remade_topics: u64,
    pub(crate) lost_groups: u64,
    pub(crate) remade_tables: u64,
    pub(crate) retained: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        self.crashes += other.crashes;
        self.conflicts += other.conflicts;
        self.lost_replies += other.lost_replies;
        self.zombie_writes += other.zombie_writes;
        self.late += other.late;
        self.unprocessed += other.unprocessed;
        self.remade_topics += other.remade_topics;
        self.lost_groups += other.lost_groups;
        self.remade_tables += other.remade_tables;
        self.retained += other.retained;
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A request that a consumer has sent.
enum Request {
    Put(Batch),
    Update(RowUpdate),
    Reject(Ticket, Box<Rejected>),
    Create(Publish),
    Publish(Publish),
    Locate(i32, u64),
    CheckTopic,
    Commit(Vec<CommitPart>),
}

/// A write of a consumer that died or lost its reply: it may still land.
enum Float {
    Put(Batch),
    Update(RowUpdate),
    Commit(Vec<CommitPart>),
    Publish(Publish),
}

struct Consumer {
    pipeline: Pipeline,
    requests: Vec<Request>,
    /// partition → assignment, next offset to deliver
    reading: BTreeMap<i32, (u64, usize)>,
    /// partitions that were given to somebody else without a word
    zombie: Vec<i32>,
}

pub(crate) struct World {
    rng: Rng,
    now_ms: i64,
    topic: usize,
    /// per topic made: partitions' logs
    logs: Vec<Vec<Vec<Logged>>>,
    truth: Vec<Vec<Vec<Option<i64>>>>,
    /// per partition
    commits: BTreeMap<i32, Commit>,
    progress: BTreeMap<String, Boundary>,
    tables: Tables,
    fences: BTreeMap<((String, Option<i64>), String), Offset>,
    floats: Vec<Float>,
    consumers: Vec<Option<Consumer>>,
    faults: bool,
    seen: Seen,
    tables_id: usize,
    /// per partition of the current topic: offset of the oldest record
    starts: Vec<usize>,
    problem: Option<String>,
}

const CITIES: [&str; 3] = ["NYC", "LA", "SF"];
const KINDS: [&str; 2] = ["traffic", "weather"];

fn topic_id(n: usize) -> String {
    format!("topic-id-{n}")
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) + 1);
        let partitions = 1 + rng.below(3);
        let topics = 1 + usize::from(rng.one_in(3));
        let logs: Vec<Vec<Vec<Logged>>> = (0..topics)
            .map(|_| (0..partitions).map(|_| draw_log(&mut rng)).collect())
            .collect();
        let consumers = 1 + rng.below(4);
        let mut world = World {
            rng,
            now_ms: 1_000_000,
            topic: 0,
            truth: Vec::new(),
            logs,
            commits: BTreeMap::new(),
            progress: BTreeMap::new(),
            tables: Tables::default(),
            fences: BTreeMap::new(),
            floats: Vec::new(),
            consumers: (0..consumers).map(|_| None).collect(),
            faults: true,
            seen: Seen::default(),
            tables_id: 0,
            starts: vec![0; partitions],
            problem: None,
        };
        for (topic, logs) in world.logs.iter().enumerate() {
            let below = logs.iter().enumerate().map(|(p, log)| {
                reference::fold(&mut Tables::default(), &topic_id(topic), p as i32, log)
            });
            world.truth.push(below.collect());
        }
        world
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        let steps = 200 + self.rng.below(1_500);
        for _ in 0..steps {
            self.step()?;
        }
        self.heal()?;
        self.compare()?;
        // Writes that were delayed past the end must change nothing.
        while !self.floats.is_empty() {
            self.land_float()?;
        }
        self.compare()?;
        Ok(self.seen)
    }

    fn partitions(&self) -> i32 {
        self.logs[0].len() as i32
    }

    fn step(&mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        self.now_ms += self.rng.below(60) as i64;
        let who = self.rng.below(self.consumers.len());
        if self.consumers[who].is_none() {
            let options = Options {
                topic: "city-events".into(),
                row_interval_ms: [0, 20, 250][self.rng.below(3)],
                continue_on_loss: false,
                requests_max: 8,
            };
            self.consumers[who] = Some(Consumer {
                pipeline: Pipeline::new(options),
                requests: Vec::new(),
                reading: BTreeMap::new(),
                zombie: Vec::new(),
            });
        }
        match self.rng.below(100) {
            0..=4 => self.rebalance(who),
            5..=44 => self.deliver(who),
            45..=89 => self.answer(who)?,
            90..=91 if self.faults => self.crash(who),
            92..=94 if !self.floats.is_empty() => self.land_float()?,
            95 if self.faults && self.rng.one_in(4) && self.topic + 1 < self.logs.len() => {
                // Brokers drop a deleted topic's offsets.
                self.topic += 1;
                self.starts.fill(0);
                self.commits.clear();
                self.seen.remade_topics += 1;
            }
            98..=99 if self.faults => self.retain(),
            97 if self.faults
                && self.tables_may_be_remade()
                && self.topic == 0
                && self.rng.one_in(8) =>
            {
                self.remake_tables()
            }
            96 if self.faults && self.rng.one_in(4) => {
                self.commits.clear();
                self.seen.lost_groups += 1;
            }
            _ => {}
        }
        self.pump(who)
    }

    /// Gives a partition to a consumer; the former owner learns it now, later, or never.
    fn rebalance(&mut self, to: usize) {
        let partition = self.rng.below(self.partitions() as usize) as i32;
        let now = self.now_ms;
        for other in 0..self.consumers.len() {
            let silent = self.rng.one_in(3);
            let lost = self.rng.one_in(3);
            let Some(c) = &mut self.consumers[other] else {
                continue;
            };
            if other == to || !c.pipeline.partitions().any(|p| p == partition) {
                continue;
            }
            if silent && self.faults {
                c.zombie.push(partition);
            } else {
                c.reading.remove(&partition);
                c.pipeline.revoked(now, &[partition], lost, 500);
            }
        }
        let c = self.consumers[to].as_mut().unwrap();
        c.reading.remove(&partition);
        c.zombie.retain(|p| *p != partition);
        c.pipeline.assigned(now, &[partition]);
    }

    fn deliver(&mut self, who: usize) {
        let count = 1 + self.rng.below(8);
        let pick = self.rng.next() as usize;
        let c = self.consumers[who].as_mut().unwrap();
        if c.reading.is_empty() {
            return;
        }
        let (&partition, &(assignment, from)) =
            c.reading.iter().nth(pick % c.reading.len()).unwrap();
        // A client follows a topic that was made again without a word, and goes on at its position.
        let log = &self.logs[self.topic][partition as usize];
        let records: Vec<Record> = (from..log.len().min(from + count))
            .map(|offset| record(self.topic, partition, offset, &log[offset]))
            .collect();
        if self.topic > 0
            && !c.pipeline.workers().any(|w| {
                w.place().partition == partition
                    && w.place().log_key.starts_with(&topic_id(self.topic))
            })
        {
            // What is read between the deletion and its detection is promised nothing; leave it out.
            return;
        }
        c.reading
            .insert(partition, (assignment, from + records.len()));
        c.pipeline
            .records(self.now_ms, partition, assignment, records);
    }

    /// Retention removes what everybody has behind them; a start below it would be lost data, which
    /// stops a consumer and is not what this simulation is about.
    fn retain(&mut self) {
        let partition = self.rng.below(self.partitions() as usize) as i32;
        let log_key = keys::log_key(&topic_id(self.topic), partition);
        let ours = format!(
            "topic={};tables=tables-{};",
            topic_id(self.topic),
            self.tables_id
        );
        let committed = self
            .commits
            .get(&partition)
            .filter(|c| c.metadata.contains(&ours));
        let (Some(committed), Some(progress)) = (committed, self.progress.get(&log_key)) else {
            return;
        };
        let mut oldest = committed.next.min(progress.next);
        for float in &self.floats {
            if let Float::Commit(parts) = float {
                let below = parts.iter().filter(|p| p.partition == partition);
                oldest = below
                    .map(|p| p.boundary.next)
                    .chain([oldest])
                    .min()
                    .unwrap_or(oldest);
            }
        }
        for c in self.consumers.iter().flatten() {
            let starting = c.pipeline.partitions().any(|p| p == partition);
            let worker = c
                .pipeline
                .workers()
                .find(|w| w.place().partition == partition);
            if starting && worker.is_none() {
                return;
            }
            oldest = oldest.min(worker.map_or(oldest, |w| w.durable().next));
            // What a topic check holds back may be older than what is committed by now.
            if c.requests.iter().any(|r| matches!(r, Request::CheckTopic)) {
                return;
            }
            for request in &c.requests {
                if let Request::Commit(parts) = request {
                    let below = parts.iter().filter(|p| p.partition == partition);
                    oldest = below
                        .map(|p| p.boundary.next)
                        .chain([oldest])
                        .min()
                        .unwrap_or(oldest);
                }
            }
        }
        let start = &mut self.starts[partition as usize];
        self.seen.retained += u64::from(oldest.0 as usize > *start);
        *start = (oldest.0 as usize).max(*start);
    }

    /// New tables want the whole log.
    fn tables_may_be_remade(&self) -> bool {
        self.starts.iter().all(|start| *start == 0)
    }

    /// The tables are deleted and made anew; whoever writes next learns it before it writes.
    fn remake_tables(&mut self) {
        self.tables_id += 1;
        self.seen.remade_tables += 1;
        self.tables = Tables::default();
        self.fences.clear();
        self.progress.clear();
        self.floats.clear();
        let now = self.now_ms;
        for c in self.consumers.iter_mut().flatten() {
            for request in std::mem::take(&mut c.requests) {
                match request {
                    Request::Put(batch) => {
                        let failed = BatchOutcome::Failed { throttled: false };
                        c.pipeline.batch_answered(now, batch, &failed, 0);
                    }
                    Request::Update(update) => {
                        c.pipeline
                            .update_answered(now, &update, UpdateOutcome::Unknown, 0);
                    }
                    Request::Commit(parts) => c.requests.push(Request::Commit(parts)),
                    Request::Reject(..) | Request::Locate(..) | Request::CheckTopic => {
                        c.requests.push(request);
                    }
                    // The item is made again by the start rule.
                    Request::Create(publish) => {
                        c.requests
                            .push(Request::Locate(publish.partition, publish.assignment));
                    }
                    Request::Publish(_) => {}
                }
            }
            c.pipeline.tables_changed(now);
        }
    }

    fn crash(&mut self, who: usize) {
        let Some(c) = self.consumers[who].take() else {
            return;
        };
        self.seen.crashes += 1;
        for request in c.requests {
            if self.rng.one_in(2) {
                self.floats.extend(float(request));
            }
        }
    }

    fn pump(&mut self, who: usize) -> Result<(), String> {
        let Some(c) = &mut self.consumers[who] else {
            return Ok(());
        };
        c.pipeline.pump(self.now_ms);
        let mut leaves = Vec::new();
        while let Some(output) = c.pipeline.poll_output() {
            let request = match output {
                Output::Put(batch) => Request::Put(batch),
                Output::Update(update) => Request::Update(update),
                Output::Reject(ticket, rejected) => Request::Reject(ticket, rejected),
                Output::CreateProgress(publish) => Request::Create(publish),
                Output::Publish(publish) => Request::Publish(publish),
                Output::Locate {
                    partition,
                    assignment,
                    ..
                } => Request::Locate(partition, assignment),
                Output::CheckTopic => Request::CheckTopic,
                Output::Commit(parts) => Request::Commit(parts),
                Output::Begin {
                    partition,
                    assignment,
                    next,
                } => {
                    c.reading.insert(partition, (assignment, next.0 as usize));
                    continue;
                }
                Output::Hold { partition } => {
                    c.reading.remove(&partition);
                    continue;
                }
                Output::Released {
                    commit, publish, ..
                } => {
                    leaves.extend(commit);
                    if let Some(publish) = publish {
                        c.requests.push(Request::Publish(publish));
                    }
                    continue;
                }
                Output::Refused(..) | Output::Lost { .. } | Output::Halt(_) => {
                    return Err(format!("unexpected {output:?}"));
                }
            };
            c.requests.push(request);
        }
        let report = c.pipeline.report();
        if !report.ledger.balances() {
            return Err(format!("C7: {:?}", report.ledger));
        }
        self.seen.late = self.seen.late.max(report.ledger.late);
        for part in leaves {
            self.commit(&part)?;
        }
        Ok(())
    }

    /// Lets one request of a consumer end, in one of the ways requests end.
    fn answer(&mut self, who: usize) -> Result<(), String> {
        let Some(c) = &mut self.consumers[who] else {
            return Ok(());
        };
        if c.requests.is_empty() {
            return Ok(());
        }
        let request = c.requests.swap_remove(self.rng.below(c.requests.len()));
        let zombie = !c.zombie.is_empty();
        let fate = if self.faults { self.rng.below(12) } else { 11 };
        let chance = self.rng.next() as u32;
        let now = self.now_ms;
        match request {
            Request::Put(batch) => {
                let outcome = match fate {
                    0 => BatchOutcome::Failed { throttled: true },
                    1 => {
                        self.store(&batch, &[]);
                        self.seen.lost_replies += 1;
                        BatchOutcome::Failed { throttled: false }
                    }
                    2 => {
                        self.floats.push(Float::Put(batch.clone()));
                        BatchOutcome::Failed { throttled: false }
                    }
                    3 => {
                        let unprocessed: Vec<usize> = (0..batch.puts.len())
                            .filter(|_| self.rng.one_in(3))
                            .collect();
                        self.seen.unprocessed += unprocessed.len() as u64;
                        self.store(&batch, &unprocessed);
                        BatchOutcome::Stored { unprocessed }
                    }
                    _ => {
                        self.store(&batch, &[]);
                        BatchOutcome::Stored {
                            unprocessed: Vec::new(),
                        }
                    }
                };
                let pipeline = self.pipeline(who);
                pipeline.batch_answered(now, batch, &outcome, chance);
            }
            Request::Update(update) => {
                let outcome = match fate {
                    0 => UpdateOutcome::Refused,
                    1 | 2 => {
                        self.update(&update);
                        self.seen.lost_replies += 1;
                        UpdateOutcome::Unknown
                    }
                    3 => {
                        self.floats.push(Float::Update(update.clone()));
                        UpdateOutcome::Unknown
                    }
                    4 => UpdateOutcome::Unknown,
                    5 => {
                        // The SDK sends it twice.
                        self.update(&update);
                        self.update(&update)
                    }
                    _ => self.update(&update),
                };
                self.seen.zombie_writes += u64::from(zombie);
                self.pipeline(who)
                    .update_answered(now, &update, outcome, chance);
            }
            Request::Reject(ticket, rejected) => {
                if fate == 0 {
                    self.consumer(who)
                        .requests
                        .push(Request::Reject(ticket, rejected));
                } else {
                    let id = rejected.detail.clone();
                    self.tables
                        .dead
                        .insert((id, rejected.partition, rejected.offset.0 as usize));
                    self.pipeline(who).reject_done(ticket);
                }
            }
            Request::Create(publish) => {
                self.progress
                    .entry(publish.log_key.to_string())
                    .or_insert(publish.boundary);
                self.consumer(who)
                    .requests
                    .push(Request::Locate(publish.partition, publish.assignment));
            }
            Request::Publish(publish) => match fate {
                0 => self.floats.push(Float::Publish(publish)),
                _ => {
                    self.publish(&publish)?;
                    self.pipeline(who).published(now, &publish);
                }
            },
            Request::Locate(partition, assignment) => self.locate(who, partition, assignment),
            Request::CheckTopic => {
                let id = (fate != 0).then(|| topic_id(self.topic));
                self.pipeline(who).topic_checked(now, id.as_deref());
            }
            Request::Commit(parts) => match fate {
                0 => self.pipeline(who).commit_done(now, false),
                1 => {
                    self.floats.push(Float::Commit(parts));
                    self.pipeline(who).commit_done(now, false);
                }
                _ => {
                    for part in &parts {
                        self.commit(part)?;
                    }
                    self.pipeline(who).commit_done(now, true);
                }
            },
        }
        Ok(())
    }

    fn consumer(&mut self, who: usize) -> &mut Consumer {
        self.consumers[who].as_mut().unwrap()
    }

    fn pipeline(&mut self, who: usize) -> &mut Pipeline {
        &mut self.consumer(who).pipeline
    }

    fn locate(&mut self, who: usize, partition: i32, assignment: u64) {
        let id = topic_id(self.topic);
        let end = self.logs[self.topic][partition as usize].len() as i64;
        let facts = StartFacts {
            progress: self.progress.get(&keys::log_key(&id, partition)).copied(),
            topic_id: id,
            tables_id: format!("tables-{}", self.tables_id),
            commit: self.commits.get(&partition).cloned(),
            log: (Offset(self.starts[partition as usize] as i64), Offset(end)),
        };
        let tables = Rules {
            rules: window::Rules::default(),
            keep: Keep::All,
        };
        let now = self.now_ms;
        self.pipeline(who)
            .located(now, partition, assignment, &facts, &tables);
    }

    fn store(&mut self, batch: &Batch, except: &[usize]) {
        for (at, put) in batch.puts.iter().enumerate() {
            let key = put.key(batch.table);
            if batch.puts[..at]
                .iter()
                .any(|other| other.key(batch.table) == key)
            {
                self.problem = Some("a batch holds two puts of one key".to_owned());
            }
        }
        for (at, put) in batch.puts.iter().enumerate() {
            if except.contains(&at) {
                continue;
            }
            let e = &put.event;
            let (id, time_ms) = (e.event_id.to_string(), e.event.time_ms);
            match batch.table {
                PutTable::Raw => drop(self.tables.raw.insert((id, time_ms))),
                PutTable::Alerts => {
                    self.tables
                        .alerts
                        .insert((e.event.city.to_string(), time_ms, id));
                }
            }
        }
    }

    fn update(&mut self, update: &RowUpdate) -> UpdateOutcome {
        let key = (update.row.series.to_string(), update.row.window_start_ms);
        let fence = (key.clone(), update.log_key.to_string());
        let refused = |at: &Offset| {
            if mutant::on(Mutant::TableFenceStrict) {
                *at >= update.first
            } else {
                *at > update.first && !mutant::on(Mutant::TableNoCondition)
            }
        };
        if let Some(at) = self.fences.get(&fence)
            && refused(at)
        {
            self.seen.conflicts += 1;
            return UpdateOutcome::Fenced(*at);
        }
        self.fences.insert(fence, update.next);
        let row = self.tables.rows.entry(key).or_default();
        row.counted += update.sum.event_count;
        row.late += update.sum.late_count;
        for (mine, new) in row.severities.iter_mut().zip(update.sum.severities) {
            *mine += new;
        }
        UpdateOutcome::Counted
    }

    /// Takes a commit and checks C1 and C4 on it.
    fn commit(&mut self, part: &CommitPart) -> Result<(), String> {
        let ours = format!(
            "topic={};tables=tables-{};",
            topic_id(self.topic),
            self.tables_id
        );
        if part.metadata.contains(&ours) {
            self.check_durable(part.partition, part.boundary)?;
        }
        self.commits.insert(
            part.partition,
            Commit {
                next: part.boundary.next,
                metadata: part.metadata.clone(),
            },
        );
        Ok(())
    }

    fn publish(&mut self, publish: &Publish) -> Result<(), String> {
        if publish.log_key.starts_with(&topic_id(self.topic)) {
            self.check_durable(publish.partition, publish.boundary)?;
        }
        let item = self
            .progress
            .entry(publish.log_key.to_string())
            .or_insert(publish.boundary);
        let before = item.next;
        if item.next < publish.boundary.next || mutant::on(Mutant::TableProgressBack) {
            *item = publish.boundary;
        }
        if item.next < before {
            return Err(format!("C4: progress of {} went back", publish.log_key));
        }
        Ok(())
    }

    /// C1: every record below the boundary is stored and counted. C4: the boundary's maximum is
    /// that of the log.
    fn check_durable(&self, partition: i32, at: Boundary) -> Result<(), String> {
        let next = at.next.0 as usize;
        let log = &self.logs[self.topic][partition as usize][..next];
        let want = self.truth[self.topic][partition as usize][next];
        if at.max != MaxTime::new(want) {
            return Err(format!(
                "C4: partition {partition} at {next}: {:?}, want {want:?}",
                at.max
            ));
        }
        let mut need = Tables::default();
        reference::fold(&mut need, &topic_id(self.topic), partition, log);
        if !need.raw.is_subset(&self.tables.raw)
            || !need.alerts.is_subset(&self.tables.alerts)
            || !need.dead.is_subset(&self.tables.dead)
        {
            return Err(format!(
                "C1: partition {partition} at {next}: an item is missing"
            ));
        }
        let log_key = keys::log_key(&topic_id(self.topic), partition);
        for key in need.rows.keys() {
            // The last record of the row below the boundary must lie below the row's fence.
            let last = last_of(key, log);
            let fence = self.fences.get(&(key.clone(), log_key.clone()));
            if fence.is_none_or(|f| f.0 <= last as i64) {
                return Err(format!(
                    "C1: partition {partition} at {next}: row {key:?} lacks {last}"
                ));
            }
        }
        Ok(())
    }

    fn land_float(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.floats.len());
        match self.floats.swap_remove(at) {
            Float::Put(batch) => self.store(&batch, &[]),
            Float::Update(update) => drop(self.update(&update)),
            Float::Commit(parts) => {
                for part in &parts {
                    self.commit(part)?;
                }
            }
            Float::Publish(publish) => self.publish(&publish)?,
        }
        Ok(())
    }

    /// No more faults: one consumer takes everything and must finish.
    fn heal(&mut self) -> Result<(), String> {
        self.faults = false;
        for who in 0..self.consumers.len() {
            // The others die, or go on beside the last one as zombies.
            if who > 0 && self.rng.one_in(2) {
                self.crash(who);
            }
        }
        // An old topic's leftovers are nobody's duty: only the current one is compared.
        self.consumers[0] = None;
        let topic = self.topic;
        self.step_until_fresh();
        let all: Vec<i32> = (0..self.partitions()).collect();
        let now = self.now_ms;
        self.pipeline(0).assigned(now, &all);
        for _ in 0..10_000 {
            self.now_ms += 20;
            self.pump(0)?;
            self.deliver(0);
            self.pump(0)?;
            for _ in 0..100 {
                self.answer(0)?;
                self.pump(0)?;
            }
            for who in 1..self.consumers.len() {
                self.deliver_if(who);
                self.pump(who)?;
                self.answer(who)?;
            }
            // Not the group's commits: a zombie may commit an older, valid restart point last.
            let done = |p: &i32| {
                let end = self.logs[topic][*p as usize].len() as i64;
                let workers = &self.consumers[0].as_ref().unwrap().pipeline;
                let worker = workers.workers().find(|w| w.place().partition == *p);
                worker.is_some_and(|w| w.durable().next.0 == end)
            };
            if all.iter().all(done) {
                return Ok(());
            }
        }
        Err("a fresh consumer never finishes".to_owned())
    }

    fn deliver_if(&mut self, who: usize) {
        if self.consumers[who].is_some() {
            self.deliver(who);
        }
    }

    fn step_until_fresh(&mut self) {
        self.consumers[0] = Some(Consumer {
            pipeline: Pipeline::new(Options {
                topic: "city-events".into(),
                row_interval_ms: 20,
                continue_on_loss: false,
                requests_max: 8,
            }),
            requests: Vec::new(),
            reading: BTreeMap::new(),
            zombie: Vec::new(),
        });
    }

    /// The tables against the fold: rows of an older topic that nobody finished are left out by
    /// comparing only what the current topic and the finished part of the older ones must give.
    fn compare(&self) -> Result<(), String> {
        let mut want = Tables::default();
        for partition in 0..self.partitions() {
            let log = &self.logs[self.topic][partition as usize];
            reference::fold(&mut want, &topic_id(self.topic), partition, log);
        }
        if self.topic == 0 {
            return same(&want, &self.tables);
        }
        // Older logs left a prefix of theirs in each row, known by their fences.
        for topic in 0..self.topic {
            for partition in 0..self.partitions() {
                let log = &self.logs[topic][partition as usize];
                let log_key = keys::log_key(&topic_id(topic), partition);
                for ((row, key), fence) in &self.fences {
                    if *key == log_key {
                        let mut part = Tables::default();
                        // Judge the whole log, count what lies below the fence.
                        reference::fold(&mut part, "", partition, &log[..fence.0 as usize]);
                        if let Some(counts) = part.rows.get(row) {
                            add(want.rows.entry(row.clone()).or_default(), counts);
                        }
                    }
                }
            }
        }
        if want.rows != self.tables.rows {
            return Err(difference(&want, &self.tables));
        }
        if !want.raw.is_subset(&self.tables.raw) || !want.alerts.is_subset(&self.tables.alerts) {
            return Err("an item of the current topic is missing".to_owned());
        }
        Ok(())
    }
}

fn add(mine: &mut Counts, other: &Counts) {
    mine.counted += other.counted;
    mine.late += other.late;
    for (a, b) in mine.severities.iter_mut().zip(other.severities) {
        *a += b;
    }
}

fn same(want: &Tables, got: &Tables) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    Err(difference(want, got))
}

fn difference(want: &Tables, got: &Tables) -> String {
    for (key, counts) in &want.rows {
        if got.rows.get(key) != Some(counts) {
            return format!("row {key:?}: want {counts:?}, got {:?}", got.rows.get(key));
        }
    }
    for (key, counts) in &got.rows {
        if !want.rows.contains_key(key) {
            return format!("row {key:?} should not be there: {counts:?}");
        }
    }
    let raw: Vec<_> = want.raw.symmetric_difference(&got.raw).collect();
    let alerts: Vec<_> = want.alerts.symmetric_difference(&got.alerts).collect();
    let dead: Vec<_> = want.dead.symmetric_difference(&got.dead).collect();
    format!("raw {raw:?}, alerts {alerts:?}, dead {dead:?}")
}

/// The offset of the last record of a row.
fn last_of(row: &(String, Option<i64>), log: &[Logged]) -> usize {
    let mut tables = Tables::default();
    let mut last = 0;
    for offset in 0..log.len() {
        let mut with = Tables::default();
        reference::fold(&mut with, "", 0, &log[..=offset]);
        if with.rows.get(row) != tables.rows.get(row) {
            last = offset;
        }
        tables = with;
    }
    last
}

fn float(request: Request) -> Option<Float> {
    match request {
        Request::Put(batch) => Some(Float::Put(batch)),
        Request::Update(update) => Some(Float::Update(update)),
        Request::Commit(parts) => Some(Float::Commit(parts)),
        Request::Publish(publish) => Some(Float::Publish(publish)),
        Request::Reject(..) | Request::Create(_) | Request::Locate(..) | Request::CheckTopic => {
            None
        }
    }
}

fn draw_log(rng: &mut Rng) -> Vec<Logged> {
    let mut now = 1_357_000_000_000;
    (0..rng.below(60))
        .map(|_| {
            now += rng.below(200_000) as i64;
            let t = match rng.below(10) {
                0 => now - rng.below(3_000_000) as i64,
                1 => now + rng.below(900_000) as i64,
                _ => now - rng.below(60_000) as i64,
            };
            // Some producers send one event twice, with the same id and time.
            let own = rng.one_in(5).then(|| rng.below(6));
            let t = own.map_or(t, |n| 1_357_000_000_000 + n as i64 * 400_000);
            let id = own.map(|n| format!("own-{n}"));
            let said = match rng.below(12) {
                0 => Said::Bad,
                1 => Said::Heartbeat(now - rng.below(1_000) as i64),
                _ => Said::Event(
                    CITIES[rng.below(3)],
                    KINDS[rng.below(2)],
                    rng.below(4),
                    t,
                    id,
                ),
            };
            Logged {
                said,
                timestamp_ms: (!rng.one_in(20)).then_some(now),
            }
        })
        .collect()
}

fn record(topic: usize, partition: i32, offset: usize, logged: &Logged) -> Record {
    let content = match &logged.said {
        Said::Bad => Content::Rejected(Box::new(Rejected {
            reason: Reason::NotJson,
            detail: topic_id(topic),
            key: None,
            value: None,
            headers: Vec::new(),
            partition,
            offset: Offset(offset as i64),
            timestamp_ms: logged.timestamp_ms,
        })),
        Said::Heartbeat(ms) => Content::Valid(Body::Heartbeat(*ms)),
        Said::Event(city, kind, severity, time_ms, id) => Content::Valid(Body::Event(Event {
            city: (*city).into(),
            event_type: (*kind).into(),
            severity: Severity::ALL[*severity],
            time_ms: *time_ms,
            description: "".into(),
            event_id: id.as_deref().map(Into::into),
            extra: None,
        })),
    };
    Record {
        offset: Offset(offset as i64),
        timestamp_ms: logged.timestamp_ms,
        bytes: 100,
        content,
    }
}
