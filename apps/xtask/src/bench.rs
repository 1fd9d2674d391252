//! `cargo xtask bench`: whether the programs are as fast as they must be, on real services of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::failure::Failure;
use crate::services::{Place, build_tools};
use crate::steps::{cargo, must_succeed, output_of};
use crate::test::{replace, target_directory};

/// What takes part, one cargo call for each line: what is built together shares its features, and what is measured must be
/// what a user builds.
const BUILDS: &[&[(&str, &str)]] = &[
    &[
        ("task-processor-server", "task-processor-server"),
        ("task-processor-worker", "task-processor-worker"),
        ("task-processor-migrate", "task-processor-migrate"),
    ],
    &[("task-processor", "task-processor")],
    &[
        ("task-processor-bench", "task-processor-bench"),
        ("task-processor-bars", "task-processor-bars"),
        ("task-processor-bars", "task-processor-bars-reference"),
    ],
];

/// The file beside them that names the commit they were built of.
const REVISION: &str = "revision";

#[derive(Args)]
pub(crate) struct Arguments {
    /// What to measure, see --list; without names every bar but those of half an hour and of ten million rows
    scenarios: Vec<String>,
    /// How often each is measured [default: 5]
    #[arg(long)]
    rounds: Option<u16>,
    /// How long each measurement lasts [default: 8]
    #[arg(long)]
    seconds: Option<u16>,
    /// Say what can be measured
    #[arg(long)]
    list: bool,
    /// Where what was found goes [default: bench in cargo's target directory]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Use the programs that the last run built
    #[arg(long)]
    built: bool,
    /// Keep data and logs of a run that went well
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    if arguments.list {
        let mut command = cargo(place.checkout());
        command.args(["run", "--locked", "--quiet", "--release"]);
        command.args(["--package", "task-processor-bars"]);
        return must_succeed(command.args(["--bin", "task-processor-bars", "--", "--list"]));
    }
    build_tools()?;
    let mut words = arguments.scenarios.clone();
    for (name, value) in [
        ("--rounds", arguments.rounds),
        ("--seconds", arguments.seconds),
    ] {
        if let Some(value) = value {
            words.extend([name.to_owned(), value.to_string()]);
        }
    }
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out).map_err(Failure::at("find", out))?,
        None => target_directory(place.checkout())?.join("bench"),
    };
    measure(
        &place,
        words,
        &out,
        &Way {
            release: true,
            built: arguments.built,
            keep: arguments.keep,
        },
    )
}

/// The run that is part of the tests: seconds of everything, and no bar counts.
pub(crate) fn smoke(place: &Place) -> Result<(), Failure> {
    let words = ["--smoke", "--rounds", "1", "--seconds", "1"];
    let out = target_directory(place.checkout())?.join("bench-smoke");
    measure(
        place,
        words.map(ToOwned::to_owned).into(),
        &out,
        &Way {
            release: false,
            built: false,
            keep: false,
        },
    )
}

struct Way {
    release: bool,
    built: bool,
    keep: bool,
}

fn measure(place: &Place, words: Vec<String>, out: &Path, way: &Way) -> Result<(), Failure> {
    let checkout = place.checkout();
    let binaries = target_directory(checkout)?.join(if way.release {
        "programs-to-measure"
    } else {
        "programs-to-try"
    });
    if !way.built {
        fs::create_dir_all(&binaries).map_err(Failure::at("create", &binaries))?;
        build(checkout, &binaries, way.release)?;
    }
    // A directory of its own, so that a run disturbs neither another nor the services of this checkout.
    let own = place.beside(&format!("bench-{}", std::process::id()))?;
    // What was built may be older than the checkout is now.
    let revision = fs::read_to_string(binaries.join(REVISION)).ok();
    let rustc = output_of(Command::new("rustc").current_dir(checkout).arg("--version"));
    let mut command = Command::new(binaries.join("task-processor-bars"));
    command
        .args(words)
        .arg("--binaries")
        .arg(&binaries)
        .arg("--directory")
        .arg(&own)
        .arg("--out")
        .arg(out);
    if let Some(revision) = revision {
        command.args(["--revision", revision.trim()]);
    }
    if let Ok(rustc) = rustc {
        command.args(["--rustc", rustc.trim().trim_start_matches("rustc ")]);
    }
    let done = must_succeed(&mut command);
    if done.is_ok() && !way.keep {
        fs::remove_dir_all(&own).map_err(Failure::at("remove", &own))?;
    } else {
        println!("logs are in {}", own.display());
    }
    done
}

/// Builds the programs and copies them away, so that what is built meanwhile does not change them.
fn build(checkout: &Path, into: &Path, release: bool) -> Result<(), Failure> {
    let built = target_directory(checkout)?.join(if release { "release" } else { "debug" });
    for programs in BUILDS {
        let mut command = cargo(checkout);
        command.args(["build", "--locked"]);
        for (package, program) in *programs {
            command.args(["--package", package, "--bin", program]);
        }
        if release {
            command.arg("--release");
        }
        must_succeed(&mut command)?;
        for (_, program) in *programs {
            replace(&built.join(program), &into.join(program))?;
        }
    }
    let mut git = Command::new("git");
    git.current_dir(checkout);
    let revision = output_of(git.args(["describe", "--always", "--dirty"])).unwrap_or_default();
    let file = into.join(REVISION);
    fs::write(&file, revision).map_err(Failure::at("write", &file))?;
    // This program too: it starts the services.
    let own = std::env::current_exe().map_err(Failure::starting("this program again"))?;
    replace(&own, &into.join("xtask"))
}
