//! The seeded simulation runs the real pipeline on a simulated log, consumer group and tables.
//!
//! One seed decides everything in a run: the records, the owner of each partition at any time, the lost requests, the
//! crashes, and the consumers that continue as zombies. A zombie is a consumer that continues although other consumers
//! own its partitions. A request may be lost before or after it takes effect. Faults occur only in the first phase of a
//! run. In the second phase, the remaining consumers must finish reading the log. At the end, the tables must equal the
//! result of a simple loop over the log, the *fold* (`reference`), which shares no code with the core. The module
//! `recovery` tests the recovery law (INV-3), and the module `model` tries every order of events in small worlds.
//!
//! ```text
//! SIM_SEEDS=100000 cargo test --test sim whatever_happens      runs more seeds
//! MODEL=whole cargo test --test sim every_order                visits more states
//! SIM_FIRST=4711 SIM_SEEDS=1 cargo test --test sim             runs a failing seed again
//! SIM_TRACES=/tmp/traces cargo test --test sim                 writes traces for proof/refine.py into a folder
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod consumer;
mod draw;
mod durable;
mod model;
mod recovery;
mod reference;
mod trace;
mod watch;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Runs `check` for every seed of a range, on all processors. Returns the first seed for which `check` fails, together
/// with the error.
fn first_failure<F>(seeds: std::ops::Range<u64>, check: F) -> Option<(u64, String)>
where
    F: Fn(u64) -> Result<(), String> + Sync,
{
    let next = AtomicU64::new(seeds.start);
    let failure: Mutex<Option<(u64, String)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let Some(problem) = problem(|| check(seed)) else {
                        continue;
                    };
                    // If traces are requested, all seeds must run, even after a failure.
                    if !trace::are_wanted() {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                    let mut failure = failure.lock().unwrap();
                    if failure.as_ref().is_none_or(|(other, _)| seed < *other) {
                        *failure = Some((seed, problem));
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap()
}

/// Calls `check` and returns the error, if any. A panic of the core also counts as an error.
fn problem(check: impl FnOnce() -> Result<(), String>) -> Option<String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
        Ok(result) => result.err(),
        Err(_) => Some("the core panicked".to_owned()),
    }
}

#[test]
fn whatever_happens_the_tables_equal_the_log() {
    let (first, seeds) = (env("SIM_FIRST", 0), env("SIM_SEEDS", 4_000));
    let failure = first_failure(first..first + seeds, |seed| {
        trace::written(&format!("seed-{seed}"), |lines| match lines {
            Some(lines) => World::traced(seed, lines).run(),
            None => World::new(seed).run(),
        })
        .map(|_| ())
    });
    if let Some((seed, problem)) = failure {
        panic!("seed {seed}: {problem} (again: SIM_FIRST={seed} SIM_SEEDS=1)");
    }
}

#[test]
fn a_seed_always_ends_alike() {
    for seed in 0..50 {
        let (a, b) = (World::new(seed).run(), World::new(seed).run());
        assert_eq!(a, b, "seed {seed}");
    }
}

#[test]
fn the_faults_happen() {
    // The simulation is useful only if all kinds of faults occur.
    let seen: Vec<world::Seen> = (0..300)
        .map(|seed| World::new(seed).run().unwrap())
        .collect();
    for (at, (what, _)) in seen[0].all().iter().enumerate() {
        let runs = seen.iter().filter(|s| s.all()[at].1 > 0).count();
        assert!(runs >= 10, "{what} only in {runs} of {} runs", seen.len());
    }
}
