//! More than the service can carry: who comes then is answered in time, and what waits stays bounded.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use adapters::faulty::Fault;
use domain::{SubmitConfig, SubmitError, Submitter};
use tokio::time::{Instant, sleep};

use crate::keyed::{ask, key};
use crate::world::{World, all, submission};

const PATIENCE: Duration = Duration::from_secs(3);

/// The longest pause before the store is asked again while a client waits.
const BACKOFF: Duration = Duration::from_millis(500);

/// A store that answers nothing at all, and one that says at once that it is down.
const OUTAGES: [Fault; 2] = [Fault::Delay(Duration::from_secs(3_600)), Fault::FailBefore];

fn stored_nothing(world: &World) -> bool {
    world.memory.store.snapshot().tasks.is_empty()
}

/// Thousands submit at once while the store fails, each in its way; all are told in time that nothing was stored.
async fn nobody_waits_longer<T: fmt::Debug>(
    submit: impl AsyncFn(&Submitter, usize) -> Result<T, SubmitError>,
) {
    for outage in OUTAGES {
        let mut world = World::new();
        let store = world.break_store();
        store.always(outage);
        let submitter = world.submitter();
        let arrived = Instant::now();
        let (submitter, submit) = (&submitter, &submit);
        let answers = all((0..4_000).map(|number| async move {
            let answer = submit(submitter, number).await;
            (answer, arrived.elapsed())
        }));
        for (answer, waited) in answers.await {
            assert!(
                matches!(
                    answer,
                    Err(SubmitError::Unavailable(_) | SubmitError::Overloaded)
                ),
                "{answer:?}"
            );
            assert!(waited <= PATIENCE + BACKOFF, "{outage:?}: {waited:?}");
        }
        assert!(stored_nothing(&world));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_patience_however_many_wait() {
    nobody_waits_longer(async |submitter, _| submitter.submit(vec![submission("a")]).await).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_with_a_key_waits_longer_than_the_patience_however_many_wait() {
    nobody_waits_longer(async |submitter, number| {
        let (fingerprint, submissions) = ask("a");
        let key = key(&number.to_string());
        submitter.submit_keyed(key, fingerprint, submissions).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_waited_in_vain_for_a_turn_costs_the_store_nothing() {
    let mut world = World::new();
    let store = world.break_store();
    store.always(Fault::Delay(Duration::from_secs(3_600)));
    let submitter = world.submitter();
    let answers = all((0..4_000).map(|_| submitter.submit(vec![submission("a")]))).await;
    let (asked, turned_away): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| matches!(answer, Err(SubmitError::Unavailable(_))));
    assert_eq!(asked.len(), SubmitConfig::default().batch);
    assert!(
        turned_away
            .iter()
            .all(|answer| matches!(answer, Err(SubmitError::Overloaded)))
    );
    assert_eq!(store.calls_of("insert"), 1);
}

/// Of three in a line, whose commits take 2.5 s each, the second comes after 1 s and the third, who shares its commit, after 2.4 s.
async fn three_in_line(submit: impl AsyncFn(&'static str, usize) -> bool) {
    let arrived = Instant::now();
    let one = async |after: u64, name: &'static str, count: usize| {
        sleep(Duration::from_millis(after)).await;
        let is_stored = submit(name, count).await;
        (is_stored, arrived.elapsed().as_millis())
    };
    let (first, second, third) = tokio::join!(
        one(0, "first", 4),
        one(1_000, "second", 1),
        one(2_400, "third", 1)
    );
    assert_eq!(first, (true, 2_500));
    assert_eq!(second, (false, 4_000), "when its patience ended");
    assert_eq!(third, (true, 5_000), "the commit went on");
}

#[tokio::test(start_paused = true)]
async fn each_of_a_commit_is_answered_in_its_own_time() {
    let mut world = World::new();
    let slow = Fault::Delay(Duration::from_millis(2_500));
    world.break_store().always(slow);
    let submitter = world.submitter();
    three_in_line(async |name, count| {
        let submissions = vec![submission(name); count];
        submitter.submit(submissions).await.is_ok()
    })
    .await;
    three_in_line(async |name, count| {
        let (fingerprint, submissions) = ask(name);
        let submissions = vec![submissions[0].clone(); count];
        let answer = submitter.submit_keyed(key(name), fingerprint, submissions);
        answer.await.is_ok()
    })
    .await;
}

fn unmessaged(world: &World) -> usize {
    let snapshot = world.memory.store.snapshot();
    snapshot.queue.iter().filter(|row| !row.messaged).count()
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_keep_up_slows_no_commit() {
    const COMMITS: usize = 500;
    let mut world = World::new();
    let store = world.break_store();
    store.rule(|method| match method {
        "insert" | "insert_keyed" => Some(Fault::Delay(Duration::from_millis(2))),
        "mark_unmessaged" => Some(Fault::Delay(Duration::from_secs(1))),
        _ => None,
    });
    world
        .break_log()
        .always(Fault::Delay(Duration::from_millis(200)));
    let config = SubmitConfig {
        publish_queue: 64,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    for keyed in [false, true] {
        let marked_before = store.calls_of("mark_unmessaged");
        let began = Instant::now();
        for number in 0..COMMITS {
            let (fingerprint, submissions) = ask("a");
            let answer = if keyed {
                let key = key(&number.to_string());
                submitter.submit_keyed(key, fingerprint, submissions).await
            } else {
                submitter.submit(submissions).await
            };
            answer.expect("stored");
        }
        assert_eq!(began.elapsed(), Duration::from_millis(2) * COMMITS as u32);
        sleep(Duration::from_secs(30)).await;
        let marked = store.calls_of("mark_unmessaged") - marked_before;
        assert!((1..COMMITS).contains(&marked), "{marked} statements");
    }
    let published = world.memory.log.unacknowledged();
    assert_eq!(
        published + unmessaged(&world),
        2 * COMMITS,
        "each is one or the other"
    );
    assert!(published >= 2 * 64, "{published} were published");
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_log_is_counted_in_messages() {
    let mut world = World::new();
    let log = world.break_log();
    log.always(Fault::Delay(Duration::from_secs(3_600)));
    let config = SubmitConfig {
        publish_queue: 10,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    for (count, left_out) in [(4, 0), (4, 0), (4, 4), (2, 4), (1, 5)] {
        let stored = submitter.submit(vec![submission("a"); count]).await;
        stored.expect("stored");
        sleep(Duration::from_millis(100)).await;
        assert_eq!(unmessaged(&world), left_out);
    }
    assert_eq!(log.calls_of("publish"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_commit_is_published_together_or_marked_in_one_statement() {
    for (publish_queue, calls) in [(128, (1, 0)), (127, (0, 1))] {
        let mut world = World::new();
        let (store, log) = (world.break_store(), world.break_log());
        let config = SubmitConfig {
            publish_queue,
            ..SubmitConfig::default()
        };
        let submitter = Submitter::start(&world.ports, config);
        let requests = (0..128).map(|number: usize| {
            let (fingerprint, submissions) = ask("a");
            submitter.submit_keyed(key(&number.to_string()), fingerprint, submissions)
        });
        for answer in all(requests).await {
            answer.expect("stored");
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(store.calls_of("insert_keyed"), 1);
        let made = (log.calls_of("publish"), store.calls_of("mark_unmessaged"));
        assert_eq!(made, calls, "with {publish_queue} places");
    }
}

/// A submitter that takes 100 bytes, before a store that takes a second.
fn small(world: &mut World) -> Submitter {
    world
        .break_store()
        .always(Fault::Delay(Duration::from_secs(1)));
    let config = SubmitConfig {
        max_bytes: 100,
        ..SubmitConfig::default()
    };
    Submitter::start(&world.ports, config)
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_the_bytes_that_may_be_under_way_is_refused_at_once() {
    let mut world = World::new();
    let submitter = small(&mut world);
    let payload = &"x".repeat(60);
    let plain = || async { submitter.submit(vec![submission(payload)]).await };
    let keyed = async |name: &str| {
        let (fingerprint, submissions) = (ask("a").0, vec![submission(payload)]);
        let answer = submitter.submit_keyed(key(name), fingerprint, submissions);
        answer.await
    };
    let fits = || async { submitter.submit(vec![submission("short")]).await };
    for round in ["k", "l"] {
        let began = Instant::now();
        let refused = async {
            let answers = (plain().await, keyed("m").await);
            (answers, began.elapsed())
        };
        let (first, (refused, waited), fits) = if round == "k" {
            tokio::join!(biased; plain(), refused, fits())
        } else {
            tokio::join!(biased; keyed(round), refused, fits())
        };
        assert!(first.is_ok() && fits.is_ok(), "{first:?} {fits:?}");
        assert!(
            matches!(
                refused,
                (Err(SubmitError::Overloaded), Err(SubmitError::Overloaded))
            ),
            "{refused:?}"
        );
        assert_eq!(waited, Duration::ZERO);
        // What its messages took is given back when they are sent.
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.memory.store.snapshot().tasks.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_gives_no_room_back_before_the_commit() {
    let mut world = World::new();
    let submitter = small(&mut world);
    let payload = "x".repeat(60);
    {
        let mut request = pin!(submitter.submit(vec![submission(&payload)]));
        // One poll hands the request over; then the client is gone.
        let polled = poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready()));
        assert!(!polled.await);
    }
    let refused = submitter.submit(vec![submission(&payload)]).await;
    assert!(
        matches!(refused, Err(SubmitError::Overloaded)),
        "{refused:?}"
    );
    world
        .memory
        .store
        .until(|snapshot| snapshot.tasks.len() == 1)
        .await;
    sleep(Duration::from_millis(100)).await;
    let taken = submitter.submit(vec![submission(&payload)]).await;
    taken.expect("there is room again");
}

/// Whether so many bytes are free.
fn is_free(submitter: &Submitter, bytes: usize) -> bool {
    submitter.arrival().grow(bytes, true)
}

#[tokio::test(start_paused = true)]
async fn room_for_what_arrives_is_taken_and_given_back() {
    let mut world = World::new();
    let submitter = small(&mut world);
    let mut arrival = submitter.arrival();
    assert!(arrival.grow(50, false));
    let mut second = submitter.arrival();
    assert!(!second.grow(1, false), "half is for what is complete");
    drop(second);
    assert!(arrival.grow(20, true) && !is_free(&submitter, 31));
    let refused = submitter.submit(vec![submission(&"x".repeat(31))]).await;
    assert!(
        matches!(refused, Err(SubmitError::Overloaded)),
        "{refused:?}"
    );
    let body = vec![submission(&"x".repeat(60))];
    let arrived = submitter.submit_in(arrival.complete(), body);
    arrived.await.expect("it has its room already");
    sleep(Duration::from_millis(100)).await;
    assert!(is_free(&submitter, 100));
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_leave_most_of_the_bytes_to_submissions() {
    let mut world = World::new();
    world
        .break_log()
        .always(Fault::Delay(Duration::from_secs(3_600)));
    let config = SubmitConfig {
        max_bytes: 128 << 10,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let payload = "x".repeat(10 << 10);
    for _ in 0..20 {
        let mut arrival = submitter.arrival();
        assert!(arrival.grow(80 << 10, true), "with what else its body held");
        let stored = submitter.submit_in(arrival.complete(), vec![submission(&payload)]);
        stored.await.expect("there is room");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(unmessaged(&world), 17, "three messages are a quarter");
    assert!(is_free(&submitter, 98 << 10));
    assert!(!is_free(&submitter, 99 << 10), "three tasks are in memory");
}
