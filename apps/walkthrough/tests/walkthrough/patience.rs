//! Waiting for other processes.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long something may take on a machine with two busy cores before it counts as not happening.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer. Other processes give no signal to wait for, so this asks again and again.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(50));
    }
}
