//! Whether a port is free, and who has it if not.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::failure::Failure;

pub(super) fn must_be_free(service: &str, port: u16) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::said(format!(
            "{service} needs port {port}, which is taken by {}\n\
             stop that, or choose other ports: cargo xtask services up --port-offset 1000",
            owner(port)
        ))),
    }
}

fn owner(port: u16) -> String {
    let Some(pid) = listening_inode(port).and_then(|inode| process_with_socket(&inode)) else {
        return "a process that this user may not see".to_owned();
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command: String = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .chars()
        .take(160)
        .collect();
    match checkout_of(&command).or_else(|| checkout_of(&working_directory(pid))) {
        Some(checkout) => format!(
            "the services of another checkout, {checkout} (pid {pid}); there: cargo xtask services down"
        ),
        None => format!("pid {pid}: {}", command.trim()),
    }
}

fn working_directory(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/cwd"))
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Services of a checkout run in its state directory, which names the checkout.
fn checkout_of(text: &str) -> Option<String> {
    const PREFIX: &str = "/var/tmp/task-processor-";
    let start = text.find(PREFIX)?;
    let end = (start + PREFIX.len() + 16).min(text.len());
    let note = Path::new(text.get(start..end)?).join("checkout");
    Some(fs::read_to_string(note).ok()?.trim().to_owned())
}

/// The kernel lists listening sockets as `sl local_address rem_address st … inode`, addresses in hexadecimal; state 0A is LISTEN.
fn listening_inode(port: u16) -> Option<String> {
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            fs::read_to_string(table)
                .ok()?
                .lines()
                .skip(1)
                .find_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A";
                    listens
                        .then(|| fields.get(9).map(ToString::to_string))
                        .flatten()
                })
        })
}

fn process_with_socket(inode: &str) -> Option<u32> {
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
            });
        holds.then_some(pid)
    })
}
