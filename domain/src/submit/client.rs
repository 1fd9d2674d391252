//! Who waits for the answer to a submission, and for how long.

use std::future::Future;
use std::pin::pin;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until};

use super::budget::Room;
use super::{Accepted, SubmitError, Traces};

/// What a client is told.
pub(super) type Answer = Result<Vec<Accepted>, SubmitError>;

/// What is to be stored, and who waits for it.
pub(super) struct Request<T> {
    pub(super) asked: T,
    pub(super) client: Client,
}

/// Whoever waits for a commit.
pub(super) struct Client {
    /// How many tasks it brings.
    pub(super) count: usize,
    /// Of these tasks.
    pub(super) traces: Traces,
    /// Given back when a commit takes the request.
    pub(super) places: Option<OwnedSemaphorePermit>,
    /// What its tasks, and the body they came in, take of the memory for what is under way.
    pub(super) room: Room,
    /// When its patience ends, which counts from its arrival.
    pub(super) deadline: Instant,
    /// Empty once it is answered.
    pub(super) reply: Option<oneshot::Sender<Answer>>,
}

impl Client {
    /// Answers, unless it was answered before.
    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            // A client that hung up does not listen; what was stored for it stays stored.
            let _ = reply.send(answer);
        }
    }
}

/// Turns away who waited in vain for a commit to begin, so that nobody's time is spent on what nobody waits for. Nothing of it was
/// stored.
pub(super) fn turn_away_late<T>(requests: &mut Vec<Request<T>>) {
    let now = Instant::now();
    for mut late in requests.extract_if(.., |request| request.client.deadline <= now) {
        late.client.answer(Err(SubmitError::Overloaded));
    }
}

/// When the patience of the last of them ends.
pub(super) fn last_deadline<T>(requests: &[Request<T>]) -> Option<Instant> {
    let deadlines = requests.iter().map(|request| request.client.deadline);
    deadlines.max()
}

/// Waits for what is asked for all of them, which ends at the deadline of the last, and answers each of the others at its own.
pub(super) async fn in_time<A>(
    clients: &mut [Client],
    last: Instant,
    asking: impl Future<Output = A>,
) -> A {
    let mut asking = pin!(asking);
    loop {
        let waiting = clients.iter().filter(|client| client.reply.is_some());
        let deadlines = waiting.map(|client| client.deadline);
        let Some(next) = deadlines.min().filter(|next| *next < last) else {
            return asking.await;
        };
        tokio::select! {
            biased;
            answer = &mut asking => return answer,
            () = sleep_until(next) => {
                let now = Instant::now();
                for late in clients.iter_mut().filter(|client| client.deadline <= now) {
                    late.answer(Err(SubmitError::Unavailable(None)));
                }
            }
        }
    }
}
