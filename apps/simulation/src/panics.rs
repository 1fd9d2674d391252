//! Panics: those of the script are part of the plan, any other is a defect.

use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

use crate::script::SCRIPTED_PANIC;

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Begins to catch panics of this thread.
pub(crate) fn catch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !remember(panic) {
                before(panic);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// Ends it, and gives what was caught.
pub(crate) fn take() -> Vec<String> {
    SEEN.take().unwrap_or_default()
}

/// Whether this thread lives a history.
fn remember(panic: &PanicHookInfo<'_>) -> bool {
    SEEN.with_borrow_mut(|seen| {
        let Some(seen) = seen else {
            return false;
        };
        if panic.payload_as_str() != Some(SCRIPTED_PANIC) {
            seen.push(panic.to_string());
        }
        true
    })
}
