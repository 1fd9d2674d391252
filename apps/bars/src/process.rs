//! Processes of the run.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::Failure;

/// The promised 25 s of a stop, and what a busy machine adds.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// It ends with this program, however that ends.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
    child: Child,
}

impl Process {
    /// Starts a program in `directory` with nothing in its environment but what is given and a path; what it says is
    /// appended to `<name>.log`. Must be called from a thread that lasts.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(log)?;
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

    /// Waits for an end that comes by itself.
    pub(crate) async fn end(mut self) -> Result<ExitStatus, Failure> {
        Ok(self.child.wait().await?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it without asking.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        // The shell's own `kill` is there even where the program of that name is not.
        let line = format!("kill -s TERM {}", self.pid);
        Command::new("sh").args(["-c", &line]).status().await?;
        match timeout(STOP_LIMIT, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if status.success() {
                    Ok(())
                } else {
                    Err(format!("{} was asked to stop and ended with {status}", self.name).into())
                }
            }
            Err(_) => Err(format!("{} was asked to stop and did not", self.name).into()),
        }
    }
}
