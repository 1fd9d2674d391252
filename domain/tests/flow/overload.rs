//! More than the service can carry: who comes then is answered in time, and what waits stays bounded.

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

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_patience_however_many_wait() {
    for outage in OUTAGES {
        let mut world = World::new();
        let store = world.break_store();
        store.always(outage);
        let submitter = world.submitter();
        let arrived = Instant::now();
        let answers = all((0..4_000).map(|_| async {
            let answer = submitter.submit(vec![submission("a")]).await;
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
async fn nobody_with_a_key_waits_longer_than_the_patience_however_many_wait() {
    for outage in OUTAGES {
        let mut world = World::new();
        let store = world.break_store();
        store.always(outage);
        let submitter = world.submitter();
        let arrived = Instant::now();
        let submitter = &submitter;
        let answers = all((0..4_000).map(|number: usize| async move {
            let (fingerprint, submissions) = ask("a");
            let key = key(&number.to_string());
            let answer = submitter.submit_keyed(key, fingerprint, submissions).await;
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
