#![doc = include_str!("../README.md")]

mod chance;
mod chaos;
mod check;
mod ledger;
mod link;
mod panics;
mod plan;
mod process;
mod record;
mod script;
mod sky;
mod state;
mod trace;
mod world;

use std::fmt::Write as _;

use tokio::runtime::Builder;

pub use check::{Promise, Violation};
pub use world::Tally;

use plan::Plan;
use world::World;

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The promises that did not hold; empty when all did.
    pub violations: Vec<Violation>,
    /// Tells one history from another: equal histories have equal fingerprints.
    pub fingerprint: u64,
    /// One event a line; empty unless asked for.
    pub lines: Vec<String>,
    /// What it consisted of.
    pub tally: Tally,
}

/// Whether a history is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Only its fingerprint.
    Fingerprint,
    /// Every event.
    Lines,
}

/// Lives the history of one seed and checks the promises.
#[must_use]
pub fn simulate(seed: u64, keep: Keep) -> Outcome {
    live(seed, Plan::draw(seed), keep)
}

/// The same on a store that now and then confirms an insert which it does not make, to show that the checker can tell.
#[must_use]
pub fn simulate_with_a_liar(seed: u64) -> Outcome {
    let mut plan = Plan::draw(seed);
    plan.store_lies = true;
    live(seed, plan, Keep::Fingerprint)
}

fn live(seed: u64, plan: Plan, keep: Keep) -> Outcome {
    panics::catch();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing that could be missing");
    let outcome = runtime.block_on(async {
        let mut world = World::new(plan, keep == Keep::Lines);
        world.live().await;
        let violations = check::check(&world, panics::take());
        Outcome {
            seed,
            violations,
            fingerprint: world.trace().fingerprint(),
            lines: world.trace().lines(),
            tally: world.tally,
        }
    });
    drop(runtime);
    // What fell while the runtime came down is not part of the history.
    panics::take();
    outcome
}

impl Outcome {
    /// The history and what is wrong with it, for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("history of seed {}\n", self.seed);
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        for violation in &self.violations {
            let promise = violation.promise.as_str();
            let _ = writeln!(text, "VIOLATED {promise}: {}", violation.what);
        }
        let _ = writeln!(
            text,
            "again: cargo xtask simulate --seeds 1 --seed {}",
            self.seed
        );
        text
    }
}
