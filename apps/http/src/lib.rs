#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use domain::ports::{ConnectionPool, TaskFeed, TaskSurvey};
use domain::worker::Progress;
use domain::{Catalog, Commander, Events, Ports, Reader, Submitter};
use poem::{Endpoint, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

mod accept;
mod admission;
mod answer;
mod compression;
mod conditional;
mod connection;
mod cross_origin;
mod cursor;
mod docs_page;
mod document;
mod durations;
mod front;
mod guard;
mod health;
mod idempotency;
mod line;
mod listener;
mod listing;
mod meters;
mod problem;
mod protection;
mod pulse;
mod query;
mod rate;
mod record;
mod routes;
mod sampled;
mod schema;
mod serve;
mod submission;
mod tls;
mod trace;
mod traffic;
mod vary;
mod wait;

pub use admission::Admission;
pub use document::document;
pub use meters::Meters;
pub use rate::RateLimit;
pub use tls::Tls;

use front::Front;
use guard::Guarded;
use routes::{Commands, Documentation, Probes, Stream, Tasks};
use trace::Traced;
use traffic::Metered;

/// What the routes answer from.
#[derive(Clone)]
pub struct Api {
    /// Accepts tasks.
    pub submitter: Arc<Submitter>,
    /// Reads tasks and numbers.
    pub reader: Reader,
    /// Finds and explains tasks.
    pub catalog: Catalog,
    /// Cancels and retries tasks.
    pub commander: Commander,
    /// Waits for tasks and follows them.
    pub events: Arc<Events>,
    /// Asked by the health routes; its observer is told when the store fails a request.
    pub ports: Ports,
    /// Shown to Prometheus. To count anything it must be (part of) the observer in `ports`.
    pub meters: Arc<Meters>,
    /// Looked at by health and metrics.
    pub watched: Watched,
}

/// What a process has beside its ports, to be looked at when health or metrics are asked for. What it has not is not shown.
#[derive(Clone, Default)]
pub struct Watched {
    /// Shows how much waits.
    pub survey: Option<Arc<dyn TaskSurvey>>,
    /// Brings the worker of this process its tasks.
    pub feed: Option<Arc<dyn TaskFeed>>,
    /// Tells whether the worker of this process gets on.
    pub progress: Option<Progress>,
    /// Holds the connections to the store.
    pub pool: Option<Arc<dyn ConnectionPool>>,
    /// Knows who waits and listens. What [`Api::new`] makes has that of the API.
    pub events: Option<Arc<Events>>,
}

impl Api {
    /// Reads through the same ports that the health routes ask.
    #[must_use]
    pub fn new(
        ports: &Ports,
        submitter: Arc<Submitter>,
        events: Arc<Events>,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            submitter,
            reader: Reader::new(ports),
            catalog: Catalog::new(ports),
            commander: Commander::new(ports),
            ports: ports.clone(),
            meters,
            watched: Watched {
                events: Some(events.clone()),
                ..Watched::default()
            },
            events,
        }
    }
}

/// Who is let in by the HTTP side, and its limits.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Who is let in. Default: everybody.
    pub admission: Admission,
    /// How often each client may ask: each API key, or without keys each address. Health and documentation are not counted.
    /// Default: as often as it likes.
    pub rate_limit: Option<RateLimit>,
    /// With which certificate TLS is spoken. Default: none, and no TLS.
    pub tls: Option<Tls>,
    /// The other origins whose pages browsers let ask and read, as browsers write them: `https://app.example`; `*` is every one.
    /// Default: none.
    pub allowed_origins: Vec<String>,
    /// The longest body in bytes; a longer one is answered `413`. Default 256 KiB. That of a batch may be 16 times as long.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive; then `408`. Default 30 s.
    pub body_timeout: Duration,
    /// The longest header of a request in bytes, the request line included; a longer one, or one of more than 100 fields, is
    /// answered `431`. At least 8 KiB. Default 32 KiB.
    pub max_header_bytes: usize,
    /// How long the header of a request may take, from its first byte, or for the first request of a connection from when that
    /// was accepted; then the connection is closed. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request, and how long a client may take to take an answer, or what a stream has
    /// to say at a time, before it is closed. Whoever waits for an answer is not idle. Default 75 s.
    pub idle_timeout: Duration,
    /// How many connections may be open. For one more the one that has been unused longest is closed; where all are in use it is
    /// answered once, health as ever and everything else `503`. Default 34,816: all who may wait for a task or follow events, and
    /// 2,048 besides.
    pub max_connections: usize,
    /// How long a health check waits for a dependency. Default 1 s.
    pub ping_timeout: Duration,
    /// For how long after the shutdown signal requests are still accepted, with readiness red and `Connection: close` on every
    /// answer. Default 0.
    pub drain_delay: Duration,
    /// How long requests under way may then take before their connections are cut. Default 20 s.
    pub stop_timeout: Duration,
}

