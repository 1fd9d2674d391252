//! Finding the programs, and installing those that are missing: Debian's packages by `apt-get`, Kafka by Maven.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::kafka::{KAFKA_3, KAFKA_4, Release};
use super::place::{Place, own_uid};
use crate::failure::Failure;

/// The system user that PostgreSQL runs as when `up` is called by root.
const ACCOUNT: &str = "task-processor";

/// The oldest Java that runs both brokers.
const JAVA: u32 = 17;

pub(super) struct Programs {
    /// The directory with `postgres`, `initdb` and `psql` of one release.
    pub(super) postgres: PathBuf,
    /// Nobody else than the caller, unless the caller is root.
    pub(super) postgres_account: Option<Account>,
    pub(super) redis_server: PathBuf,
    pub(super) java: PathBuf,
    jars: BTreeMap<&'static str, PathBuf>,
}

pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Programs {
    pub(super) fn jars(&self, release: &Release) -> &Path {
        &self.jars[release.name]
    }
}

/// Installs what librdkafka is built with; everything else needs no more than Rust does.
pub(crate) fn build_tools() -> Result<(), Failure> {
    const PROGRAMS: [(&str, &str); 4] = [
        ("cc", "gcc"),
        ("c++", "g++"),
        ("make", "make"),
        ("pkg-config", "pkg-config"),
    ];
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter_map(|(name, package)| program(name).is_none().then_some(package))
        .collect();
    // Built from source it may stand elsewhere, and its variable says where.
    let elsewhere = env::var_os("OPENSSL_DIR").is_some();
    if !elsewhere && !Path::new("/usr/include/openssl/ssl.h").exists() {
        missing.push("libssl-dev");
    }
    install(&missing, own_uid()? == 0)
}

/// Installs the browser that the pages are looked at with.
pub(crate) fn browser() -> Result<(), Failure> {
    let missing: &[&str] = match program("chromium") {
        Some(_) => &[],
        None => &["chromium"],
    };
    install(missing, own_uid()? == 0)
}

/// A Python that can make an environment of its own, installed if it is missing.
pub(crate) fn python_with_environments() -> Result<PathBuf, Failure> {
    let able = |python: &Path| {
        Command::new(python)
            .args(["-c", "import ensurepip, venv"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if let Some(python) = program("python3").filter(|python| able(python)) {
        return Ok(python);
    }
    install(&["python3", "python3-venv"], own_uid()? == 0)?;
    program("python3")
        .filter(|python| able(python))
        .ok_or_else(|| {
            Failure::said("python3 -m venv does not work though package python3-venv is installed")
        })
}

pub(super) fn everything(place: &Place) -> Result<Programs, Failure> {
    let root = own_uid()? == 0;
    let cached = [&KAFKA_3, &KAFKA_4]
        .into_iter()
        .all(|release| jars_directory(release).is_ok_and(|path| path.exists()));
    let missing: Vec<&str> = [
        (postgres_directory().is_none(), "postgresql"),
        (program("redis-server").is_none(), "redis-server"),
        // The walkthrough looks at everything through clients that are not ours.
        (program("redis-cli").is_none(), "redis-tools"),
        (program("kcat").is_none(), "kcat"),
        (program("curl").is_none(), "curl"),
        // Debian installs it where only root's PATH looks.
        (
            program("haproxy").is_none() && !Path::new("/usr/sbin/haproxy").exists(),
            "haproxy",
        ),
        (program("java").is_none(), "default-jre-headless"),
        (!cached && program("mvn").is_none(), "maven"),
    ]
    .into_iter()
    .filter_map(|(is_missing, package)| is_missing.then_some(package))
    .collect();
    install(&missing, root)?;
    let found = |name: &str, package: &str| {
        program(name).ok_or_else(|| {
            Failure::said(format!(
                "{name} is not on the PATH though package {package} is installed"
            ))
        })
    };
    let java = found("java", "default-jre-headless")?;
    check_java(&java)?;
    let mut jars = BTreeMap::new();
    for release in [&KAFKA_3, &KAFKA_4] {
        jars.insert(release.name, download(release, place)?);
    }
    Ok(Programs {
        postgres: postgres_directory().ok_or_else(|| {
            Failure::said(
                "initdb is not in /usr/lib/postgresql/*/bin though package postgresql is installed",
            )
        })?,
        postgres_account: if root { Some(account()?) } else { None },
        redis_server: found("redis-server", "redis-server")?,
        java,
        jars,
    })
}

fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Debian keeps the server's programs off the PATH, one directory for each release; the newest wins.
fn postgres_directory() -> Option<PathBuf> {
    let whole = |directory: &PathBuf| {
        ["postgres", "initdb", "psql"]
            .iter()
            .all(|name| directory.join(name).is_file())
    };
    let mut releases: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, directory)| whole(directory))
        .collect();
    releases.sort();
    let on_path = || {
        program("initdb")
            .and_then(|initdb| initdb.parent().map(Path::to_path_buf))
            .filter(whole)
    };
    releases
        .pop()
        .map(|(_, directory)| directory)
        .or_else(on_path)
}

fn install(packages: &[&str], root: bool) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand =
        format!("sudo apt-get update && sudo apt-get install --no-install-recommends {list}");
    if !root {
        return Err(Failure::said(format!(
            "missing: {list}\nonly root may install packages; run: {by_hand}"
        )));
    }
    if program("apt-get").is_none() {
        return Err(Failure::said(format!(
            "missing: {list}\nthis system has no apt-get; install what these Debian packages hold, or use --docker"
        )));
    }
    eprintln!("installing {list}");
    let _quiet = ServicesStayDown::hold()?;
    // An old list of packages names versions that are gone, so it is fetched first.
    for arguments in [
        vec!["update"],
        [&["install", "--yes", "--no-install-recommends"], packages].concat(),
    ] {
        let status = Command::new("apt-get")
            .args([
                "-qq",
                "-o",
                "DPkg::Lock::Timeout=300",
                "-o",
                "Acquire::Retries=3",
            ])
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
            .map_err(Failure::starting("apt-get"))?;
        if !status.success() {
            return Err(Failure::said(format!(
                "apt-get {} failed ({status}); its own words are above. To try by hand: {by_hand}",
                arguments[0]
            )));
        }
    }
    Ok(())
}

