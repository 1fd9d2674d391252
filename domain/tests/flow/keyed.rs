use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use domain::{KEPT_FOR, Submission, SubmitConfig, SubmitError, Submitter};
use ports::{Event, Fingerprint, RequestKey, TaskFeed};

use crate::submit::{panicky, panics};
use crate::world::{World, all, submission, submit};

pub(crate) fn key(name: &str) -> RequestKey {
    RequestKey::new("anonymous", "submitTask", name).expect("a valid key")
}

pub(crate) fn ask(payload: &str) -> (Fingerprint, Vec<Submission>) {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(payload.bytes()) {
        *byte = value;
    }
    (Fingerprint(bytes), vec![submission(payload)])
}

fn submitted(world: &World) -> usize {
    let counted = |event: &Event| match event {
        Event::Submitted { count } => *count,
        _ => 0,
    };
    world.memory.observer.events().iter().map(counted).sum()
}

#[tokio::test(start_paused = true)]
async fn the_same_key_has_the_same_answer_from_every_server() {
    let world = World::new();
    let servers = [world.submitter(), world.submitter()];
    let asked = (0..100).map(|number| {
        let (fingerprint, submissions) = ask("a");
        servers[number % 2].submit_keyed(key("k"), fingerprint, submissions)
    });
    let answers = all(asked).await;
    let first = answers[0].as_ref().expect("accepted");
    assert_eq!(first.len(), 1);
    for answer in &answers {
        assert_eq!(answer.as_ref().expect("accepted"), first);
    }
    assert_eq!(world.memory.store.snapshot().tasks.len(), 1);
    assert_eq!(submitted(&world), 1);
    let deliveries = world.memory.log.feed().receive(10).await;
    assert_eq!(deliveries.expect("delivered").len(), 1, "published once");
    tokio::time::sleep(Duration::from_secs(60)).await;
    // A server that started since, as after a crash.
    let (fingerprint, submissions) = ask("a");
    let late = world.submitter();
    let again = late.submit_keyed(key("k"), fingerprint, submissions);
    assert_eq!(again.await.expect("accepted"), *first);
    let (fingerprint, submissions) = ask("b");
    let other = servers[0]
        .submit_keyed(key("k"), fingerprint, submissions)
        .await;
    assert!(matches!(other, Err(SubmitError::KeyReused)), "{other:?}");
    assert_eq!(world.memory.store.snapshot().tasks.len(), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_stores_nothing_twice() {
    let mut world = World::new();
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.store = faulty.clone();
    let submitter = world.submitter();
    faulty.faults().next_of("insert_keyed", 2, Fault::FailAfter);
    let (fingerprint, submissions) = ask("a");
    let first = submitter
        .submit_keyed(key("k"), fingerprint, submissions)
        .await;
    let first = first.expect("the repeat finds it stored");
    assert_eq!(submitted(&world), 1);
    let deliveries = world.memory.log.feed().receive(10).await;
    assert_eq!(deliveries.expect("delivered").len(), 1);
    // Not even the client was told: the store never answers within its patience.
    faulty.faults().always(Fault::FailAfter);
    let (fingerprint, submissions) = ask("b");
    let lost = submitter
        .submit_keyed(key("l"), fingerprint, submissions)
        .await;
    assert!(matches!(lost, Err(SubmitError::Unavailable(_))), "{lost:?}");
    faulty.faults().heal();
    let (fingerprint, submissions) = ask("b");
    let found = submitter
        .submit_keyed(key("l"), fingerprint, submissions)
        .await;
    let found = found.expect("accepted");
    assert_ne!(found, first);
    assert_eq!(world.memory.store.snapshot().tasks.len(), 2);
    assert_eq!(world.memory.task(found[0].id).payload.as_str(), "b");
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_finds_its_task_under_the_key() {
    let world = World::new();
    let submitter = world.submitter();
    let (fingerprint, submissions) = ask("a");
    {
        let request = submitter.submit_keyed(key("k"), fingerprint, submissions.clone());
        tokio::pin!(request);
        // One poll hands the request over; then the client is gone.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(request.as_mut().poll(context).is_ready())
        });
        assert!(!polled.await);
    }
    let stored = world
        .memory
        .store
        .until(|snapshot| snapshot.tasks.len() == 1)
        .await;
    let again = submitter.submit_keyed(key("k"), fingerprint, submissions);
    assert_eq!(again.await.expect("accepted")[0].id, stored.tasks[0].id);
}

#[tokio::test(start_paused = true)]
async fn keyed_requests_neither_wait_for_the_rest_nor_hold_it_up() {
    let mut world = World::new();
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.store = faulty.clone();
    let submitter = world.submitter();
    let started = tokio::time::Instant::now();
    faulty
        .faults()
        .next_of("insert_keyed", 1, Fault::Delay(Duration::from_secs(2)));
    let (fingerprint, submissions) = ask("a");
    let keyed = async {
        let answer = submitter.submit_keyed(key("k"), fingerprint, submissions);
        answer.await.expect("accepted");
        started.elapsed()
    };
    let plain = async {
        submit(&submitter, &["b"]).await;
        started.elapsed()
    };
    let (keyed, plain) = tokio::join!(keyed, plain);
    assert!(keyed >= Duration::from_secs(2));
    assert!(plain < Duration::from_millis(100), "{plain:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_fails_alone_and_its_key_stays_free() {
    let world = World::new();
    let config = SubmitConfig {
        max_attempts: 5,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let requests = (0..5).map(|number| {
        let (fingerprint, mut submissions) = ask(&number.to_string());
        if number == 3 {
            submissions[0].max_attempts = Some(u32::MAX);
        }
        submitter.submit_keyed(key(&number.to_string()), fingerprint, submissions)
    });
    let answers = all(requests).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(
        matches!(refused.as_slice(), [Err(SubmitError::Rejected(_))]),
        "{refused:?}"
    );
    let (fingerprint, submissions) = ask("3");
    let again = submitter.submit_keyed(key("3"), fingerprint, submissions);
    again.await.expect("the key is free");
    assert_eq!(world.memory.store.snapshot().tasks.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_kept_for_a_day_and_forgotten_soon_after() {
    let world = World::new();
    let submitter = world.submitter();
    let ask_again = async || {
        let (fingerprint, submissions) = ask("a");
        let answer = submitter.submit_keyed(key("k"), fingerprint, submissions);
        answer.await.expect("accepted")
    };
    let first = ask_again().await;
    tokio::time::sleep(KEPT_FOR).await;
    assert_eq!(ask_again().await, first);
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert_ne!(ask_again().await, first);
    assert_eq!(world.memory.store.snapshot().tasks.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_commit_that_panics_takes_nobody_else_with_it() {
    let world = World::new();
    let submitter = panicky(&world);
    let (fingerprint, submissions) = ask("a");
    let first = submitter.submit_keyed(key("k"), fingerprint, submissions);
    first.await.expect("it panics when the answer is given");
    for name in ["k", "l"] {
        let (fingerprint, submissions) = ask("a");
        let next = submitter.submit_keyed(key(name), fingerprint, submissions);
        next.await.expect("the lane goes on");
    }
    assert_eq!(panics(&world), [("insert_keyed", "boom".to_owned())]);
    assert_eq!(world.memory.store.snapshot().tasks.len(), 2);
}
