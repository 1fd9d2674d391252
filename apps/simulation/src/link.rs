//! What stands between one process and everything it asks: the place where faults strike.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::sky::{Call, Fate, Sky};
use crate::state::Watched;
use crate::trace::Who;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The process is stopped, or cut off: nothing it asks is answered.
    Shut,
    /// The process is dead: nothing it asks is done.
    Dead,
}

/// One life of one process.
pub(crate) struct Link {
    pub(crate) who: Who,
    pub(crate) sky: Arc<Sky>,
    gate: Watched<Gate>,
    /// When something other than an outage last kept this process from beating (virtual microseconds).
    hindered_at: AtomicI64,
}

impl Link {
    pub(crate) fn new(who: Who, sky: Arc<Sky>) -> Self {
        Self {
            who,
            sky,
            gate: Watched::new(Gate::Open),
            hindered_at: AtomicI64::new(i64::MIN),
        }
    }

    pub(crate) fn shut(&self) {
        self.hinder();
        self.gate.replace(Gate::Open, Gate::Shut);
    }

    pub(crate) fn open(&self) {
        if self.is_shut() {
            self.hinder();
        }
        self.gate.replace(Gate::Shut, Gate::Open);
    }

    pub(crate) fn die(&self) {
        self.hinder();
        self.gate.set(Gate::Dead);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.gate.get() == Gate::Dead
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.gate.get() == Gate::Shut
    }

    fn hinder(&self) {
        self.hindered_at
            .store(self.sky.trace.now(), Ordering::Relaxed);
    }

    /// Whether the process was kept from beating at this time or later, by anything but an outage.
    pub(crate) fn was_hindered_since(&self, time: i64) -> bool {
        self.is_dead() || self.is_shut() || self.hindered_at.load(Ordering::Relaxed) >= time
    }

    /// Waits until the process may go on; for ever when it is dead.
    pub(crate) async fn pass(&self) {
        if self.gate.get() == Gate::Open && !self.sky.is_exhausted() {
            return;
        }
        self.gate.until(Gate::Open).await;
        if self.sky.is_exhausted() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks for something; `None` when the answer is that the port is unavailable.
    pub(crate) async fn call<T, F>(&self, call: Call, deed: F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.pass().await;
        let fate = self.fate(call);
        let answer = match fate {
            Fate::Pass => self.reach(call, deed).await,
            Fate::Slow {
                before,
                after,
                sturdy,
            } => {
                let _delayed = self.sky.delay();
                let answer = if sturdy {
                    let (reply, answer) = oneshot::channel();
                    let sky = Arc::clone(&self.sky);
                    self.sky.set_adrift(async move {
                        sleep(before).await;
                        if sky.reaches(call.dependency()).await {
                            let _ = reply.send(deed.await);
                        }
                    });
                    answer.await.ok()
                } else {
                    sleep(before).await;
                    self.reach(call, deed).await
                };
                sleep(after).await;
                answer
            }
            Fate::Refused => None,
            Fate::AnswerLost => {
                self.reach(call, deed).await;
                None
            }
            Fate::Late(delay) => {
                let sky = Arc::clone(&self.sky);
                let who = self.who;
                self.sky.set_adrift(async move {
                    sleep(delay).await;
                    if sky.reaches(call.dependency()).await {
                        sky.trace
                            .note(who, call.label(), 90, || "arrives late".into());
                        deed.await;
                    }
                });
                None
            }
            Fate::KilledBefore => self.perish().await,
            Fate::KilledAfter => {
                self.reach(call, deed).await;
                self.perish().await
            }
        };
        self.pass().await;
        answer
    }

    /// Chooses what strikes a call, and takes note of it.
    pub(crate) fn fate(&self, call: Call) -> Fate {
        let fate = self.sky.fate(call);
        if fate != Fate::Pass && matches!(call, Call::Beat | Call::Register) {
            self.hinder();
        }
        if fate != Fate::Pass || !call.is_routine() {
            self.sky
                .trace
                .note(self.who, call.label(), call as u64, || describe(fate));
        }
        fate
    }

    /// Ends this process here and now.
    pub(crate) async fn perish<T>(&self) -> T {
        self.die();
        self.sky.kill(self.who);
        std::future::pending().await
    }

    async fn reach<T>(&self, call: Call, deed: impl Future<Output = T>) -> Option<T> {
        if self.sky.reaches(call.dependency()).await {
            Some(deed.await)
        } else {
            None
        }
    }
}

fn describe(fate: Fate) -> String {
    match fate {
        Fate::Pass => String::new(),
        Fate::Slow {
            before,
            after,
            sturdy,
        } => {
            let kind = if sturdy { ", already on its way" } else { "" };
            format!(
                "takes {} ms before and {} ms after{kind}",
                before.as_millis(),
                after.as_millis()
            )
        }
        Fate::Refused => "fails, nothing done".into(),
        Fate::AnswerLost => "is done, its answer lost".into(),
        Fate::Late(delay) => format!("fails, but will be done in {} ms", delay.as_millis()),
        Fate::KilledBefore => "the process dies before it".into(),
        Fate::KilledAfter => "the process dies after it".into(),
    }
}
