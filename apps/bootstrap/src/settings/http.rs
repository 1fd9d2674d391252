//! What the HTTP side listens on and takes in.

use std::time::Duration;

use super::{AccessSettings, RateSettings, Reader, TlsSettings, origins};

const SECOND: Duration = Duration::from_secs(1);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEADER: usize = 32 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_CROWD: usize = 16_384;
const EVENT_RING: usize = 262_144;
/// Connections beside those of a crowd that waits and follows.
const OTHER_CONNECTIONS: usize = 2_048;
/// As long as a load balancer that asks once a second needs to notice, and to be asked again.
pub(super) const DRAIN_DELAY: Duration = Duration::from_secs(3);

/// What the HTTP side listens on, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// A name or an address.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// With which certificate it speaks TLS, if it does.
    pub tls: Option<TlsSettings>,
    /// Who is let in.
    pub access: AccessSettings,
    /// How often each client may ask; `None` sets no limit.
    pub rate: Option<RateSettings>,
    /// The other origins whose pages may use it; `*` is every one.
    pub allowed_origins: Vec<String>,
    /// The longest request body in bytes.
    pub max_body: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// The longest header of a request in bytes.
    pub max_header: usize,
    /// How long a header may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection may be without a request, and an answer without being taken.
    pub idle_timeout: Duration,
    /// How many connections may be open; the longest unused makes room for one more.
    pub max_connections: usize,
    /// How many requests may wait for their task.
    pub max_waiters: usize,
    /// How many streams of events may be open.
    pub max_streams: usize,
    /// How many of the latest events a stream may come back to.
    pub event_ring: usize,
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
        let tls = TlsSettings::read(reader);
        let access = AccessSettings::read(reader);
        let rate = RateSettings::read(reader);
        let allowed_origins = origins::read(reader);
        let body_timeout = reader.duration(
            "BODY_TIMEOUT",
            BODY_TIMEOUT,
            SECOND..=SECOND * 3_600,
            "how long a request body may take to arrive; then it is answered 408",
        );
        let max_header = reader.bytes(
            "MAX_HEADER",
            MAX_HEADER,
            8 << 10..=1 << 20,
            "the longest header of a request, its first line included; a longer one, or more than 100 fields, is answered 431",
        );
        let header_timeout = reader.duration(
            "HEADER_TIMEOUT",
            HEADER_TIMEOUT,
            SECOND..=SECOND * 3_600,
            "how long the header of a request may take to arrive; then the connection is closed",
        );
        let idle_timeout = reader.duration(
            "IDLE_TIMEOUT",
            IDLE_TIMEOUT,
            SECOND..=SECOND * 3_600,
            "how long a connection may be without a request, and how long a client may take to take an answer, before it is closed; who waits for an answer is not idle",
        );
        let max_waiters = reader.number(
            "MAX_WAITERS",
            MAX_CROWD,
            0..=1_000_000,
            "requests",
            "how many may wait for their task at once (?wait=); more are answered 503",
        );
        let max_streams = reader.number(
            "MAX_STREAMS",
            MAX_CROWD,
            0..=1_000_000,
            "streams",
            "how many of GET /events may be open at once; more are answered 503",
        );
        let max_connections = reader.number(
            "MAX_CONNECTIONS",
            max_waiters + max_streams + OTHER_CONNECTIONS,
            1..=3_000_000,
            "connections",
            "how many may be open, unless set MAX_WAITERS + MAX_STREAMS + 2048; for one more the one that has been unused longest is closed; when all are in use, it is answered 503",
        );
        Self {
            host,
            port,
            tls,
            access,
            rate,
            allowed_origins,
            max_body,
            body_timeout,
            max_header,
            header_timeout,
            idle_timeout,
            max_connections,
            max_waiters,
            max_streams,
            event_ring: reader.number(
                "EVENT_RING",
                EVENT_RING,
                1..=10_000_000,
                "events",
                "to how many of the latest a stream of GET /events may come back, of 40 bytes each while there are streams; 262144 are 26 s of 10000 a second",
            ),
            drain_delay: read_drain_delay(
                reader,
                drain_delay,
                "at a stop, how long to go on serving with readiness red, so that load balancers look elsewhere",
            ),
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
            tls: TlsSettings::read(reader),
            access: AccessSettings::read(reader),
            rate: None,
            allowed_origins: Vec::new(),
            max_body: 1 << 10,
            body_timeout: BODY_TIMEOUT,
            max_header: MAX_HEADER,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            max_connections: OTHER_CONNECTIONS,
            max_waiters: 0,
            max_streams: 0,
            event_ring: 1,
            drain_delay: read_drain_delay(
                reader,
                DRAIN_DELAY,
                "at a stop, how long to go on taking tasks with readiness red, so that whoever watches it knows first",
            ),
        }
    }

    /// How its addresses begin.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !matches!(self.host.as_str(), "127.0.0.1" | "::1" | "localhost")
    }
}

fn read_drain_delay(reader: &mut Reader, default: Duration, about: &'static str) -> Duration {
    reader.duration("DRAIN_DELAY", default, Duration::ZERO..=SECOND * 300, about)
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
