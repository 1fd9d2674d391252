//! The last stages: cache and log are told, then the claim is released.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ports::{ClaimId, Dependency, StoreError, TaskEvent, Work};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Life;
use super::settle::{News, Settled};
use crate::resolve::{PAGE, Told, Unfinished, announce, announce_at_rest, resolve};

/// How many claims may be released together.
const RELEASED_TOGETHER: usize = 1_024;

/// At least so long from one release to the next. Nobody waits for it: a crash before it has a few tasks announced once more. And
/// it is a commit, as dear for one claim as for many.
const PACE: Duration = Duration::from_millis(20);

pub(super) async fn announce_all(
    life: Arc<Life>,
    mut settled: UnboundedReceiver<Settled>,
    release: UnboundedSender<ClaimId>,
) {
    let mut batch = Vec::new();
    while settled
        .recv_many(&mut batch, life.config.batch.max(1))
        .await
        > 0
    {
        let announced = life.tell(&mut batch).await;
        let ended = life.cross_off(&batch, announced);
        batch.clear();
        for claim in ended {
            let _ = release.send(claim);
        }
    }
}

/// Whatever ended since the last release goes into the next.
pub(super) async fn release_all(life: Arc<Life>, mut ended: UnboundedReceiver<ClaimId>) {
    let mut claims = Vec::new();
    while ended.recv_many(&mut claims, RELEASED_TOGETHER).await > 0 {
        if let Err(error) = life.ports.store.release(&claims).await {
            life.owing.store(true, Ordering::Relaxed);
            life.failed(Dependency::Store, "release", &error);
        }
        claims.clear();
        sleep(PACE).await;
    }
}

/// Announces, once the log takes it again, what it did not take. The recorded claims remember it: those that are no longer
/// in the book have ended. Once per lease it looks without being told, for a claim that the store made late, after this
/// worker had been told that it failed: nobody would ever run its tasks. That look finds those that were given up, too.
pub(super) async fn announce_owed(life: Arc<Life>) {
    let mut ticks = interval(life.config.beat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_look = Instant::now() + life.config.lease;
    let mut told = Told::new();
    loop {
        ticks.tick().await;
        let is_owing = life.owing.swap(false, Ordering::Relaxed);
        if !is_owing && Instant::now() < next_look {
            continue;
        }
        next_look = Instant::now() + life.config.lease;
        let paid = life.pay_owed(&mut told).await;
        match &paid {
            Ok(true) if life.log_is_down.swap(false, Ordering::Relaxed) => {
                life.recovered(Dependency::Log);
            }
            Ok(_) => {}
            Err(error) => life.failed(Dependency::Store, "announce_owed", error),
        }
        if !matches!(paid, Ok(true)) {
            life.owing.store(true, Ordering::Relaxed);
        }
    }
}

impl Life {
    /// Answers whether everything was announced. While the log is down it is not even tried: a task must not wait for
    /// the log's time limit, and its claim remembers what is owed.
    async fn tell(&self, batch: &mut [Settled]) -> bool {
        let started = Instant::now();
        let (mut results, mut letters) = (Vec::new(), Vec::new());
        let (mut traces, mut spans) = (Vec::new(), Vec::new());
        for settled in batch.iter_mut() {
            match settled.news.take() {
                Some(News::Result(result)) => {
                    if let Some(parent) = settled.trace.take() {
                        let span = self.begin_span(Some(&parent));
                        traces.resize(results.len(), None);
                        traces.push(Some(span.clone().unwrap_or_else(|| parent.clone())));
                        spans.extend(span.map(|span| (result.id, span, parent)));
                    }
                    results.push(result);
                }
                Some(News::Letter(letter)) => letters.push(letter),
                None => {}
            }
        }
        if !traces.is_empty() {
            traces.resize(results.len(), None);
        }
        let events: Vec<TaskEvent> = batch
            .iter_mut()
            .filter_map(|one| one.event.take())
            .collect();
        if events.is_empty() {
            return true;
        }
        if self.log_is_down.load(Ordering::Relaxed) {
            if let Err(error) = self.ports.cache.put(&results).await {
                self.failed(Dependency::Cache, "put", &error);
            }
            return false;
        }
        let announced = announce(&self.ports, &results, &traces, &letters, &events).await;
        for (id, span, parent) in spans {
            let error = (!announced).then(|| "the log is unavailable".to_owned());
            let work = Work::Announce { id };
            self.end_span(span, Some(parent), work, started.elapsed(), error);
        }
        if !announced {
            self.log_is_down.store(true, Ordering::Relaxed);
        }
        announced
    }

    /// Crosses tasks off in the book and answers which claims are at their end and fully announced.
    fn cross_off(&self, batch: &[Settled], announced: bool) -> Vec<ClaimId> {
        let mut book = self.book();
        let mut ended = Vec::new();
        let mut is_owing = false;
        for settled in batch {
            // A task that moved without this worker may have come to rest by it (too many rescues): whoever moved it
            // announces it from this very claim, which must not be gone by then.
            let owes = !announced || settled.is_late;
            is_owing |= owes;
            let Some(page) = book.get_mut(&settled.claim) else {
                continue;
            };
            page.left -= 1;
            page.owed += usize::from(owes);
            page.has_given_up |= settled.is_given_up;
            if page.left > 0 {
                continue;
            }
            if page.owed == 0 && !page.has_given_up {
                ended.push(settled.claim);
            }
            book.remove(&settled.claim);
        }
        drop(book);
        if is_owing {
            self.owing.store(true, Ordering::Relaxed);
        }
        ended
    }

    /// Announces everything that is owed and releases the claims that have ended; `false` when the log is still down.
    /// What an ended claim still has in hand never was in the hands of this worker, or was given up, so it goes back.
    async fn pay_owed(&self, told: &mut Told) -> Result<bool, StoreError> {
        let mut after = None;
        loop {
            let owing: BTreeMap<ClaimId, usize> = self
                .book()
                .iter()
                .filter(|(_, page)| page.owed > 0)
                .map(|(claim, page)| (*claim, page.owed))
                .collect();
            let claims = self.ports.store.claims_of(self.id, after, PAGE).await?;
            let Some(last) = claims.last() else {
                return Ok(true);
            };
            after = Some(last.id);
            // A claim stands in the book before it is made, so one that is recorded and not in the book has ended.
            let (in_hand, ended): (Vec<_>, Vec<_>) = {
                let book = self.book();
                claims
                    .into_iter()
                    .partition(|claim| book.contains_key(&claim.id))
            };
            let partly: Vec<_> = in_hand
                .into_iter()
                .filter(|claim| owing.contains_key(&claim.id))
                .collect();
            let resolved = resolve(&self.ports, &ended, Unfinished::HandBack, told).await?;
            if !resolved.announced || !announce_at_rest(&self.ports, &partly).await? {
                return Ok(false);
            }
            let mut book = self.book();
            for claim in partly {
                // What became owed since then was not among the tasks that were just read.
                if let (Some(page), Some(owed)) = (book.get_mut(&claim.id), owing.get(&claim.id)) {
                    page.owed = page.owed.saturating_sub(*owed);
                }
            }
        }
    }
}
