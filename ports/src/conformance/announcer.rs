//! The suite of [`Announcer`](crate::Announcer).

use crate::task::TaskResult;
use crate::time::Timestamp;

use super::fresh_id;
pub use super::log::Subject;

/// Expands to a module of one test per promise of [`Announcer`](crate::Announcer).
///
/// `announcer_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the log's suite.
#[macro_export]
macro_rules! announcer_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(announcer, $module, [$(#[$attribute])*], $subject, [
            announce_sends_results_keyed_by_task_id,
        ]);
    };
}

fn result(text: &str) -> TaskResult {
    TaskResult {
        id: fresh_id(),
        result: text.into(),
        // Whole milliseconds: that is what the contract's records keep.
        processed_at: Timestamp::from_micros(1_735_689_602_345_000),
    }
}

/// Sends results to `tasks-output`, keyed by task id.
pub async fn announce_sends_results_keyed_by_task_id(subject: &dyn Subject) {
    let sent = result("!dlrow olleH (len=12)");
    let outcomes = subject
        .announcer()
        .announce(std::slice::from_ref(&sent))
        .await;
    assert_eq!(outcomes.len(), 1);
    let found = subject.outputs(1).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, Some(sent.id.to_string().into_bytes()));
    assert_eq!(found[0].result, sent);
}