/// Debian starts a server as soon as it is installed. This machine's own services are none of our business, so the
/// documented switch against it is set while we install, unless somebody has set it already.
struct ServicesStayDown(Option<&'static Path>);

impl ServicesStayDown {
    fn hold() -> Result<Self, Failure> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n").map_err(Failure::at("write", policy))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(policy, executable).map_err(Failure::at("make executable", policy))?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for ServicesStayDown {
    fn drop(&mut self) {
        if let Some(policy) = self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!(
                "cannot remove {}: {error}; remove it, or services will not start when installed",
                policy.display()
            );
        }
    }
}

fn account() -> Result<Account, Failure> {
    let number = |flag: &str| -> Option<u32> {
        let output = Command::new("id")
            .args([flag, ACCOUNT])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if number("-u").is_none() {
        let status = Command::new("useradd")
            .args([
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
            ])
            .args(["--shell", "/usr/sbin/nologin", ACCOUNT])
            .status()
            .map_err(Failure::starting("useradd"))?;
        if !status.success() {
            return Err(Failure::said(format!(
                "useradd {ACCOUNT} failed ({status}): PostgreSQL needs a user that is not root"
            )));
        }
    }
    match (number("-u"), number("-g")) {
        (Some(uid), Some(gid)) => Ok(Account { uid, gid }),
        _ => Err(Failure::said(format!(
            "there is no user {ACCOUNT} though useradd made it"
        ))),
    }
}

fn check_java(java: &Path) -> Result<(), Failure> {
    // `java -version` writes `openjdk version "17.0.15" …` to its standard error.
    let output = Command::new(java)
        .arg("-version")
        .output()
        .map_err(Failure::starting("java"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let major = text
        .split('"')
        .nth(1)
        .and_then(|version| version.split(['.', '-']).next()?.parse::<u32>().ok());
    match major {
        Some(major) if major >= JAVA => Ok(()),
        _ => Err(Failure::said(format!(
            "{} is too old for Kafka, which needs Java {JAVA}: {}",
            java.display(),
            text.lines().next().unwrap_or("it does not say its version")
        ))),
    }
}

/// Where downloads stand, with the user's other caches: they are the same for every checkout and survive `down`.
pub(crate) fn cache_directory() -> Result<PathBuf, Failure> {
    let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => {
            return Err(Failure::said(
                "neither XDG_CACHE_HOME nor HOME is set, so there is no place for downloads",
            ));
        }
    };
    Ok(cache.join("task-processor"))
}

fn jars_directory(release: &Release) -> Result<PathBuf, Failure> {
    Ok(cache_directory()?.join(format!("kafka-{}", release.version)))
}

fn download(release: &Release, place: &Place) -> Result<PathBuf, Failure> {
    let directory = jars_directory(release)?;
    if directory.exists() {
        return Ok(directory);
    }
    let mvn = program("mvn")
        .ok_or_else(|| Failure::said("mvn is not on the PATH though package maven is installed"))?;
    eprintln!("downloading Apache Kafka {}", release.version);
    let work = place.path(&format!("{}-download", release.name));
    fs::create_dir_all(&work).map_err(Failure::at("create", &work))?;
    let pom = work.join("pom.xml");
    fs::write(&pom, pom_of(release)).map_err(Failure::at("write", &pom))?;
    // Filled beside its final name and moved there whole: a download that was cut off is never taken for one that ended.
    let filling = directory.with_extension(format!("{}.part", std::process::id()));
    let status = Command::new(mvn)
        .args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", filling.display()))
        .arg("-DincludeScope=runtime")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(Failure::starting("mvn"))?;
    if !status.success() {
        fs::remove_dir_all(&filling).ok();
        return Err(Failure::said(format!(
            "downloading Apache Kafka {} failed (mvn ended with {status}; its own words are above).\n\
             Maven needs to reach its central repository, directly or through a mirror in ~/.m2/settings.xml",
            release.version
        )));
    }
    match fs::rename(&filling, &directory) {
        // Another checkout may have been faster; its jars are as good.
        Err(_) if directory.exists() => {
            fs::remove_dir_all(&filling).map_err(Failure::at("remove", &filling))?;
        }
        moved => moved.map_err(Failure::at("move jars to", &directory))?,
    }
    Ok(directory)
}

fn pom_of(release: &Release) -> String {
    let dependency = |coordinates: &str| {
        let mut parts = coordinates.split(':');
        let [group, artifact, version] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>local</groupId><artifactId>{}</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}</dependencies></project>\n",
        release.name,
        dependency(&format!("org.apache.kafka:kafka_2.13:{}", release.version)),
        dependency(release.logging)
    )
}
