//! What a task is to do, written in its payload.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{Failure, Job, Processor, Timestamp};

use crate::run_log::RunLog;

/// After how many attempts a task ends `failed`, unless its client says otherwise.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// What the workers are told as `TASK_TIMEOUT`: longer than a run that is meant to end takes.
pub(crate) const TASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a run goes on that is to overrun it, if nobody ends it.
const OVERRUN: Duration = Duration::from_secs(30);

/// The payload of a task that succeeds at once; the number may be an expression of SQL that leaves a literal and begins the next.
pub(crate) fn at_once(number: impl fmt::Display) -> String {
    format!(
        "chaos number={number} sleep=0 failures=0 end=success needs=false overruns=false run_at=none"
    )
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It succeeds.
    Success,
    /// It fails and says that it always will.
    Permanent,
    /// It panics, at every attempt.
    Panic,
}

impl End {
    const WORDS: [(Self, &'static str); 3] = [
        (Self::Success, "success"),
        (Self::Permanent, "permanent"),
        (Self::Panic, "panic"),
    ];
}

/// One task's instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which request of the run it came with.
    pub number: u64,
    /// How long every run takes.
    pub sleep: Duration,
    /// How many attempts fail in a way that may be tried again.
    pub failures: u32,
    /// What follows them.
    pub end: End,
    /// Whether it uses what the nemesis can take away from all functions at once.
    pub needs: bool,
    /// Whether the first attempt goes on past its deadline.
    pub overruns: bool,
    /// Before which time its client said that it must not run, in microseconds since 1970; whole milliseconds, as the contract writes them.
    pub run_at: Option<i64>,
}

impl fmt::Display for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = End::WORDS
            .iter()
            .find(|(end, _)| *end == self.end)
            .map_or("", |(_, word)| word);
        write!(
            formatter,
            "chaos number={} sleep={} failures={} end={end} needs={} overruns={} run_at=",
            self.number,
            self.sleep.as_millis(),
            self.failures,
            self.needs,
            self.overruns
        )?;
        match self.run_at {
            Some(micros) => write!(formatter, "{micros}"),
            None => formatter.write_str("none"),
        }
    }
}

impl Script {
    /// Reads a payload; none if it is not of this kind.
    #[must_use]
    pub fn parse(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ');
        (words.next()? == "chaos").then_some(())?;
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let number = value("number")?.parse().ok()?;
        let sleep = Duration::from_millis(value("sleep")?.parse().ok()?);
        let failures = value("failures")?.parse().ok()?;
        let word = value("end")?;
        let (end, _) = End::WORDS.into_iter().find(|(_, known)| *known == word)?;
        let needs = value("needs")?.parse().ok()?;
        let overruns = value("overruns")?.parse().ok()?;
        let run_at = match value("run_at")? {
            "none" => None,
            micros => Some(micros.parse().ok()?),
        };
        // A stranger's message brings the payload with a word more: who processes that one must fail.
        words.next().is_none().then_some(Self {
            number,
            sleep,
            failures,
            end,
            needs,
            overruns,
            run_at,
        })
    }

    /// `run_at` as a client writes it.
    pub(crate) fn written_run_at(&self) -> Option<String> {
        Some(Timestamp::from_micros(self.run_at?).to_string())
    }

    /// After how many attempts comes the end.
    fn before_the_end(&self) -> u32 {
        self.failures.max(u32::from(self.overruns))
    }

    /// Whether it ends `done`.
    pub(crate) fn succeeds(&self) -> bool {
        self.end == End::Success && self.before_the_end() < MAX_ATTEMPTS
    }

    /// How many attempts it takes until it is at rest.
    pub(crate) fn attempts(&self) -> u32 {
        let failures = self.before_the_end().min(MAX_ATTEMPTS);
        match self.end {
            End::Success | End::Permanent => (failures + 1).min(MAX_ATTEMPTS),
            End::Panic => MAX_ATTEMPTS,
        }
    }

