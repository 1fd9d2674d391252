//! PostgreSQL.

mod audit;
mod catalog;
mod idempotency;
mod kept;
mod pool;
mod rows;
mod statements;
mod survey;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ports::{
    BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome,
    Horizon, InsertOutcome, NewTask, Next, RemoveReply, Spent, StoreError, Task, TaskId,
    TaskStatus, Timestamp, Totals, Transition, TransitionOutcome, Whereabouts, WorkerEntry,
    WorkerId, WriteOutcome,
};
use sea_orm::{DatabaseConnection, DbErr, QueryResult, Value};
use uuid::Uuid;

use super::SqlOptions;
use super::batch::{distinct, first_of_each, in_order, outcome_of_unmoved};
use super::failure::{connect_error, is_foreign_key_violation, is_unique_violation, store_error};
use super::row::{read, status, whereabouts};
use pool::Pool;
use rows::{
    Array, bound, claim_record, claimed_task, delay_micros, grace_micros, optional_stamp, task,
    timestamp, uuids, worker_entry,
};
use walk::Walk;

/// How often a claim that met itself (the same ticket, sent twice) looks again before it gives up.
const MEETINGS: usize = 3;

pub(super) struct PostgresStore {
    pool: Pool,
    /// Which kind of waiting rows the next claim by age takes first: under an overload neither kind starves.
    messaged_first: AtomicBool,
    walk: Walk,
}

impl PostgresStore {
    pub(super) async fn connect(options: SqlOptions) -> Result<Self, StoreError> {
        Ok(Self {
            pool: Pool::connect(options).await.map_err(connect_error)?,
            messaged_first: AtomicBool::new(false),
            walk: Walk::default(),
        })
    }

    pub(super) fn database(&self) -> DatabaseConnection {
        self.pool.current()
    }

