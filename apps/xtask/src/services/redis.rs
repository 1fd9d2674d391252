//! Redis without persistence: what is in the cache may be lost at any time, and tests should see that it may.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::daemon::{Daemon, detached};
use super::install::Programs;
use super::place::Place;
use crate::failure::Failure;

pub(super) const PORT: u16 = 16379;

pub(super) fn daemon(place: &Place, port: u16) -> Daemon {
    Daemon::new(place, "redis", port, "TERM")
}

pub(super) fn start(place: &Place, daemon: &Daemon, programs: &Programs) -> Result<(), Failure> {
    let data = place.path("redis");
    daemon.start(prepare(
        &data,
        daemon.port,
        detached(&programs.redis_server),
    )?)
}

/// Becomes a server on `port`. Returns only if that fails.
pub(super) fn become_server(home: &Path, port: u16, programs: &Programs) -> Failure {
    match prepare(home, port, Command::new(&programs.redis_server)) {
        Ok(mut server) => Failure::starting("redis-server")(server.exec()),
        Err(failure) => failure,
    }
}

fn prepare(data: &Path, port: u16, mut server: Command) -> Result<Command, Failure> {
    std::fs::create_dir_all(data).map_err(Failure::at("create", data))?;
    server
        .current_dir(data)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    server.args(["--save", "", "--appendonly", "no", "--databases", "1024"]);
    Ok(server)
}

pub(super) fn answers(port: u16) -> bool {
    ping(port).is_ok_and(|answer| &answer == b"+PONG\r\n")
}

fn ping(port: u16) -> std::io::Result<[u8; 7]> {
    let limit = Duration::from_secs(2);
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
