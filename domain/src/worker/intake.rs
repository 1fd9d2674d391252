//! The first stage: claims by age and by delivery, as far as there is room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ports::observer::{ClaimedBy, SkipReason};
use ports::{
    ClaimError, ClaimTicket, ClaimedTask, Delivery, DeliveryOutcome, Dependency, Event, Horizon,
    Listing, Position, RecordContent, Step, StoreError, TaskId, TaskStatus, TraceContext, Work,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::acknowledge::Receipt;
use super::brake::Allowance;
use super::leftover::Received;
use super::{Held, InHand, Life, Page, Placed, stopped};
use crate::again::{Backoff, OF_A_WORKER, SOON};
use crate::chain;
use crate::gather::{FOR_THE_STORE, Gather};

/// How many rows of the queue are looked at together where claims by age are refused.
const LISTED: usize = 1_000;

/// How much text is read with them: it is read again by the claim.
const LISTED_BYTES: usize = 1 << 24;

/// How many such stretches one look goes through.
const STRETCHES: usize = 10;

/// How long after such a refusal the next claim by age is tried.
const REFUSED: Duration = Duration::from_secs(5);

/// How long a feed that fails is left alone.
const FEED_PAUSE: Duration = Duration::from_millis(200);

/// Takes until told to stop. A claim under way is then seen through: what it takes would otherwise lie in the store until this
/// worker has left.
pub(super) async fn take(
    life: Arc<Life>,
    mut stop: watch::Receiver<bool>,
    runs: UnboundedSender<Vec<Placed>>,
    receipts: UnboundedSender<Receipt>,
) {
    let mut intake = Intake::new();
    loop {
        let turn = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            turn = intake.turn(&life) => turn,
        };
        let claimed = match turn {
            Turn::Look { horizon, room } => {
                let claimed = intake.look(&life, horizon, room).await;
                // A full batch means that more may be waiting.
                if claimed.len() < room {
                    intake.next_look = Instant::now() + life.config.age_interval;
                }
                claimed
            }
            Turn::Records(records) => life.claim_delivered(records, &receipts).await,
        };
        if !claimed.is_empty() {
            let _ = runs.send(claimed);
        }
    }
}

/// What one claim by ids brought: an outcome for each, from the `first` of those that were asked for.
struct Part {
    ticket: ClaimTicket,
    first: usize,
    outcomes: Vec<DeliveryOutcome>,
}

fn claimed(outcome: DeliveryOutcome) -> Option<ClaimedTask> {
    match outcome {
        DeliveryOutcome::Claimed(task) => Some(task),
        _ => None,
    }
}

/// What the intake does next.
enum Turn {
    /// To look for what waits too long.
    Look { horizon: Horizon, room: usize },
    /// To claim what the log brought.
    Records(Vec<Delivery>),
}

struct Intake {
    next_look: Instant,
    feed_failed_until: Option<Instant>,
    waiting_since: Option<Instant>,
    /// Until when the queue is gone through by ids, because a claim by age was refused; and below which id that goes on.
    refused_until: Option<Instant>,
    below: Option<TaskId>,
    gather: Gather,
}

impl Intake {
    fn new() -> Self {
        Self {
            next_look: Instant::now(),
            feed_failed_until: None,
            waiting_since: None,
            refused_until: None,
            below: None,
            gather: Gather::new(FOR_THE_STORE),
        }
    }

    /// Claims what waits too long.
    async fn look(&mut self, life: &Life, horizon: Horizon, room: usize) -> Vec<Placed> {
        if self
            .refused_until
            .is_none_or(|until| until <= Instant::now())
        {
            if let Ok(claimed) = life.claim_aged(horizon, room).await {
                return claimed;
            }
            // One of those that wait for longest spoils it for all.
            self.refused_until = Some(Instant::now() + REFUSED);
        }
        life.claim_listed(&mut self.below, horizon, room).await
    }

