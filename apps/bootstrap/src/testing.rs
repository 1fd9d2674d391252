//! For the tests of the binaries: running one with nothing around it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// An empty working directory, removed in the end.
#[derive(Debug)]
pub struct Sandbox {
    directory: PathBuf,
}

/// What a program that ended said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A new empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("task-processor-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("the temporary directory takes one more");
        Self { directory }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// A program in this directory that knows no environment but this.
    #[must_use]
    pub fn command(&self, program: &str, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.directory)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let output = self
            .command(program, environment)
            .args(arguments)
            .output()
            .expect("the program starts");
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `--version` prints the program's name and this version.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_version(&self, program: &str, name: &str, version: &str) {
        let said = self.run(program, &["--version"], &[]);
        let expected = format!("{name} {version}\n");
        assert_eq!((said.code, said.out), (Some(0), expected));
    }

    /// Compares what `--help` prints with a committed file; with `UPDATE_HELP` in the environment it writes the file.
    ///
    /// # Panics
    /// When they differ.
    pub fn check_help(&self, program: &str, committed: &Path) {
        let said = self.run(program, &["--help"], &[]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        if std::env::var_os("UPDATE_HELP").is_some() {
            std::fs::write(committed, &said.out).expect("the file can be written");
        }
        let expected = std::fs::read_to_string(committed).unwrap_or_default();
        assert!(
            said.out == expected,
            "{} is not what --help prints; if that is meant, run this test with UPDATE_HELP=1. It prints:\n{}",
            committed.display(),
            said.out
        );
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A directory that stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
