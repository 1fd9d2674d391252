//! Opening the port.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tracing::{info, warn};

use crate::settings::HttpSettings;

/// Why the port was not opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}{hint}")]
pub struct ListenError {
    host: String,
    port: u16,
    hint: &'static str,
    source: io::Error,
}

/// Files that a program has open beside its connections: the database and its journal, pools, the log, threads.
const OTHER_FILES: u64 = 512;

/// Connections that may wait to be accepted, as far as the system lets them (`net.core.somaxconn`). The customary 128 are too few for
/// a crowd that comes at once, as after a restart: whoever finds no room is passed over without a word, and tries again after a second.
const BACKLOG: u32 = 4_096;

/// Opens the port of the API.
///
/// # Errors
/// When it is taken, or the host is not an address of this machine.
pub async fn listen(settings: &HttpSettings) -> Result<TcpListener, ListenError> {
    let listener = open(settings, settings.port).await?;
    make_room(settings.max_connections);
    announce(settings, &listener);
    Ok(listener)
}

/// Raises the limit of open files, which most systems set low for the sake of old programs: who takes all of them by opening
/// connections would keep the program from its database.
fn make_room(connections: usize) {
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => warn!(
            event = "http.few_files",
            wanted,
            limit,
            "the system allows fewer open files than MAX_CONNECTIONS needs: lower it, or raise the limit"
        ),
        Err(error) => warn!(
            event = "http.few_files",
            wanted, %error, "the limit of open files could not be raised"
        ),
    }
}

/// Opens the port of a worker's health and metrics. Several workers may run on one machine with the same settings, and the
/// work matters more than this port: where it is taken, a free one is.
///
/// # Errors
/// When the host is not an address of this machine.
pub async fn listen_somewhere(settings: &HttpSettings) -> Result<TcpListener, ListenError> {
    let listener = match open(settings, settings.port).await {
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
            let listener = open(settings, 0).await?;
            warn!(
                event = "http.port_taken",
                wanted = settings.port,
                "the port is taken; health and metrics are on another one"
            );
            listener
        }
        opened => opened?,
    };
    make_room(settings.max_connections);
    announce(settings, &listener);
    Ok(listener)
}

async fn open(settings: &HttpSettings, port: u16) -> Result<TcpListener, ListenError> {
    bind(&settings.host, port)
        .await
        .map_err(|source| ListenError {
            host: settings.host.clone(),
            port,
            hint: match source.kind() {
                io::ErrorKind::AddrInUse => " (another program has it; choose another port)",
                io::ErrorKind::AddrNotAvailable => " (HOST is no address of this machine)",
                _ => "",
            },
            source,
        })
}

/// The first address of the host that can be listened on.
async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut failure = io::ErrorKind::AddrNotAvailable.into();
    for address in lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Elsewhere it would let two programs have the same port.
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn announce(settings: &HttpSettings, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        let scheme = settings.scheme();
        info!(event = "http.listening", %address, "listening on {scheme}://{address}");
    }
    if !settings.access.keys.is_empty() {
        info!(
            event = "http.keys",
            keys = settings.access.keys.len(),
            "an API key is needed, except for health and documentation"
        );
    } else if settings.is_exposed() {
        warn!(
            event = "http.exposed",
            host = settings.host,
            "no API key is configured: other machines can reach this port, and it lets everybody in; set API_KEYS, or HOST=127.0.0.1 to keep it local"
        );
    } else {
        warn!(
            event = "http.open",
            "no API key is configured: every program of this machine is let in; API_KEYS changes that"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;
    use crate::settings::AccessSettings;

    fn settings(port: u16) -> HttpSettings {
        HttpSettings {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
            access: AccessSettings::default(),
            rate: None,
            allowed_origins: Vec::new(),
            max_body: 1_024,
            body_timeout: Duration::from_secs(1),
            max_header: 8_192,
            header_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_connections: 1,
            max_waiters: 1,
            max_streams: 1,
            event_ring: 1,
            drain_delay: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn a_crowd_that_comes_at_once_finds_room() {
        const CROWD: usize = 1_000;
        // Nobody accepts: without room the next one would wait for ever.
        let listener = listen(&settings(0)).await.expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let crowd = async {
            let mut connected = Vec::new();
            while connected.len() < CROWD {
                connected.push(TcpStream::connect(address).await.expect("it listens"));
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(30), crowd).await;
        came.expect("there is room for all of them");
    }

    #[tokio::test]
    async fn a_taken_port_stops_the_api_and_moves_a_worker() {
        let first = listen(&settings(0)).await.expect("a free port");
        let taken = first.local_addr().expect("it has one").port();
        let error = listen(&settings(taken)).await.expect_err("it is taken");
        assert!(
            error.to_string().contains("another program has it"),
            "{error}"
        );
        let second = listen_somewhere(&settings(taken))
            .await
            .expect("another port");
        assert_ne!(second.local_addr().expect("it has one").port(), taken);
    }
}
