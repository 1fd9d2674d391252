//! The suite of [`ResultCache`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cache::ResultCache;
use crate::task::{TaskId, TaskResult};
use crate::time::Timestamp;

use super::fresh_id;

/// A fresh, empty cache with room for 2,000 small results.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The cache.
    fn cache(&self) -> Arc<dyn ResultCache>;

    /// The time to live the cache was made with. A cache whose clock cannot be advanced is made with a short one
    /// (a second or two: long enough for the other cases).
    fn time_to_live(&self) -> Duration;

    /// Lets at least this much time pass on the cache's clock: a manual clock is advanced, otherwise this sleeps.
    async fn pass(&self, time: Duration);

    /// Puts something unreadable under the key of this id. A cache that cannot hold anything unreadable does nothing.
    async fn plant_rubbish(&self, id: TaskId);

    /// Gives back what the subject holds. Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`ResultCache`].
///
/// `cache_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! cache_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(cache, $module, [$(#[$attribute])*], $subject, [
            get_finds_what_was_put,
            get_answers_in_input_order_with_none_for_what_it_does_not_hold,
            get_takes_rubbish_for_nothing,
            put_overwrites_what_stood_there,
            put_may_be_repeated,
            put_takes_a_thousand_results_at_once,
            results_expire_after_the_time_to_live,
            empty_slices_are_answered,
            puts_and_gets_at_once_agree,
            ping_answers,
        ]);
    };
}

fn result(text: &str) -> TaskResult {
    TaskResult {
        id: fresh_id(),
        result: text.into(),
        // Whole milliseconds: that is what the contract's cached value keeps.
        processed_at: Timestamp::from_micros(1_704_067_202_345_000),
    }
}

fn results(count: usize) -> Vec<TaskResult> {
    std::iter::repeat_with(|| result("!dlrow olleH (len=12)"))
        .take(count)
        .collect()
}

async fn found(subject: &dyn Subject, ids: &[TaskId]) -> Vec<Option<TaskResult>> {
    let found = subject.cache().get(ids).await.expect("get");
    assert_eq!(found.len(), ids.len());
    found
}

async fn kept(subject: &dyn Subject, results: &[TaskResult]) {
    subject.cache().put(results).await.expect("put");
}

/// What was put is found, exactly.
pub async fn get_finds_what_was_put(subject: &dyn Subject) {
    let long = "ж".repeat(100_000);
    let texts = [
        "!dlrow olleH (len=12)",
        "",
        "é👍🏽 (len=2) \"quoted\" \u{1} \n\\",
        long.as_str(),
    ];
    for text in texts {
        let one = result(text);
        kept(subject, std::slice::from_ref(&one)).await;
        assert_eq!(found(subject, &[one.id]).await, [Some(one)]);
    }
}

/// One answer per id, in input order: `None` for what it does not hold. The same id may be asked for twice.
pub async fn get_answers_in_input_order_with_none_for_what_it_does_not_hold(subject: &dyn Subject) {
    let all = results(3);
    kept(subject, &all).await;
    let asked = [
        all[2].id,
        fresh_id(),
        all[0].id,
        all[2].id,
        fresh_id(),
        all[1].id,
    ];
    let expected = [
        Some(&all[2]),
        None,
        Some(&all[0]),
        Some(&all[2]),
        None,
        Some(&all[1]),
    ];
    assert_eq!(
        found(subject, &asked).await,
        expected.map(Option::<&TaskResult>::cloned)
    );
}

/// `None` for what it holds but cannot read; its neighbours are found, and a put repairs it.
pub async fn get_takes_rubbish_for_nothing(subject: &dyn Subject) {
    let all = results(3);
    kept(subject, &all).await;
    let bad = result("repaired");
    subject.plant_rubbish(bad.id).await;
    let asked = [all[0].id, bad.id, all[1].id];
    assert_eq!(
        found(subject, &asked).await,
        [Some(all[0].clone()), None, Some(all[1].clone())]
    );
    kept(subject, std::slice::from_ref(&bad)).await;
    assert_eq!(found(subject, &[bad.id]).await, [Some(bad)]);
}

/// Overwrites what stood there. (Results are final, so this only ever replaces rubbish; the last put counts all the same.)
pub async fn put_overwrites_what_stood_there(subject: &dyn Subject) {
    let one = result("one");
    let other = TaskResult {
        result: "other".into(),
        ..one.clone()
    };
    kept(subject, &[one]).await;
    kept(subject, std::slice::from_ref(&other)).await;
    assert_eq!(found(subject, &[other.id]).await, [Some(other)]);
}

/// Repeating a put, in one slice or in two, changes nothing.
pub async fn put_may_be_repeated(subject: &dyn Subject) {
    let one = result("one");
    kept(subject, &[one.clone(), one.clone()]).await;
    kept(subject, std::slice::from_ref(&one)).await;
    assert_eq!(found(subject, &[one.id]).await, [Some(one)]);
}

/// A slice of 1,000 is one call.
pub async fn put_takes_a_thousand_results_at_once(subject: &dyn Subject) {
    let all = results(1_000);
    kept(subject, &all).await;
    let ids: Vec<TaskId> = all.iter().map(|result| result.id).collect();
    assert_eq!(
        found(subject, &ids).await,
        all.into_iter().map(Some).collect::<Vec<_>>()
    );
}

/// Keeps results for the adapter's time to live, at most.
pub async fn results_expire_after_the_time_to_live(subject: &dyn Subject) {
    let (early, late) = (result("early"), result("late"));
    let half = subject.time_to_live() / 2;
    kept(subject, std::slice::from_ref(&early)).await;
    subject.pass(half + Duration::from_millis(20)).await;
    kept(subject, std::slice::from_ref(&late)).await;
    subject.pass(half).await;
    // Half a life later the second one still lives.
    assert_eq!(
        found(subject, &[early.id, late.id]).await,
        [None, Some(late.clone())]
    );
    subject.pass(half + Duration::from_millis(20)).await;
    assert_eq!(found(subject, &[early.id, late.id]).await, [None, None]);
}

/// An empty slice is answered with nothing.
pub async fn empty_slices_are_answered(subject: &dyn Subject) {
    assert!(found(subject, &[]).await.is_empty());
    kept(subject, &[]).await;
}

/// Whoever asks at the same time finds the result or nothing, never another's and never a part.
pub async fn puts_and_gets_at_once_agree(subject: &dyn Subject) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let cache = subject.cache();
        running.spawn(async move {
            let one = result(&fresh_id().to_string());
            let (put, got) = tokio::join!(
                async { cache.put(std::slice::from_ref(&one)).await },
                async { cache.get(&[one.id]).await }
            );
            put.expect("put");
            let early = got.expect("get").pop().flatten();
            assert!(early.is_none_or(|early| early == one));
            assert_eq!(cache.get(&[one.id]).await.expect("get"), [Some(one)]);
        });
    }
    running.join_all().await;
}

/// The cache answers.
pub async fn ping_answers(subject: &dyn Subject) {
    subject.cache().ping().await.expect("ping");
}
