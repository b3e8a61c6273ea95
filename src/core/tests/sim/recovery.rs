//! Tests the recovery law (INV-3). All consumers stop after some step of a run, and one to four new consumers continue.
//! At the end, the tables must still equal the fold over the log.

use crate::world::World;
use crate::{env, first_failure};

/// Runs the simulated world of a seed. After every `every` steps, the test copies the world and stops all consumers in
/// the copy. One to four new consumers then read the log of the copy to its end.
fn stopped_anywhere(seed: u64, every: usize) -> Result<(), String> {
    let mut world = World::new(seed);
    let steps = world.draw_steps();
    for step in 0..steps {
        if (step + seed as usize).is_multiple_of(every) {
            for resumed in [1, 2 + step % 3] {
                let stopped = world.clone().stop_and_resume(resumed);
                let context = |e| format!("stopped at step {step}, {resumed} resumed: {e}");
                stopped.map_err(context)?;
            }
        }
        world.step()?;
    }
    Ok(())
}

#[test]
fn any_run_stopped_anywhere_and_resumed_by_any_number_gives_equal_tables() {
    let seeds = env("SIM_STOPPED_SEEDS", 80);
    let failure = first_failure(0..seeds, |seed| stopped_anywhere(seed, 50));
    assert_eq!(failure, None);
}

#[test]
fn a_run_stopped_after_each_of_its_steps_gives_equal_tables() {
    let failure = first_failure(0..2, |seed| stopped_anywhere(seed, 1));
    assert_eq!(failure, None);
}
