//! Functions that compute for long, on threads of their own, and payloads that are large.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::own_threads::OwnThreads;
use async_trait::async_trait;
use domain::worker::Pace;
use domain::{RetryPolicy, WorkerConfig, processor_fn};
use ports::{Event, Failure, Job, Processor, RunOutcome, TaskStatus};

use crate::worker::settled;
use crate::world::{World, scripted, submit};

/// What is shorter runs where the worker does.
const LONG: usize = 1_024;

/// With a long payload it holds its thread, as a function does that computes, until the test opens the gate. With another it
/// waits for a moment, and nobody waits for it.
struct Heavy {
    gate: Mutex<Receiver<()>>,
    begun: tokio::sync::mpsc::UnboundedSender<()>,
}

#[async_trait]
impl Processor for Heavy {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        if job.payload.as_str().len() < LONG {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok("light".into());
        }
        let _ = self.begun.send(());
        // The gate that is open, or gone with its test, holds nobody.
        let gate = self.gate.lock().expect("not poisoned");
        match gate.recv_timeout(Duration::from_secs(60)) {
            Ok(()) => Ok("heavy".into()),
            Err(_) => Err(Failure::Permanent("the gate stayed shut".into())),
        }
    }
}

struct Gate {
    open: Sender<()>,
    begun: tokio::sync::mpsc::UnboundedReceiver<()>,
}

fn heavy() -> (Gate, Heavy) {
    let ((open, gate), (said, begun)) = (channel(), tokio::sync::mpsc::unbounded_channel());
    let gate = Mutex::new(gate);
    (Gate { open, begun }, Heavy { gate, begun: said })
}

/// On the one thread of this runtime a function that holds it would hold up the test itself.
#[tokio::test(flavor = "current_thread")]
async fn functions_that_compute_hold_up_neither_claims_nor_settling() {
    let world = World::new();
    let submitter = world.submitter();
    let (mut gate, heavy) = heavy();
    let threads = OwnThreads::start(heavy, 2).expect("threads");
    let worker = world.work(threads.from_bytes(LONG));
    let long = "x".repeat(LONG);
    let heavy = submit(&submitter, &[long.as_str(); 20]).await;
    gate.begun.recv().await.expect("one is begun");
    for _ in 0..3 {
        let light = submit(&submitter, &["light"; 50]).await;
        for task in world.memory.store.at_rest(&light).await {
            assert_eq!(task.status, TaskStatus::Done);
        }
    }
    let pace = worker.progress.pace(None);
    assert_eq!(pace, Pace::Idle, "it is ready for more");
    for _ in &heavy {
        gate.open.send(()).expect("they wait");
    }
    for task in world.memory.store.at_rest(&heavy).await {
        assert_eq!((task.status, task.attempts), (TaskStatus::Done, 1));
    }
    worker.stop().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_task_that_waits_for_a_thread_spends_no_attempt() {
    let world = World::new();
    let submitter = world.submitter();
    let (mut gate, heavy) = heavy();
    let threads = OwnThreads::start(heavy, 1).expect("threads");
    let soon = Duration::from_millis(1);
    let config = WorkerConfig {
        task_timeout: Duration::from_millis(500),
        retry: RetryPolicy {
            base: soon,
            cap: soon,
        },
        ..WorkerConfig::default()
    };
    let worker = world.work_with(threads.from_bytes(LONG), config);
    let long = "x".repeat(LONG);
    let first = submit(&submitter, &[long.as_str()]).await;
    gate.begun.recv().await.expect("it is begun");
    let waiting = submit(&submitter, &[long.as_str()]).await;
    let is_in_hand = |id| world.memory.task(id).status == TaskStatus::Processing;
    world.memory.store.until(|_| is_in_hand(waiting[0])).await;
    // Of these each takes a tenth of the deadline.
    for _ in 0..20 {
        let light = submit(&submitter, &["light"]).await;
        world.memory.store.at_rest(&light).await;
    }
    let timeouts = |id| {
        world.memory.observer.count(|event| {
            matches!(event, Event::Ran { id: of, outcome: RunOutcome::Timeout, .. } if *of == id)
        })
    };
    assert_eq!(timeouts(first[0]), 1, "its run began");
    assert_eq!(timeouts(waiting[0]), 0, "its run did not");
    // One for the run that was given up, which holds its thread all the same.
    for _ in 0..3 {
        gate.open.send(()).expect("they wait");
    }
    let ends = [first[0], waiting[0]];
    let tasks = world.memory.store.at_rest(&ends).await;
    let ends = tasks.iter().map(|task| (task.status, task.attempts));
    let expected = [(TaskStatus::Done, 2), (TaskStatus::Done, 1)];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    worker.stop().await;
}

/// Never has a place for a run.
struct Full;

#[async_trait]
impl Processor for Full {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        let _waiting = job.beginning.postpone();
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_place_may_run_elsewhere() {
    let world = World::new();
    let ids = submit(&world.submitter(), &["a", "b", "c"]).await;
    let full = world.work(Full);
    let given_back = |event: &Event| {
        let unavailable = RunOutcome::Unavailable;
        matches!(event, Event::Ran { outcome, .. } if *outcome == unavailable)
    };
    let started = tokio::time::Instant::now();
    while world.memory.observer.count(given_back) < ids.len() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        started.elapsed() >= WorkerConfig::default().task_timeout,
        "not before its deadline"
    );
    full.crash().await;
    let other = world.work(scripted());
    for task in world.memory.store.at_rest(&ids).await {
        assert_eq!((task.status, task.attempts), (TaskStatus::Done, 1));
    }
    other.stop().await;
}

/// However many places there are, no more is claimed than there are bytes for, with results as long as payloads.
#[tokio::test(start_paused = true)]
async fn the_bytes_in_hand_are_bounded() {
    const LARGE: usize = 64 * 1024;
    let world = World::new();
    let submitter = world.submitter();
    let large = "x".repeat(LARGE);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let function = processor_fn(move |_| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&seen));
        async move {
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(String::new())
        }
    });
    let config = WorkerConfig {
        in_flight_bytes: LARGE * 16,
        ..WorkerConfig::default()
    };
    let ids = submit(&submitter, &[large.as_str(); 100]).await;
    let _worker = world.work_with(function, config);
    settled(&world, &ids).await;
    assert_eq!(most.load(Ordering::Relaxed), 8);
}
