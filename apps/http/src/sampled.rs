//! Asking once for everybody who wants to know at the same time.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The last answer to a question that costs something. Whoever asks while it is being answered, or shortly after, gets the same
/// answer: a storm of probes costs one round.
pub(crate) struct Sampled<T> {
    kept_for: Duration,
    rest: u32,
    last: Mutex<Option<Sample<T>>>,
}

struct Sample<T> {
    answer: T,
    until: Instant,
    answered: Instant,
}

/// For no longer than this is an answer kept.
const LONGEST: Duration = Duration::from_secs(5);

impl<T: Clone> Sampled<T> {
    /// Answers are kept for at least this long, and for this many times as long as it took to have them.
    pub(crate) fn new(kept_for: Duration, rest: u32) -> Self {
        Self {
            kept_for,
            rest,
            last: Mutex::new(None),
        }
    }

    pub(crate) async fn get(&self, ask: impl Future<Output = T>) -> T {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(sample) = &*last
            && (Instant::now() < sample.until || sample.answered > came)
        {
            return sample.answer.clone();
        }
        let asked = Instant::now();
        let answer = ask.await;
        let answered = Instant::now();
        let rest = (answered.duration_since(asked) * self.rest).min(LONGEST);
        *last = Some(Sample {
            answer: answer.clone(),
            until: answered + rest.max(self.kept_for),
            answered,
        });
        answer
    }
}
