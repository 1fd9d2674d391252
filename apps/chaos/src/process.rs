//! Processes that can be killed, stopped and started.

use std::fs::{self, File};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::Failure;

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
    child: Child,
}

impl Process {
    /// Starts a program in `directory` with nothing in its environment but what is given and a path; what it says is appended
    /// to `<log>.log`. It ends with this process, however that ends. Must be called from a thread that lasts.
    pub(crate) fn start(
        name: &str,
        log: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{log}.log")))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // The terminal's interrupt is for us.
            .process_group(0)
            .kill_on_drop(true);
        for kept in ["PATH", "HOME", "JAVA_HOME"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let pid = child.id().ok_or_else(|| format!("{name} ended at once"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            child,
        })
    }

    /// As `kill -9` does: it, and what it has started itself.
    pub(crate) async fn kill(mut self) {
        // Stopped first, so that it starts nothing more while its children are looked up.
        signal(&[self.pid], "STOP").await;
        let mut all = children_of(self.pid);
        all.push(self.pid);
        signal(&all, "KILL").await;
        self.child.wait().await.ok();
    }

    pub(crate) async fn pause(&self) {
        signal(&[self.pid], "STOP").await;
    }

    pub(crate) async fn go_on(&self) {
        signal(&[self.pid], "CONT").await;
    }

    /// Asks it to stop and waits for its end; none if it does not end within the limit.
    pub(crate) async fn stop(&mut self, limit: Duration) -> Option<ExitStatus> {
        signal(&[self.pid], "TERM").await;
        timeout(limit, self.child.wait()).await.ok()?.ok()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// The shell's own `kill` is there even where the program of that name is not.
async fn signal(pids: &[u32], name: &str) {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let line = format!("kill -s {name} {} 2>/dev/null", pids.join(" "));
    Command::new("sh").args(["-c", &line]).status().await.ok();
}

/// In `/proc/<pid>/stat` the name stands in parentheses and may hold anything; state and parent follow it.
fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let of: u32 = fields.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| is_child(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// The memory of a process that is in RAM, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
