//! How the program ends. The codes are told in `task --help`; scripts rely on them.

use std::error::Error as _;
use std::process::ExitCode;

use client::{Error, InvalidOptions, Status};
use uuid::Uuid;

/// What `--help` says of the exit codes.
pub(crate) const CODES: &str = "\
Exit codes:
  0  done as asked
  1  the server refused, or something failed on this side
  2  wrong arguments or input; nothing was sent
  3  there is no such task
  4  the task failed
  5  the task was cancelled
  6  the task is not at rest, and the time to wait is up
  7  the API key is missing, wrong, or has not the right to do this
  8  the server cannot be reached, did not answer in time, or is not Task Processor
Of several tasks each is tried, and the highest code is the exit code.";

/// Any end but a good one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    #[error("{0}")]
    Usage(String),
    #[error("the options are wrong")]
    Options(#[from] InvalidOptions),
    #[error(transparent)]
    Request(#[from] Error),
    /// The task was shown; its state is the news.
    #[error("the task is {0}")]
    NotDone(Status),
    /// Several things were asked for, and each refusal was told with what it is about; the worst of their codes.
    #[error("some were refused")]
    Told(u8),
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl Exit {
    /// Tells why on standard error.
    pub(crate) fn tell(&self) {
        match self {
            Self::Told(_) => {}
            // Whoever reads the output has gone: there is nobody to tell.
            Self::System(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            _ => eprintln!("task: {}", self.text()),
        }
    }

    /// Tells why, and for which task.
    pub(crate) fn tell_of(&self, id: Uuid) {
        eprintln!("task: {id}: {}", self.text());
    }

    fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// Of two the higher is the worse.
    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::Told(worst) => *worst,
            Self::Usage(_) | Self::Options(_) | Self::Request(Error::InvalidKey) => 2,
            Self::NotDone(Status::Failed) => 4,
            Self::NotDone(Status::Cancelled) => 5,
            Self::NotDone(_) => 6,
            Self::Request(error) => match error.status() {
                Some(404) if error.problem().is_some() => 3,
                Some(401 | 403) => 7,
                Some(_) if error.problem().is_some() => 1,
                _ => 8,
            },
            Self::System(_) => 1,
        }
    }
}
