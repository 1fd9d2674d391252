//! The server under test.

use std::net::SocketAddr;
use std::sync::Arc;

use adapters::memory::Memory;
use domain::{Events, EventsConfig, Ports, SubmitConfig, Submitter};
use ports::{
    Event, Fence, Next, Observer, Spent, TaskId, TaskStatus, TaskStore, Transition, WriteOutcome,
};
use task_processor_http::{Api, HttpConfig, Meters, run};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) memory: Memory,
    pub(crate) submitter: Arc<Submitter>,
    pub(crate) address: SocketAddr,
    pub(crate) events: Arc<Events>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
}

/// Tells two observers.
struct Both(Arc<Meters>, Arc<dyn Observer>);

impl Observer for Both {
    fn observe(&self, event: &Event) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

impl Server {
    /// A server with everything in memory and default limits.
    pub(crate) async fn start() -> Self {
        Self::start_with(HttpConfig::default(), |_| {}).await
    }

    /// A server with these limits and some ports replaced.
    pub(crate) async fn start_with(config: HttpConfig, replace: impl FnOnce(&mut Ports)) -> Self {
        Self::start_limited(config, EventsConfig::default(), replace).await
    }

    /// The same with these limits of waiting and following.
    pub(crate) async fn start_limited(
        config: HttpConfig,
        events: EventsConfig,
        replace: impl FnOnce(&mut Ports),
    ) -> Self {
        let submit = SubmitConfig {
            patience: std::time::Duration::from_millis(500),
            ..SubmitConfig::default()
        };
        Self::start_whole(config, submit, events, replace).await
    }

    /// The same with default limits but for these of submitting.
    pub(crate) async fn start_submitting(
        submit: SubmitConfig,
        replace: impl FnOnce(&mut Ports),
    ) -> Self {
        let (config, events) = (HttpConfig::default(), EventsConfig::default());
        Self::start_whole(config, submit, events, replace).await
    }

    async fn start_whole(
        config: HttpConfig,
        submit: SubmitConfig,
        events: EventsConfig,
        replace: impl FnOnce(&mut Ports),
    ) -> Self {
        let memory = Memory::new();
        let meters = Arc::new(Meters::new());
        let mut ports = Ports {
            observer: Arc::new(Both(meters.clone(), memory.observer.clone())),
            ..memory.ports()
        };
        replace(&mut ports);
        let submitter = Arc::new(Submitter::start(&ports, submit));
        let events = Arc::new(Events::start(&ports, memory.log.clone(), events));
        let api = Api::new(&ports, submitter.clone(), events.clone(), meters);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(run(api, config, listener, async move {
            // A test that drops its server stops it too.
            let _ = stopped.await;
        }));
        Self {
            memory,
            submitter,
            address,
            events,
            stop,
            running,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// The answer to these bytes, sent on a connection of their own.
    pub(crate) async fn answer(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.receive().await
    }

    /// The answer to a GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_as(path, "*/*").await
    }

    /// The answer to a GET with this `Accept`.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.answer(format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\n\r\n"
        ))
        .await
    }

    /// The answer to a POST of this body to `/tasks` as JSON.
    pub(crate) async fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.answer(post("application/json", body)).await
    }

    /// The answer to a POST of this body to `/tasks/batch` as JSON.
    pub(crate) async fn post_batch(&self, body: impl AsRef<[u8]>) -> Answer {
        let whole = String::from_utf8(post("application/json", body)).expect("text");
        self.answer(whole.replacen("/tasks", "/tasks/batch", 1))
            .await
    }

    /// The answer to a POST without a body.
    pub(crate) async fn post_to(&self, path: &str) -> Answer {
        self.answer(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n"
        ))
        .await
    }

    /// Tells the server to stop.
    pub(crate) fn stop(self) -> Stopping {
        // A server that already ended has failed, which the join will show.
        let _ = self.stop.send(());
        Stopping {
            memory: self.memory,
            running: self.running,
        }
    }
}

/// A server that was told to stop.
pub(crate) struct Stopping {
    pub(crate) memory: Memory,
    running: JoinHandle<std::io::Result<()>>,
}

impl Stopping {
    /// Waits until it has.
    pub(crate) async fn stopped(self) {
        self.running
            .await
            .expect("the server does not panic")
            .expect("the server does not fail");
    }
}

/// A POST of this body to `/tasks`.
pub(crate) fn post(content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!(
        "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Brings a waiting task to rest behind the server's back.
pub(crate) async fn bring_to_rest(server: &Server, id: TaskId, to: Next) {
    let outcome = server
        .memory
        .store
        .transition(&[Transition {
            id,
            fence: Fence(0),
            from: TaskStatus::Pending,
            to,
            spent: Spent::Attempt,
        }])
        .await
        .expect("the store in memory answers");
    assert_eq!(outcome[0].write, WriteOutcome::Applied);
}
