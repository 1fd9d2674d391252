//! A network that fails between a program and a service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Stands before a service on a loopback port of its own, until the test process ends. It can become a black hole: then
/// what is sent vanishes, nothing is answered, and no connection is closed. A connection that was open in the hole, or was
/// opened in it, never comes back to life, as in a network whose routers forgot it.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    hole: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of `service`, a `host:port`.
    pub(crate) fn before(service: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it has one").port();
        let hole = Arc::new(AtomicBool::new(false));
        let (service, dark) = (service.to_owned(), Arc::clone(&hole));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("the listener lives");
                let lost = Arc::new(AtomicBool::new(dark.load(Ordering::SeqCst)));
                // A client whose service is gone is closed by being dropped.
                let Ok(server) = TcpStream::connect(&service) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let from = from.try_clone().expect("a socket can be shared");
                    let to = to.try_clone().expect("a socket can be shared");
                    let (dark, lost) = (Arc::clone(&dark), Arc::clone(&lost));
                    thread::spawn(move || pass(from, to, &dark, &lost));
                }
            }
        });
        Self { port, hole }
    }

    /// A port on which connections are taken and nothing is ever answered.
    pub(crate) fn before_nothing() -> Self {
        // Nobody asks the service that stands behind a hole: it is this listener, which never accepts.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = silent.local_addr().expect("it has one").to_string();
        let proxy = Self::before(&address);
        proxy.swallow();
        thread::spawn(move || {
            let _held = silent;
            thread::park();
        });
        proxy
    }

    /// `url` with this proxy in the place of its host and port.
    pub(crate) fn in_place_of_host(&self, url: &str) -> String {
        let host = host_of(url);
        url.replacen(host, &format!("127.0.0.1:{}", self.port), 1)
    }

    /// Becomes a black hole.
    pub(crate) fn swallow(&self) {
        self.hole.store(true, Ordering::SeqCst);
    }

    /// New connections are passed on again.
    pub(crate) fn mend(&self) {
        self.hole.store(false, Ordering::SeqCst);
    }
}

/// Host and port in a URL.
pub(crate) fn host_of(url: &str) -> &str {
    let (_, rest) = url.split_once("://").expect("it is a URL");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn pass(mut from: TcpStream, mut to: TcpStream, dark: &AtomicBool, lost: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if dark.load(Ordering::SeqCst) {
            lost.store(true, Ordering::SeqCst);
        }
        if !lost.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // That one end closed goes no farther than the hole either.
    if !dark.load(Ordering::SeqCst) && !lost.load(Ordering::SeqCst) {
        to.shutdown(Shutdown::Both).ok();
    }
}
