//! Programs from the Python package index, each in an environment of its own beside the other downloads.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::services::python_environments;
use crate::steps::must_succeed;

/// The program of a pinned package (`name==version`), installed into `environment` unless it is there.
pub(crate) fn program(
    environment: &Path,
    package: &str,
    program: &str,
) -> Result<PathBuf, Failure> {
    let program = environment.join("bin").join(program);
    if program.exists() {
        return Ok(program);
    }
    python_environments()?;
    must_succeed(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(environment),
    )?;
    must_succeed(Command::new(environment.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        package,
    ]))?;
    Ok(program)
}
