//! SQLite.

mod audit;
mod catalog;
mod exclusive;
mod idempotency;
mod rows;
mod statements;
mod survey;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ports::{
    BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome, Fence,
    Horizon, InsertOutcome, NewTask, Next, RemoveReply, Spent, StoreError, Task, TaskId,
    TaskStatus, Timestamp, Totals, Transition, TransitionOutcome, Whereabouts, WorkerEntry,
    WorkerId, WriteOutcome,
};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    QueryResult, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, Value,
};
use serde_json::json;

use super::SqlOptions;
use super::batch::{distinct, first_of_each, in_order, outcome_of_unmoved};
use super::failure::{Unsupported, is_foreign_key_violation_on_sqlite, store_error};
use super::row::{read, whereabouts};
use exclusive::ExclusiveFile;
use rows::{claim_record, claimed, id_list, task, text, waiting, worker_entry};

/// How long a statement waits for a lock that only a checkpoint or a foreign reader can hold.
const BUSY: Duration = Duration::from_secs(5);

pub(super) struct SqliteStore {
    /// One connection: SQLite has one writer at a time, and a pool that knows it waits instead of failing.
    writer: DatabaseConnection,
    readers: DatabaseConnection,
    exclusive: Mutex<Option<ExclusiveFile>>,
}

impl SqliteStore {
    pub(super) async fn connect(options: SqlOptions) -> Result<Self, StoreError> {
        let file: SqliteConnectOptions = options.url.parse().map_err(|error| {
            StoreError::Rejected(Box::new(Unsupported::because(format!(
                "the database URL cannot be read: {error}"
            ))))
        })?;
        if options.url.contains(":memory:") || options.url.contains("mode=memory") {
            return Err(StoreError::Rejected(Box::new(Unsupported::because(
                "a database in memory is not supported: give it a file",
            ))));
        }
        let exclusive = ExclusiveFile::beside(file.get_filename())?;
        // The writer comes first: it makes the file and sets its journal mode.
        let writer = Database::connect(writer_settings(&options))
            .await
            .map_err(store_error)?;
        let readers = Database::connect(reader_settings(&options))
            .await
            .map_err(store_error)?;
        Ok(Self {
            writer,
            readers,
            exclusive: Mutex::new(Some(exclusive)),
        })
    }

    pub(super) fn database(&self) -> DatabaseConnection {
        self.writer.clone()
    }