    /// Waits until there is something to do. Dropping the future loses no record.
    async fn turn(&mut self, life: &Life) -> Turn {
        loop {
            self.gather.wait().await;
            let room = life.room().await;
            if Instant::now() >= self.next_look {
                // A log that says it has more but brings nothing is as good as none.
                let starved = self
                    .waiting_since
                    .is_some_and(|since| since.elapsed() >= life.config.grace);
                let horizon = if starved {
                    Horizon::Now
                } else {
                    life.horizon()
                };
                return Turn::Look { horizon, room };
            }
            let left = life.leftover.take(room);
            if !left.is_empty() {
                return Turn::Records(left);
            }
            if let Some(until) = self
                .feed_failed_until
                .filter(|until| Instant::now() < *until)
            {
                sleep_until(self.next_look.min(until)).await;
                continue;
            }
            match timeout_at(self.next_look, life.feed.receive(room)).await {
                Ok(Ok(records)) => {
                    self.waiting_since = None;
                    life.progress.excused();
                    if self.feed_failed_until.take().is_some() {
                        life.recovered(Dependency::Log);
                    }
                    self.gather.began(Instant::now(), records.len());
                    return Turn::Records(records);
                }
                Ok(Err(error)) => {
                    life.failed(Dependency::Log, "receive", &error);
                    self.feed_failed_until = Some(Instant::now() + FEED_PAUSE);
                }
                // Nothing came until it was time to look for the aged.
                Err(_) => {
                    self.waiting_since.get_or_insert_with(Instant::now);
                }
            }
        }
    }
}

impl Life {
    /// Waits until at least one task may be taken and answers how many.
    async fn room(&self) -> usize {
        loop {
            // Only the intake takes permits, so what is free now stays free until it does.
            for semaphore in [&self.slots, &self.in_flight] {
                if semaphore.available_permits() == 0 {
                    self.progress.is_full();
                }
                drop(semaphore.acquire().await);
            }
            if self.load.room() == 0 {
                self.progress.is_full();
            }
            self.load.has_room().await;
            let free = self
                .slots
                .available_permits()
                .min(self.in_flight.available_permits())
                .min(self.load.room());
            if free == 0 {
                continue;
            }
            match self.brake.allowance() {
                Allowance::All => {
                    self.progress.looks();
                    return free.min(self.config.batch.max(1));
                }
                Allowance::One => return 1,
                Allowance::NothingUntil(until) => {
                    self.progress.is_braked();
                    sleep_until(until).await;
                }
            }
        }
    }

    async fn claim_aged(&self, horizon: Horizon, limit: usize) -> Result<Vec<Placed>, StoreError> {
        let grace = self.config.grace;
        let started = Instant::now();
        let (ticket, claimed) = self
            .persist(|ticket| self.ports.store.claim_aged(ticket, horizon, grace, limit))
            .await?;
        // No message, no trace: each begins one of its own.
        let claimed = claimed.into_iter().map(|task| (task, None)).collect();
        Ok(self.hold(ticket, ClaimedBy::Age, claimed, started).await)
    }

    /// Claims by their ids what waits in the queue below `below`, and moves that on: a task that the store lets nobody claim,
    /// because a trigger of others forbids it, say, must not hold up the rest. The newest come first, which is the order in which
    /// they can be found without claiming.
    async fn claim_listed(
        &self,
        below: &mut Option<TaskId>,
        horizon: Horizon,
        room: usize,
    ) -> Vec<Placed> {
        let started = Instant::now();
        let mut listing = Listing {
            status: Some(TaskStatus::Pending),
            priority: None,
            created_from: None,
            created_before: match horizon {
                Horizon::Now => None,
                Horizon::Before(time) => Some(time),
            },
            below: *below,
            walk: LISTED,
            limit: LISTED,
            bytes: LISTED_BYTES,
        };
        let mut held = Vec::new();
        for _ in 0..STRETCHES {
            let listed = match self.ports.catalog.list(&listing).await {
                Ok(listed) => listed,
                Err(error) => {
                    self.failed(Dependency::Store, "list", &error);
                    return held;
                }
            };
            let ids: Vec<TaskId> = listed.tasks.iter().map(|task| task.id).collect();
            drop(listed.tasks);
            let mut left = &ids[..];
            while !left.is_empty() && held.len() < room {
                let (these, later) = left.split_at(left.len().min(room - held.len()));
                let mut parts = vec![(0, these)];
                while let Some(part) = self.claim_part(&mut parts).await {
                    let claimed = part.outcomes.into_iter().filter_map(claimed);
                    let claimed = claimed.map(|task| (task, None)).collect();
                    let by = ClaimedBy::Age;
                    held.extend(self.hold(part.ticket, by, claimed, started).await);
                }
                listing.below = these.last().copied();
                left = later;
            }
            if left.is_empty() {
                listing.below = listed.next;
            }
            *below = listing.below;
            if held.len() >= room || below.is_none() {
                break;
            }
        }
        // Whatever it may take, it has seen.
        self.progress.excused();
        held
    }

