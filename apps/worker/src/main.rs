//! The worker on PostgreSQL, Kafka and Redis.

use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::listen::listen_somewhere;
use bootstrap::settings::WorkerSettings;
use bootstrap::wiring::distributed;
use bootstrap::{Failure, Program, Start, launch, telemetry};
use domain::{ReverseText, Worker};
use http_api::{HttpConfig, Meters, run_probes};

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "The worker of Task Processor on PostgreSQL, Kafka and Redis. Run any number of them.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, work)
}

async fn work(start: Start<WorkerSettings>) -> Result<(), Failure> {
    let Start {
        settings, shutdown, ..
    } = start;
    let meters = Arc::new(Meters::new());
    let observer = telemetry::observed_by(meters.clone());
    let wired = distributed::worker(&settings, observer, &shutdown).await?;
    let (ports, feed) = (wired.ports.clone(), wired.feed.clone());
    let worker = Worker::new(
        ports,
        feed.clone(),
        Arc::new(ReverseText),
        settings.work.clone(),
    );
    let mut heartbeat = wired.heartbeat(&worker)?;
    let config = HttpConfig {
        max_body_bytes: settings.http.max_body,
        body_timeout: settings.http.body_timeout,
        idle_timeout: settings.http.idle_timeout,
        max_connections: settings.http.max_connections,
        // Health and metrics are served, with readiness red, for as long as the worker drains.
        drain_delay: settings.work.drain_deadline * 2
            + http_api::HttpConfig::default().stop_timeout,
        ..HttpConfig::default()
    };
    let listener = listen_somewhere(&settings.http).await?;
    let stopped = tokio::select! {
        stopped = worker.run(shutdown.requested()) => stopped,
        served = run_probes(&wired.ports, feed, meters, config, listener, shutdown.requested()) => {
            served?;
            return Err("the HTTP side ended before the worker".into());
        }
        () = heartbeat.ended() => return Err("the thread of the heartbeat died".into()),
    };
    telemetry::stopped(stopped);
    wired.close().await;
    Ok(())
}
