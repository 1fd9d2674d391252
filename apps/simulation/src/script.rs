//! What the processing function does with each task: written in its payload, one letter per attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Failure, Fence, Job, Processor, TaskId, TaskStatus};
use tokio::time::sleep;

use crate::chance::Chance;
use crate::sky::Sky;
use crate::trace::Who;

/// The text of every panic that a script orders.
pub(crate) const SCRIPTED_PANIC: &str = "a panic of the script";

/// How long a run takes that is to outlast every deadline of the simulated workers.
const TOO_LONG: Duration = Duration::from_secs(3_600);

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Succeed,
    /// Succeeds after a while.
    Slow,
    /// Succeeds after longer than the lease and the worker's deadline, under a deadline of its own.
    Long,
    Retry,
    Permanent,
    Panic,
    /// Runs into its deadline.
    Overrun,
    /// Returns text that cannot be stored.
    Nul,
    /// Returns more than is allowed.
    TooBig,
}

impl Step {
    const ALL: [(Self, char); 9] = [
        (Self::Succeed, 's'),
        (Self::Slow, 'w'),
        (Self::Long, 'l'),
        (Self::Retry, 'r'),
        (Self::Permanent, 'p'),
        (Self::Panic, 'x'),
        (Self::Overrun, 'o'),
        (Self::Nul, 'n'),
        (Self::TooBig, 'b'),
    ];

    fn letter(self) -> char {
        Self::ALL[self as usize].1
    }
}

/// All attempts of a task; after the last one written it succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    steps: Vec<Step>,
    /// Whether it needs what is down now and then.
    needy: bool,
}

/// How a task ends if nobody dies of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: TaskStatus,
    pub(crate) attempts: u32,
}

impl Script {
    pub(crate) fn healthy() -> Self {
        Self::default()
    }

    pub(crate) fn long() -> Self {
        Self {
            steps: vec![Step::Long],
            needy: false,
        }
    }

    pub(crate) fn draw(chance: &Chance, is_needy: bool) -> Self {
        let mut steps = Vec::new();
        while steps.len() < 6 {
            let step = match chance.below(20) {
                0..=9 => Step::Succeed,
                10..=11 => Step::Slow,
                12..=14 => Step::Retry,
                15 => Step::Permanent,
                16 => Step::Panic,
                17 => Step::Overrun,
                18 => *chance.pick(&[Step::Long, Step::Slow]),
                _ => *chance.pick(&[Step::Nul, Step::TooBig]),
            };
            steps.push(step);
            if !matches!(step, Step::Retry | Step::Panic | Step::Overrun) {
                break;
            }
        }
        Self {
            steps,
            needy: is_needy && chance.one_in(4),
        }
    }

    /// The payload of submission number `number` with this script.
    pub(crate) fn to_payload(&self, number: usize) -> String {
        let letters: String = self.steps.iter().map(|step| step.letter()).collect();
        let needy = if self.needy { "?" } else { "" };
        format!("t{number}:{needy}{letters}")
    }

    fn from_payload(payload: &str) -> Self {
        let (_, letters) = payload.split_once(':').unwrap_or_default();
        let (needy, letters) = match letters.strip_prefix('?') {
            Some(rest) => (true, rest),
            None => (false, letters),
        };
        let steps = letters
            .chars()
            .filter_map(|letter| Step::ALL.iter().find(|(_, known)| *known == letter))
            .map(|(step, _)| *step)
            .collect();
        Self { steps, needy }
    }

    fn step(&self, attempt: u32) -> Step {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.steps.get(index).copied().unwrap_or(Step::Succeed)
    }

    pub(crate) fn ending(&self, max_attempts: u32) -> Ending {
        let mut attempts = 1;
        loop {
            let status = match self.step(attempts) {
                Step::Succeed | Step::Slow | Step::Long => Some(TaskStatus::Done),
                Step::Permanent | Step::Nul | Step::TooBig => Some(TaskStatus::Failed),
                Step::Retry | Step::Panic | Step::Overrun if attempts >= max_attempts => {
                    Some(TaskStatus::Failed)
                }
                Step::Retry | Step::Panic | Step::Overrun => None,
            };
            if let Some(status) = status {
                return Ending { status, attempts };
            }
            attempts += 1;
        }
    }
}

