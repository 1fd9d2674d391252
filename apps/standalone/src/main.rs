//! API and worker in one process on a SQLite file.

use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::listen::listen;
use bootstrap::settings::StandaloneSettings;
use bootstrap::shutdown::last_share;
use bootstrap::wiring::observers::Observers;
use bootstrap::wiring::{embedded, processing};
use bootstrap::{Failure, Program, Start, keys, launch, say, telemetry, tls};
use domain::{Events, EventsConfig, Submitter, Worker};
use http_api::{Admission, Api, HttpConfig, Meters, RateLimit, Tls};

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "Task Processor in one process: API and worker on a SQLite file. Needs no other service.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, serve)
}

async fn serve(start: Start<StandaloneSettings>) -> Result<(), Failure> {
    let Start {
        settings, shutdown, ..
    } = start;
    // Before the database: a program whose port is taken leaves no file behind.
    let listener = listen(&settings.http).await?;
    let meters = Arc::new(Meters::new());
    let observers = Observers::start(&settings.traces, meters.clone())?;
    let observer = observers.observer.clone();
    let processor = processing::processor(&settings.processing, observer.clone())?;
    let wired = embedded::open(&settings, observer).await?;
    let submitter = Arc::new(Submitter::start(&wired.ports, settings.submit));
    let crowd = EventsConfig {
        waiters: settings.http.max_waiters,
        streams: settings.http.max_streams,
        ring: settings.http.event_ring,
        ..EventsConfig::default()
    };
    let events = Events::start(&wired.ports, wired.events.clone(), crowd);
    let mut api = Api::new(&wired.ports, submitter.clone(), Arc::new(events), meters);
    let worker = Worker::new(
        wired.ports.clone(),
        wired.feed.clone(),
        processor,
        settings.work.clone(),
    );
    api.watched.survey = Some(wired.survey());
    api.watched.progress = Some(worker.progress());
    let last_share = last_share(settings.work.drain_deadline);
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
        stop_timeout: settings.work.drain_deadline.saturating_sub(last_share),
        ..HttpConfig::default()
    };
    let address = listener.local_addr()?;
    let scheme = settings.http.scheme();
    say(&format!(
        "API         {scheme}://{address}\nSwagger UI  {scheme}://{address}/docs\n"
    ));
    // The API stops taking first, and the worker may still finish what came last.
    let (worked, served) = tokio::join!(
        worker.run(shutdown.requested_since(settings.http.drain_delay)),
        http_api::run(api, config, listener, shutdown.requested()),
    );
    submitter.stop(last_share).await;
    wired.close().await;
    observers.close().await;
    served?;
    telemetry::stopped(worked);
    Ok(())
}
