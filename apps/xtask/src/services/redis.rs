//! Redis without persistence: what is in the cache may be lost at any time, and tests should see that it may.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
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
    std::fs::create_dir_all(&data).map_err(Failure::at("create", &data))?;
    let mut command = detached(&programs.redis_server);
    command
        .current_dir(&data)
        .args(["--bind", "127.0.0.1", "--port", &daemon.port.to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--databases", "1024"]);
    daemon.start(command)
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