impl HttpConfig {
    /// The longest body of a batch: 16 times that of a single task.
    #[must_use]
    pub const fn max_batch_body_bytes(&self) -> usize {
        self.max_body_bytes.saturating_mul(16)
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            admission: Admission::default(),
            rate_limit: None,
            tls: None,
            allowed_origins: Vec::new(),
            max_body_bytes: 256 * 1024,
            body_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_connections: 34_816,
            ping_timeout: Duration::from_secs(1),
            drain_delay: Duration::ZERO,
            stop_timeout: Duration::from_secs(20),
        }
    }
}

/// Serves the API on `listener` until `shutdown` completes.
///
/// Then readiness turns red, and every answer closes its connection, while requests are served for `drain_delay` more; after that no connection is accepted,
/// requests under way are finished within `stop_timeout`, and the function returns.
///
/// # Errors
/// When the address of the listener cannot be read. Failures of single connections end these only.
pub async fn run(
    api: Api,
    config: HttpConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let probes = Probes::new(
        api.reader.clone(),
        &api.ports,
        api.watched.clone(),
        api.meters.clone(),
        config.ping_timeout,
    );
    let commands = Commands::new(api.commander.clone(), api.ports.clone());
    let events = api.events.clone();
    let meters = api.meters.clone();
    let stream = Stream::new(events.clone(), &config);
    let observer = api.ports.observer.clone();
    let catalog = api.catalog.clone();
    let mut beside = JoinSet::new();
    beside.spawn(async move { catalog.keep_pace().await });
    let tasks = Tasks::new(api, &config);
    let routes = (tasks, commands, stream, probes.clone(), Documentation);
    let traffic = meters.requests.of(&routes);
    let guarded = Guarded::new(routes, &config, meters.clone());
    let front = Front::new(guarded, probes.stopping())
        .over_tls(config.tls.is_some())
        .open_to(&config.allowed_origins);
    let front = Metered::new(Traced::new(front, observer), traffic);
    let shutdown = async move {
        shutdown.await;
        // Who waits or follows is answered at once, and comes again where it goes on.
        events.stop();
    };
    serve(front, probes, meters, config, listener, shutdown).await
}

/// Serves health and metrics alone, for a process that does not serve the API; otherwise as [`run`].
///
/// Readiness shows the worker's feed: the log is down when the feed cannot reach it, and a worker whose group refuses it
/// is not ready, for the reason that the group gives; nor is one that takes nothing while tasks wait.
///
/// # Errors
/// As [`run`].
pub async fn run_probes(
    ports: &Ports,
    watched: Watched,
    meters: Arc<Meters>,
    config: HttpConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let reader = Reader::new(ports);
    let probes = Probes::new(reader, ports, watched, meters.clone(), config.ping_timeout);
    let traffic = meters.requests.of(&probes);
    let guarded = Guarded::new(probes.clone(), &config, meters.clone());
    let front = Front::new(guarded, probes.stopping()).over_tls(config.tls.is_some());
    let front = Metered::new(front, traffic);
    serve(front, probes, meters, config, listener, shutdown).await
}

async fn serve(
    front: impl Endpoint<Output = Response> + 'static,
    probes: Probes,
    meters: Arc<Meters>,
    config: HttpConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let stop = async {
        shutdown.await;
        probes.stop();
        tokio::time::sleep(config.drain_delay).await;
    };
    serve::serve(front, meters, &config, listener, stop).await
}