    /// The result of the run under this fence. It names the fence, so that of two runs the one that counted can be told.
    pub(crate) fn result(&self, attempt: u32, fence: i64) -> String {
        format!(
            "task {} done by attempt {attempt} under fence {fence}",
            self.number
        )
    }
}

/// Does what the payload says and notes every run.
pub struct Actor {
    runs: Arc<RunLog>,
    /// While this file exists, what some functions need is down.
    outage: PathBuf,
}

impl Actor {
    /// Notes runs in `runs`; `outage` is the file that stands for an outage.
    #[must_use]
    pub fn new(runs: RunLog, outage: PathBuf) -> Self {
        Self {
            runs: Arc::new(runs),
            outage,
        }
    }
}

#[async_trait]
impl Processor for Actor {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        let Some(script) = Script::parse(job.payload.as_str()) else {
            return Err(Failure::Permanent("the payload is no script".to_owned()));
        };
        let mut run = self.runs.begin(&job);
        if script.needs && self.outage.exists() {
            run.end("unavailable");
            return Err(Failure::Unavailable(
                "what it needs was taken away".to_owned(),
            ));
        }
        if script.overruns && job.attempt == 1 {
            tokio::time::sleep(OVERRUN).await;
        }
        tokio::time::sleep(script.sleep).await;
        if job.attempt <= script.failures {
            run.end("retryable");
            return Err(Failure::Retryable(format!(
                "attempt {} is to fail",
                job.attempt
            )));
        }
        match script.end {
            End::Success => {
                run.end("success");
                Ok(script.result(job.attempt, job.fence.0))
            }
            End::Permanent => {
                run.end("permanent");
                Err(Failure::Permanent("it is to fail for good".to_owned()))
            }
            End::Panic => {
                run.end("panic");
                panic!("task {} is to panic", script.number)
            }
        }
    }

    /// A function that takes its time and is to end has a deadline of its own.
    fn timeout(&self, job: &Job) -> Option<Duration> {
        let script = Script::parse(job.payload.as_str())?;
        (script.sleep >= TASK_TIMEOUT).then(|| script.sleep * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(failures: u32, end: End) -> Script {
        Script {
            number: 7,
            sleep: Duration::from_millis(1_500),
            failures,
            end,
            needs: true,
            overruns: false,
            run_at: None,
        }
    }

    #[test]
    fn a_payload_says_what_it_was_made_from() {
        for end in [End::Success, End::Permanent, End::Panic] {
            let script = script(2, end);
            assert_eq!(Script::parse(&script.to_string()), Some(script));
        }
        let later = Script {
            overruns: true,
            run_at: Some(1_735_689_602_345_000),
            ..script(0, End::Success)
        };
        assert_eq!(Script::parse(&later.to_string()), Some(later.clone()));
        let written = later.written_run_at();
        assert_eq!(written.as_deref(), Some("2025-01-01T00:00:02.345Z"));
        let at_once = Script::parse(&at_once(7)).expect("a script");
        assert_eq!(at_once.to_string(), super::at_once(7));
        assert!(at_once.succeeds());
        let with_more = format!("{later} again");
        for other in [
            &with_more,
            "",
            "Hello world!",
            "chaos",
            "chaos number=x sleep=1 failures=0 end=success needs=false",
        ] {
            assert_eq!(Script::parse(other), None, "{other}");
        }
    }

    #[test]
    fn every_script_says_how_it_ends() {
        for (failures, end, succeeds, attempts) in [
            (0, End::Success, true, 1),
            (2, End::Success, true, 3),
            (4, End::Success, true, 5),
            (5, End::Success, false, 5),
            (0, End::Permanent, false, 1),
            (0, End::Panic, false, 5),
        ] {
            let script = script(failures, end);
            assert_eq!(
                (script.succeeds(), script.attempts()),
                (succeeds, attempts),
                "{script}"
            );
            let overrunning = Script {
                overruns: true,
                ..script
            };
            assert_eq!(overrunning.succeeds(), succeeds, "{overrunning}");
            assert_eq!(
                overrunning.attempts(),
                attempts.max(2),
                "{overrunning}: the first is not enough"
            );
        }
    }
}
