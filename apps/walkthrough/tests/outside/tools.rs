//! The tools that `cargo xtask tools` installs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where they are.
fn directory() -> PathBuf {
    std::env::var_os("TASK_PROCESSOR_TOOLS")
        .map(PathBuf::from)
        .expect("TASK_PROCESSOR_TOOLS is set: run cargo xtask test")
}

/// One of them; it finds the others.
pub(crate) fn tool(name: &str) -> Command {
    let bin = directory().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
    let mut command = Command::new(bin.join(name));
    command.env(
        "PATH",
        std::env::join_paths(all).expect("PATH was split of it"),
    );
    command
}

/// A file beside this one.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/outside")
        .join(name)
}

/// Copies a file beside this one.
pub(crate) fn copy(name: &str, into: &Path) {
    let from = beside(name);
    let name = from.file_name().expect("it is a file");
    fs::copy(&from, into.join(name)).expect("a file can be copied");
}

/// Lets scripts in a directory import what the tools have of the npm registry.
pub(crate) fn link_modules(into: &Path) {
    symlink(directory().join("node_modules"), into.join("node_modules"))
        .expect("a link can be made");
}

/// What a tool said that succeeded; otherwise the test ends here, with all that it said.
pub(crate) fn must_succeed(command: &mut Command) -> String {
    let output = command.output().expect("the tool is installed");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}
