use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use domain::{Commander, Verdict, WorkerConfig, processor_fn};
use ports::{Event, Failure, TaskId, TaskStatus};
use tokio::time::Instant;

use crate::world::{World, scripted, submit};

fn commander(world: &World) -> Commander {
    Commander::new(&world.ports)
}

/// Waits until each of these is in the hands of a worker.
async fn in_hand(world: &World, ids: &[TaskId]) {
    let store = &world.memory.store;
    store
        .until(|snapshot| {
            let mut tasks = snapshot.tasks.iter().filter(|task| ids.contains(&task.id));
            tasks.all(|task| task.status == TaskStatus::Processing)
        })
        .await;
}

fn late(world: &World) -> usize {
    world
        .memory
        .observer
        .count(|event| matches!(event, Event::Late { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_waiting_task_that_is_cancelled_never_runs() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a", "b"]).await;
    let first = commander(&world).cancel(ids[0]).await.expect("cancelled");
    let Verdict::Obeyed(task) = &first else {
        panic!("{first:?}");
    };
    assert_eq!(**task, world.memory.task(ids[0]));
    assert_eq!(task.status, TaskStatus::Cancelled);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = commander(&world).cancel(ids[0]).await.expect("cancelled");
    assert_eq!(again, first, "repeating it is answered alike");
    let _worker = world.work(scripted());
    world.memory.store.at_rest(&ids).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.memory.task(ids[0]), **task);
    assert_eq!(world.memory.task(ids[1]).status, TaskStatus::Done);
    assert_eq!(world.memory.log.outputs().len(), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_run_is_told_within_two_seconds_and_frees_its_place() {
    // Whenever the cancellation falls between two looks.
    for delay in [0, 10, 400, 490, 510, 900, 999, 1_001, 5_000] {
        let world = World::new();
        let submitter = world.submitter();
        let ids = submit(&submitter, &["a", "b"]).await;
        let told_at = Arc::new(std::sync::Mutex::new(None));
        let noted = Arc::clone(&told_at);
        let one_place = WorkerConfig {
            concurrency: 1,
            ..WorkerConfig::default()
        };
        let processor = processor_fn(move |job| {
            let noted = Arc::clone(&noted);
            async move {
                if job.payload.as_str() == "a" {
                    job.cancellation.cancelled().await;
                    *noted.lock().expect("not poisoned") = Some(Instant::now());
                    return Err(Failure::Unavailable("someone called it off".into()));
                }
                Ok("B".into())
            }
        });
        let _worker = world.work_with(processor, one_place);
        in_hand(&world, &ids[..1]).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let cancelled_at = Instant::now();
        let verdict = commander(&world).cancel(ids[0]).await.expect("cancelled");
        assert!(matches!(verdict, Verdict::Obeyed(_)), "{verdict:?}");
        world.memory.store.at_rest(&ids[1..]).await;
        let told_at = told_at.lock().expect("not poisoned").expect("told");
        let took = told_at.duration_since(cancelled_at);
        assert!(took <= Duration::from_secs(2), "{took:?} after {delay} ms");
        assert!(
            cancelled_at.elapsed() < Duration::from_secs(3),
            "the place is free"
        );
        world
            .memory
            .store
            .until(|snapshot| snapshot.claims.is_empty())
            .await;
        assert_eq!(world.memory.task(ids[0]).status, TaskStatus::Cancelled);
        assert_eq!(late(&world), 1);
        world.assert_consistent();
    }
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_run_that_does_not_look_is_dropped() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["sleep 30"]).await;
    in_hand(&world, &ids).await;
    let verdict = commander(&world).cancel(ids[0]).await.expect("cancelled");
    let Verdict::Obeyed(task) = verdict else {
        panic!("{verdict:?}");
    };
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    assert_eq!(world.memory.task(ids[0]), *task);
    assert_eq!(late(&world), 1);
    assert!(world.memory.log.outputs().is_empty());
    assert!(world.memory.log.dead_letters().is_empty());
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn against_completion_a_cancellation_wins_or_loses_whole() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["sleep 1"; 100]).await;
    let _worker = world.work(scripted());
    in_hand(&world, &ids).await;
    tokio::time::sleep(Duration::from_millis(998)).await;
    let mut cancelled = 0;
    for (index, id) in ids.iter().enumerate() {
        if index % 25 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match commander(&world).cancel(*id).await.expect("an answer") {
            Verdict::Obeyed(_) => {
                cancelled += 1;
                assert_eq!(world.memory.task(*id).status, TaskStatus::Cancelled);
            }
            verdict => assert_eq!(verdict, Verdict::Refused(TaskStatus::Done)),
        }
    }
    assert!((1..100).contains(&cancelled), "{cancelled}");
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    let totals = world.ports.store.totals().await.expect("totals");
    assert_eq!(totals.done, 100 - cancelled);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn short_runs_are_never_asked_about_and_long_ones_together() {
    let mut world = World::new();
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.store = faulty.clone();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    for _ in 0..20 {
        let ids = submit(&submitter, &["quick"; 50]).await;
        world.memory.store.at_rest(&ids).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(faulty.faults().calls_of("whereabouts"), 0);
    let ids = submit(&submitter, &["sleep 10"; 500]).await;
    world.memory.store.at_rest(&ids).await;
    let asked = faulty.faults().calls_of("whereabouts");
    assert!((9..=11).contains(&asked), "asked {asked} times in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_tried_again_from_the_start() {
    let world = World::new();
    let submitter = world.submitter();
    let broken = Arc::new(AtomicUsize::new(5));
    let left = Arc::clone(&broken);
    let _worker = world.work(processor_fn(move |job| {
        let left = Arc::clone(&left);
        async move {
            if left.load(Ordering::Relaxed) > 0 {
                left.fetch_sub(1, Ordering::Relaxed);
                return Err(Failure::Retryable(format!("attempt {}", job.attempt)));
            }
            Ok(format!("attempt {}", job.attempt))
        }
    }));
    let ids = submit(&submitter, &["a"]).await;
    let refused = commander(&world).retry(ids[0]).await.expect("an answer");
    assert_eq!(refused, Verdict::Refused(TaskStatus::Pending));
    let failed = world.memory.store.at_rest(&ids).await;
    assert_eq!(
        (failed[0].status, failed[0].attempts),
        (TaskStatus::Failed, 5)
    );
    assert_eq!(
        commander(&world).cancel(ids[0]).await.expect("an answer"),
        Verdict::Refused(TaskStatus::Failed)
    );
    let verdict = commander(&world).retry(ids[0]).await.expect("an answer");
    let Verdict::Obeyed(task) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((task.status, task.attempts), (TaskStatus::Pending, 0));
    let done = world.memory.store.at_rest(&ids).await;
    assert_eq!((done[0].status, done[0].attempts), (TaskStatus::Done, 1));
    assert_eq!(done[0].result.as_deref(), Some("attempt 1"));
    let refused = commander(&world).retry(ids[0]).await.expect("an answer");
    assert_eq!(refused, Verdict::Refused(TaskStatus::Done));
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_lost_is_found_obeyed() {
    let mut world = World::new();
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.store = faulty.clone();
    let ids = submit(&world.submitter(), &["a"]).await;
    faulty.faults().next_of("transition", 2, Fault::FailAfter);
    let verdict = commander(&world).cancel(ids[0]).await.expect("cancelled");
    assert!(matches!(verdict, Verdict::Obeyed(_)), "{verdict:?}");
    faulty.faults().always(Fault::FailBefore);
    let started = Instant::now();
    commander(&world)
        .cancel(ids[0])
        .await
        .expect_err("no store");
    assert!(started.elapsed() <= Duration::from_secs(3));
    faulty.faults().heal();
    let unknown = TaskId(ports::IdSource::next(&*world.memory.ids));
    for verdict in [
        commander(&world).cancel(unknown).await,
        commander(&world).retry(unknown).await,
    ] {
        assert_eq!(verdict.expect("an answer"), Verdict::Unknown);
    }
}