/// The result of a run. It names the run, so that a stale run's result is told from the one that counts.
pub(crate) fn result_of(payload: &str, fence: Fence) -> String {
    format!("{payload} by run {}", fence.0)
}

/// A run that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// A success, a failure, or a result that cannot be taken: an attempt.
    Attempt,
    /// What it needed was down.
    Unavailable,
}

/// What the functions of a history did.
#[derive(Default)]
pub(crate) struct Runs {
    state: Mutex<RunsState>,
}

#[derive(Default)]
pub(crate) struct RunsState {
    /// Every run that was started: its attempt number, and how it ended. A timeout ends without the function's doing.
    pub(crate) started: BTreeMap<(TaskId, Fence), (u32, Option<RunEnd>)>,
    /// Runs under way, by process.
    running: BTreeMap<Who, usize>,
    pub(crate) wrong: Vec<String>,
}

impl Runs {
    pub(crate) fn state(&self) -> MutexGuard<'_, RunsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processing function of one process.
pub(crate) struct Scripted {
    pub(crate) runs: Arc<Runs>,
    pub(crate) who: Who,
    pub(crate) sky: Arc<Sky>,
    /// How many runs the worker may have at once.
    pub(crate) concurrency: usize,
    /// The longest result that the worker takes.
    pub(crate) max_result_bytes: usize,
    pub(crate) long_run: Duration,
}

/// Counts a run as under way until it is dropped.
struct Underway {
    runs: Arc<Runs>,
    who: Who,
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some(count) = self.runs.state().running.get_mut(&self.who) {
            *count -= 1;
        }
    }
}

impl Scripted {
    fn begin(&self, job: &Job) -> Underway {
        let who = self.who;
        let mut state = self.runs.state();
        let running = state.running.entry(who).or_default();
        *running += 1;
        let running = *running;
        if running > self.concurrency {
            let limit = self.concurrency;
            state.wrong.push(format!(
                "{who} had {running} runs under way, more than its limit of {limit}"
            ));
        }
        let run = (job.attempt, None);
        if state.started.insert((job.id, job.fence), run).is_some() {
            state.wrong.push(format!(
                "{} was run twice under fence {}",
                job.payload.as_str(),
                job.fence.0
            ));
        }
        Underway {
            runs: Arc::clone(&self.runs),
            who,
        }
    }

    fn end(&self, job: &Job, end: RunEnd) {
        if let Some(run) = self.runs.state().started.get_mut(&(job.id, job.fence)) {
            run.1 = Some(end);
        }
    }
}

#[async_trait]
impl Processor for Scripted {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        let _underway = self.begin(&job);
        self.sky
            .trace
            .note(self.who, "run", u64::from(job.attempt), || {
                let payload = job.payload.as_str();
                format!("{payload} attempt {} fence {}", job.attempt, job.fence.0)
            });
        let payload = job.payload.as_str();
        let script = Script::from_payload(payload);
        if script.needy && self.sky.function_is_down() {
            self.end(&job, RunEnd::Unavailable);
            return Err(Failure::Unavailable("what it needs is down".into()));
        }
        let step = script.step(job.attempt);
        match step {
            Step::Slow => sleep(self.sky.chance.millis(10, 2_000)).await,
            Step::Long => sleep(self.long_run).await,
            Step::Overrun => sleep(TOO_LONG).await,
            _ => {}
        }
        self.end(&job, RunEnd::Attempt);
        let attempt = job.attempt;
        match step {
            Step::Retry => Err(Failure::Retryable(format!("attempt {attempt} failed"))),
            Step::Permanent => Err(Failure::Permanent(format!("attempt {attempt} is the last"))),
            Step::Panic => std::panic::panic_any(SCRIPTED_PANIC),
            Step::Nul => Ok("\0".into()),
            Step::TooBig => Ok("x".repeat(self.max_result_bytes + 1)),
            _ => Ok(result_of(payload, job.fence)),
        }
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        let step = Script::from_payload(job.payload.as_str()).step(job.attempt);
        (step == Step::Long).then_some(Duration::ZERO)
    }
}
