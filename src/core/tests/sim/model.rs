//! The exhaustive model: every order of events in a small world, around the real core.
//!
//! One partition of a few records, two consumers that run the real pipeline. Whatever can happen
//! next is an action: a record is delivered; a request takes effect and is answered, is lost, takes
//! effect without an answer, takes effect twice, or lands long after its sender gave it up; a
//! consumer dies; a partition moves, with or without a word to its owner; the group's offsets go.
//! How often each kind of trouble may happen is bounded, so the states are finite, and all of them
//! are visited. Each is checked for INV-1, INV-2, INV-4 and INV-7; from each, the recovery law (INV-3): all
//! consumers dead, a fresh one must come to the tables of the fold, and the writes still under way
//! must change nothing after it.
//!
//! States are told apart by a hash of all that their future depends on. Time is not part of it: each
//! action comes long after the last, so whatever waits for a time is due.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use citystream_core::batch::BatchOutcome;
use citystream_core::event::Offset;
use citystream_core::pipeline::Tables as Rules;
use citystream_core::plan::{Keep, UpdateOutcome};
use citystream_core::restart::StartFacts;
use citystream_core::window;

use crate::consumer::{Consumer, Float, Request};
use crate::draw::{self, topic_id};
use crate::durable::{Durable, Logs};
use crate::reference::{Logged, Said};

/// Times of the model's clock have 13 digits and begin with a 7; no other number does.
const BEGIN_MS: i64 = 7_000_000_000_000;
/// Longer than any wait of the core but the hour between two publications.
const ACTION_MS: i64 = 10_000;
/// No drain runs out of time: being lost at once is another action.
const DRAIN_MS: i64 = 900_000_000_000;
/// Rounds within which a fresh consumer must finish.
const ROUNDS_MAX: usize = 200;

/// How often each kind of trouble may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    crashes: u8,
    takeovers: u8,
    lost_requests: u8,
    lost_replies: u8,
    delayed: u8,
    repeated: u8,
    lost_groups: u8,
}

/// A small world.
#[derive(Clone, Copy, Debug)]
struct Small {
    name: &'static str,
    log: fn() -> Vec<Logged>,
    keep: Keep,
    budget: Budget,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// It never takes effect.
    Lost,
    /// It takes effect, and nobody hears of it.
    ReplyLost,
    /// It takes effect later, if at all.
    Delayed,
    Twice,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Deliver(usize),
    /// consumer, which of its requests, what becomes of it
    Answer(usize, usize, Fate),
    /// consumer, which of its requests may still land (a bit each)
    Crash(usize, u32),
    /// new owner, whether the others are not told
    Take(usize, bool),
    Land(usize),
    LoseGroup,
}

#[derive(Clone)]
struct State {
    now_ms: i64,
    members: [Option<Arc<Member>>; 2],
    durable: Arc<(Durable, u64)>,
    /// In the order of their text.
    floats: Vec<(String, Float)>,
    left: Budget,
}

#[derive(Clone)]
struct Member {
    consumer: Consumer,
    digest: u64,
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Appends what the future of a consumer depends on: without clock times, numbers of tries and counts.
fn normalized(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find("ledger: Ledger {") {
        normalized_numbers(&rest[..at], out);
        let end = rest[at..].find('}').expect("a ledger ends");
        rest = &rest[at + end..];
    }
    normalized_numbers(rest, out);
}

fn normalized_numbers(text: &str, out: &mut String) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while from < bytes.len() {
        let digit = |at: &usize| bytes[*at].is_ascii_digit();
        let begin = (from..bytes.len()).find(digit).unwrap_or(bytes.len());
        let end = (begin..bytes.len())
            .find(|at| !digit(at))
            .unwrap_or(bytes.len());
        out.push_str(&text[from..begin]);
        let of_clock = end - begin == 13 && bytes[begin] == b'7';
        if !of_clock && !text[..begin].ends_with("attempts: ") {
            out.push_str(&text[begin..end]);
        }
        from = end;
    }
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

/// A state that is being changed.
struct Scene<'a> {
    keep: Keep,
    now_ms: i64,
    durable: &'a mut Durable,
}

