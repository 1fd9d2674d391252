//! The API on PostgreSQL, Kafka and Redis.

use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::listen::listen;
use bootstrap::settings::ServerSettings;
use bootstrap::shutdown::last_share;
use bootstrap::wiring::distributed;
use bootstrap::wiring::observers::Observers;
use bootstrap::{Failure, Program, Start, keys, launch, tls};
use domain::{Events, EventsConfig, Submitter};
use http_api::{Admission, Api, HttpConfig, Meters, RateLimit, Tls};
use mimalloc::MiMalloc;

/// Requests that wait for Redis or PostgreSQL are freed in another order than they came, often by another thread, and the
/// system's allocator takes a tenth of the time of such a read (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "The API of Task Processor on PostgreSQL, Kafka and Redis. Run any number of them.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, serve)
}

async fn serve(start: Start<ServerSettings>) -> Result<(), Failure> {
    let Start {
        settings, shutdown, ..
    } = start;
    let meters = Arc::new(Meters::new());
    let observers = Observers::start(&settings.traces, meters.clone())?;
    let observer = observers.observer.clone();
    let wired = distributed::server(&settings, observer, &shutdown).await?;
    let submitter = Arc::new(Submitter::start(&wired.ports, settings.submit));
    let crowd = EventsConfig {
        waiters: settings.http.max_waiters,
        streams: settings.http.max_streams,
        ring: settings.http.event_ring,
        ..EventsConfig::default()
    };
    let events = Events::start(&wired.ports, wired.events.clone(), crowd);
    let mut api = Api::new(&wired.ports, submitter.clone(), Arc::new(events), meters);
    api.watched.survey = Some(wired.survey());
    api.watched.pool = Some(wired.pool());
    let last_share = last_share(settings.drain_deadline);
    let config = HttpConfig {
        admission: Admission::following(keys::follow(&settings.http.access)?),
        rate_limit: settings.http.rate.map(|rate| RateLimit {
            per_second: rate.per_second,
            burst: rate.burst,
        }),
        tls: tls::follow(settings.http.tls.as_ref())?.map(Tls::following),
        allowed_origins: settings.http.allowed_origins.clone(),
        max_body_bytes: settings.http.max_body,
        body_timeout: settings.http.body_timeout,
        max_header_bytes: settings.http.max_header,
        header_timeout: settings.http.header_timeout,
        idle_timeout: settings.http.idle_timeout,
        max_connections: settings.http.max_connections,
        drain_delay: settings.http.drain_delay,
        stop_timeout: settings.drain_deadline.saturating_sub(last_share),
        ..HttpConfig::default()
    };
    let listener = listen(&settings.http).await?;
    let served = http_api::run(api, config, listener, shutdown.requested()).await;
    submitter.stop(last_share).await;
    wired.close().await;
    observers.close().await;
    Ok(served?)
}