    pub(super) async fn close(&self) {
        for database in [&self.readers, &self.writer] {
            if let Err(error) = database.clone().close().await {
                tracing::warn!(%error, "closing the database file failed");
            }
        }
        self.exclusive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    pub(super) async fn insert(
        &self,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<InsertOutcome>, StoreError> {
        let fresh = first_of_each(&tasks, |task| task.id);
        let transaction = self.begin().await?;
        let now = now();
        let (applied, created) = store(&transaction, &fresh, now).await?;
        commit(transaction).await?;
        let mut seen = HashSet::with_capacity(tasks.len());
        Ok(tasks
            .iter()
            .map(|task| InsertOutcome {
                write: if seen.insert(task.id) && applied.contains(&task.id) {
                    WriteOutcome::Applied
                } else {
                    WriteOutcome::AlreadyApplied
                },
                created_at: created.get(&task.id).copied().unwrap_or(now),
            })
            .collect())
    }

    pub(super) async fn get(&self, ids: Vec<TaskId>) -> Result<Vec<Option<Task>>, StoreError> {
        let wanted = distinct(ids.iter().copied());
        let found = rows(&self.readers, statements::GET, [id_list(wanted)]).await?;
        let found = read(&found, task)?;
        Ok(in_order(
            &ids,
            found.into_iter().map(|task| (task.id, task)),
        ))
    }

    pub(super) async fn whereabouts(
        &self,
        ids: Vec<TaskId>,
    ) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        let wanted = distinct(ids.iter().copied());
        let found = rows(&self.readers, statements::WHEREABOUTS, [id_list(wanted)]).await?;
        let found = read(&found, |row| {
            Ok((rows::task_id(row, 0)?, whereabouts(row, 1)?))
        })?;
        Ok(in_order(&ids, found))
    }

    pub(super) async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: Vec<TaskId>,
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        let transaction = self.begin().await?;
        let now = now();
        let held = held(&transaction, ticket).await?;
        let wanted = distinct(ids.iter().copied());
        let found = rows(&transaction, statements::GET, [id_list(wanted.clone())]).await?;
        let tasks: HashMap<TaskId, Task> = read(&found, task)?
            .into_iter()
            .map(|task| (task.id, task))
            .collect();
        let found = rows(&transaction, statements::WAITING, [id_list(wanted.clone())]).await?;
        let queue: HashMap<TaskId, Timestamp> = read(&found, waiting)?.into_iter().collect();
        let is_due = |task: &Task| match queue.get(&task.id) {
            Some(&not_before) => not_before <= now,
            // Never touched and without a queue row: another program wrote it.
            None => task.fence == Fence::default(),
        };
        let taken: Vec<&Task> = match &held {
            Some(_) => Vec::new(),
            None => wanted
                .iter()
                .filter_map(|id| tasks.get(id))
                .filter(|task| task.status == TaskStatus::Pending && is_due(task))
                .collect(),
        };
        let in_vain: Vec<TaskId> = match &held {
            Some(_) => Vec::new(),
            None => queue
                .iter()
                .filter(|(id, not_before)| {
                    let waits = |task: &Task| task.status == TaskStatus::Pending;
                    **not_before <= now && !tasks.get(id).is_some_and(waits)
                })
                .map(|(id, _)| *id)
                .collect(),
        };
        if !in_vain.is_empty() {
            execute(&transaction, statements::DEQUEUE, [id_list(in_vain)]).await?;
        }
        let claims: Vec<ClaimedTask> = match held {
            Some(held) => held,
            None => taken
                .iter()
                .map(|task| {
                    let since = queue.get(&task.id).copied();
                    claimed((*task).clone(), since.unwrap_or(task.created_at), now)
                })
                .collect(),
        };
        if !taken.is_empty() {
            record(&transaction, ticket, &claims, now).await?;
        }
        commit(transaction).await?;
        let mut claims: HashMap<TaskId, ClaimedTask> =
            claims.into_iter().map(|task| (task.id, task)).collect();
        let mut seen = HashSet::with_capacity(ids.len());
        Ok(ids
            .into_iter()
            .map(|id| {
                if !seen.insert(id) {
                    return DeliveryOutcome::Repeated;
                }
                if let Some(task) = claims.remove(&id) {
                    return DeliveryOutcome::Claimed(task);
                }
                match tasks.get(&id) {
                    None => DeliveryOutcome::Unknown,
                    Some(task) if task.status.is_at_rest() => DeliveryOutcome::AtRest,
                    Some(task)
                        if task.status == TaskStatus::Pending
                            && queue.get(&id).is_some_and(|&not_before| not_before > now) =>
                    {
                        DeliveryOutcome::Early
                    }
                    Some(_) => DeliveryOutcome::InHand,
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
        let transaction = self.begin().await?;
        let now = now();
        if let Some(mut held) = held(&transaction, ticket).await? {
            commit(transaction).await?;
            held.sort_unstable_by_key(|task| (task.waiting_since, task.id));
            return Ok(held);
        }
        let latest = match horizon {
            Horizon::Now => now,
            // Strictly earlier, in the microseconds that the rows have.
            Horizon::Before(time) => time.before(Duration::from_micros(1)).min(now),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = [
            micros(latest),
            micros(latest.before(grace)),
            Value::from(limit),
        ];
        let found = rows(&transaction, statements::AGED, values).await?;
        let picked: HashMap<TaskId, Timestamp> = read(&found, waiting)?.into_iter().collect();
        let wanted = distinct(picked.keys().copied());
        let found = rows(&transaction, statements::GET, [id_list(wanted)]).await?;
        let mut claims: Vec<ClaimedTask> = read(&found, task)?
            .into_iter()
            .filter(|task| task.status == TaskStatus::Pending)
            .map(|task| {
                let since = picked.get(&task.id).copied().unwrap_or(task.created_at);
                claimed(task, since, now)
            })
            .collect();
        claims.sort_unstable_by_key(|task| task.id);
        if claims.len() < picked.len() {
            // Rows whose task does not wait claim nothing, and must not be looked at again.
            let picked = id_list(picked.keys().copied());
            execute(&transaction, statements::DEQUEUE, [picked]).await?;
        }
        if !claims.is_empty() {
            record(&transaction, ticket, &claims, now).await?;
        }
        commit(transaction).await?;
        claims.sort_unstable_by_key(|task| (task.waiting_since, task.id));
        Ok(claims)
    }

    pub(super) async fn transition(
        &self,
        transitions: Vec<Transition>,
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        if let Some(refused) = transitions
            .iter()
            .find(|transition| holds_nul(&transition.to))
        {
            return Err(StoreError::Rejected(Box::new(Unsupported::because(
                format!("the text for task {} holds a NUL character", refused.id),
            ))));
        }
        let transaction = self.begin().await?;
        let now = now();
        let wanted = distinct(transitions.iter().map(|transition| transition.id));
        let found = rows(&transaction, statements::GET, [id_list(wanted)]).await?;
        let mut standing: HashMap<TaskId, Task> = read(&found, task)?
            .into_iter()
            .map(|task| (task.id, task))
            .collect();
        let mut moves = Moves::default();
        let mut outcomes = Vec::with_capacity(transitions.len());
        for transition in &transitions {
            let row = standing.get_mut(&transition.id);
            outcomes.push(match row {
                Some(task) if task.fence == transition.fence && task.status == transition.from => {
                    moves.apply(task, transition, now);
                    TransitionOutcome {
                        write: WriteOutcome::Applied,
                        updated_at: Some(now),
                    }
                }
                row => outcome_of_unmoved(transition, row.as_deref()),
            });
        }
        moves.write(&transaction).await?;
        commit(transaction).await?;
        Ok(outcomes)
    }

    pub(super) async fn release(&self, claims: Vec<ClaimId>) -> Result<(), StoreError> {
        let claims = claims.into_iter().map(|claim| json!(claim.to_string()));
        self.write(statements::RELEASE, [json_list(claims.collect())])
            .await?;
        Ok(())
    }

    pub(super) async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let limit = Value::from(i64::try_from(limit).unwrap_or(i64::MAX));
        // The empty text stands before every id.
        let after = Value::from(after.map_or_else(String::new, |claim| claim.to_string()));
        let values = [text(worker), after, limit];
        let found = rows(&self.readers, statements::CLAIMS_OF, values).await?;
        read(&found, claim_record)
    }

    pub(super) async fn mark_unmessaged(&self, ids: Vec<TaskId>) -> Result<(), StoreError> {
        self.write(statements::MARK_UNMESSAGED, [id_list(ids)])
            .await?;
        Ok(())
    }

    pub(super) async fn totals(&self) -> Result<Totals, StoreError> {
        let found = rows(&self.readers, statements::TOTALS, []).await?;
        let totals = read(&found, rows::totals)?;
        Ok(totals.first().copied().unwrap_or_default())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        rows(&self.readers, statements::PING, []).await?;
        Ok(())
    }

    pub(super) async fn register(&self, worker: WorkerId, name: String) -> Result<(), StoreError> {
        let values = [text(worker), Value::from(name), micros(now())];
        self.write(statements::REGISTER, values).await?;
        Ok(())
    }

    pub(super) async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        let position = Value::from(position.map(Timestamp::as_micros));
        let beaten = self
            .write(statements::BEAT, [text(worker), position])
            .await?;
        Ok(if beaten > 0 {
            BeatReply::Alive
        } else {
            BeatReply::Gone
        })
    }

    pub(super) async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        let found = rows(&self.readers, statements::WORKERS, []).await?;
        read(&found, worker_entry)
    }

    pub(super) async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        // A beat that no database integer can hold was never seen in a row.
        let last_beat = i64::try_from(last_beat).unwrap_or(-1);
        let values = [text(worker), Value::from(last_beat)];
        if self.write(statements::DECLARE_DEAD, values).await? > 0 {
            return Ok(WriteOutcome::Applied);
        }
        let dead = rows(&self.readers, statements::IS_DEAD, [text(worker)]).await?;
        Ok(if dead.is_empty() {
            WriteOutcome::Stale
        } else {
            WriteOutcome::AlreadyApplied
        })
    }

    pub(super) async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        let statement = statement(statements::REMOVE, [text(worker)]);
        match self.writer.execute_raw(statement).await {
            Ok(_) => Ok(RemoveReply::Removed),
            Err(error) if is_foreign_key_violation_on_sqlite(&error) => Ok(RemoveReply::HasClaims),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        self.writer
            .begin_with_options(TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            })
            .await
            .map_err(store_error)
    }

