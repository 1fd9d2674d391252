//! Bringing the recorded claims of a worker to their end: of one that died, that stops, or that could not announce.

use std::collections::BTreeSet;

use ports::{
    ClaimId, ClaimRecord, DeadLetter, Dependency, Event, Fence, Next, Spent, Step, StoreError,
    Task, TaskEvent, TaskId, TaskResult, TaskStatus, TraceContext, Transition, WorkerId,
    WriteOutcome,
};

use crate::moves::move_each;
use crate::{Ports, lifecycle, tell_of_failure};

/// How many claims are listed together.
pub(crate) const PAGE: usize = 64;

/// How many tasks are read, moved or announced together.
pub(crate) const BATCH: usize = 512;

/// What to do with a task that is still in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// Its worker died: back to the queue, counted; failed once it has killed `limit` workers.
    Rescue {
        /// The most rescues a task may have.
        limit: u32,
    },
    /// Its worker stops: back to the queue, nothing counted.
    HandBack,
}

/// The claims that stay recorded because the store refuses to take back a task of theirs, and whose others were announced: so that they
/// are not announced again each time it is asked whether it still does.
pub(crate) type Told = BTreeSet<ClaimId>;

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// How many tasks went back to the queue, or failed for good.
    pub(crate) returned: usize,
    /// Whether everything at rest was announced. What was not is still recorded.
    pub(crate) announced: bool,
    /// How many claims stay recorded because the store refuses to take back a task of theirs. They stop no other.
    pub(crate) kept: usize,
}

impl Resolved {
    /// Nothing of it is recorded any more.
    pub(crate) const fn is_complete(self) -> bool {
        self.announced && self.kept == 0
    }
}

/// Ends every claim of a worker: tasks in hand go back, tasks at rest are announced again, claims are released. Each step
/// is idempotent and conditional, so several may do this at once and any of them may crash.
pub(crate) async fn resolve_claims(
    ports: &Ports,
    worker: WorkerId,
    unfinished: Unfinished,
    told: &mut Told,
) -> Result<Resolved, StoreError> {
    // Everything goes back first, so that no task waits for the announcement of another.
    let mut all = Resolved {
        returned: return_all(ports, worker, unfinished).await?,
        announced: true,
        kept: 0,
    };
    let mut after = None;
    loop {
        let claims = ports.store.claims_of(worker, after, PAGE).await?;
        let Some(last) = claims.last() else {
            return Ok(all);
        };
        after = Some(last.id);
        // A claim that committed meanwhile is among them.
        let resolved = resolve(ports, &claims, unfinished, told).await?;
        all.returned += resolved.returned;
        all.kept += resolved.kept;
        if !resolved.announced {
            all.announced = false;
            return Ok(all);
        }
    }
}

/// Returns everything that the claims of a worker still have in hand, and nothing more; answers how many tasks moved.
pub(crate) async fn return_all(
    ports: &Ports,
    worker: WorkerId,
    unfinished: Unfinished,
) -> Result<usize, StoreError> {
    let mut returned = 0;
    let mut after = None;
    loop {
        let claims = ports.store.claims_of(worker, after, PAGE).await?;
        let Some(last) = claims.last() else {
            return Ok(returned);
        };
        after = Some(last.id);
        returned += return_unfinished(ports, &claims, unfinished).await?.0;
    }
}

/// Ends these claims, as [`resolve_claims`] ends those of a worker.
pub(crate) async fn resolve(
    ports: &Ports,
    claims: &[ClaimRecord],
    unfinished: Unfinished,
    told: &mut Told,
) -> Result<Resolved, StoreError> {
    let (returned, refused) = return_unfinished(ports, claims, unfinished).await?;
    if refused.is_empty() {
        return Ok(Resolved {
            returned,
            announced: announce_and_release(ports, claims, told).await?,
            kept: 0,
        });
    }
    let is_kept = |claim: &ClaimRecord| claim.tasks.iter().any(|(id, _)| refused.contains(id));
    let (kept, ended): (Vec<_>, Vec<_>) = claims.iter().cloned().partition(is_kept);
    let untold = kept.iter().filter(|claim| !told.contains(&claim.id));
    let untold: Vec<ClaimRecord> = untold.cloned().collect();
    let announced = announce_at_rest(ports, &untold).await?;
    if announced {
        told.extend(untold.iter().map(|claim| claim.id));
    }
    Ok(Resolved {
        returned,
        announced: announced && announce_and_release(ports, &ended, told).await?,
        kept: kept.len(),
    })
}

/// Announces what these claims brought to rest, and releases them; `false` when the log did not take it all, so that they
/// stay recorded. A claim with a task still in hand must not come here.
async fn announce_and_release(
    ports: &Ports,
    claims: &[ClaimRecord],
    told: &mut Told,
) -> Result<bool, StoreError> {
    if !announce_at_rest(ports, claims).await? {
        return Ok(false);
    }
    let ids: Vec<_> = claims.iter().map(|claim| claim.id).collect();
    ports.store.release(&ids).await?;
    told.retain(|claim| !ids.contains(claim));
    Ok(true)
}

