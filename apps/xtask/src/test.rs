//! `cargo xtask test`: every test there is, against real services.

mod caretaker;
mod results;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::bench;
use crate::chaos;
use crate::failure::Failure;
use crate::services::{self, Place};
use crate::simulate;
use crate::steps::{Steps, cargo, must_succeed, shown};
use crate::tools::{self, Tools};
use caretaker::Caretaker;
pub(crate) use caretaker::{CHORE as CARETAKER, attend};
use results::Results;

/// Where tests that start our programs find them.
const BINARIES: &str = "TASK_PROCESSOR_BINARIES";

/// What is built for them, one cargo call for each line: the embedded default is built without the others, as a user
/// builds it, because building them together would give it their features.
const BUILDS: &[&[(&str, &str)]] = &[
    &[("task-processor", "task-processor")],
    &[
        ("task-processor-server", "task-processor-server"),
        ("task-processor-worker", "task-processor-worker"),
        ("task-processor-migrate", "task-processor-migrate"),
    ],
];

/// How many seeded histories of the whole system are lived.
const HISTORIES: u64 = 10_000;

/// What two processors compute in two minutes, in seconds: the histories must not take more. Wall time would judge whoever else
/// wants the machine.
const PROCESSOR_SECONDS: u64 = 240;

pub(crate) fn run() -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    let checkout = place.checkout();
    let mut steps = Steps::default();
    let mut results = Results::default();
    let mut environment = Vec::new();
    let mut caretaker = None;

    let services_up = steps.run("services", || {
        services::build_tools()?;
        let up = services::up(&place, None)?;
        environment.extend(
            up.endpoints
                .test_environment()
                .into_iter()
                .map(|(name, value)| (name, value.into())),
        );
        if !up.found_running {
            caretaker = Some(Caretaker::hire()?);
        }
        Ok(())
    });
    let tools_there = steps.run("tools", || {
        services::browser()?;
        let tools = Tools::ready(checkout)?;
        environment.push((tools::VARIABLE, tools.directory().as_os_str().to_owned()));
        Ok(())
    });
    let programs_built = steps.run("building the programs", || {
        environment.push((BINARIES, build_programs(checkout)?.into_os_string()));
        Ok(())
    });
    let tests_built = steps.run("building the tests", || {
        must_succeed(cargo(checkout).args([
            "test",
            "--locked",
            "--workspace",
            "--all-features",
            "--no-run",
        ]))
    });
    if services_up && tools_there && programs_built && tests_built {
        for (name, targets) in [
            ("unit tests", ["--lib", "--bins"].as_slice()),
            ("integration tests", &["--test", "*"]),
            ("documentation tests", &["--doc"]),
        ] {
            steps.run(name, || {
                run_tests(checkout, targets, &environment, &mut results)
            });
        }
    }
    steps.run("simulation", || {
        simulate::histories(checkout, HISTORIES, PROCESSOR_SECONDS)
    });
    steps.run("chaos", || chaos::short(&place));
    steps.run("bench", || bench::smoke(&place));
    if let Some(caretaker) = caretaker {
        steps.run("stopping the services", || caretaker.dismiss());
    }
    steps.print_times();
    conclude(&steps, &results)
}

/// The last line is for whoever, or whatever, reads only that one.
fn conclude(steps: &Steps, results: &Results) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    if steps.failed() > 0 {
        wrong.push(format!("{} parts failed", steps.failed()));
    }
    if results.passed == 0 {
        wrong.push("no test ran".to_owned());
    }
    if results.left_out > 0 {
        wrong.push(format!("{} tests were left out", results.left_out));
    }
    // A part that broke without a failed test, say because it did not compile, is a failure too.
    let failed = results.failed.max(usize::from(!wrong.is_empty()));
    for line in &wrong {
        println!("{line}");
    }
    println!("{} passed, {failed} failed", results.passed);
    if failed == 0 {
        return Ok(());
    }
    std::io::stdout().flush().ok();
    Err(Failure::Printed)
}

/// Copies them away from where cargo builds, because building the tests builds the programs again, with every feature.
fn build_programs(checkout: &Path) -> Result<PathBuf, Failure> {
    let built = target_directory(checkout)?;
    let kept = built.join("programs-under-test");
    fs::create_dir_all(&kept).map_err(Failure::at("create", &kept))?;
    for programs in BUILDS {
        let mut command = cargo(checkout);
        command.args(["build", "--locked"]);
        for (package, _) in *programs {
            command.args(["--package", package]);
        }
        must_succeed(&mut command)?;
        for (_, program) in *programs {
            replace(&built.join("debug").join(program), &kept.join(program))?;
        }
    }
    // This program too: it can be a broker for a test that takes one away.
    let own = std::env::current_exe().map_err(Failure::starting("this program again"))?;
    replace(&own, &kept.join("xtask"))?;
    Ok(kept)
}

/// A program that still runs cannot be written over, only replaced.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        fs::remove_file(to).map_err(Failure::at("remove", to))?;
    }
    fs::copy(from, to)
        .map(drop)
        .map_err(Failure::at("copy", from))
}

/// This program was built there.
pub(crate) fn target_directory(checkout: &Path) -> Result<PathBuf, Failure> {
    if let Some(chosen) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(checkout.join(chosen));
    }
    let own = std::env::current_exe().map_err(|source| Failure::System {
        doing: "cannot find this program".to_owned(),
        source,
    })?;
    let target = own
        .ancestors()
        .nth(2)
        .ok_or_else(|| Failure::said(format!("{} is not in a target directory", own.display())))?;
    Ok(target.to_path_buf())
}

fn run_tests(
    checkout: &Path,
    targets: &[&str],
    environment: &[(&'static str, std::ffi::OsString)],
    results: &mut Results,
) -> Result<(), Failure> {
    let mut command = cargo(checkout);
    command
        .args([
            "test",
            "--locked",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
        ])
        .args(targets)
        .args(["--", "--include-ignored"])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped());
    let shown = shown(&command);
    println!("$ {shown}");
    let mut child = command.spawn().map_err(Failure::starting(&shown))?;
    let failed_before = results.failed;
    if let Some(stdout) = child.stdout.take() {
        let mut out = std::io::stdout().lock();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|source| Failure::System {
                doing: format!("cannot read from {shown}"),
                source,
            })?;
            let line = String::from_utf8_lossy(&line);
            results.read(&line);
            writeln!(out, "{line}").ok();
        }
    }
    let status = child.wait().map_err(Failure::starting(&shown))?;
    if status.success() {
        return Ok(());
    }
    if results.failed == failed_before {
        results.failed += 1;
    }
    Err(Failure::said(format!("{shown}: {status}")))
}