    /// One statement is a transaction of its own.
    async fn write<const N: usize>(
        &self,
        sql: &'static str,
        values: [Value; N],
    ) -> Result<u64, StoreError> {
        execute(&self.writer, sql, values).await
    }
}

/// What a batch of transitions writes.
#[derive(Default)]
struct Moves {
    tasks: Vec<serde_json::Value>,
    queued: Vec<serde_json::Value>,
    dequeued: Vec<TaskId>,
    /// Failed and cancelled ones, and those that were.
    stopped: Vec<serde_json::Value>,
    unstopped: Vec<TaskId>,
    done: i64,
    elapsed_micros: i64,
}

impl Moves {
    /// Moves a task here and notes what is to be written.
    fn apply(&mut self, task: &mut Task, transition: &Transition, now: Timestamp) {
        match transition.spent {
            Spent::Attempt => task.attempts = task.attempts.saturating_add(1),
            Spent::Rescue => task.rescues = task.rescues.saturating_add(1),
            Spent::Nothing => {}
            Spent::Reset => {
                task.attempts = 0;
                task.rescues = 0;
            }
        }
        task.result = None;
        match &transition.to {
            Next::Done { result } => {
                task.result = Some(result.clone());
                task.error = None;
                self.done += 1;
                self.elapsed_micros = self
                    .elapsed_micros
                    .saturating_add(now.micros_since(task.created_at));
            }
            Next::Failed { error } => task.error = Some(error.clone()),
            Next::Cancelled => {}
            Next::Pending { delay, error } => {
                if let Some(error) = error {
                    task.error = Some(error.clone());
                }
                let not_before = now.after(*delay).as_micros();
                let priority = task.priority.get();
                self.queued
                    .push(json!([task.id.to_string(), not_before, 0, priority]));
            }
        }
        if transition.from == TaskStatus::Pending {
            self.dequeued.push(task.id);
        }
        if is_stopped(task.status) {
            self.unstopped.push(task.id);
        }
        task.status = transition.to.status();
        if is_stopped(task.status) {
            let cancelled = i32::from(task.status == TaskStatus::Cancelled);
            self.stopped.push(json!([cancelled, task.id.to_string()]));
        }
        task.fence = task.fence.next();
        task.updated_at = now;
        self.tasks.push(json!([
            task.id.to_string(),
            task.status.as_str(),
            task.fence.0,
            task.attempts,
            task.rescues,
            task.result,
            task.error,
            now.as_micros(),
        ]));
    }

