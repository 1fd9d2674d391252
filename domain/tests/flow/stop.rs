use std::sync::Arc;
use std::time::Duration;

use domain::WorkerConfig;
use ports::TaskStatus;
use tokio::time::Instant;

use crate::worker::Busy;
use crate::world::{World, scripted, submission, submit};

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_hand() {
    let world = World::new();
    let submitter = world.submitter();
    let worker = world.work(scripted());
    let ids = submit(&submitter, &["sleep 10", "sleep 20"]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let stopped = worker.stop().await;
    assert_eq!((stopped.handed_back, stopped.clean), (0, true));
    for id in ids {
        assert_eq!(world.memory.task(id).status, TaskStatus::Done);
    }
    assert_eq!(world.memory.log.outputs().len(), 2);
    assert!(
        world
            .ports
            .registry
            .workers()
            .await
            .expect("workers")
            .is_empty()
    );
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_is_handed_back_without_spending_an_attempt() {
    let world = World::new();
    let submitter = world.submitter();
    let config = WorkerConfig {
        task_timeout: Duration::ZERO,
        ..WorkerConfig::default()
    };
    let worker = world.work_with(scripted(), config);
    let ids = submit(&submitter, &["sleep 10", "sleep 3000"]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let asked = Instant::now();
    let stopped = worker.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(21),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!((stopped.handed_back, stopped.clean), (1, true));
    assert_eq!(world.memory.task(ids[0]).status, TaskStatus::Done);
    let task = world.memory.task(ids[1]);
    assert_eq!(
        (task.status, task.attempts, task.rescues),
        (TaskStatus::Pending, 0, 0)
    );
    assert!(world.memory.store.snapshot().claims.is_empty());
    world.assert_consistent();
}

/// What the log still has for it would wait as long as it drains: others claim by age only what the log has passed for
/// every living worker.
#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_holds_nobody_up() {
    let world = World::new();
    let submitter = world.submitter();
    let feed = Arc::new(Busy(world.memory.log.feed()));
    let worker = world.work_on(feed, scripted(), WorkerConfig::default());
    submit(&submitter, &["sleep 10"]).await;
    let position = async || {
        let workers = world.ports.registry.workers().await.expect("workers");
        workers.first().and_then(|worker| worker.position)
    };
    tokio::time::sleep(Duration::from_millis(1_400)).await;
    submit(&submitter, &["sleep 10"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(position().await.is_some(), "it is behind");
    let drain = async {
        let stopped = worker.stop().await;
        assert_eq!((stopped.handed_back, stopped.clean), (0, true));
    };
    let look = async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let workers = world.ports.registry.workers().await.expect("workers");
        assert_eq!(workers.len(), 1, "it drains");
        assert_eq!(position().await, None);
    };
    tokio::join!(drain, look);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_stops_at_once() {
    let world = World::new();
    let worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    let stopped = worker.stop().await;
    assert_eq!((stopped.handed_back, stopped.clean), (0, true));
    assert!(
        asked.elapsed() < Duration::from_millis(100),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_submitter_that_stops_commits_and_publishes_what_it_accepted() {
    let world = World::new();
    let submitter = world.submitter();
    let accepted = submitter.submit(vec![submission("a")]);
    let stopped = submitter.stop(Duration::from_secs(5));
    let (accepted, ()) = tokio::join!(biased; accepted, stopped);
    assert!(accepted.is_ok());
    assert_eq!(
        world.memory.log.unacknowledged(),
        1,
        "its message is in the log"
    );
    let late = submitter.submit(vec![submission("b")]).await;
    assert!(
        matches!(late, Err(domain::SubmitError::Stopped)),
        "{late:?}"
    );
}
