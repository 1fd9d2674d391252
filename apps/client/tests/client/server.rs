//! A whole service in memory behind a port of its own: the API and a worker.

use std::sync::Arc;
use std::time::Duration;

use adapters::memory::{Memory, TokioClock};
use domain::ports::Failure;
use domain::{
    Events, EventsConfig, Ports, ReverseText, SubmitConfig, Submitter, Worker, WorkerConfig,
    processor_fn,
};
use http_api::{Api, HttpConfig, Meters};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Serves until it is dropped.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) url: String,
    _running: JoinSet<()>,
}

impl Server {
    /// Starts one. Its worker fails what begins with `fail`, is never done with what begins with `hang`, takes as many
    /// milliseconds as follow `take `, and reverses everything else.
    pub(crate) async fn start() -> Self {
        let memory = Memory::with_clock(TokioClock::default());
        let meters = Arc::new(Meters::new());
        let ports = Ports {
            observer: meters.clone(),
            ..memory.ports()
        };
        let submitter = Arc::new(Submitter::start(&ports, SubmitConfig::default()));
        let events = Events::start(&ports, memory.log.clone(), EventsConfig::default());
        let api = Api::new(&ports, submitter, Arc::new(events), meters);
        let feed = Arc::new(memory.log.feed());
        let processor = processor_fn(|job| async move {
            let payload = job.payload.as_str();
            if payload.starts_with("fail") {
                return Err(Failure::Permanent("it was told to fail".into()));
            }
            if payload.starts_with("hang") {
                std::future::pending::<()>().await;
            }
            if let Some(millis) = payload.strip_prefix("take ") {
                tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
            }
            domain::ports::Processor::process(&ReverseText, job).await
        });
        let worker = Worker::new(ports, feed, Arc::new(processor), WorkerConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let mut running = JoinSet::new();
        running.spawn(async {
            worker.run(std::future::pending()).await;
        });
        running.spawn(async {
            let served =
                http_api::run(api, HttpConfig::default(), listener, std::future::pending());
            served.await.expect("the server serves");
        });
        Self {
            url: format!("http://{address}"),
            _running: running,
        }
    }
}
