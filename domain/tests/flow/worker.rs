use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapters::memory::MemoryFeed;
use domain::worker::Pace;
use domain::{Reader, Reading, WorkerConfig, processor_fn};
use ports::observer::{ClaimedBy, SkipReason};
use ports::{
    DeadLetter, Delivery, Event, Failure, FeedError, Payload, Position, Standing, TaskFeed, TaskId,
    TaskPublisher, TaskStatus, Totals,
};
use tokio::time::Instant;

use crate::world::{World, scripted, submission, submit};

fn claimed_by(world: &World, by: ClaimedBy) -> usize {
    let counted = |event: &Event| match event {
        Event::Claimed { by: how, count } if *how == by => *count,
        _ => 0,
    };
    world.memory.observer.events().iter().map(counted).sum()
}

fn skipped(world: &World, reason: SkipReason) -> usize {
    let counted = |event: &Event| match event {
        Event::Skipped { reason: why, count } if *why == reason => *count,
        _ => 0,
    };
    world.memory.observer.events().iter().map(counted).sum()
}

/// Waits until nothing is in hand and every claim is released.
pub(crate) async fn settled(world: &World, ids: &[TaskId]) {
    world.memory.store.at_rest(ids).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_submitted_task_is_processed_cached_and_announced() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let started = Instant::now();
    let ids = submit(&submitter, &["hello"]).await;
    settled(&world, &ids).await;
    assert!(
        started.elapsed() < Duration::from_millis(250),
        "{:?}",
        started.elapsed()
    );

    let outputs = world.memory.log.outputs();
    assert_eq!(outputs.len(), 1);
    assert_eq!(outputs[0].result, "HELLO");
    assert_eq!(
        outputs[0].processed_at,
        world.memory.task(ids[0]).updated_at
    );
    let reading = Reader::new(&world.ports).read(ids[0]).await.expect("read");
    assert_eq!(reading, Reading::Done(outputs[0].clone()));
    assert_eq!(claimed_by(&world, ClaimedBy::Delivery), 1);
    let task = world.memory.task(ids[0]);
    assert_eq!((task.attempts, task.fence.0, task.rescues), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_task_holds_up_nobody_of_its_batch() {
    let world = World::new();
    let submitter = world.submitter();
    let mut payloads = vec!["ok"; 200];
    payloads[0] = "sleep 50";
    let ids = submit(&submitter, &payloads).await;
    let _worker = world.work(scripted());
    let started = Instant::now();
    world.memory.store.at_rest(&ids[1..]).await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(world.memory.task(ids[0]).status, TaskStatus::Processing);
    world
        .memory
        .log
        .until_announced(|outputs, _| outputs.len() == 199)
        .await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    settled(&world, &ids).await;
    assert!(started.elapsed() >= Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn failures_of_each_kind_end_as_they_should() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(
        &submitter,
        &[
            "retry",
            "permanent",
            "panic",
            "nul",
            "big",
            "sleep 3600",
            "ok",
        ],
    )
    .await;
    settled(&world, &ids).await;
    let check = |index: usize, attempts: u32, error: &str| {
        let task = world.memory.task(ids[index]);
        assert_eq!(task.status, TaskStatus::Failed, "{task:?}");
        assert_eq!(task.attempts, attempts, "{task:?}");
        let kept = task.error.unwrap_or_default();
        assert!(kept.contains(error), "{kept}");
    };
    check(0, 5, "attempt 5");
    check(1, 1, "never");
    check(2, 5, "panicked: boom");
    check(3, 1, "NUL");
    check(4, 1, "262145 bytes");
    check(5, 5, "timed out after 60s");
    let done = world.memory.task(ids[6]);
    assert_eq!((done.status, done.error), (TaskStatus::Done, None));

    let letters = world.memory.log.dead_letters();
    assert_eq!(letters.len(), 6);
    for letter in letters {
        let DeadLetter::Failed {
            id,
            attempts,
            error,
            ..
        } = letter
        else {
            panic!("{letter:?}");
        };
        let task = world.memory.task(id);
        assert_eq!((task.attempts, task.error), (attempts, Some(error)));
    }
    let totals = world.ports.store.totals().await.expect("totals");
    assert_eq!(totals.done, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_spends_no_attempt_and_pauses_the_intake() {
    let world = World::new();
    let submitter = world.submitter();
    let runs = Arc::new(AtomicUsize::new(0));
    let up_at = Instant::now() + Duration::from_secs(120);
    let counted = Arc::clone(&runs);
    let _worker = world.work(processor_fn(move |_| {
        let runs = Arc::clone(&counted);
        async move {
            runs.fetch_add(1, Ordering::Relaxed);
            if Instant::now() < up_at {
                return Err(Failure::Unavailable("down".into()));
            }
            Ok("fine".into())
        }
    }));
    let ids = submit(&submitter, &["a"; 50]).await;
    settled(&world, &ids).await;
    let runs = runs.load(Ordering::Relaxed);
    // One look every 5 s.
    assert!(runs < 50 + 50 + 30, "{runs} runs: the intake did not pause");
    for id in ids {
        let task = world.memory.task(id);
        assert_eq!((task.status, task.attempts), (TaskStatus::Done, 1));
    }
    assert!(
        Instant::now() <= up_at + Duration::from_secs(10),
        "it goes on by itself, {:?} later",
        up_at.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_its_message_a_task_is_claimed_by_age_after_the_grace() {
    let world = World::new();
    let ids = {
        let submitter = world.submitter();
        submit(&submitter, &["a", "b"]).await
    };
    // A feed of its own group would see the messages; this one starts behind them.
    let feed = world.memory.log.feed();
    let lost = ports::TaskFeed::receive(&feed, 10).await.expect("received");
    let upto: Vec<_> = lost.iter().map(|delivery| delivery.position).collect();
    ports::TaskFeed::acknowledge(&feed, &upto)
        .await
        .expect("acknowledged");
    drop(feed);
    let started = Instant::now();
    let _worker = world.work(scripted());
    settled(&world, &ids).await;
    assert_eq!(claimed_by(&world, ClaimedBy::Age), 2);
    let waited = started.elapsed();
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_soon_after_its_time_and_never_before() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let mut later = submission("a");
    let due = world.ports.clock.now().after(Duration::from_secs(30));
    later.run_at = Some(due);
    let accepted = submitter.submit(vec![later]).await.expect("accepted");
    let tasks = world.memory.store.at_rest(&[accepted[0].id]).await;
    let late = tasks[0].updated_at.micros_since(due);
    assert!((0..1_000_000).contains(&late), "{late} µs late");
}

/// A feed that has always more, as under a steady load.
pub(crate) struct Busy(pub(crate) MemoryFeed);

#[async_trait::async_trait]
impl TaskFeed for Busy {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        self.0.receive(limit).await
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        self.0.acknowledge(upto).await
    }

    fn standing(&self) -> Standing {
        Standing::Behind
    }
}

/// What they know of each other's place in the log is up to two beats old.
#[tokio::test(start_paused = true)]
async fn a_task_runs_soon_after_its_time_among_busy_workers_too() {
    let world = World::new();
    let submitter = world.submitter();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let feed = Arc::new(Busy(world.memory.log.feed()));
        workers.push(world.work_on(feed, scripted(), WorkerConfig::default()));
        // They beat in turn.
        tokio::time::sleep(Duration::from_millis(330)).await;
    }
    let mut dues = Vec::new();
    // The load goes on until the last of them has run.
    for tick in 0..1_300_u32 {
        let mut submissions = vec![submission("ok"); 3];
        let has_time = tick < 1_000 && tick % 10 == 0;
        if has_time {
            let due = world.ports.clock.now().after(Duration::from_millis(5_003));
            submissions[0].run_at = Some(due);
        }
        let accepted = submitter.submit(submissions).await.expect("accepted");
        if has_time {
            dues.push(accepted[0].id);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tasks = world.memory.store.at_rest(&dues).await;
    let mut late: Vec<_> = tasks
        .iter()
        .map(|task| task.updated_at.micros_since(task.created_at) - 5_003_000)
        .collect();
    late.sort_unstable();
    assert_eq!(late.len(), 100);
    assert!(late[0] >= 0 && late[99] < 1_000_000, "{late:?} µs late");
}

/// Its place in the log stands still while all its places are taken; among busy workers nothing waits for it.
#[tokio::test(start_paused = true)]
async fn a_worker_that_is_full_holds_nobody_up_among_busy_ones() {
    let world = World::new();
    let submitter = world.submitter();
    let busy = || Arc::new(Busy(world.memory.log.feed()));
    let small = WorkerConfig {
        concurrency: 2,
        in_flight: 2,
        ..WorkerConfig::default()
    };
    let full = world.work_on(busy(), scripted(), small);
    submit(&submitter, &["sleep 600"; 2]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let _others = [(); 2].map(|()| world.work_on(busy(), scripted(), WorkerConfig::default()));
    let mut tasks = Vec::new();
    for tick in 0..2_000_u32 {
        let mut submissions = vec![submission("ok"); 3];
        if tick % 10 == 0 {
            let due = world.ports.clock.now().after(Duration::from_secs(5));
            submissions[0].run_at = Some(due);
        }
        let accepted = submitter.submit(submissions).await.expect("accepted");
        // What comes late has no time to.
        if tick < 1_500 {
            tasks.extend(accepted.into_iter().map(|accepted| accepted.id));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tasks = world.memory.store.at_rest(&tasks).await;
    for task in &tasks {
        let waited = task.updated_at.micros_since(task.created_at);
        assert!(waited < 6_500_000, "{task:?} waited {waited} µs");
    }
    assert_eq!(full.progress.pace(None), Pace::Full);
}

#[tokio::test(start_paused = true)]
async fn records_that_claim_nothing_are_counted_and_stop_nothing() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a"]).await;
    let message = |id| ports::TaskMessage {
        id,
        payload: Payload::default(),
        priority: ports::Priority::default(),
        trace: None,
    };
    let unknown = TaskId(ports::IdSource::next(&*world.memory.ids));
    world
        .memory
        .log
        .put_unreadable("not JSON", None, Some(b"{".to_vec()))
        .expect("there is room");
    for outcome in world
        .memory
        .log
        .publish(&[message(unknown), message(ids[0])])
        .await
    {
        outcome.expect("published");
    }
    let _worker = world.work(scripted());
    settled(&world, &ids).await;
    for outcome in world.memory.log.publish(&[message(ids[0])]).await {
        outcome.expect("published");
    }
    let after = submit(&submitter, &["b"]).await;
    settled(&world, &after).await;
    assert_eq!(skipped(&world, SkipReason::Unreadable), 1);
    assert_eq!(skipped(&world, SkipReason::Unknown), 1);
    assert_eq!(skipped(&world, SkipReason::Repeated), 1);
    assert_eq!(skipped(&world, SkipReason::AtRest), 1);
    let letters = world.memory.log.dead_letters();
    assert!(
        matches!(letters.as_slice(), [DeadLetter::Unreadable { .. }]),
        "{letters:?}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.memory.log.unacknowledged(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_row_written_by_another_program_is_processed_from_its_message() {
    let world = World::new();
    let id = TaskId(ports::IdSource::next(&*world.memory.ids));
    world
        .memory
        .store
        .plant(&[id], &Payload::new("theirs").expect("no NUL"));
    let _worker = world.work(scripted());
    let message = ports::TaskMessage {
        id,
        payload: Payload::new("ours is in the table").expect("no NUL"),
        priority: ports::Priority::default(),
        trace: None,
    };
    for outcome in world.memory.log.publish(&[message]).await {
        outcome.expect("published");
    }
    settled(&world, &[id]).await;
    assert_eq!(world.memory.task(id).result.as_deref(), Some("THEIRS"));
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_the_work_and_nothing_is_done_twice() {
    let world = World::new();
    let submitter = world.submitter();
    let runs = Arc::new(AtomicUsize::new(0));
    let function = || {
        let runs = Arc::clone(&runs);
        processor_fn(move |_| {
            let runs = Arc::clone(&runs);
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok("x".into())
            }
        })
    };
    let few = WorkerConfig {
        concurrency: 10,
        ..WorkerConfig::default()
    };
    let _one = world.work_with(function(), few.clone());
    let _two = world.work_with(function(), few);
    let started = Instant::now();
    let ids = submit(&submitter, &["a"; 200]).await;
    settled(&world, &ids).await;
    assert_eq!(runs.load(Ordering::Relaxed), 200);
    // 200 tasks of 100 ms on 2 × 10 places take a second; alone one worker would need two.
    assert!(
        started.elapsed() < Duration::from_millis(1_700),
        "{:?}",
        started.elapsed()
    );
    let totals = world.ports.store.totals().await.expect("totals");
    assert_eq!(totals.done, 200);
    assert_ne!(totals, Totals::default());
}
