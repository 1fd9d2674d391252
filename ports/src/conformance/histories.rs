//! Generated histories: what no one thought of writing down as a case.
//!
//! [`alike`] plays one generated sequence of calls (repeated ids, stale fences, bad values, rows of other programs, claims of
//! nobody, tickets used twice, …) on two stores side by side and compares every answer, so that a store in memory deserves
//! the trust that tests and simulations put in it. [`at_once`](fn@at_once) plays generated calls on one store, two at a time, and
//! checks what must hold whichever of the two came first. [`caches_alike`] and [`logs_alike`] do the first for caches and logs.
//!
//! A history is made from its seed alone. One that fails is shortened as long as it still fails, and printed with the seed
//! that makes it again. Two environment variables say which are played: `HISTORIES`, how many, and `HISTORIES_SEED`, the
//! first seed.

mod at_once;
mod book;
mod cache;
mod call;
mod log;
mod plan;
mod state;

use std::fmt;
use std::sync::Arc;

use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use tokio::runtime::Runtime;

use super::store::Subject;
use crate::cache::ResultCache;
use book::Book;
use call::Call;
use plan::Step;
use state::State;

/// How many calls a history has at most.
const LENGTH: usize = 40;

/// How often a failing history may be played again to find a shorter one that fails as well.
const SHORTENINGS: u32 = 3_000;
const SHORTENING_MILLIS: u32 = 60_000;

/// How many histories are played, and from which seed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The seed of the first; each has the next one.
    pub first_seed: u64,
    /// How many.
    pub count: u64,
}

impl Range {
    /// This many from seed 0, unless the environment says otherwise.
    ///
    /// # Panics
    /// When `HISTORIES` or `HISTORIES_SEED` is set and is no number.
    #[must_use]
    pub fn of_environment(count: u64) -> Self {
        Self {
            first_seed: number("HISTORIES_SEED").unwrap_or(0),
            count: number("HISTORIES").unwrap_or(count),
        }
    }

    fn seeds(self) -> impl Iterator<Item = u64> {
        self.first_seed..self.first_seed.saturating_add(self.count)
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} must be a whole number and not {text:?}"),
    }
}

/// Plays histories on two stores, each call on one and then on the other, and compares every answer. Times of the stores'
/// own clocks are compared by which are equal to which.
///
/// Everything runs on `runtime`, where the stores may have been made. `reference` and `subject` are called for every history and each give an empty store. Neither is closed. Their clocks may
/// differ by minutes, but must show another time at every call.
///
/// # Panics
/// When a history is answered differently.
pub fn alike(
    runtime: &Runtime,
    range: Range,
    reference: impl AsyncFn() -> Arc<dyn Subject>,
    subject: impl AsyncFn() -> Arc<dyn Subject>,
) {
    play(
        runtime,
        range,
        &plan::steps(LENGTH),
        async |steps: &[Step]| {
            let stores = [reference().await, subject().await];
            compare(steps, &stores).await
        },
    );
}

/// Plays pairs of calls on one store, both calls of a pair at once, and checks what must hold in whichever order they took
/// effect: every move of a task raises its fence by one and has one mover, and a task is where the promise of
/// [`TaskStore`](crate::TaskStore) says.
///
/// `subject` is called for every history and gives an empty store, which is not closed.
///
/// # Panics
/// When something does not hold.
pub fn at_once(runtime: &Runtime, range: Range, subject: impl AsyncFn() -> Arc<dyn Subject>) {
    play(
        runtime,
        range,
        &at_once::pairs(LENGTH / 2),
        async |pairs: &[_]| at_once::check(pairs, &subject().await).await,
    );
}

/// Plays histories on two caches, each call on one and then on the other, and compares every answer. Nothing may run out of
/// its time to live meanwhile, nor out of room.
///
/// # Panics
/// When a history is answered differently.
pub fn caches_alike(
    runtime: &Runtime,
    range: Range,
    reference: impl AsyncFn() -> Arc<dyn ResultCache>,
    subject: impl AsyncFn() -> Arc<dyn ResultCache>,
) {
    play(
        runtime,
        range,
        &cache::steps(LENGTH),
        async |steps: &[_]| cache::compare(steps, &[reference().await, subject().await]).await,
    );
}

/// Plays histories of writers and readers, who crash, on two logs one after the other. Each must bring every record, in order
/// within its partition, once to each reader, unless it was acknowledged before that reader came; and both must hold the same in
/// the end.
///
/// `reference` and `subject` are called for every history and each give an empty log, which is closed.
///
/// # Panics
/// When something does not hold.
pub fn logs_alike(
    runtime: &Runtime,
    range: Range,
    reference: impl AsyncFn() -> Arc<dyn super::log::Subject>,
    subject: impl AsyncFn() -> Arc<dyn super::log::Subject>,
) {
    play(
        runtime,
        range,
        &log::steps(LENGTH / 2),
        async |steps: &[_]| log::compare(steps, &[reference().await, subject().await]).await,
    );
}

/// What a history showed, in words.
type Found = Result<(), String>;

fn play<Item>(
    runtime: &Runtime,
    range: Range,
    histories: &impl Strategy<Value = Vec<Item>>,
    history: impl AsyncFn(&[Item]) -> Found,
) where
    Item: fmt::Debug,
{
    for seed in range.seeds() {
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: SHORTENINGS,
            max_shrink_time: SHORTENING_MILLIS,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let outcome = TestRunner::new_with_rng(config, chance).run(histories, |items| {
            runtime
                .block_on(history(&items))
                .map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, shortest)) => panic!(
                "history {seed} ({} calls or pairs once shortened) failed:\n{}\n\
                 Play it again with HISTORIES_SEED={seed} HISTORIES=1.",
                shortest.len(),
                reason.message(),
            ),
            Err(TestError::Abort(reason)) => panic!("history {seed} was not played: {reason}"),
        }
    }
}

/// Plays one history on both stores.
async fn compare(steps: &[Step], stores: &[Arc<dyn Subject>; 2]) -> Found {
    let [reference, subject] = stores;
    let mut books = [Book::default(), Book::default()];
    let mut told = String::new();
    let mut state = State::default();
    let ending = call::ending();
    let calls = steps
        .iter()
        .map(Some)
        .chain(std::iter::repeat_n(None, ending.len()));
    let mut last: Option<Call> = None;
    let mut ending = ending.into_iter();
    for step in calls {
        let call = match step {
            None => ending.next().expect("as many as were counted"),
            Some(Step::Repeat) => match last.clone() {
                Some(call) => call,
                None => continue,
            },
            Some(step) => state.resolve(step),
        };
        let mut answers = Vec::new();
        for (store, book) in [reference, subject].into_iter().zip(&mut books) {
            let answer = call::make(&call, store.as_ref()).await;
            answers.push(book.enter(answer, state.is_recorded(&call)));
        }
        told.push_str(&format!("  {call:?}\n    {:?}\n", answers[0]));
        if answers[0] != answers[1] {
            return Err(format!(
                "{told}  the other store answered\n    {:?}\n",
                answers[1]
            ));
        }
        state.follow(&call, reference.as_ref()).await;
        if !matches!(call, Call::Plant(_) | Call::PlantClaim(_)) {
            last = Some(call);
        }
    }
    Ok(())
}
