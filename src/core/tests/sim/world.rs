//! Runs consumers on a simulated log, consumer group and tables. The seed determines the order of all events.

mod accidents;
mod answers;
mod ending;
mod seen;

use std::collections::BTreeSet;

use citystream_core::clock::{BootMs, SteadyMs};
use citystream_core::event::Offset;
use citystream_core::pipeline::Tables as Rules;
use citystream_core::plan::{PutTable, RawRows, Ticket};
use citystream_core::restart::StartFacts;
use citystream_core::window;
use citystream_core::worker::Record;

use crate::consumer::{Consumer, Float};
use crate::draw::{self, Rng, topic_id};
use crate::durable::{Durable, Logs};
use crate::reference::{Logged, Said};
use crate::trace::Lines;
pub(crate) use seen::Seen;

/// Time between two checks of the ends of the logs, in milliseconds.
const LOOK_MS: i64 = 500;

#[derive(Clone)]
pub(crate) struct World {
    rng: Rng,
    now_ms: SteadyMs,
    pub(crate) durable: Durable,
    floats: Vec<Float>,
    /// The valid puts that the simulation has refused. The simulation refuses the same valid put at most once.
    refused_wrongly: BTreeSet<(PutTable, Ticket)>,
    consumers: Vec<Option<Consumer>>,
    faults: bool,
    /// The current number of partitions of the topic.
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
            now_ms: SteadyMs(1_000_000),
            durable,
            floats: Vec::new(),
            refused_wrongly: BTreeSet::new(),
            consumers: vec![None; consumers],
            faults: true,
            partitions: partitions as i32,
            seen: Seen::default(),
        }
    }

    /// Returns the simulated world for a seed, which writes a trace to `lines`.
    pub(crate) fn traced(seed: u64, lines: Lines) -> World {
        let mut world = World::new(seed);
        world.durable.trace_into(lines);
        world
    }

    /// Runs the simulated world to its end, first with faults and then without faults.
    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for _ in 0..self.draw_steps() {
            self.step()?;
        }
        self.durable.trace_state();
        self.durable.check_rows()?;
        self.heal()?;
        self.ends_exact()?;
        self.durable.trace_state();
        Ok(self.seen)
    }

    pub(crate) fn draw_steps(&mut self) -> usize {
        200 + self.rng.below(1_500)
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

    /// Moves a partition to another consumer, and notifies the former owner only sometimes.
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
        // The program gives no guarantee for records that a consumer reads between the deletion of a topic and its
        // detection. Therefore, the simulation delivers no records during this time, and reports the consumer's
        // position as out of range.
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
        c.watch
            .given(assignment, records.iter().map(|record| record.offset.0));
        c.reading.insert(partition, (assignment, to));
        c.pipeline.records(now_ms, partition, assignment, records);
        if to == log.len() {
            let end = Offset(to as i64);
            c.pipeline.reached_end(now_ms, partition, assignment, end);
        }
        self.follow(who);
    }

    /// Writes the latest steps of a consumer's workers to the trace.
    fn follow(&mut self, who: usize) {
        if let Some(c) = &mut self.consumers[who] {
            c.watch.follow(&self.durable.trace, &c.pipeline);
        }
    }

    /// Sometimes skips records or jumps to the end of the log, as a faulty Kafka client does.
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

    /// Returns the time of the boot clock. The boot clock equals the steady clock, because no simulated host sleeps.
    fn boot_ms(&self) -> BootMs {
        BootMs(self.now_ms.0)
    }

    fn pump(&mut self, who: usize) -> Result<(), String> {
        let boot_ms = self.boot_ms();
        let Some(c) = &mut self.consumers[who] else {
            return Ok(());
        };
        let waited = c.requests.len();
        let (leaves, report) = c.pump(self.now_ms, boot_ms)?;
        c.watch
            .sent(&self.durable.trace, &c.requests[waited..], &leaves);
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

    /// Passes the ends of the logs to a consumer from time to time. Removes a consumer that has stopped, so that a new
    /// consumer may replace it. If a consumer has replaced its Kafka client, assigns the released partitions to the
    /// consumer again.
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
            tables_read_ms: self.boot_ms(),
            commit: d.commits.get(&partition).cloned(),
            log: (start, Offset(d.log(partition).len() as i64)),
            replaced_from: None,
        };
        let tables = Rules {
            rules: window::Rules::default(),
            keep: RawRows::All,
        };
        let (now, topic) = (self.now_ms, d.topic);
        self.durable.trace.claim(&facts.tables_id, topic);
        let c = self.consumers[who].as_mut().expect("it has asked");
        c.topics.insert((partition, assignment), topic);
        c.pipeline
            .located(now, partition, assignment, &facts, &tables);
        let trace = &mut self.durable.trace;
        c.watch.located(trace, &c.pipeline, assignment, &facts);
    }
}
