//! The exhaustive model tries every possible order of events in a small world that runs the real core.
//!
//! A small world has one partition with a few records, and two consumers that run the real pipeline. In each state, the
//! search tries all possible actions:
//!
//! - A record is delivered to a consumer.
//! - A request ends in one of five ways. The request is lost, takes effect and gets an answer, takes effect without an
//!   answer, takes effect twice, or takes effect long after its sender has given it up.
//! - A consumer crashes.
//! - The partition moves to another consumer, with or without a notification of its former owner.
//! - The group's offsets are lost.
//!
//! Each kind of fault may occur only a limited number of times. Therefore, the number of states is finite, and the
//! search visits every state. In each state, the search checks INV-1, INV-2, INV-4, INV-7 and the recovery law (INV-3).
//! The recovery law has two parts. After a crash of all consumers, a new consumer must make the tables equal to the
//! result of the fold. After that, writes of the crashed consumers must no longer change the tables.
//!
//! Two states are the same if they have the same hash. The hash includes everything that affects the next states. The
//! hash excludes the simulated time, because every wait ends before the next action.

mod digest;
mod scene;
mod state;
mod worlds;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::draw::Rng;
use crate::trace::{self, Lines};
use digest::digest;
use state::State;
use worlds::{QUICK, Small, WHOLE};

/// Number of random sequences of actions that the test runs in each small world.
const WAYS: u64 = 40;
/// Average number of actions in a random sequence, unless the small world allows fewer actions.
const ACTIONS_MEAN: usize = 60;

/// Time between two actions, in milliseconds. All waits in the core are shorter than `ACTION_MS`, except for the wait
/// between two writes of a progress item.
const ACTION_MS: i64 = 10_000;

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// The request never takes effect.
    Lost,
    /// The request takes effect, but its sender gets no answer.
    ReplyLost,
    /// The request may take effect at a later time, or never.
    Delayed,
    Twice,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Deliver(usize),
    /// A request of a consumer ends. The fields are the index of the consumer, the index of the request, and the way in
    /// which it ends.
    Answer(usize, usize, Fate),
    /// A consumer crashes. The second field is a bit mask of the requests that may still take effect.
    Crash(usize, u32),
    /// A consumer gets the partition. The second field is true if the former owner of the partition gets no
    /// notification.
    Take(usize, bool),
    Land(usize),
    LoseGroup,
}

/// A problem that the search found in a state, and the actions that lead to this state.
#[derive(Debug)]
struct Wrong {
    problem: String,
    way: Vec<Action>,
}

/// Visits every state of a small world. Returns the number of states, or the first problem that was found.
fn search(small: &Small) -> Result<usize, Wrong> {
    let begin = State::begin(small, None);
    let begin = begin.map_err(|problem| Wrong {
        problem,
        way: Vec::new(),
    })?;
    let mut seen = HashSet::from([begin.digest()]);
    let mut recovered = HashSet::new();
    // The stack of the depth-first search: the states on the path to the current state, each with the actions that the
    // search has not tried yet.
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
                let way = way.iter().filter_map(|(_, _, action)| *action);
                let way = way.chain([action]).collect();
                return Err(Wrong { problem, way });
            }
        }
    }
    Ok(seen.len())
}

/// Runs one sequence of actions in a small world, from the first state to the final recovery by a new consumer.
fn go(
    small: &Small,
    lines: Option<Lines>,
    mut next: impl FnMut(&State) -> Option<Action>,
) -> Result<(), String> {
    let mut state = State::begin(small, lines)?;
    while let Some(action) = next(&state) {
        state = state.apply(small, action)?;
    }
    state.recovers(small)
}

/// Runs random sequences of actions in each small world. The exhaustive search writes no traces, but these random
/// sequences can write traces.
#[test]
fn any_way_through_a_small_world_keeps_the_invariants() {
    let worlds: Vec<&Small> = QUICK.iter().chain(&WHOLE).collect();
    let failure = crate::first_failure(0..WAYS * worlds.len() as u64, |seed| {
        let mut rng = Rng::new(seed);
        trace::written(&format!("way-{seed}"), |lines| {
            let small = worlds[seed as usize % worlds.len()];
            go(small, lines, |state| {
                let actions = state.actions();
                let ends = actions.is_empty() || rng.one_in(ACTIONS_MEAN);
                (!ends).then(|| actions[rng.below(actions.len())])
            })
        })
    });
    assert_eq!(failure, None);
}

#[test]
fn every_order_of_events_in_a_small_world_keeps_the_invariants() {
    let whole = std::env::var_os("MODEL").is_some_and(|form| form == "whole");
    let more = WHOLE.iter().filter(|_| whole);
    let worlds: Vec<&Small> = QUICK.iter().chain(more).collect();
    let states = AtomicUsize::new(0);
    let failure = crate::first_failure(0..worlds.len() as u64, |at| {
        let small = worlds[at as usize];
        let found = search(small).map_err(|Wrong { problem, way }| {
            let names: Vec<String> = way.iter().map(|action| format!("{action:?}")).collect();
            let mut actions = way.into_iter();
            // The test repeats the actions that led to the problem, in order to write a trace.
            drop(trace::written(&format!("model-{at}"), |lines| {
                crate::problem(|| go(small, lines, |_| actions.next()))
            }));
            format!("{problem} after {}", names.join(" → "))
        })?;
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