    async fn claim_delivered(
        &self,
        deliveries: Vec<Delivery>,
        receipts: &UnboundedSender<Receipt>,
    ) -> Vec<Placed> {
        let started = Instant::now();
        let mut received = Received::new(deliveries, &self.leftover);
        let mut upto = BTreeMap::new();
        let mut ids: Vec<TaskId> = Vec::with_capacity(received.deliveries().len());
        let mut traces = Vec::with_capacity(received.deliveries().len());
        let mut skipped = BTreeMap::new();
        for delivery in received.deliveries() {
            self.pulse.received(delivery.recorded_at);
            let Position { partition, offset } = delivery.position;
            let last = upto.entry(partition).or_insert(offset);
            *last = offset.max(*last);
            match &delivery.content {
                RecordContent::Task(id) => {
                    ids.push(*id);
                    traces.push(delivery.trace.clone());
                }
                RecordContent::Unreadable { .. } => {
                    *skipped.entry(SkipReason::Unreadable).or_insert(0) += 1;
                }
            }
        }
        let mut held = Vec::new();
        let mut parts = vec![(0, &ids[..])];
        while let Some(part) = self.claim_part(&mut parts).await {
            let mut claimed = Vec::with_capacity(part.outcomes.len());
            for (outcome, trace) in part.outcomes.into_iter().zip(&mut traces[part.first..]) {
                let reason = match outcome {
                    DeliveryOutcome::Claimed(task) => {
                        claimed.push((task, trace.take()));
                        continue;
                    }
                    DeliveryOutcome::Early => SkipReason::Early,
                    DeliveryOutcome::AtRest => SkipReason::AtRest,
                    DeliveryOutcome::InHand => SkipReason::InHand,
                    DeliveryOutcome::Repeated => SkipReason::Repeated,
                    DeliveryOutcome::Unknown => SkipReason::Unknown,
                };
                *skipped.entry(reason).or_insert(0) += 1;
            }
            let by = ClaimedBy::Delivery;
            held.extend(self.hold(part.ticket, by, claimed, started).await);
        }
        for (reason, count) in skipped {
            self.ports
                .observer
                .observe(&Event::Skipped { reason, count });
        }
        // The claim is durable: the log has done its part, but for what cannot be read.
        received.keep_unreadable();
        let _ = receipts.send(Receipt { upto, received });
        held
    }

    /// Claims by their ids the last of these parts that the store lets it claim, and leaves the others. What the store refuses for
    /// its data is halved until the culprit stands alone, which is told of, and waits in the queue. A store that refuses
    /// everything is not asked without a pause.
    async fn claim_part(&self, parts: &mut Vec<(usize, &[TaskId])>) -> Option<Part> {
        let mut backoff = Backoff::new(SOON, OF_A_WORKER);
        while let Some((first, these)) = parts.pop() {
            if these.is_empty() {
                continue;
            }
            let claim = self.persist(|ticket| self.ports.store.claim_delivered(ticket, these));
            match claim.await {
                Ok((ticket, outcomes)) => {
                    return Some(Part {
                        ticket,
                        first,
                        outcomes,
                    });
                }
                Err(_refused) if these.len() > 1 => {
                    let (half, rest) = these.split_at(these.len() / 2);
                    parts.extend([(first + half.len(), rest), (first, half)]);
                }
                Err(refused) => {
                    self.ports.observer.observe(&Event::StoreRefused {
                        doing: "claim",
                        error: format!("task {}: {}", these[0], chain(&refused)),
                    });
                    // Its message may have been all that told of it.
                    match self.ports.audit.enqueue(these).await {
                        Err(error) if error.is_transient() => {
                            self.failed(Dependency::Store, "enqueue", &error);
                            parts.push((first, these));
                        }
                        _ => {}
                    }
                    backoff.pause().await;
                }
            }
        }
        None
    }

