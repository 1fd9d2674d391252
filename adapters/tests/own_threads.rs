//! A processing function that computes for long holds up nobody but itself.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Beginning, Cancellation, Failure, Fence, Job, Payload, Priority, Processor, TaskId};
use task_processor_adapters::own_threads::OwnThreads;

fn job(payload: &str) -> Job {
    Job {
        id: TaskId(uuid::Uuid::now_v7()),
        payload: Payload::new(payload).expect("a payload"),
        priority: Priority::default(),
        attempt: 1,
        fence: Fence(1),
        cancellation: Cancellation::default(),
        beginning: Beginning::default(),
        trace: None,
    }
}

/// Holds its thread until the test lets it go.
struct Holding {
    until: Mutex<Receiver<()>>,
}

impl Holding {
    fn new() -> (Sender<()>, Self) {
        let (go, until) = channel();
        let until = Mutex::new(until);
        (go, Self { until })
    }
}

#[async_trait]
impl Processor for Holding {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        let until = self.until.lock().expect("no panic while it was held");
        until.recv().expect("the test lets it go");
        Ok(job.payload.as_str().to_uppercase())
    }

    fn timeout(&self, _job: &Job) -> Option<Duration> {
        Some(Duration::from_secs(7))
    }
}

// On the one thread of this runtime the function would hold up the very line that lets it go.
#[tokio::test(flavor = "current_thread")]
async fn a_function_that_holds_its_thread_does_not_hold_up_the_runtime() {
    let (go, holding) = Holding::new();
    let processor = OwnThreads::start(holding, 1).expect("threads");
    let (outcome, ()) = tokio::join!(processor.process(job("heavy")), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        go.send(()).expect("it waits");
    });
    assert_eq!(outcome, Ok("HEAVY".into()));
}

#[tokio::test]
async fn the_function_says_its_own_deadline() {
    let (_go, holding) = Holding::new();
    let processor = OwnThreads::start(holding, 1).expect("threads");
    assert_eq!(processor.timeout(&job("any")), Some(Duration::from_secs(7)));
}

/// Answers with the name of its thread.
struct Named;

#[async_trait]
impl Processor for Named {
    async fn process(&self, _job: Job) -> Result<String, Failure> {
        Ok(std::thread::current().name().unwrap_or_default().to_owned())
    }
}

#[tokio::test]
async fn a_payload_that_is_not_worth_a_handover_stays_where_it_is() {
    let processor = OwnThreads::start(Named, 1).expect("threads").from_bytes(5);
    let here = Named.process(job("here")).await;
    assert_eq!(processor.process(job("four")).await, here);
    assert_eq!(
        processor.process(job("fives")).await,
        Ok("processor".into())
    );
}

#[tokio::test]
async fn a_run_begins_when_it_has_a_thread() {
    let (go, holding) = Holding::new();
    let processor = OwnThreads::start(holding, 1).expect("threads");
    let (first, second) = (job("first"), job("second"));
    let (first_begins, second_begins) = (first.beginning.clone(), second.beginning.clone());
    let mut first = processor.process(first);
    assert!(is_pending(&mut first).await);
    first_begins.begun().await;
    let mut second = processor.process(second);
    assert!(is_pending(&mut second).await);
    assert!(is_pending(&mut Box::pin(second_begins.begun())).await);
    go.send(()).expect("it waits");
    assert_eq!(first.await, Ok("FIRST".into()));
    second_begins.begun().await;
    go.send(()).expect("it waits");
    assert_eq!(second.await, Ok("SECOND".into()));
}

struct Panicking;

#[async_trait]
impl Processor for Panicking {
    async fn process(&self, _job: Job) -> Result<String, Failure> {
        panic!("no such case")
    }
}

#[tokio::test]
async fn a_panic_comes_to_the_worker_as_it_is() {
    let processor = OwnThreads::start(Panicking, 1).expect("threads");
    let panic = tokio::spawn(async move { processor.process(job("any")).await })
        .await
        .expect_err("a panic")
        .into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"no such case"));
}

/// Says when it begins, never ends, and says when it is given up.
struct Endless(Sender<&'static str>);

struct Farewell(Sender<&'static str>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send("given up");
    }
}

#[async_trait]
impl Processor for Endless {
    async fn process(&self, _job: Job) -> Result<String, Failure> {
        let _farewell = Farewell(self.0.clone());
        let _ = self.0.send("begun");
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_run_that_is_given_up_ends() {
    let (said, hear) = channel();
    let processor = OwnThreads::start(Endless(said), 1).expect("threads");
    {
        let mut run = processor.process(job("any"));
        assert!(is_pending(&mut run).await, "it is begun");
        assert_eq!(hear.recv(), Ok("begun"));
    }
    assert_eq!(hear.recv(), Ok("given up"));
}

/// Whether the future still goes on after it was looked at once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

#[tokio::test]
async fn dropping_it_waits_for_no_function() {
    let (go, holding) = Holding::new();
    let processor = OwnThreads::start(holding, 1).expect("threads");
    {
        let mut run = processor.process(job("any"));
        assert!(is_pending(&mut run).await);
    }
    drop(processor);
    // By now it may hold a thread, or never have begun.
    let _ = go.send(());
}
