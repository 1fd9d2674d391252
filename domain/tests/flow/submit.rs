use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use domain::{Ports, SubmitConfig, SubmitError, Submitter};
use ports::{Event, Observer, TaskFeed, TaskStatus, Timestamp};

use crate::world::{World, all, submission, submit};

#[tokio::test(start_paused = true)]
async fn an_accepted_task_is_stored_queued_and_published() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a"]).await;
    let task = world.memory.task(ids[0]);
    assert_eq!(task.status, TaskStatus::Pending);
    assert_eq!(task.max_attempts, 5);
    let deliveries = world
        .memory
        .log
        .feed()
        .receive(10)
        .await
        .expect("delivered");
    assert_eq!(deliveries.len(), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn concurrent_submissions_share_commits_and_each_gets_its_own_answer() {
    let world = World::new();
    let submitter = world.submitter();
    let submitted = (0..1_000).map(|n| {
        let submitter = &submitter;
        async move {
            let payload = n.to_string();
            (submit(submitter, &[&payload]).await[0], payload)
        }
    });
    let answers = all(submitted).await;
    for (id, payload) in answers {
        assert_eq!(world.memory.task(id).payload.as_str(), payload);
    }
    let commits = world
        .memory
        .observer
        .count(|event| matches!(event, Event::Submitted { .. }));
    assert!(commits < 20, "{commits} commits for 1,000 submissions");
}

/// How long a submission waits that comes while this many are being committed, when a commit takes 10 ms and 1 has passed.
async fn wait_behind(at_once: usize) -> Duration {
    let world = World::new();
    let store = Faulty::new(world.memory.store.clone());
    store
        .faults()
        .always(Fault::Delay(Duration::from_millis(10)));
    let ports = Ports {
        store: Arc::new(store),
        ..world.ports.clone()
    };
    let submitter = Submitter::start(&ports, SubmitConfig::default());
    let first = submitter.submit(vec![submission("a"); at_once]);
    let later = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let started = tokio::time::Instant::now();
        let one = submitter.submit(vec![submission("b")]).await;
        (one, started.elapsed())
    };
    let (first, (later, waited)) = tokio::join!(first, later);
    assert!(first.is_ok() && later.is_ok());
    waited
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_neighbours_commit_until_many_share_it() {
    assert_eq!(wait_behind(1).await, Duration::from_millis(10));
    assert_eq!(wait_behind(3).await, Duration::from_millis(10));
    assert_eq!(wait_behind(4).await, Duration::from_millis(9 + 10));
}

/// Panics when the first commit is through.
struct Panicky {
    has_panicked: AtomicBool,
    told: Arc<dyn Observer>,
}

impl Observer for Panicky {
    fn observe(&self, event: &Event) {
        let is_first = matches!(event, Event::Submitted { .. })
            && !self.has_panicked.swap(true, Ordering::Relaxed);
        assert!(!is_first, "boom");
        self.told.observe(event);
    }
}

/// A submitter whose first commit panics.
pub(crate) fn panicky(world: &World) -> Submitter {
    let observer = Panicky {
        has_panicked: AtomicBool::new(false),
        told: Arc::clone(&world.ports.observer),
    };
    let ports = Ports {
        observer: Arc::new(observer),
        ..world.ports.clone()
    };
    Submitter::start(&ports, SubmitConfig::default())
}

/// What was being done when something panicked.
pub(crate) fn panics(world: &World) -> Vec<(&'static str, String)> {
    let panicked = |event| match event {
        Event::Panicked { doing, error } => Some((doing, error)),
        _ => None,
    };
    let events = world.memory.observer.events();
    events.into_iter().filter_map(panicked).collect()
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_panics_takes_nobody_else_with_it() {
    let world = World::new();
    let submitter = panicky(&world);
    let first = submitter.submit(vec![submission("a")]).await;
    assert!(matches!(first, Err(SubmitError::Stopped)), "{first:?}");
    for _ in 0..10 {
        let next = submitter.submit(vec![submission("b")]).await;
        assert!(next.is_ok(), "{next:?}");
    }
    assert_eq!(panics(&world), [("insert", "boom".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn several_submissions_are_stored_together_or_not_at_all() {
    let world = World::new();
    let config = SubmitConfig {
        max_payload_bytes: 3,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let refused = submitter
        .submit(vec![submission("abc"), submission("abcd")])
        .await;
    let Err(SubmitError::Invalid {
        index: 1,
        field: "payload",
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(
        submitter.submit(Vec::new()).await.expect("nothing to do"),
        Vec::new()
    );
    assert!(world.memory.store.snapshot().tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn zero_attempts_are_refused_by_name() {
    let world = World::new();
    let mut wrong = submission("a");
    wrong.max_attempts = Some(0);
    let refused = world.submitter().submit(vec![wrong]).await;
    assert!(matches!(
        refused,
        Err(SubmitError::Invalid {
            field: "maxAttempts",
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_cancels_nothing() {
    let world = World::new();
    let submitter = world.submitter();
    {
        let request = submitter.submit(vec![submission("a")]);
        tokio::pin!(request);
        // One poll hands the request over; then the client is gone.
        let polled =
            std::future::poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready()));
        assert!(!polled.await);
    }
    let snapshot = world
        .memory
        .store
        .until(|snapshot| snapshot.tasks.len() == 1)
        .await;
    assert_eq!(snapshot.contradictions(), Vec::<String>::new());
    assert_eq!(
        world
            .memory
            .log
            .feed()
            .receive(10)
            .await
            .expect("delivered")
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_is_refused_at_once() {
    let world = World::new();
    let config = SubmitConfig {
        queue: 1,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let first = submitter.submit(vec![submission("a")]);
    let second = submitter.submit(vec![submission("b")]);
    let (first, second) = tokio::join!(biased; first, second);
    assert!(first.is_ok());
    assert!(matches!(second, Err(SubmitError::Overloaded)));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted_in_tasks_and_large_requests_share_no_commit() {
    let world = World::new();
    let config = SubmitConfig {
        queue: 10,
        batch: 4,
        writers: 1,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let request = |count| submitter.submit(vec![submission("a"); count]);
    let answers = all([3, 3, 3, 1, 1].map(request).into_iter()).await;
    let refused = |answer: &&Result<_, _>| matches!(answer, Err(SubmitError::Overloaded));
    assert_eq!(answers.iter().filter(refused).count(), 1);
    let committed = world.memory.observer.events().into_iter();
    let sizes: Vec<usize> = committed
        .filter_map(|event| match event {
            Event::Submitted { count } => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [3, 3, 4], "no commit is larger than a batch");
    let whole = request(20).await.expect("larger than the queue, and alone");
    assert_eq!(whole.len(), 20);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_task_for_later_is_stored_without_a_message() {
    let world = World::new();
    let submitter = world.submitter();
    let mut later = submission("a");
    later.run_at = Some(Timestamp::from_micros(i64::MAX / 2));
    let accepted = submitter.submit(vec![later]).await.expect("accepted");
    let feed = world.memory.log.feed();
    let nothing = tokio::time::timeout(Duration::from_secs(60), feed.receive(1)).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(
        world.memory.task(accepted[0].id).status,
        TaskStatus::Pending
    );
    world.assert_consistent();
}
