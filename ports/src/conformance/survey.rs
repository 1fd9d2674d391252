//! The suite of [`TaskSurvey`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::store::{inserted, living_worker, ticket_of};
use super::{ids_of, new_task, new_tasks};
use crate::survey::{COUNTED, Survey, TaskSurvey};
use crate::time::Timestamp;

/// A subject of the store's suite whose books can be looked at.
#[async_trait]
pub trait Subject: super::store::Subject {
    /// The survey of the same store.
    fn survey(&self) -> Arc<dyn TaskSurvey>;

    /// As that of the store's suite.
    async fn close(&self) {
        super::store::Subject::close(self).await;
    }
}

/// Expands to a module of one test per promise of [`TaskSurvey`].
///
/// `survey_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance).
#[macro_export]
macro_rules! survey_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(survey, $module, [$(#[$attribute])*], $subject, [
            survey_of_an_empty_store_shows_nothing,
            survey_tells_what_is_due_from_what_waits_for_its_time,
            survey_shows_claims_and_not_what_they_hold,
            survey_counts_no_more_than_it_must,
        ]);
    };
}

/// Longer than any step between two calls of a case, shorter than a test would like to wait.
const MOMENT: Duration = Duration::from_millis(20);

async fn survey(subject: &dyn Subject) -> Survey {
    subject.survey().survey().await.expect("survey")
}

/// Nothing waits, nobody holds anything.
pub async fn survey_of_an_empty_store_shows_nothing(subject: &dyn Subject) {
    let found = survey(subject).await;
    let expected = Survey {
        oldest_transaction: found.oldest_transaction,
        ..Survey::default()
    };
    assert_eq!(found, expected);
}

/// Tasks whose time has not come wait and are not due; whether a message is on its way makes no difference.
pub async fn survey_tells_what_is_due_from_what_waits_for_its_time(subject: &dyn Subject) {
    let mut tasks = new_tasks(4);
    tasks[1].messaged = true;
    tasks[3].run_at = Some(Timestamp::from_micros(4_000_000_000_000_000));
    inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let found = survey(subject).await;
    assert_eq!((found.waiting, found.due), (4, 3));
    let oldest = found.oldest_due.expect("something is due");
    assert!(oldest >= MOMENT, "{oldest:?}");
    assert_eq!((found.claims, found.oldest_claim), (0, None));
}

/// A claim is one, however many tasks it holds; what it holds does not wait.
pub async fn survey_shows_claims_and_not_what_they_hold(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let store = subject.store();
    for ids in [&ids_of(&tasks)[..2], &ids_of(&tasks)[2..]] {
        let ticket = ticket_of(worker);
        store.claim_delivered(ticket, ids).await.expect("claim");
    }
    subject.pass(MOMENT).await;
    let found = survey(subject).await;
    assert_eq!((found.waiting, found.due, found.claims), (0, 0, 2));
    assert_eq!(found.oldest_due, None);
    let oldest = found.oldest_claim.expect("something is claimed");
    assert!(oldest >= MOMENT, "{oldest:?}");
}

/// Beyond the rows that are counted the number is an estimate, and never lower than they are.
pub async fn survey_counts_no_more_than_it_must(subject: &dyn Subject) {
    let mut left = COUNTED + 50;
    while left > 0 {
        let count = left.min(500);
        let tasks = std::iter::repeat_with(new_task).take(usize::try_from(count).expect("500"));
        inserted(subject, &tasks.collect::<Vec<_>>()).await;
        left -= count;
    }
    let found = survey(subject).await;
    assert!(
        found.waiting >= COUNTED && found.due >= COUNTED,
        "{found:?}"
    );
}