    /// The page stands in the book before the claim is made, so that whoever compares the recorded claims with the book
    /// never takes one that is just being made for one that has ended.
    fn new_ticket(&self) -> ClaimTicket {
        let claim = self.ports.ids.claim_id();
        self.book().insert(claim, Page::of(0));
        ClaimTicket {
            claim,
            worker: self.id,
        }
    }

    /// Claims until the store answers, each time under a new ticket; that it refuses what is in the claim is an answer too. A worker
    /// that is gone waits here for its end.
    ///
    /// A ticket is sent once, so a claim that is made late, or whose answer was lost, stands under a number that nothing else
    /// ever names: it is not in the book, and what it holds goes back (see `announce_owed`). Were the ticket used again, a
    /// late request could make a claim anew that had been released, and a repeated release delete it with its tasks in hand.
    async fn persist<T, R>(
        &self,
        claim: impl Fn(ClaimTicket) -> R,
    ) -> Result<(ClaimTicket, T), StoreError>
    where
        R: Future<Output = Result<T, ClaimError>>,
    {
        let mut backoff = Backoff::new(SOON, OF_A_WORKER);
        let mut failing = false;
        loop {
            let ticket = self.new_ticket();
            match claim(ticket).await {
                Ok(claimed) => {
                    if failing {
                        self.recovered(Dependency::Store);
                    }
                    return Ok((ticket, claimed));
                }
                Err(ClaimError::WorkerGone) => {
                    self.pulse.declare_gone(self.id);
                    std::future::pending::<()>().await;
                }
                Err(ClaimError::Store(refused)) if !refused.is_transient() => {
                    if failing {
                        self.recovered(Dependency::Store);
                    }
                    self.book().remove(&ticket.claim);
                    return Err(refused);
                }
                Err(error) => {
                    failing = true;
                    self.progress.excused();
                    self.book().remove(&ticket.claim);
                    self.owing.store(true, Ordering::Relaxed);
                    self.failed(Dependency::Store, "claim", &error);
                    backoff.pause().await;
                }
            }
        }
    }

    /// Enters claimed tasks in the book and gives each its place, the most urgent first.
    async fn hold(
        &self,
        ticket: ClaimTicket,
        by: ClaimedBy,
        mut claimed: Vec<(ClaimedTask, Option<TraceContext>)>,
        started: Instant,
    ) -> Vec<Placed> {
        let count = claimed.len();
        if count == 0 {
            self.book().remove(&ticket.claim);
            return Vec::new();
        }
        self.brake.taken();
        self.progress.excused();
        self.ports.observer.observe(&Event::Claimed { by, count });
        self.batched(Step::Claim, count);
        self.book().insert(ticket.claim, Page::of(count));
        claimed.sort_by_key(|(task, _)| std::cmp::Reverse(task.priority));
        let took = started.elapsed();
        let payloads = claimed.iter().map(|(task, _)| task.payload.as_str().len());
        let weights = self.load.take(payloads);
        let mut placed = Vec::with_capacity(count);
        for ((task, parent), weight) in claimed.into_iter().zip(weights) {
            let trace = self.trace_claim(task.id, by, parent, took);
            placed.push(Placed {
                slot: permit(&self.slots).await,
                held: Held {
                    task,
                    claim: ticket.claim,
                    trace,
                    in_hand: InHand {
                        weight,
                        _permit: permit(&self.in_flight).await,
                    },
                },
            });
        }
        placed
    }

    /// The place in the trace of everything that is done with the task from here on.
    fn trace_claim(
        &self,
        id: TaskId,
        by: ClaimedBy,
        parent: Option<TraceContext>,
        took: Duration,
    ) -> Option<TraceContext> {
        let Some(context) = self.ports.observer.begin_span(parent.clone()) else {
            return parent;
        };
        if context.is_sampled() {
            let work = Work::Claim { id, by };
            self.end_span(context.clone(), parent, work, took, None);
        }
        Some(context)
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(semaphore).acquire_owned().await;
    permit.expect("the semaphores of a life are never closed")
}
