//! What a task is to do, written in its payload.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{Failure, Job, Processor};

use crate::run_log::RunLog;

/// After how many attempts a task ends `failed`, unless its client says otherwise.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// The payload of a task that succeeds at once; the number may be an expression of SQL that leaves a literal and begins the next.
pub(crate) fn at_once(number: impl fmt::Display) -> String {
    format!("chaos number={number} sleep=0 failures=0 end=success needs=false")
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
}

impl fmt::Display for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = End::WORDS
            .iter()
            .find(|(end, _)| *end == self.end)
            .map_or("", |(_, word)| word);
        write!(
            formatter,
            "chaos number={} sleep={} failures={} end={end} needs={}",
            self.number,
            self.sleep.as_millis(),
            self.failures,
            self.needs
        )
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
        Some(Self {
            number,
            sleep,
            failures,
            end,
            needs,
        })
    }

    /// Whether it ends `done`.
    pub(crate) fn succeeds(&self) -> bool {
        self.end == End::Success && self.failures < MAX_ATTEMPTS
    }

    /// How many attempts it takes until it is at rest.
    pub(crate) fn attempts(&self) -> u32 {
        let failures = self.failures.min(MAX_ATTEMPTS);
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
        }
    }

    #[test]
    fn a_payload_says_what_it_was_made_from() {
        for end in [End::Success, End::Permanent, End::Panic] {
            let script = script(2, end);
            assert_eq!(Script::parse(&script.to_string()), Some(script));
        }
        let at_once = Script::parse(&at_once(7)).expect("a script");
        assert_eq!(at_once.to_string(), super::at_once(7));
        assert!(at_once.succeeds());
        for other in [
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
        }
    }
}