impl Scene<'_> {
    /// Lets a consumer do all it wants, and answers at once what only asks.
    fn settle(&mut self, c: &mut Consumer) -> Result<(), String> {
        loop {
            for wait_ms in [0, ACTION_MS - 1_000] {
                let (leaves, _) = c.pump(self.now_ms + wait_ms, 0)?;
                for part in leaves {
                    self.durable.commit(&part)?;
                }
            }
            let asks = |r: &Request| {
                matches!(
                    r,
                    Request::Locate(..)
                        | Request::CheckTopic
                        | Request::CheckGap(..)
                        | Request::Create(_)
                )
            };
            let Some(at) = c.requests.iter().position(asks) else {
                return Ok(());
            };
            match c.requests.swap_remove(at) {
                Request::Create(publish) => {
                    let item = self.durable.progress.entry(publish.log_key.to_string());
                    item.or_insert(publish.boundary);
                    self.locate(c, publish.assignment);
                }
                Request::Locate(_, assignment) => self.locate(c, assignment),
                Request::CheckGap(partition, assignment, gap) => {
                    let second = self.durable.second_read(partition, gap);
                    c.pipeline
                        .gap_checked(self.now_ms, partition, assignment, gap, second);
                }
                _ => c.pipeline.topic_checked(self.now_ms, Some(&topic_id(0))),
            }
        }
    }

    fn locate(&self, c: &mut Consumer, assignment: u64) {
        let d = &*self.durable;
        let facts = StartFacts {
            progress: d.progress.get(&d.log_key(0)).copied(),
            topic_id: topic_id(0),
            tables_id: d.tables_id(),
            tables_read_ms: 0,
            commit: d.commits.get(&0).cloned(),
            log: (Offset(0), Offset(d.log(0).len() as i64)),
        };
        let tables = Rules {
            rules: window::Rules::default(),
            keep: self.keep,
        };
        c.pipeline
            .located(self.now_ms, 0, assignment, &facts, &tables);
    }

    fn deliver(&self, c: &mut Consumer) {
        let Some((&partition, &(assignment, at))) = c.reading.first_key_value() else {
            return;
        };
        if let Some(logged) = self.durable.log(partition).get(at) {
            c.reading.insert(partition, (assignment, at + 1));
            let records = draw::record(0, partition, at, logged).into_iter().collect();
            c.pipeline
                .records(self.now_ms, partition, assignment, records);
        }
    }

    /// Lets a request take effect; returns nothing where no effect is known.
    fn apply(&mut self, float: &Float) -> Result<Option<UpdateOutcome>, String> {
        match float {
            Float::Put(batch) => drop(self.durable.store(batch, &[])?),
            Float::Update(update) => {
                let outcome = self.durable.update(update);
                self.durable.check_rows()?;
                return Ok(Some(outcome));
            }
            Float::Commit(parts) => {
                for part in parts {
                    self.durable.commit(part)?;
                }
            }
            Float::Publish(publish) => drop(self.durable.publish(publish)?),
        }
        Ok(None)
    }

    fn answer(&mut self, c: &mut Consumer, request: Request, fate: Fate) -> Result<(), String> {
        let now_ms = self.now_ms;
        let effects = match fate {
            Fate::Done | Fate::ReplyLost => 1,
            Fate::Twice => 2,
            Fate::Lost | Fate::Delayed => 0,
        };
        let known = matches!(fate, Fate::Done | Fate::Twice);
        let mut outcome = None;
        if let Some(float) = request.clone().float() {
            for _ in 0..effects {
                outcome = self.apply(&float)?;
            }
        }
        match request {
            Request::Update(update) => {
                let outcome = outcome.filter(|_| known).unwrap_or(UpdateOutcome::Unknown);
                c.pipeline.update_answered(now_ms, &update, outcome, 0);
            }
            Request::Put(batch) => {
                let outcome = if known {
                    BatchOutcome::Stored {
                        unprocessed: Vec::new(),
                    }
                } else {
                    BatchOutcome::Failed { throttled: false }
                };
                c.pipeline.batch_answered(now_ms, batch, &outcome, 0);
            }
            Request::Commit(_) => c.pipeline.commit_done(now_ms, known),
            Request::Publish(publish) if known => c.pipeline.published(now_ms, &publish),
            Request::Reject(ticket, rejected) => {
                let offset = rejected.offset.0 as usize;
                let dead = (rejected.detail.clone(), rejected.partition, offset);
                self.durable.tables.dead.insert(dead);
                c.pipeline.reject_done(ticket);
            }
            Request::Refused(..)
            | Request::Publish(_)
            | Request::Create(_)
            | Request::Locate(..)
            | Request::CheckGap(..)
            | Request::CheckTopic => {}
            // The model's tables stay, and no time passes that would make a consumer ask.
            Request::ReadTables
            | Request::Restore(_)
            | Request::Gone(_)
            | Request::StalePublish(_) => unreachable!("{request:?}"),
        }
        Ok(())
    }
}

