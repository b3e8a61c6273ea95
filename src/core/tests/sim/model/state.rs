//! Defines the states of the model, and the actions that change a state.

use std::fmt::Write as _;
use std::sync::Arc;

use citystream_core::clock::SteadyMs;
use citystream_core::plan::RawRows;

use super::digest::{digest, normalized};
use super::scene::Scene;
use super::worlds::{Budget, Small};
use super::{ACTION_MS, Action, Fate};
use crate::consumer::{Consumer, Float, Request};
use crate::durable::{Durable, Logs};
use crate::trace::Lines;

/// The start of the model's clock. In the text of a state, only times of this clock have 13 digits and begin with a 7.
/// Therefore, the hash can recognize and omit these times.
const BEGIN_MS: SteadyMs = SteadyMs(7_000_000_000_000);
/// Maximum duration of a drain, in milliseconds. Every drain finishes within this time.
const DRAIN_MS: i64 = 900_000_000_000;
/// Maximum number of rounds that a new consumer may take to reach the end of the log.
const ROUNDS_MAX: usize = 200;

#[derive(Clone)]
pub(super) struct State {
    now_ms: SteadyMs,
    members: [Option<Arc<Member>>; 2],
    /// The durable state, such as tables and commits, together with its hash.
    pub(super) durable: Arc<(Durable, u64)>,
    /// The writes without an answer that may still take effect, sorted by their debug text.
    pub(super) floats: Vec<(String, Float)>,
    left: Budget,
}

#[derive(Clone)]
struct Member {
    consumer: Consumer,
    digest: u64,
}

impl Member {
    fn new(mut consumer: Consumer) -> Member {
        let mut requests: Vec<(String, Request)> = consumer
            .requests
            .drain(..)
            .map(|r| (format!("{r:?}"), r))
            .collect();
        requests.sort_by(|a, b| a.0.cmp(&b.0));
        let mut text = String::with_capacity(4_096);
        write!(text, "{:?}{:?}", consumer.pipeline, consumer.reading).expect("a string takes it");
        for (request, _) in &requests {
            text.push_str(request);
        }
        consumer.requests = requests.into_iter().map(|(_, r)| r).collect();
        let mut plain = String::with_capacity(text.len());
        normalized(&text, &mut plain);
        Member {
            digest: digest(&plain),
            consumer,
        }
    }
}

fn sealed(durable: Durable) -> Arc<(Durable, u64)> {
    let d = &durable;
    let text = format!(
        "{:?}{:?}{:?}{:?}",
        d.tables, d.fences, d.progress, d.commits
    );
    let digest = digest(&text);
    Arc::new((durable, digest))
}

impl State {
    /// Returns the first state of a small world. In this state, the first consumer has just got the partition. If
    /// `lines` contains a buffer, the world writes its trace to that buffer.
    pub(super) fn begin(small: &Small, lines: Option<Lines>) -> Result<State, String> {
        let mut durable = Durable::new(Logs::new(vec![vec![(small.log)()]]));
        durable.items = small.keep != RawRows::None;
        if let Some(lines) = lines {
            durable.trace_into(lines);
        }
        let state = State {
            now_ms: BEGIN_MS,
            members: [None, None],
            durable: sealed(durable),
            floats: Vec::new(),
            left: small.budget,
        };
        state.apply(small, Action::Take(0, false))
    }

    pub(super) fn digest(&self) -> u64 {
        let mut members = self
            .members
            .each_ref()
            .map(|m| m.as_ref().map_or(0, |m| m.digest));
        // Sorting makes the hash independent of the order of the two consumers.
        members.sort_unstable();
        let mut text = format!("{members:?}{}{:?}", self.durable.1, self.left);
        for (float, _) in &self.floats {
            text.push_str(float);
        }
        digest(&text)
    }

    pub(super) fn actions(&self) -> Vec<Action> {
        let mut out = Vec::new();
        let left = &self.left;
        for (who, member) in self.members.iter().enumerate() {
            let Some(Member { consumer: c, .. }) = member.as_deref() else {
                continue;
            };
            let log = self.durable.0.log(0).len();
            if c.reading.values().any(|(_, at)| *at < log) {
                out.push(Action::Deliver(who));
            }
            for (at, request) in c.requests.iter().enumerate() {
                out.push(Action::Answer(who, at, Fate::Done));
                let update = matches!(request, Request::Update(_));
                for (fate, left) in [
                    (Fate::Lost, left.lost_requests),
                    (Fate::ReplyLost, left.lost_replies),
                    (Fate::Delayed, left.delayed),
                    (Fate::Twice, left.repeated * u8::from(update)),
                ] {
                    // A dead letter is never lost, because the Kafka client sends the record again until the broker
                    // acknowledges it.
                    if left > 0 && !matches!(request, Request::Reject(..)) {
                        out.push(Action::Answer(who, at, fate));
                    }
                }
            }
            if left.crashes > 0 {
                let lands = |mask: &u32| {
                    let mut bits = (0..c.requests.len()).filter(|at| mask >> at & 1 == 1);
                    mask.count_ones() <= u32::from(left.delayed)
                        && bits.all(|at| !matches!(c.requests[at], Request::Reject(..)))
                };
                let masks = (0..1 << c.requests.len()).filter(lands);
                out.extend(masks.map(|mask| Action::Crash(who, mask)));
            }
        }
        let orphan = !self.members.iter().flatten().any(|m| m.consumer.has(0));
        if left.takeovers > 0 || orphan {
            out.extend([Action::Take(0, false), Action::Take(1, false)]);
            if !orphan {
                out.extend([Action::Take(0, true), Action::Take(1, true)]);
            }
        }
        out.extend((0..self.floats.len()).map(Action::Land));
        if left.lost_groups > 0 && !self.durable.0.commits.is_empty() {
            out.push(Action::LoseGroup);
        }
        out
    }