    async fn write(self, transaction: &DatabaseTransaction) -> Result<(), StoreError> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        execute(transaction, statements::MOVE, [json_list(self.tasks)]).await?;
        if !self.dequeued.is_empty() {
            execute(transaction, statements::DEQUEUE, [id_list(self.dequeued)]).await?;
        }
        if !self.queued.is_empty() {
            execute(transaction, statements::ENQUEUE, [json_list(self.queued)]).await?;
        }
        if !self.unstopped.is_empty() {
            let ids = id_list(self.unstopped);
            execute(transaction, statements::UNLIST_STOPPED, [ids]).await?;
        }
        if !self.stopped.is_empty() {
            let stopped = json_list(self.stopped);
            execute(transaction, statements::LIST_AS_STOPPED, [stopped]).await?;
        }
        if self.done > 0 {
            count(transaction, TOTALS, self.done, self.elapsed_micros).await?;
        }
        Ok(())
    }
}

/// Whether it stands in the list of failed and cancelled tasks.
const fn is_stopped(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Failed | TaskStatus::Cancelled)
}

/// The shard of what became done, and that of the part that was pruned since.
const TOTALS: i64 = 0;
const PRUNED: i64 = -1;

/// Adds to a shard of the totals.
async fn count(
    transaction: &DatabaseTransaction,
    shard: i64,
    done: i64,
    elapsed_micros: i64,
) -> Result<(), StoreError> {
    let values = [shard, done, elapsed_micros].map(Value::from);
    execute(transaction, statements::TOTAL, values).await?;
    Ok(())
}

/// Stores those of these tasks that do not exist. Answers which these are, and when the others were created.
async fn store(
    transaction: &DatabaseTransaction,
    fresh: &[&NewTask],
    now: Timestamp,
) -> Result<(HashSet<TaskId>, HashMap<TaskId, Timestamp>), StoreError> {
    let items: Vec<serde_json::Value> = fresh
        .iter()
        .map(|task| {
            json!([
                task.id.to_string(),
                task.payload.as_str(),
                task.priority.get(),
                task.max_attempts,
            ])
        })
        .collect();
    let stored = rows(
        transaction,
        statements::INSERT,
        [json_list(items), micros(now)],
    )
    .await?;
    let applied: HashSet<TaskId> = read(&stored, |row| rows::task_id(row, 0))?
        .into_iter()
        .collect();
    let waiting: Vec<serde_json::Value> = fresh
        .iter()
        .filter(|task| applied.contains(&task.id))
        .map(|task| {
            let not_before = task.run_at.unwrap_or(now);
            json!([
                task.id.to_string(),
                not_before.as_micros(),
                i32::from(task.messaged),
                task.priority.get(),
            ])
        })
        .collect();
    execute(transaction, statements::ENQUEUE, [json_list(waiting)]).await?;
    let mut created: HashMap<TaskId, Timestamp> = HashMap::new();
    if applied.len() < fresh.len() {
        let existing = fresh.iter().map(|task| task.id);
        let found = rows(transaction, statements::CREATED_AT, [id_list(existing)]).await?;
        let found = read(&found, |row| {
            Ok((rows::task_id(row, 0)?, rows::timestamp(row, 1)?))
        })?;
        created.extend(found);
    }
    Ok((applied, created))
}

