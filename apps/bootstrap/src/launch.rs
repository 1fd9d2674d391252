//! From `main` to running.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::settings::{self, Reader, Settings, Source};
use crate::shutdown::Shutdown;
use crate::startup::{StartupError, chain};
use crate::telemetry;

/// Why a program ends with exit code 1.
pub type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Which program this is.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The name of the binary.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it is, for `--help`.
    pub about: &'static str,
}

/// What a program starts with.
#[derive(Clone, Debug)]
pub struct Start<S> {
    /// Its settings, without mistakes.
    pub settings: S,
    /// The command of the command line; empty for a program that has none.
    pub command: &'static str,
    /// Tells when it is to stop.
    pub shutdown: Shutdown,
}

/// Wrong settings or arguments: nothing was started.
const WRONG_USE: u8 = 2;
const FAILED: u8 = 1;
/// How much longer than it may take a stop is waited for, so that one that ends by itself in time is not cut.
const MARGIN: Duration = Duration::from_millis(1_500);
/// How long blocking work that nobody waits for may hold up the end of the process.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// Reads arguments and settings, starts logging and a runtime, and runs. The exit code is 0 when `run` succeeds, 1 when it
/// fails, 2 when arguments or settings are wrong; of these every mistake is printed, and nothing was started.
pub fn launch<S, F>(program: &Program, run: impl FnOnce(Start<S>) -> F) -> ExitCode
where
    S: Settings,
    F: Future<Output = Result<(), Failure>>,
{
    let command = match Invocation::of(std::env::args_os().skip(1), S::COMMANDS) {
        Invocation::Run(command) => command,
        Invocation::Help => {
            say(&settings::help::<S>(program.name, program.about));
            return ExitCode::SUCCESS;
        }
        Invocation::Version => {
            say(&format!("{} {}\n", program.name, program.version));
            return ExitCode::SUCCESS;
        }
        Invocation::Wrong(reason) => return wrong_use(program, &reason),
    };
    let mut reader = Reader::new(Source::of_process());
    let read = S::read(&mut reader);
    let settings = match reader.finish(read) {
        Ok(settings) => settings,
        Err(mistakes) => return wrong_use(program, &mistakes.to_string()),
    };
    telemetry::start(settings.log());
    let stop_limit = settings.stop_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(program, &error),
    };
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::by_signals()?;
        if let Some(limit) = stop_limit {
            tokio::spawn(cut_short(shutdown.requested(), limit));
        }
        run(Start {
            settings,
            command,
            shutdown,
        })
        .await
    });
    runtime.shutdown_timeout(LEFTOVERS);
    match outcome {
        Ok(()) => {
            // A command has said what it did.
            if command.is_empty() {
                info!(event = "process.stopped", "stopped");
            }
            ExitCode::SUCCESS
        }
        Err(error) => match error.downcast_ref::<StartupError>() {
            // Whoever asks a process to stop while it still waits gets what was asked for.
            Some(StartupError::Interrupted { what }) => {
                info!(
                    event = "process.stopped",
                    waited_for = what,
                    "stopped before the start"
                );
                ExitCode::SUCCESS
            }
            _ if command.is_empty() => failed(program, error.as_ref()),
            _ => {
                eprintln!("{}: {}", program.name, chain(error.as_ref()));
                ExitCode::from(FAILED)
            }
        },
    }
}

/// Ends the process when a stop takes too long: a dependency that is silent, or a client library that waits for one, must not
/// hold it up. Nothing is lost by that, it is what a crash would do.
async fn cut_short(requested: impl Future<Output = ()>, limit: Duration) {
    requested.await;
    let watch = move || {
        thread::sleep(limit + MARGIN);
        warn!(
            event = "process.cut_short",
            "the stop took longer than it may ({limit:?}); ending at once, what is unfinished is taken over by others"
        );
        std::process::exit(0);
    };
    // On a thread: the runtime may be what hangs. Without one the stop has no limit.
    let _ = thread::Builder::new()
        .name("stop-limit".to_owned())
        .spawn(watch);
}

/// Writes to standard output. That nobody reads it any more (`| head`) is no reason to fail, as it is for `print!`.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn wrong_use(program: &Program, reason: &str) -> ExitCode {
    let name = program.name;
    eprintln!("{name}: {reason}\nNothing was started. {name} --help tells every setting.");
    ExitCode::from(WRONG_USE)
}

fn failed(program: &Program, reason: &(dyn std::error::Error + 'static)) -> ExitCode {
    let reason = chain(reason);
    error!(event = "process.failed", reason, "{} failed", program.name);
    ExitCode::from(FAILED)
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    Run(&'static str),
    Help,
    Version,
    Wrong(String),
}

impl Invocation {
    fn of(
        arguments: impl IntoIterator<Item = OsString>,
        commands: &'static [&'static str],
    ) -> Self {
        let mut chosen = None;
        for argument in arguments {
            let text = argument.to_string_lossy();
            match text.as_ref() {
                "--help" | "-h" => return Self::Help,
                "--version" | "-V" => return Self::Version,
                word => match commands.iter().find(|command| **command == word) {
                    Some(command) if chosen.is_none() => chosen = Some(*command),
                    Some(command) => {
                        return Self::Wrong(format!(
                            "one command at a time, {command:?} is too many"
                        ));
                    }
                    None => return Self::Wrong(format!("does not know the argument {word:?}")),
                },
            }
        }
        match chosen {
            Some(command) => Self::Run(command),
            None if commands.is_empty() => Self::Run(""),
            None => Self::Wrong(format!("needs a command: {}", commands.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: &[&str] = &["up", "down"];

    #[test]
    fn arguments_are_understood_or_refused() {
        let wrong = |reason: &str| Invocation::Wrong(reason.to_owned());
        let none: &[&str] = &[];
        for (arguments, commands, expected) in [
            (none, none, Invocation::Run("")),
            (&["--help"], none, Invocation::Help),
            (&["up", "-h"], COMMANDS, Invocation::Help),
            (&["--version"], COMMANDS, Invocation::Version),
            (&["up"], COMMANDS, Invocation::Run("up")),
            (
                &["--port=1"],
                none,
                wrong("does not know the argument \"--port=1\""),
            ),
            (
                &["sideways"],
                COMMANDS,
                wrong("does not know the argument \"sideways\""),
            ),
            (none, COMMANDS, wrong("needs a command: up, down")),
            (
                &["up", "down"],
                COMMANDS,
                wrong("one command at a time, \"down\" is too many"),
            ),
        ] {
            let given = arguments.iter().map(OsString::from);
            let commands: &'static [&'static str] =
                if commands.is_empty() { &[] } else { COMMANDS };
            assert_eq!(Invocation::of(given, commands), expected, "{arguments:?}");
        }
    }
}
