//! What the HTTP side listens on and takes in.

use std::time::Duration;

use super::Reader;

/// What the HTTP side listens on, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// A name or an address.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// The longest request body in bytes.
    pub max_body: usize,
    /// How long a stopping process goes on serving while its readiness is already red.
    pub drain_delay: Duration,
}

impl HttpSettings {
    /// Of a program that serves the API.
    pub(super) fn read_api(reader: &mut Reader, host: &'static str, drain_delay: Duration) -> Self {
        reader.section("HTTP");
        let host = read_host(reader, host);
        let port = reader.number(
            "PORT",
            3_000,
            0..=65_535_u16,
            "port",
            "the port of the API; 0 takes a free one, which the log names",
        );
        let max_body = reader.bytes(
            "MAX_BODY",
            256 << 10,
            1 << 10..=64 << 20,
            "the longest request body that is taken in; longer ones are answered 413",
        );
        let drain_delay = read_drain_delay(reader, drain_delay);
        Self {
            host,
            port,
            max_body,
            drain_delay,
        }
    }

    /// Of a worker: health and metrics.
    pub(super) fn read_worker(reader: &mut Reader) -> Self {
        reader.section("HTTP");
        let host = read_host(reader, "0.0.0.0");
        let port = reader.number(
            "WORKER_PORT",
            3_001,
            0..=65_535_u16,
            "port",
            "the port of health and metrics (PORT is the API's); if it is taken, or 0, a free one, which the log names",
        );
        Self {
            host,
            port,
            max_body: 1 << 10,
            drain_delay: Duration::ZERO,
        }
    }

    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !matches!(self.host.as_str(), "127.0.0.1" | "::1" | "localhost")
    }
}

fn read_host(reader: &mut Reader, default: &'static str) -> String {
    reader.text(
        "HOST",
        default,
        "host name or address",
        "the address to listen on; 0.0.0.0 is every one of this machine",
        |text| {
            if text.contains([' ', '/'])
                || (text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_err())
            {
                return Err("must be a host name or an address without a port".to_owned());
            }
            Ok(())
        },
    )
}

fn read_drain_delay(reader: &mut Reader, default: Duration) -> Duration {
    reader.duration(
        "DRAIN_DELAY",
        default,
        Duration::ZERO..=Duration::from_secs(300),
        "at a stop, how long to go on serving with readiness red, so that load balancers look elsewhere",
    )
}
