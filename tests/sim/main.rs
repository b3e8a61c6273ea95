//! The seeded simulation: the real pipeline against a simulated log, group and table.
//!
//! One seed decides everything: the records, who owns which partition when, which requests are lost
//! before or after they took effect, who dies and who wakes up as a zombie. After a phase of faults
//! everything heals; a fresh consumer must then finish, and the tables must equal a plain fold over
//! the log (`reference`), which shares no code with the core.
//!
//! `SIM_SEEDS=1000 SIM_FIRST=0 cargo test --test sim` runs other seeds; a failing one is printed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod reference;
mod world;

use world::World;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

#[test]
fn whatever_happens_the_tables_equal_the_log() {
    let (first, seeds) = (env("SIM_FIRST", 0), env("SIM_SEEDS", 1_500));
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(problem)) => panic!("seed {seed}: {problem} (SIM_FIRST={seed} SIM_SEEDS=1)"),
            Err(_) => panic!("seed {seed}: the core panicked (SIM_FIRST={seed} SIM_SEEDS=1)"),
        }
    }
}

#[test]
fn a_seed_always_ends_alike() {
    for seed in 0..50 {
        assert_eq!(
            World::new(seed).run(),
            World::new(seed).run(),
            "seed {seed}"
        );
    }
}

#[test]
fn the_faults_happen() {
    // A simulation that never meets trouble proves nothing.
    let mut all = world::Seen::default();
    for seed in 0..200 {
        all.add(&World::new(seed).run().unwrap());
    }
    assert!(all.crashes > 50, "{all:?}");
    assert!(all.conflicts > 50, "{all:?}");
    assert!(all.lost_replies > 50, "{all:?}");
    assert!(all.zombie_writes > 50, "{all:?}");
    assert!(all.late > 50, "{all:?}");
    assert!(all.unprocessed > 50, "{all:?}");
    assert!(all.remade_topics > 10, "{all:?}");
    assert!(all.remade_tables > 10, "{all:?}");
    assert!(all.retained > 20, "{all:?}");
    assert!(all.lost_groups > 10, "{all:?}");
}

/// Every planted bug must be found within so many seeds.
#[cfg(feature = "sim")]
const MUTANT_SEEDS: u64 = 2_000;

#[cfg(feature = "sim")]
#[test]
fn every_planted_bug_is_found() {
    use citystream::core::mutant::{self, Mutant};
    // A panic of the core is a way of being found, and no news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for planted in Mutant::ALL {
        mutant::set(Some(planted));
        let found = (0..MUTANT_SEEDS).find_map(|seed| {
            match std::panic::catch_unwind(|| World::new(seed).run()) {
                Ok(Ok(_)) => None,
                Ok(Err(problem)) => Some((seed, problem)),
                Err(_) => Some((seed, "the core panicked".to_owned())),
            }
        });
        mutant::set(None);
        match found {
            Some((seed, problem)) => eprintln!("{planted:?}: seed {seed}: {problem}"),
            None => missed.push(planted),
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {MUTANT_SEEDS} seeds: {missed:?}"
    );
}
