//! PostgreSQL on a cluster of our own, with its default durability.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::daemon::Daemon;
use super::install::{Account, Programs};
use super::place::Place;
use crate::failure::Failure;

pub(super) const PORT: u16 = 15432;

pub(super) fn daemon(place: &Place, port: u16) -> Daemon {
    // SIGINT is PostgreSQL's fast shutdown: it ends the sessions instead of waiting for them.
    Daemon::new(place, "postgres", port, "INT")
}

pub(super) fn start(place: &Place, daemon: &Daemon, programs: &Programs) -> Result<(), Failure> {
    let home = place.path("postgres");
    let command = prepare(&home, daemon.port, None, programs, &["setsid"])?;
    daemon.start(command)
}

/// Becomes a server that keeps its data in `home`, and ends with the thread that started it. With a certificate it takes
/// nobody without TLS. Returns only if that fails.
pub(super) fn become_server(
    home: &Path,
    port: u16,
    certificate: Option<&Path>,
    programs: &Programs,
) -> Failure {
    // The wish to end with the parent does not survive a change of the user, so it is made after it.
    match prepare(
        home,
        port,
        certificate,
        programs,
        &["setpriv", "--pdeathsig", "KILL", "--"],
    ) {
        Ok(mut server) => {
            // After a crash one call instead of one for every file, which on a busy disk takes half a minute.
            server.args(["-c", "recovery_init_sync_method=syncfs"]);
            Failure::starting("postgres")(server.exec())
        }
        Err(failure) => failure,
    }
}

/// Lays out the directory `home` if it is new, and makes the command that runs the server in it, by way of `starter`, which
/// becomes it.
fn prepare(
    home: &Path,
    port: u16,
    certificate: Option<&Path>,
    programs: &Programs,
    starter: &[&str],
) -> Result<Command, Failure> {
    let data = home.join("data");
    if !data.join("task-processor-ready").exists() {
        create_cluster(home, &data, programs)?;
    }
    let mut command = Command::new(starter[0]);
    command
        .args(&starter[1..])
        .arg(programs.postgres.join("postgres"));
    as_account(&mut command, programs.postgres_account.as_ref());
    command.current_dir(home).arg("-D").arg(&data).args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
    ]);
    for setting in [
        format!("unix_socket_directories={}", home.display()),
        "max_connections=300".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
    ] {
        command.arg("-c").arg(setting);
    }
    if let Some(certificate) = certificate {
        for setting in protect(home, certificate, programs.postgres_account.as_ref())? {
            command.arg("-c").arg(setting);
        }
    }
    Ok(command)
}

/// Lays out what TLS needs, where the server may read it and nobody else, and says which settings name it.
fn protect(
    home: &Path,
    certificate: &Path,
    account: Option<&Account>,
) -> Result<Vec<String>, Failure> {
    let hosts = home.join("hosts.conf");
    fs::write(&hosts, "hostssl all all 127.0.0.1/32 scram-sha-256\n")
        .map_err(Failure::at("write", &hosts))?;
    let [chain, key] = ["server.pem", "server.key"].map(|name| home.join(name));
    for path in [&chain, &key] {
        let from = certificate.join(path.file_name().unwrap_or_default());
        fs::copy(&from, path).map_err(Failure::at("copy", &from))?;
    }
    for path in [&hosts, &chain, &key] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(Failure::at("close", path))?;
        if let Some(Account { uid, gid }) = account {
            chown(path, Some(*uid), Some(*gid)).map_err(Failure::at("hand over", path))?;
        }
    }
    Ok(vec![
        "ssl=on".to_owned(),
        format!("hba_file={}", hosts.display()),
        format!("ssl_cert_file={}", chain.display()),
        format!("ssl_key_file={}", key.display()),
    ])
}

fn create_cluster(home: &Path, data: &Path, programs: &Programs) -> Result<(), Failure> {
    let account = programs.postgres_account.as_ref();
    if home.exists() {
        fs::remove_dir_all(home).map_err(Failure::at("remove", home))?;
    }
    fs::create_dir(home).map_err(Failure::at("create", home))?;
    // The password goes in through a file, because arguments can be read by everyone.
    let password = home.join("password");
    fs::write(&password, "task\n").map_err(Failure::at("write", &password))?;
    if let Some(Account { uid, gid }) = account {
        for path in [home, &password] {
            chown(path, Some(*uid), Some(*gid)).map_err(Failure::at("hand over", path))?;
        }
    }
    let mut initdb = Command::new(programs.postgres.join("initdb"));
    as_account(&mut initdb, account);
    initdb
        .current_dir(home)
        .args([
            "--username=task",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ])
        .arg(format!("--pwfile={}", password.display()))
        .arg("-D")
        .arg(data);
    run(initdb, "initdb")?;

    // The first database is made without a server: a single-user backend reads SQL from its standard input.
    let mut single = Command::new("sh");
    as_account(&mut single, account);
    single.current_dir(home).args([
        "-c",
        "echo 'CREATE DATABASE taskdb' | \"$0\" --single -D \"$1\" postgres",
    ]);
    single.arg(programs.postgres.join("postgres")).arg(data);
    run(single, "postgres --single")?;

    let ready = data.join("task-processor-ready");
    fs::write(&ready, "").map_err(Failure::at("write", &ready))
}

fn run(mut command: Command, name: &str) -> Result<(), Failure> {
    let output = command.output().map_err(Failure::starting(name))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::said(format!(
        "{name} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// PostgreSQL refuses to run as root. The standard library drops the other groups along with the user.
fn as_account(command: &mut Command, account: Option<&Account>) {
    if let Some(Account { uid, gid }) = account {
        command.uid(*uid).gid(*gid);
    }
}

/// Asks as a client would: by TCP, with the password.
pub(super) fn answers(port: u16, programs: &Programs) -> bool {
    Command::new(programs.postgres.join("psql"))
        .args([
            "--no-psqlrc",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "task",
            "-d",
            "taskdb",
            "-tAc",
            "SELECT 1",
        ])
        .env("PGPASSWORD", "task")
        .env("PGCONNECT_TIMEOUT", "5")
        .output()
        .is_ok_and(|output| output.stdout == b"1\n")
}
