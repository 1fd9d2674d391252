//! Running the parts of a chore one after the other, with the time that each took.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// The parts that ran so far. A part that fails does not keep the next from running: one call shows everything that is wrong.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    failed: bool,
}

impl Steps {
    /// Says whether the part succeeded; its failure is printed here.
    pub(crate) fn run(&mut self, name: &str, part: impl FnOnce() -> Result<(), Failure>) -> bool {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = part();
        if let Err(failure) = &outcome {
            eprintln!("{failure}");
        }
        // Both streams usually end in one place; what was said about a part must not appear behind the next one's title.
        std::io::stdout().flush().ok();
        let failed = outcome.is_err();
        self.done.push(Step {
            name: name.to_owned(),
            took: start.elapsed(),
            failed,
        });
        !failed
    }

    pub(crate) fn print_times(&self) {
        println!("\n== time of each part");
        let mut sum = Duration::ZERO;
        for Step { name, took, failed } in &self.done {
            sum += *took;
            println!(
                "{:>7.1} s  {name}{}",
                took.as_secs_f64(),
                if *failed { "  FAILED" } else { "" }
            );
        }
        println!("{:>7.1} s  together", sum.as_secs_f64());
    }

    pub(crate) fn failed(&self) -> usize {
        self.done.iter().filter(|step| step.failed).count()
    }
}

/// The cargo that runs this chore, in the checkout, without standard input: a chore never asks.
pub(crate) fn cargo(checkout: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(checkout).stdin(Stdio::null());
    command
}

/// Runs a command that prints for itself.
pub(crate) fn must_succeed(command: &mut Command) -> Result<(), Failure> {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.status().map_err(Failure::starting(&shown))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::said(format!("{shown}: {status}")))
}

/// Runs a command for what it prints.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Failure> {
    let shown = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failure::starting(&shown))?;
    if !output.status.success() {
        return Err(Failure::said(format!("{shown}: {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::said(format!("{shown}: {error}")))
}

pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    std::iter::once(program)
        .chain(
            command
                .get_args()
                .map(|argument| argument.to_string_lossy().into_owned()),
        )
        .collect::<Vec<_>>()
        .join(" ")
}
