//! Single lookups that come together travel together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ports::TaskId;
use tokio::sync::oneshot;

use super::link::{Link, RedisFault};
use super::{BATCH, values_of};

/// How many questions are under way at once; whoever comes meanwhile shares the next.
const QUESTIONS: usize = 2;

type Reply = Result<Option<Vec<u8>>, RedisFault>;

/// Looks single results up. Who comes alone is asked for at once; those who come while [`QUESTIONS`] are under way go together
/// in the next. A command of its own for each costs this process more than all the rest of answering one from the cache.
///
/// Questions are asked by tasks of their own, so that whoever hangs up takes nobody's answer along.
pub(super) struct Lookup {
    link: Arc<Link>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    under_way: usize,
    askers: Vec<Asker>,
}

struct Asker {
    id: TaskId,
    reply: oneshot::Sender<Reply>,
}

impl Lookup {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            waiting: Mutex::default(),
        }
    }

    /// What is kept under this id.
    pub(super) async fn get(self: &Arc<Self>, id: TaskId) -> Reply {
        self.link.share(self.answer(id)).await
    }

    async fn answer(self: &Arc<Self>, id: TaskId) -> Reply {
        loop {
            // A question ends without an answer where its runtime ends; then this one sees to the next.
            if let Ok(reply) = self.join(id).await {
                return reply;
            }
        }
    }

    fn join(self: &Arc<Self>, id: TaskId) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.askers.push(Asker { id, reply });
        if waiting.under_way < QUESTIONS {
            waiting.under_way += 1;
            drop(waiting);
            tokio::spawn(Turn::of(Arc::clone(self)).ask());
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is half done under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have a question under way, until nobody waits.
struct Turn {
    lookup: Arc<Lookup>,
    is_over: bool,
}

impl Turn {
    fn of(lookup: Arc<Lookup>) -> Self {
        Self {
            lookup,
            is_over: false,
        }
    }

    async fn ask(mut self) {
        while let Some(askers) = self.next() {
            let ids: Vec<TaskId> = askers.iter().map(|asker| asker.id).collect();
            let mut found = values_of(&self.lookup.link, &ids).await.map(Vec::into_iter);
            for asker in askers {
                let reply = match &mut found {
                    Ok(values) => Ok(values.next().flatten()),
                    Err(fault) => Err(fault.clone()),
                };
                // Who hung up does not listen.
                let _ = asker.reply.send(reply);
            }
        }
    }

    /// Those who wait, the first of them if they are many.
    fn next(&mut self) -> Option<Vec<Asker>> {
        let mut waiting = self.lookup.lock();
        if waiting.askers.is_empty() {
            waiting.under_way -= 1;
            self.is_over = true;
            return None;
        }
        let many = waiting.askers.len().min(BATCH);
        let later = waiting.askers.split_off(many);
        Some(std::mem::replace(&mut waiting.askers, later))
    }
}

impl Drop for Turn {
    /// Where the runtime ends, or it panicked: those who wait see to it themselves.
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.lookup.lock();
            waiting.under_way -= 1;
            let forsaken = std::mem::take(&mut waiting.askers);
            drop(waiting);
            drop(forsaken);
        }
    }
}