    pub(super) fn connections(&self) -> ports::Connections {
        self.pool.standing()
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn insert(
        &self,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<InsertOutcome>, StoreError> {
        let fresh = first_of_each(&tasks, |task| task.id);
        let values = || {
            vec![
                uuids(fresh.iter().map(|task| task.id.0)),
                Array::texts(fresh.iter().map(|task| task.payload.as_str())),
                Array::ints(fresh.iter().map(|task| i32::from(task.priority.get()))),
                Array::ints(
                    fresh
                        .iter()
                        .map(|task| i32::try_from(task.max_attempts).unwrap_or(i32::MAX)),
                ),
                Array::optional_stamps(fresh.iter().map(|task| task.run_at)),
                Array::bools(fresh.iter().map(|task| task.messaged)),
            ]
        };
        let values_of_one = |task: &NewTask| {
            vec![
                Value::from(task.id.0),
                Value::from(task.payload.as_str()),
                Value::from(i32::from(task.priority.get())),
                Value::from(i32::try_from(task.max_attempts).unwrap_or(i32::MAX)),
                optional_stamp(task.run_at),
                Value::from(task.messaged),
            ]
        };
        // `ON CONFLICT` writes a second record per row, so the rare repeat pays for it and not the rule.
        let inserted = match fresh.as_slice() {
            [only] => {
                self.pool
                    .rows(statements::INSERT_ONE, values_of_one(only))
                    .await
            }
            _ => self.pool.rows(statements::INSERT_FRESH, values()).await,
        };
        let (applied, created) = match inserted {
            Ok(rows) => {
                let now = read(&rows, |row| timestamp(row, 0))?;
                let now = now.first().copied().unwrap_or_default();
                let ids = || fresh.iter().map(|task| task.id);
                (
                    ids().collect::<HashSet<TaskId>>(),
                    ids().map(|id| (id, now)).collect::<HashMap<_, _>>(),
                )
            }
            Err(error)
                if ["tasks", "queue"]
                    .iter()
                    .any(|table| is_unique_violation(&error, table)) =>
            {
                let rows = self
                    .pool
                    .rows(statements::INSERT_REPEATED, values())
                    .await
                    .map_err(store_error)?;
                let applied = read(&rows, |row| row.try_get_by_index(0).map(TaskId))?;
                let all = uuids(fresh.iter().map(|task| task.id.0));
                let rows = self
                    .pool
                    .rows(statements::CREATED_AT, vec![all])
                    .await
                    .map_err(store_error)?;
                let created = read(&rows, |row| {
                    Ok((TaskId(row.try_get_by_index(0)?), timestamp(row, 1)?))
                })?;
                (applied.into_iter().collect(), created.into_iter().collect())
            }
            Err(error) => return Err(store_error(error)),
        };
        if fresh.iter().any(|task| task.run_at.is_some()) {
            // It may lie in the past, which a walk may have passed.
            self.walk.forget();
        }
        let mut seen = HashSet::with_capacity(tasks.len());
        Ok(tasks
            .iter()
            .map(|task| InsertOutcome {
                write: if seen.insert(task.id) && applied.contains(&task.id) {
                    WriteOutcome::Applied
                } else {
                    WriteOutcome::AlreadyApplied
                },
                created_at: created.get(&task.id).copied().unwrap_or_default(),
            })
            .collect())
    }

    /// What is stored may lie before where a walk over the queue stands.
    fn forget_walk(&self) {
        self.walk.forget();
    }

    pub(super) async fn get(&self, ids: Vec<TaskId>) -> Result<Vec<Option<Task>>, StoreError> {
        let found = self.tasks(ids.iter().copied()).await?;
        Ok(in_order(
            &ids,
            found.into_iter().map(|task| (task.id, task)),
        ))
    }

    pub(super) async fn whereabouts(
        &self,
        ids: Vec<TaskId>,
    ) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        let wanted = uuids(distinct(ids.iter().copied()).into_iter().map(|id| id.0));
        let rows = self
            .pool
            .rows(statements::WHEREABOUTS, vec![wanted])
            .await
            .map_err(store_error)?;
        let found = read(&rows, |row| {
            Ok((TaskId(row.try_get_by_index(0)?), whereabouts(row, 1)?))
        })?;
        Ok(in_order(&ids, found))
    }

    async fn tasks(&self, ids: impl IntoIterator<Item = TaskId>) -> Result<Vec<Task>, StoreError> {
        let ids = uuids(distinct(ids).into_iter().map(|id| id.0));
        let rows = self
            .pool
            .rows(statements::GET, vec![ids])
            .await
            .map_err(store_error)?;
        read(&rows, task)
    }

    pub(super) async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: Vec<TaskId>,
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        let wanted = distinct(ids.iter().copied());
        let values = || vec![uuids(wanted.iter().map(|id| id.0))];
        let answer = self
            .claim(ticket, statements::CLAIM_DELIVERED, values)
            .await?;
        let mut outcomes: HashMap<TaskId, DeliveryOutcome> = answer
            .passed_over
            .into_iter()
            .map(|(id, status, early)| {
                let outcome = match status {
                    TaskStatus::Pending if early => DeliveryOutcome::Early,
                    // Someone is just claiming it, or this ticket was used before and claims nothing more.
                    TaskStatus::Pending | TaskStatus::Processing => DeliveryOutcome::InHand,
                    TaskStatus::Done | TaskStatus::Failed | TaskStatus::Cancelled => {
                        DeliveryOutcome::AtRest
                    }
                };
                (id, outcome)
            })
            .collect();
        for task in answer.claimed {
            outcomes.insert(task.id, DeliveryOutcome::Claimed(task));
        }
        let mut seen = HashSet::with_capacity(ids.len());
        Ok(ids
            .into_iter()
            .map(|id| {
                if seen.insert(id) {
                    outcomes.remove(&id).unwrap_or(DeliveryOutcome::Unknown)
                } else {
                    DeliveryOutcome::Repeated
                }
            })
            .collect())
    }

