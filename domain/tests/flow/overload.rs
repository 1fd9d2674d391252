//! More than the service can carry: who comes then is answered in time, and what waits stays bounded.

use std::time::Duration;

use adapters::faulty::Fault;
use domain::{SubmitConfig, SubmitError};
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