/// What this ticket holds, if it was used before. Refuses a worker that is gone.
async fn held(
    transaction: &DatabaseTransaction,
    ticket: ClaimTicket,
) -> Result<Option<Vec<ClaimedTask>>, ClaimError> {
    let alive = rows(transaction, statements::IS_ALIVE, [text(ticket.worker)]).await?;
    if alive.is_empty() {
        return Err(ClaimError::WorkerGone);
    }
    let recorded = rows(transaction, statements::CLAIM, [text(ticket.claim)]).await?;
    let Some(record) = read(&recorded, claim_record)?.pop() else {
        return Ok(None);
    };
    if record.worker != ticket.worker {
        return Ok(Some(Vec::new()));
    }
    let fences: HashMap<TaskId, Fence> = record.tasks.iter().copied().collect();
    let ids = record.tasks.iter().map(|(id, _)| *id);
    let found = rows(transaction, statements::GET, [id_list(ids)]).await?;
    let held = read(&found, task)?
        .into_iter()
        .filter(|task| {
            task.status == TaskStatus::Processing && fences.get(&task.id) == Some(&task.fence)
        })
        .map(|task| rows::held(task, record.claimed_at))
        .collect();
    Ok(Some(held))
}

/// Writes a claim: the tasks, their queue rows and the record.
async fn record(
    transaction: &DatabaseTransaction,
    ticket: ClaimTicket,
    claims: &[ClaimedTask],
    now: Timestamp,
) -> Result<(), StoreError> {
    let ids = || id_list(claims.iter().map(|task| task.id));
    execute(transaction, statements::TAKE, [ids(), micros(now)]).await?;
    execute(transaction, statements::DEQUEUE, [ids()]).await?;
    let tasks = claims
        .iter()
        .map(|task| json!([task.id.to_string(), task.fence.0]));
    let values = [
        text(ticket.claim),
        text(ticket.worker),
        json_list(tasks.collect()),
        micros(now),
    ];
    execute(transaction, statements::RECORD, values).await?;
    Ok(())
}

fn statement<const N: usize>(sql: &'static str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

async fn rows<const N: usize>(
    connection: &impl ConnectionTrait,
    sql: &'static str,
    values: [Value; N],
) -> Result<Vec<QueryResult>, StoreError> {
    connection
        .query_all_raw(statement(sql, values))
        .await
        .map_err(store_error)
}

async fn execute<const N: usize>(
    connection: &impl ConnectionTrait,
    sql: &'static str,
    values: [Value; N],
) -> Result<u64, StoreError> {
    let outcome = connection
        .execute_raw(statement(sql, values))
        .await
        .map_err(store_error)?;
    Ok(outcome.rows_affected())
}

async fn commit(transaction: DatabaseTransaction) -> Result<(), StoreError> {
    transaction.commit().await.map_err(store_error)
}

fn json_list(items: Vec<serde_json::Value>) -> Value {
    Value::from(serde_json::Value::Array(items).to_string())
}

fn micros(time: Timestamp) -> Value {
    Value::from(time.as_micros())
}

/// The store's clock is the system's: there is no server that has another one.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::EPOCH.after(since)
}

/// SQLite would store it, and every other store would not.
fn holds_nul(next: &Next) -> bool {
    match next {
        Next::Done { result } => result.contains('\0'),
        Next::Failed { error } => error.contains('\0'),
        Next::Cancelled => false,
        Next::Pending { error, .. } => error.as_ref().is_some_and(|error| error.contains('\0')),
    }
}

fn settings(options: &SqlOptions) -> ConnectOptions {
    let mut settings = ConnectOptions::new(options.url.clone());
    settings
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    settings
}

fn writer_settings(options: &SqlOptions) -> ConnectOptions {
    let mut settings = settings(options);
    settings
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .map_sqlx_sqlite_opts(|driver| {
            driver
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(BUSY)
        });
    settings
}

fn reader_settings(options: &SqlOptions) -> ConnectOptions {
    let mut settings = settings(options);
    settings
        .max_connections(options.max_connections)
        .min_connections(options.min_connections)
        .idle_timeout(options.idle_timeout)
        .max_lifetime(None)
        .map_sqlx_sqlite_opts(|driver| {
            driver
                .foreign_keys(true)
                .busy_timeout(BUSY)
                .pragma("query_only", "on")
        });
    settings
}