    pub(super) fn apply(&self, small: &Small, action: Action) -> Result<State, String> {
        let mut next = self.clone();
        next.now_ms += ACTION_MS;
        let mut durable = self.durable.0.clone();
        let mut scene = Scene {
            keep: small.keep,
            now_ms: next.now_ms,
            durable: &mut durable,
        };
        match action {
            Action::Deliver(who) => next.change(&mut scene, who, |scene, c| {
                scene.deliver(c);
                Ok(())
            })?,
            Action::Answer(who, at, fate) => next.answer(&mut scene, who, at, fate)?,
            Action::Crash(who, mask) => next.crash(who, mask),
            Action::Take(to, silent) => next.take(&mut scene, to, silent)?,
            Action::Land(at) => {
                let (_, float) = next.floats.remove(at);
                scene.apply(&float)?;
            }
            Action::LoseGroup => {
                next.left.lost_groups -= 1;
                scene.durable.commits.clear();
            }
        }
        next.durable = sealed(durable);
        Ok(next)
    }

    /// Applies `change` to a consumer, and creates the consumer first if it does not exist. After the change, runs the
    /// consumer until all of its requests without an answer are writes.
    fn change(
        &mut self,
        scene: &mut Scene<'_>,
        who: usize,
        change: impl FnOnce(&mut Scene<'_>, &mut Consumer) -> Result<(), String>,
    ) -> Result<(), String> {
        let member = self.members[who].take();
        let mut c = member.map_or_else(|| Consumer::new(0), |m| m.consumer.clone());
        change(scene, &mut c)?;
        scene.settle(&mut c)?;
        self.members[who] = Some(Arc::new(Member::new(c)));
        Ok(())
    }

    fn answer(
        &mut self,
        scene: &mut Scene<'_>,
        who: usize,
        at: usize,
        fate: Fate,
    ) -> Result<(), String> {
        let mut sent = None;
        self.change(scene, who, |scene, c| {
            let request = c.requests.remove(at);
            sent = Some(request.clone());
            scene.answer(c, request, fate)
        })?;
        match fate {
            Fate::Done => {}
            Fate::Lost => self.left.lost_requests -= 1,
            Fate::ReplyLost => self.left.lost_replies -= 1,
            Fate::Twice => self.left.repeated -= 1,
            Fate::Delayed => {
                self.left.delayed -= 1;
                self.float(sent.and_then(Request::float));
            }
        }
        Ok(())
    }

    fn crash(&mut self, who: usize, mask: u32) {
        let member = self.members[who].take().expect("only the living die");
        self.left.crashes -= 1;
        for (at, request) in member.consumer.requests.iter().enumerate() {
            if mask >> at & 1 == 1 {
                self.left.delayed -= 1;
                self.float(request.clone().float());
            }
        }
    }

    fn take(&mut self, scene: &mut Scene<'_>, to: usize, silent: bool) -> Result<(), String> {
        self.left.takeovers = self.left.takeovers.saturating_sub(1);
        let other = 1 - to;
        if !silent && self.members[other].is_some() {
            self.change(scene, other, |scene, c| {
                c.reading.clear();
                c.pipeline.revoked(scene.now_ms, &[0], false, DRAIN_MS);
                Ok(())
            })?;
        }
        self.change(scene, to, |scene, c| {
            c.reading.clear();
            c.pipeline.assigned(scene.now_ms, &[0]);
            Ok(())
        })
    }

    fn float(&mut self, float: Option<Float>) {
        if let Some(float) = float {
            self.floats.push((format!("{float:?}"), float));
            self.floats.sort_by(|a, b| a.0.cmp(&b.0));
        }
    }

    /// Checks the recovery law (INV-3). All consumers crash, a new consumer reads the log to its end, and then the
    /// writes of the crashed consumers take effect. The tables must equal the expected tables both before and after
    /// these writes take effect.
    pub(super) fn recovers(&self, small: &Small) -> Result<(), String> {
        let mut durable = self.durable.0.clone();
        let mut scene = Scene {
            keep: small.keep,
            now_ms: self.now_ms + ACTION_MS,
            durable: &mut durable,
        };
        let mut c = Consumer::new(0);
        c.pipeline.assigned(scene.now_ms, &[0]);
        for _ in 0..ROUNDS_MAX {
            scene.now_ms += ACTION_MS;
            scene.settle(&mut c)?;
            scene.deliver(&mut c);
            if let Some(request) = c.requests.pop() {
                scene.answer(&mut c, request, Fate::Done)?;
            }
            let end = scene.durable.log(0).len() as i64;
            if c.pipeline.workers().any(|w| w.durable().next.0 == end) {
                scene.durable.compare(1)?;
                for (_, float) in &self.floats {
                    scene.apply(float)?;
                }
                scene.durable.trace_state();
                return scene.durable.compare(1);
            }
        }
        Err("a fresh consumer never finishes".to_owned())
    }
}