    pub(super) async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let statement = if self.messaged_first.fetch_xor(true, Ordering::Relaxed) {
            statements::CLAIM_AGED_MESSAGED_FIRST
        } else {
            statements::CLAIM_AGED_UNMESSAGED_FIRST
        };
        let begun = Instant::now();
        let start = self.walk.start(begun);
        let before = match horizon {
            // Later than any present: the statement takes the earlier of the two.
            Horizon::Now => Timestamp::from_micros(i64::MAX),
            // Strictly earlier, in the microseconds that the rows have.
            Horizon::Before(time) => time.before(Duration::from_micros(1)),
        };
        let values = || {
            vec![
                bound(before),
                Value::from(grace_micros(grace)),
                Value::from(i64::try_from(limit).unwrap_or(i64::MAX)),
                bound(start.unmessaged),
                bound(start.messaged),
            ]
        };
        let answer = self.claim(ticket, statement, values).await?;
        let mut claimed = answer.claimed;
        if !answer.held && claimed.len() < limit {
            let end = before.min(answer.now);
            let took = begun.elapsed();
            self.walk.took_all(start, end, grace, took, Instant::now());
        }
        claimed.sort_unstable_by_key(|task| (task.waiting_since, task.id));
        Ok(claimed)
    }

    /// Waits until no claim under this ticket is under way in the server. In a statement of its own, so that the next one
    /// sees what that claim did.
    pub(super) async fn await_ticket(&self, claim: ClaimId) -> Result<(), StoreError> {
        self.pool
            .rows(statements::AWAIT_TICKET, vec![Value::from(lock_key(claim))])
            .await
            .map_err(store_error)?;
        Ok(())
    }

    /// Runs a claiming statement under a ticket. Its parameters are the claim, the worker, the key of the ticket's lock,
    /// and then `values`.
    async fn claim(
        &self,
        ticket: ClaimTicket,
        statement: &'static str,
        values: impl Fn() -> Vec<Value>,
    ) -> Result<ClaimAnswer, ClaimError> {
        let mut met = None;
        for _ in 0..MEETINGS {
            let mut all = vec![
                Value::from(ticket.claim.0),
                Value::from(ticket.worker.0),
                Value::from(lock_key(ticket.claim)),
            ];
            all.extend(values());
            let rows = match self.pool.rows(statement, all).await {
                Ok(rows) => rows,
                // The worker was removed while the claim was being recorded.
                Err(error) if is_foreign_key_violation(&error, "claims") => {
                    return Err(ClaimError::WorkerGone);
                }
                // The same ticket was recorded while this ran: the next look finds it.
                Err(error) if is_unique_violation(&error, "claims") => {
                    met = Some(error);
                    continue;
                }
                Err(error) => return Err(store_error(error).into()),
            };
            let mut answer = ClaimAnswer::read(&rows)?;
            if !answer.alive {
                return Err(ClaimError::WorkerGone);
            }
            if answer.held {
                answer.claimed = self.held_by(ticket).await?;
            }
            return Ok(answer);
        }
        let cause = met.map_or_else(|| "the claim met itself".into(), Into::into);
        Err(StoreError::Unavailable(cause).into())
    }

    /// What a recorded claim of this worker still holds.
    async fn held_by(&self, ticket: ClaimTicket) -> Result<Vec<ClaimedTask>, StoreError> {
        let rows = self
            .pool
            .rows(
                statements::HELD,
                vec![Value::from(ticket.claim.0), Value::from(ticket.worker.0)],
            )
            .await
            .map_err(store_error)?;
        read(&rows, |row| claimed_task(row, 0))
    }

    pub(super) async fn transition(
        &self,
        transitions: Vec<Transition>,
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let moving = first_of_each(&transitions, |transition| transition.id);
        let queued = moving
            .iter()
            .filter(|moved| moved.from == TaskStatus::Pending);
        let mut values = vec![
            uuids(moving.iter().map(|moved| moved.id.0)),
            Array::bigints(moving.iter().map(|moved| moved.fence.0)),
            Array::texts(moving.iter().map(|moved| moved.from.as_str())),
            Array::texts(moving.iter().map(|moved| moved.to.status().as_str())),
            Array::texts(moving.iter().map(|moved| match &moved.to {
                Next::Done { result } => result.as_str(),
                _ => "",
            })),
            Array::bools(moving.iter().map(|moved| keeps_error(&moved.to))),
            Array::texts(moving.iter().map(|moved| match &moved.to {
                Next::Failed { error }
                | Next::Pending {
                    error: Some(error), ..
                } => error.as_str(),
                _ => "",
            })),
            Array::bigints(moving.iter().map(|moved| match &moved.to {
                Next::Pending { delay, .. } => delay_micros(*delay),
                _ => 0,
            })),
            Array::bools(moving.iter().map(|moved| moved.spent == Spent::Reset)),
            Array::ints(
                moving
                    .iter()
                    .map(|moved| i32::from(moved.spent == Spent::Attempt)),
            ),
            Array::ints(
                moving
                    .iter()
                    .map(|moved| i32::from(moved.spent == Spent::Rescue)),
            ),
        ];
        let concerns = |statuses: &[TaskStatus]| {
            let concerns = |moved: &&Transition| {
                statuses.contains(&moved.from) || statuses.contains(&moved.to.status())
            };
            moving.iter().any(concerns)
        };
        let stopped = concerns(&[TaskStatus::Failed, TaskStatus::Cancelled]);
        let statement = if stopped || concerns(&[TaskStatus::Pending]) {
            values.push(uuids(queued.map(|moved| moved.id.0)));
            if stopped {
                statements::TRANSITION_OF_STOPPED
            } else {
                statements::TRANSITION_OF_QUEUED
            }
        } else {
            statements::TRANSITION
        };
        let rows = self
            .pool
            .rows(statement, values)
            .await
            .map_err(store_error)?;
        let mut moved: HashMap<TaskId, Timestamp> = read(&rows, |row| {
            Ok((TaskId(row.try_get_by_index(0)?), timestamp(row, 1)?))
        })?
        .into_iter()
        .collect();
        // A second transition of the same id in the slice did not take part: only the first finds its entry.
        let applied: Vec<Option<Timestamp>> = transitions
            .iter()
            .map(|transition| moved.remove(&transition.id))
            .collect();
        let unmoved = transitions
            .iter()
            .zip(&applied)
            .filter(|(_, applied)| applied.is_none())
            .map(|(transition, _)| transition.id);
        let unmoved = distinct(unmoved);
        let standing: HashMap<TaskId, Task> = if unmoved.is_empty() {
            HashMap::new()
        } else {
            let found = self.tasks(unmoved).await?;
            found.into_iter().map(|task| (task.id, task)).collect()
        };
        Ok(transitions
            .iter()
            .zip(applied)
            .map(|(transition, applied)| match applied {
                Some(updated_at) => TransitionOutcome {
                    write: WriteOutcome::Applied,
                    updated_at: Some(updated_at),
                },
                None => outcome_of_unmoved(transition, standing.get(&transition.id)),
            })
            .collect())
    }

    pub(super) async fn release(&self, claims: Vec<ClaimId>) -> Result<(), StoreError> {
        let claims = uuids(distinct(claims).into_iter().map(|claim| claim.0));
        self.pool
            .execute(statements::RELEASE, vec![claims])
            .await
            .map_err(store_error)?;
        Ok(())
    }

    pub(super) async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        // No claim has the nil id.
        let after = Value::from(after.map_or(Uuid::nil(), |claim| claim.0));
        let limit = Value::from(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self
            .pool
            .rows(
                statements::CLAIMS_OF,
                vec![Value::from(worker.0), after, limit],
            )
            .await
            .map_err(store_error)?;
        read(&rows, claim_record)
    }

    pub(super) async fn mark_unmessaged(&self, ids: Vec<TaskId>) -> Result<(), StoreError> {
        let ids = uuids(distinct(ids).into_iter().map(|id| id.0));
        self.pool
            .execute(statements::MARK_UNMESSAGED, vec![ids])
            .await
            .map_err(store_error)?;
        // They keep their place in time, which a walk may have passed.
        self.walk.forget();
        Ok(())
    }

    pub(super) async fn totals(&self) -> Result<Totals, StoreError> {
        let rows = self
            .pool
            .rows(statements::TOTALS, Vec::new())
            .await
            .map_err(store_error)?;
        let totals = read(&rows, rows::totals)?;
        Ok(totals.first().copied().unwrap_or_default())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.pool
            .execute(statements::PING, Vec::new())
            .await
            .map_err(store_error)?;
        Ok(())
    }

    pub(super) async fn register(&self, worker: WorkerId, name: String) -> Result<(), StoreError> {
        self.pool
            .execute(
                statements::REGISTER,
                vec![Value::from(worker.0), Value::from(name)],
            )
            .await
            .map_err(store_error)?;
        Ok(())
    }

    pub(super) async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        let position = rows::optional_stamp(position);
        let beaten = self
            .pool
            .execute(statements::BEAT, vec![Value::from(worker.0), position])
            .await
            .map_err(store_error)?;
        Ok(if beaten > 0 {
            BeatReply::Alive
        } else {
            BeatReply::Gone
        })
    }

    pub(super) async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        let rows = self
            .pool
            .rows(statements::WORKERS, Vec::new())
            .await
            .map_err(store_error)?;
        read(&rows, worker_entry)
    }

    pub(super) async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        // A beat that no database integer can hold was never seen in a row.
        let last_beat = i64::try_from(last_beat).unwrap_or(-1);
        let values = || vec![Value::from(worker.0), Value::from(last_beat)];
        let declared = self
            .pool
            .execute(statements::DECLARE_DEAD, values())
            .await
            .map_err(store_error)?;
        if declared > 0 {
            return Ok(WriteOutcome::Applied);
        }
        let dead = self
            .pool
            .rows(statements::IS_DEAD, vec![Value::from(worker.0)])
            .await
            .map_err(store_error)?;
        Ok(if dead.is_empty() {
            WriteOutcome::Stale
        } else {
            WriteOutcome::AlreadyApplied
        })
    }

    pub(super) async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        match self
            .pool
            .execute(statements::REMOVE, vec![Value::from(worker.0)])
            .await
        {
            Ok(_) => Ok(RemoveReply::Removed),
            Err(error) if is_foreign_key_violation(&error, "claims") => Ok(RemoveReply::HasClaims),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// What a claiming statement found.
struct ClaimAnswer {
    /// The worker is registered and not dead.
    alive: bool,
    /// The ticket was recorded before; nothing was claimed now.
    held: bool,
    /// The store's present.
    now: Timestamp,
    claimed: Vec<ClaimedTask>,
    /// Delivered ids that exist and were not claimed, with their status and whether they are early.
    passed_over: Vec<(TaskId, TaskStatus, bool)>,
}

impl ClaimAnswer {
    fn read(rows: &[QueryResult]) -> Result<Self, StoreError> {
        let mut answer = Self {
            alive: false,
            held: false,
            now: Timestamp::EPOCH,
            claimed: Vec::new(),
            passed_over: Vec::new(),
        };
        read(rows, |row| {
            match row.try_get_by_index::<i32>(0)? {
                statements::KIND_GATE => {
                    answer.alive = row.try_get_by_index(1)?;
                    answer.held = row.try_get_by_index(2)?;
                    answer.now = timestamp(row, 12)?;
                }
                statements::KIND_CLAIMED => answer.claimed.push(claimed_task(row, 4)?),
                _ => answer.passed_over.push((
                    TaskId(row.try_get_by_index(4)?),
                    status(row, 3)?,
                    row.try_get_by_index(1)?,
                )),
            }
            Ok::<(), DbErr>(())
        })?;
        Ok(answer)
    }
}

/// `None` and a cancellation leave the kept error alone.
fn keeps_error(next: &Next) -> bool {
    matches!(next, Next::Cancelled | Next::Pending { error: None, .. })
}

/// The advisory lock of a ticket: both halves of its id.
fn lock_key(claim: ClaimId) -> i64 {
    let (high, low) = claim.0.as_u64_pair();
    (high ^ low).cast_signed()
}