/// Returns what these claims still have in hand; answers how many tasks moved, and which stay in hand because the store refuses to
/// take them back.
async fn return_unfinished(
    ports: &Ports,
    claims: &[ClaimRecord],
    unfinished: Unfinished,
) -> Result<(usize, BTreeSet<TaskId>), StoreError> {
    let mut returned = 0;
    let mut refused = BTreeSet::new();
    for held in held_by(claims).chunks(BATCH) {
        let moves: Vec<Transition> = read(ports, held)
            .await?
            .iter()
            .filter(|(fence, task)| task.status == TaskStatus::Processing && task.fence == *fence)
            .map(|(_, task)| give_back(task, unfinished))
            .collect();
        let outcomes = move_each(ports, "return", &moves).await?;
        for (step, outcome) in moves.iter().zip(outcomes) {
            match outcome {
                Some(outcome) => returned += usize::from(outcome.write == WriteOutcome::Applied),
                None => _ = refused.insert(step.id),
            }
        }
    }
    if returned > 0 {
        let count = returned;
        ports.observer.observe(&match unfinished {
            Unfinished::Rescue { .. } => Event::Rescued { count },
            Unfinished::HandBack => Event::HandedBack { count },
        });
    }
    Ok((returned, refused))
}

fn give_back(task: &Task, unfinished: Unfinished) -> Transition {
    let again = Next::Pending {
        delay: std::time::Duration::ZERO,
        error: None,
    };
    match unfinished {
        Unfinished::HandBack => lifecycle::advance(task, again, Spent::Nothing),
        Unfinished::Rescue { limit } if task.rescues < limit => {
            lifecycle::advance(task, again, Spent::Rescue)
        }
        Unfinished::Rescue { limit } => {
            let error = format!("{} workers died with this task in hand", limit + 1);
            lifecycle::advance(task, Next::Failed { error }, Spent::Rescue)
        }
    }
}

/// Announces what these claims have brought to rest so far; `false` when the log did not take it all.
pub(crate) async fn announce_at_rest(
    ports: &Ports,
    claims: &[ClaimRecord],
) -> Result<bool, StoreError> {
    let mut taken = true;
    for held in held_by(claims).chunks(BATCH) {
        let mut results = Vec::new();
        let mut letters = Vec::new();
        let mut events = Vec::new();
        for (fence, task) in read(ports, held).await? {
            // Only what this very claim brought to rest, or was called off in its hands; what moved on is announced by whoever moved it.
            if task.fence != fence.next() {
                continue;
            }
            if task.status.is_at_rest() {
                events.push(event_of(&task));
            }
            if let Some(result) = task.to_result() {
                results.push(result);
            } else if task.status == TaskStatus::Failed {
                letters.push(dead_letter(task));
            }
        }
        taken = taken && announce(ports, &results, &[], &letters, &events).await;
    }
    Ok(taken)
}

/// Tells cache and log, with the traces of the results unless there are none, and answers whether the log took everything it will ever take. The cache may fail.
pub(crate) async fn announce(
    ports: &Ports,
    results: &[TaskResult],
    traces: &[Option<TraceContext>],
    letters: &[DeadLetter],
    events: &[TaskEvent],
) -> bool {
    let (cached, announced, lettered, told) = tokio::join!(
        async {
            if results.is_empty() {
                return Ok(());
            }
            ports.cache.put(results).await
        },
        async {
            if results.is_empty() {
                return Vec::new();
            }
            if traces.is_empty() {
                return ports.announcer.announce(results).await;
            }
            ports.announcer.announce_traced(results, traces).await
        },
        async {
            if letters.is_empty() {
                return Vec::new();
            }
            ports.announcer.dead_letter(letters).await
        },
        async {
            if events.is_empty() {
                return Vec::new();
            }
            ports.announcer.tell(events).await
        },
    );
    let size = results.len() + letters.len();
    if size > 0 {
        ports.observer.observe(&Event::Batched {
            step: Step::Announce,
            size,
        });
    }
    let count = lettered.iter().filter(|outcome| outcome.is_ok()).count();
    if count > 0 {
        ports.observer.observe(&Event::DeadLettered { count });
    }
    if let Err(error) = cached {
        tell_of_failure(&*ports.observer, Dependency::Cache, "put", &error);
    }
    let mut taken = true;
    for error in announced
        .into_iter()
        .chain(lettered)
        .chain(told)
        .filter_map(Result::err)
    {
        tell_of_failure(&*ports.observer, Dependency::Log, "announce", &error);
        // What the log will never take (too large) must not be offered for ever.
        taken &= !error.is_transient();
    }
    taken
}

fn held_by(claims: &[ClaimRecord]) -> Vec<(TaskId, Fence)> {
    claims
        .iter()
        .flat_map(|claim| claim.tasks.iter().copied())
        .collect()
}

/// The tasks as they stand, each with the fence under which it was claimed.
async fn read(ports: &Ports, held: &[(TaskId, Fence)]) -> Result<Vec<(Fence, Task)>, StoreError> {
    let ids: Vec<_> = held.iter().map(|(id, _)| *id).collect();
    let tasks = ports.store.get(&ids).await?;
    Ok(held
        .iter()
        .zip(tasks)
        .filter_map(|((_, fence), task)| task.map(|task| (*fence, task)))
        .collect())
}

pub(crate) const fn event_of(task: &Task) -> TaskEvent {
    TaskEvent {
        id: task.id,
        status: task.status,
        fence: task.fence,
        at: task.updated_at,
    }
}

fn dead_letter(task: Task) -> DeadLetter {
    DeadLetter::Failed {
        id: task.id,
        payload: task.payload,
        priority: task.priority,
        attempts: task.attempts,
        error: task.error.unwrap_or_default(),
        failed_at: task.updated_at,
    }
}
