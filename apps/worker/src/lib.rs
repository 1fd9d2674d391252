//! The worker on PostgreSQL, Kafka and Redis, around any processing function.

use std::sync::Arc;

use bootstrap::listen::listen_somewhere;
use bootstrap::settings::WorkerSettings;
use bootstrap::wiring::distributed;
use bootstrap::wiring::observers::Observers;
use bootstrap::{Failure, Start, keys, telemetry, tls};
use domain::Worker;
use domain::ports::{Observer, Processor};
use http_api::{Admission, HttpConfig, Meters, Tls, Watched, run_probes};

/// Works until it is told to stop: what a `main` gives to [`bootstrap::launch`]. The processing function is made of the
/// settings and of who is told what happens.
///
/// # Errors
/// When the processing function cannot be made, the database is not there in time, the Kafka client cannot talk to the broker, or a part of the worker ends before
/// it was told to.
pub async fn work(
    start: Start<WorkerSettings>,
    processor: impl FnOnce(&WorkerSettings, Arc<dyn Observer>) -> Result<Arc<dyn Processor>, Failure>,
) -> Result<(), Failure> {
    let Start {
        settings, shutdown, ..
    } = start;
    let meters = Arc::new(Meters::new());
    let observers = Observers::start(&settings.traces, meters.clone())?;
    let observer = observers.observer.clone();
    let processor = processor(&settings, observer.clone())?;
    let wired = distributed::worker(&settings, observer, &shutdown).await?;
    let (ports, feed) = (wired.ports.clone(), wired.feed.clone());
    let worker = Worker::new(ports, feed.clone(), processor, settings.work.clone());
    let mut heartbeat = wired.heartbeat(&worker)?;
    let watched = Watched {
        survey: Some(wired.survey()),
        feed: Some(feed),
        progress: Some(worker.progress()),
        pool: Some(wired.pool()),
        events: None,
    };
    let drain_delay = settings.http.drain_delay;
    let config = HttpConfig {
        admission: Admission::following(keys::follow(&settings.http.access)?),
        tls: tls::follow(settings.http.tls.as_ref())?.map(Tls::following),
        max_body_bytes: settings.http.max_body,
        body_timeout: settings.http.body_timeout,
        max_header_bytes: settings.http.max_header,
        header_timeout: settings.http.header_timeout,
        idle_timeout: settings.http.idle_timeout,
        max_connections: settings.http.max_connections,
        // Health and metrics are served, with readiness red, until the worker has stopped, which is sooner.
        drain_delay: (drain_delay + settings.work.drain_deadline) * 2,
        ..HttpConfig::default()
    };
    let listener = listen_somewhere(&settings.http).await?;
    let stopped = tokio::select! {
        stopped = worker.run(shutdown.requested_since(drain_delay)) => stopped,
        served = run_probes(&wired.ports, watched, meters, config, listener, shutdown.requested()) => {
            served?;
            return Err("the HTTP side ended before the worker".into());
        }
        () = heartbeat.ended() => return Err("the thread of the heartbeat died".into()),
    };
    telemetry::stopped(stopped);
    wired.close().await;
    observers.close().await;
    Ok(())
}
