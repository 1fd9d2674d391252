//! A service that outlives the call that started it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::place::Place;
use super::tail;
use crate::failure::Failure;

/// How long a service may take to stop by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// A port that the service listens on besides the one it is known by.
    pub(super) second_port: Option<u16>,
    /// Asks the service to stop.
    pub(super) stop_signal: &'static str,
    log: PathBuf,
    note: PathBuf,
}

impl Daemon {
    pub(super) fn new(
        place: &Place,
        name: &'static str,
        port: u16,
        stop_signal: &'static str,
    ) -> Self {
        Self {
            name,
            port,
            second_port: None,
            stop_signal,
            log: place.path(&format!("{name}.log")),
            note: place.path(&format!("{name}.pid")),
        }
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.second_port)
    }

    pub(super) fn log(&self) -> &PathBuf {
        &self.log
    }

    /// Starts `command` in a session of its own, so that neither the end of this process nor that of the terminal ends it.
    pub(super) fn start(&self, mut command: Command) -> Result<(), Failure> {
        let log = File::create(&self.log).map_err(Failure::at("create", &self.log))?;
        let errors = log.try_clone().map_err(Failure::at("share", &self.log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Failure::starting(self.name))?;
        let pid = child.id();
        let born = birth(pid).ok_or_else(|| {
            Failure::said(format!("{} ended at once; {}", self.name, tail(&self.log)))
        })?;
        fs::write(&self.note, format!("{pid} {born}\n")).map_err(Failure::at("write", &self.note))
    }

    /// The process that `start` started, if it still runs. A number that the system has given to another process since
    /// does not count: its birth differs.
    pub(super) fn pid(&self) -> Option<u32> {
        let note = fs::read_to_string(&self.note).ok()?;
        let (pid, born) = note.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        (birth(pid)? == born).then_some(pid)
    }

    pub(super) fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    pub(super) fn wait_until(
        &self,
        limit: Duration,
        answers: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        while !answers() {
            if !self.is_running() {
                return Err(Failure::said(format!(
                    "{} ended; {}",
                    self.name,
                    tail(&self.log)
                )));
            }
            if Instant::now() > deadline {
                return Err(Failure::said(format!(
                    "{} does not answer on 127.0.0.1:{} after {} s; {}",
                    self.name,
                    self.port,
                    limit.as_secs(),
                    tail(&self.log)
                )));
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Says whether there was anything to stop.
    pub(super) fn stop(&self) -> Result<bool, Failure> {
        let Some(pid) = self.pid() else {
            return Ok(false);
        };
        signal(pid, self.stop_signal)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.is_running() {
            if Instant::now() > deadline {
                signal(pid, "KILL")?;
            }
            sleep(PAUSE);
        }
        Ok(true)
    }
}

/// A command that runs in a session of its own. `setsid` becomes the program, so the process keeps its number.
pub(super) fn detached(program: &std::path::Path) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program);
    command
}

/// The shell's own `kill` is there even where the program of that name is not.
fn signal(pid: u32, signal: &str) -> Result<(), Failure> {
    Command::new("sh")
        .args([
            "-c",
            "kill -s \"$1\" \"$2\" 2>/dev/null || true",
            "sh",
            signal,
            &pid.to_string(),
        ])
        .status()
        .map(drop)
        .map_err(Failure::starting("sh"))
}

/// When a living process began, in ticks since the system's start; nothing for one that ended, even if nobody has
/// collected it yet. In `/proc/<pid>/stat` the name stands in parentheses and may hold anything, so fields are counted
/// from behind it: the state is the first, the start the twentieth.
fn birth(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18).map(ToOwned::to_owned)
}