impl State {
    fn begin(small: &Small) -> Result<State, String> {
        let mut durable = Durable::new(Logs::new(vec![vec![(small.log)()]]));
        durable.items = small.keep != Keep::None;
        let state = State {
            now_ms: BEGIN_MS,
            members: [None, None],
            durable: sealed(durable),
            floats: Vec::new(),
            left: small.budget,
        };
        state.apply(small, Action::Take(0, false))
    }

    fn digest(&self) -> u64 {
        let mut members = self
            .members
            .each_ref()
            .map(|m| m.as_ref().map_or(0, |m| m.digest));
        // Which of the two is which makes no difference.
        members.sort_unstable();
        let mut text = format!("{members:?}{}{:?}", self.durable.1, self.left);
        for (float, _) in &self.floats {
            text.push_str(float);
        }
        digest(&text)
    }

    fn actions(&self) -> Vec<Action> {
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
                    // A dead letter is awaited for ever: the client repeats it below.
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

    fn apply(&self, small: &Small, action: Action) -> Result<State, String> {
        let mut next = self.clone();
        next.now_ms += ACTION_MS;
        let mut durable = self.durable.0.clone();
        let mut scene = Scene {
            keep: small.keep,
            now_ms: next.now_ms,
            durable: &mut durable,
        };
        let mut change =
            |next: &mut State,
             who: usize,
             f: &mut dyn FnMut(&mut Scene<'_>, &mut Consumer) -> Result<(), String>| {
                let member = next.members[who].take();
                let mut c = member.map_or_else(|| Consumer::new(0), |m| m.consumer.clone());
                f(&mut scene, &mut c)?;
                scene.settle(&mut c)?;
                next.members[who] = Some(Arc::new(Member::new(c)));
                Ok::<(), String>(())
            };
        match action {
            Action::Deliver(who) => change(&mut next, who, &mut |scene, c| {
                scene.deliver(c);
                Ok(())
            })?,
            Action::Answer(who, at, fate) => {
                let mut sent = None;
                change(&mut next, who, &mut |scene, c| {
                    let request = c.requests.remove(at);
                    sent = Some(request.clone());
                    scene.answer(c, request, fate)
                })?;
                match fate {
                    Fate::Done => {}
                    Fate::Lost => next.left.lost_requests -= 1,
                    Fate::ReplyLost => next.left.lost_replies -= 1,
                    Fate::Twice => next.left.repeated -= 1,
                    Fate::Delayed => {
                        next.left.delayed -= 1;
                        next.float(sent.and_then(Request::float));
                    }
                }
            }
            Action::Crash(who, mask) => {
                let member = next.members[who].take().expect("only the living die");
                next.left.crashes -= 1;
                for (at, request) in member.consumer.requests.iter().enumerate() {
                    if mask >> at & 1 == 1 {
                        next.left.delayed -= 1;
                        next.float(request.clone().float());
                    }
                }
            }
            Action::Take(to, silent) => {
                next.left.takeovers = next.left.takeovers.saturating_sub(1);
                let other = 1 - to;
                if !silent && next.members[other].is_some() {
                    change(&mut next, other, &mut |scene, c| {
                        c.reading.clear();
                        c.pipeline.revoked(scene.now_ms, &[0], false, DRAIN_MS);
                        Ok(())
                    })?;
                }
                change(&mut next, to, &mut |scene, c| {
                    c.reading.clear();
                    c.pipeline.assigned(scene.now_ms, &[0]);
                    Ok(())
                })?;
            }
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

    fn float(&mut self, float: Option<Float>) {
        if let Some(float) = float {
            self.floats.push((format!("{float:?}"), float));
            self.floats.sort_by(|a, b| a.0.cmp(&b.0));
        }
    }

    /// INV-3: all dead, a fresh consumer reads to the end, then what was under way lands.
    fn recovers(&self, small: &Small) -> Result<(), String> {
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
                return scene.durable.compare(1);
            }
        }
        Err("a fresh consumer never finishes".to_owned())
    }
}

/// Visits every state; returns how many there are, or the way to one that is wrong.
fn search(small: &Small) -> Result<usize, String> {
    let begin = State::begin(small)?;
    let mut seen = HashSet::from([begin.digest()]);
    let mut recovered = HashSet::new();
    // The way here: each state with its actions that were not tried yet.
    let actions = begin.actions();
    let mut way = vec![(begin, actions, None::<Action>)];
    while let Some((state, actions, _)) = way.last_mut() {
        let Some(action) = actions.pop() else {
            way.pop();
            continue;
        };
        let step = || {
            let next = state.apply(small, action)?;
            if !seen.insert(next.digest()) {
                return Ok(None);
            }
            let mut durable = next.durable.1.to_string();
            next.floats
                .iter()
                .for_each(|(text, _)| durable.push_str(text));
            if recovered.insert(digest(&durable)) {
                next.recovers(small)?;
            }
            Ok(Some(next))
        };
        let step = std::panic::catch_unwind(std::panic::AssertUnwindSafe(step));
        match step.unwrap_or_else(|_| Err("the core panicked".to_owned())) {
            Ok(None) => {}
            Ok(Some(next)) => {
                let actions = next.actions();
                way.push((next, actions, Some(action)));
            }
            Err(problem) => {
                let actions = way.iter().filter_map(|(_, _, action)| *action);
                let way: Vec<_> = actions.chain([action]).map(|a| format!("{a:?}")).collect();
                return Err(format!("{problem} after {}", way.join(" → ")));
            }
        }
    }
    Ok(seen.len())
}

const NONE: Budget = Budget {
    crashes: 0,
    takeovers: 0,
    lost_requests: 0,
    lost_replies: 0,
    delayed: 0,
    repeated: 0,
    lost_groups: 0,
};

const BASE_MS: i64 = 1_357_000_200_000;

fn event(minute: i64) -> Logged {
    ahead(minute, minute)
}

fn ahead(minute: i64, record_minute: i64) -> Logged {
    Logged {
        said: Said::Event("NYC", "traffic", 3, BASE_MS + minute * 60_000, None),
        timestamp_ms: Some(BASE_MS + record_minute * 60_000),
    }
}

fn bad() -> Logged {
    Logged {
        said: Said::Bad,
        timestamp_ms: Some(BASE_MS),
    }
}

/// Four records: one makes the next but one late.
fn late_log() -> Vec<Logged> {
    vec![event(0), event(30), event(1), event(31)]
}

/// A bad record, and one that is ahead of its time, between others of one window.
fn bad_log() -> Vec<Logged> {
    vec![event(0), bad(), ahead(90, 0), event(2)]
}

/// Two alerts, so that items are stored as well.
fn item_log() -> Vec<Logged> {
    vec![event(0), event(30)]
}

/// The small worlds of every `cargo test`.
const QUICK: [Small; 4] = [
    Small {
        name: "late records; a takeover, a crash",
        log: late_log,
        keep: Keep::None,
        budget: Budget {
            crashes: 1,
            takeovers: 1,
            ..NONE
        },
    },
    Small {
        name: "late records; a delayed write, a lost group",
        log: late_log,
        keep: Keep::None,
        budget: Budget {
            delayed: 1,
            lost_groups: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; a repeated request, a lost reply",
        log: bad_log,
        keep: Keep::None,
        budget: Budget {
            lost_replies: 1,
            repeated: 1,
            ..NONE
        },
    },
    Small {
        name: "items; a crash",
        log: item_log,
        keep: Keep::All,
        budget: Budget { crashes: 1, ..NONE },
    },
];

/// More trouble at once, for `MODEL=whole`.
const WHOLE: [Small; 5] = [
    Small {
        name: "late records; a crash, a delayed write, a lost group",
        log: late_log,
        keep: Keep::None,
        budget: Budget {
            crashes: 1,
            delayed: 1,
            lost_groups: 1,
            ..NONE
        },
    },
    Small {
        name: "late records; a takeover, a crash, a lost reply",
        log: late_log,
        keep: Keep::None,
        budget: Budget {
            crashes: 1,
            takeovers: 1,
            lost_replies: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; a takeover, a repeated and a lost request",
        log: bad_log,
        keep: Keep::None,
        budget: Budget {
            takeovers: 1,
            lost_requests: 1,
            repeated: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; two takeovers",
        log: bad_log,
        keep: Keep::None,
        budget: Budget {
            takeovers: 2,
            ..NONE
        },
    },
    Small {
        name: "items; a crash, a lost reply",
        log: item_log,
        keep: Keep::All,
        budget: Budget {
            crashes: 1,
            lost_replies: 1,
            ..NONE
        },
    },
];

#[test]
fn every_order_of_events_in_a_small_world_keeps_the_invariants() {
    let whole = std::env::var_os("MODEL").is_some_and(|form| form == "whole");
    let more = WHOLE.iter().filter(|_| whole);
    let worlds: Vec<&Small> = QUICK.iter().chain(more).collect();
    let states = AtomicUsize::new(0);
    let failure = crate::first_failure(0..worlds.len() as u64, |at| {
        let small = worlds[at as usize];
        let found = search(small)?;
        states.fetch_add(found, Ordering::Relaxed);
        eprintln!("{}: {found} states", small.name);
        Ok(())
    });
    assert_eq!(failure, None);
    eprintln!(
        "{} states in {} small worlds",
        states.into_inner(),
        worlds.len()
    );
}
