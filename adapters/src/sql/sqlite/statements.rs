//! The statements. A batch comes as one JSON array, which `json_each` takes apart; `CROSS JOIN` keeps the planner from
//! walking a table to look for each of its rows in the batch.

pub(super) const INSERT: &str = "
INSERT INTO tasks (id, payload, priority, status, created_at, updated_at, max_attempts)
SELECT value ->> 0, value ->> 1, value ->> 2, 'pending', ?2, ?2, value ->> 3 FROM json_each(?1) WHERE true
ON CONFLICT (id) DO NOTHING
RETURNING id";

pub(super) const ENQUEUE: &str = "
INSERT INTO queue (task_id, not_before, messaged, priority)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1) WHERE true
ON CONFLICT (task_id) DO UPDATE SET not_before = excluded.not_before, messaged = excluded.messaged";

pub(super) const DEQUEUE: &str =
    "DELETE FROM queue WHERE task_id IN (SELECT value FROM json_each(?1))";

/// `?1` keys.
pub(super) const KEPT: &str = "
SELECT idempotency_keys.key, fingerprint, task_ids, created_at
FROM json_each(?1) AS wanted CROSS JOIN idempotency_keys ON idempotency_keys.key = wanted.value";

pub(super) const KEEP: &str = "
INSERT INTO idempotency_keys (key, fingerprint, task_ids, created_at)
SELECT value ->> 0, value ->> 1, value -> 2, ?2 FROM json_each(?1)";

pub(super) const PRUNE_KEYS: &str = "
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM idempotency_keys WHERE created_at < ?1 ORDER BY created_at LIMIT ?2
)";

pub(super) const CREATED_AT: &str = "
SELECT tasks.id, created_at FROM json_each(?1) AS wanted CROSS JOIN tasks ON tasks.id = wanted.value";

pub(super) const GET: &str = "
SELECT tasks.id, payload, priority, status, result, error, attempts, max_attempts, rescues, fence, created_at, updated_at
FROM json_each(?1) AS wanted CROSS JOIN tasks ON tasks.id = wanted.value";

pub(super) const WHEREABOUTS: &str = "
SELECT tasks.id, status, fence FROM json_each(?1) AS wanted CROSS JOIN tasks ON tasks.id = wanted.value";

pub(super) const WAITING: &str = "
SELECT task_id, not_before FROM json_each(?1) AS wanted CROSS JOIN queue ON task_id = wanted.value";

/// `?1` the latest `not_before` of a row without a message, `?2` of one with, `?3` the limit. Each part reads at most the
/// limit from the index; the oldest of both are taken.
pub(super) const AGED: &str = "
SELECT task_id, not_before FROM (
    SELECT * FROM (
        SELECT task_id, not_before FROM queue WHERE messaged = 0 AND not_before <= ?1
        ORDER BY not_before LIMIT ?3
    )
    UNION ALL
    SELECT * FROM (
        SELECT task_id, not_before FROM queue WHERE messaged = 1 AND not_before <= ?2
        ORDER BY not_before LIMIT ?3
    )
) ORDER BY not_before LIMIT ?3";

pub(super) const TAKE: &str = "
UPDATE tasks SET status = 'processing', fence = fence + 1, updated_at = ?2
WHERE id IN (SELECT value FROM json_each(?1))";

pub(super) const RECORD: &str =
    "INSERT INTO claims (id, worker_id, tasks, claimed_at) VALUES (?1, ?2, ?3, ?4)";

pub(super) const CLAIM: &str = "SELECT id, worker_id, tasks, claimed_at FROM claims WHERE id = ?1";

pub(super) const CLAIMS_OF: &str = "
SELECT id, worker_id, tasks, claimed_at FROM claims WHERE worker_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";

pub(super) const RELEASE: &str = "DELETE FROM claims WHERE id IN (SELECT value FROM json_each(?1))";

pub(super) const MOVE: &str = "
UPDATE tasks SET status = moved.status, fence = moved.fence, attempts = moved.attempts, rescues = moved.rescues,
    result = moved.result, error = moved.error, updated_at = moved.updated_at
FROM (
    SELECT value ->> 0 AS id, value ->> 1 AS status, value ->> 2 AS fence, value ->> 3 AS attempts,
        value ->> 4 AS rescues, value ->> 5 AS result, value ->> 6 AS error, value ->> 7 AS updated_at
    FROM json_each(?1)
) AS moved
WHERE tasks.id = moved.id";

/// `?1` the shard, `?2` how many, `?3` the sum of their times. What was pruned is in shard 0, where it was counted when it
/// became done, and once more in shard −1.
pub(super) const TOTAL: &str = "
INSERT INTO totals (shard, done, elapsed_us) VALUES (?1, ?2, ?3)
ON CONFLICT (shard) DO UPDATE SET done = done + excluded.done, elapsed_us = elapsed_us + excluded.elapsed_us";

pub(super) const MARK_UNMESSAGED: &str = "UPDATE queue SET messaged = 0 WHERE messaged = 1 AND task_id IN (SELECT value FROM json_each(?1))";

pub(super) const TOTALS: &str =
    "SELECT coalesce(sum(done), 0), coalesce(sum(elapsed_us), 0) FROM totals WHERE shard >= 0";

/// Reads the file, unlike a statement without a table.
pub(super) const PING: &str = "SELECT count(*) FROM sqlite_schema";

pub(super) const REGISTER: &str = "
INSERT INTO workers (id, name, beat, dead, registered_at) VALUES (?1, ?2, 0, 0, ?3)
ON CONFLICT (id) DO NOTHING";

pub(super) const BEAT: &str =
    "UPDATE workers SET beat = beat + 1, position = ?2 WHERE id = ?1 AND NOT dead";

pub(super) const WORKERS: &str = "SELECT id, name, beat, position, dead FROM workers ORDER BY id";

pub(super) const DECLARE_DEAD: &str =
    "UPDATE workers SET dead = 1 WHERE id = ?1 AND NOT dead AND beat = ?2";

pub(super) const IS_DEAD: &str = "SELECT 1 FROM workers WHERE id = ?1 AND dead";

pub(super) const IS_ALIVE: &str = "SELECT 1 FROM workers WHERE id = ?1 AND NOT dead";

pub(super) const REMOVE: &str = "DELETE FROM workers WHERE id = ?1";

/// `?1` the id before the first, `?2` how many tasks to walk, `?3` and `?4` between which times a task is taken for one that
/// moved lately. Tasks in the columns of [`GET`]; in one more row, marked by the last two columns, how many were walked and a list
/// of those that are not listed, with the id of the last one in the first. The claims are read only when a task that is said to be in hand has not moved.
pub(super) const STRANDED: &str = "
WITH stretch AS MATERIALIZED (
    SELECT id, status, fence, updated_at FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2
), unmoved AS MATERIALIZED (
    SELECT id, status, fence FROM stretch
    WHERE status IN ('pending', 'processing') AND (updated_at <= ?3 OR updated_at > ?4)
), stranded AS MATERIALIZED (
    SELECT id FROM unmoved
    WHERE status = 'pending' AND NOT EXISTS (SELECT 1 FROM queue WHERE task_id = unmoved.id)
    UNION ALL
    SELECT id FROM unmoved
    WHERE status = 'processing' AND (id, fence) NOT IN (
        SELECT held.value ->> 0, held.value ->> 1 FROM claims CROSS JOIN json_each(claims.tasks) AS held
    )
), unlisted AS MATERIALIZED (
    SELECT id FROM stretch
    WHERE status IN ('failed', 'cancelled')
        AND NOT EXISTS (SELECT 1 FROM stopped WHERE cancelled = (status = 'cancelled') AND task_id = id)
)
SELECT tasks.id, payload, priority, status, result, error, attempts, max_attempts, rescues, fence, created_at, updated_at,
    NULL, NULL
FROM stranded CROSS JOIN tasks ON tasks.id = stranded.id
UNION ALL
SELECT (SELECT max(id) FROM stretch), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    (SELECT count(*) FROM stretch), (SELECT json_group_array(id) FROM unlisted)";

/// `?1` ids, `?2` now.
pub(super) const ENQUEUE_WAITING: &str = "
INSERT INTO queue (task_id, not_before, messaged, priority)
SELECT tasks.id, ?2, 0, min(max(priority, 0), 10)
FROM json_each(?1) AS wanted CROSS JOIN tasks ON tasks.id = wanted.value
WHERE status = 'pending'
ON CONFLICT (task_id) DO NOTHING";

/// `?1` the id before the first, `?2` how many rows to walk. Answers each, and whether it is in vain: its task does not wait.
pub(super) const WALK_QUEUE: &str = "
SELECT task_id, NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = task_id AND status = 'pending')
FROM queue WHERE task_id > ?1 ORDER BY task_id LIMIT ?2";

/// Compares once more: what was in vain when it was read may not be any more.
pub(super) const DEQUEUE_IN_VAIN: &str = "
DELETE FROM queue WHERE task_id IN (SELECT value FROM json_each(?1))
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = queue.task_id AND status = 'pending')";

/// `?1` ids.
pub(super) const ENLIST: &str = "
INSERT INTO stopped (cancelled, task_id)
SELECT status = 'cancelled', tasks.id
FROM json_each(?1) AS wanted CROSS JOIN tasks ON tasks.id = wanted.value
WHERE status IN ('failed', 'cancelled')
ON CONFLICT (cancelled, task_id) DO NOTHING";

/// `?1` the id before the first, `?2` how many listed tasks to walk. Answers each, and whether it is listed as what it is not.
pub(super) const WALK_STOPPED: &str = "
WITH stretch AS MATERIALIZED (
    SELECT task_id FROM (
        SELECT * FROM (
            SELECT task_id FROM stopped WHERE cancelled = 0 AND task_id > ?1 ORDER BY task_id LIMIT ?2
        )
        UNION
        SELECT * FROM (
            SELECT task_id FROM stopped WHERE cancelled = 1 AND task_id > ?1 ORDER BY task_id LIMIT ?2
        )
    ) ORDER BY task_id LIMIT ?2
)
SELECT task_id, EXISTS (
    SELECT 1 FROM stopped AS entry WHERE entry.cancelled IN (0, 1) AND entry.task_id = stretch.task_id
        AND NOT EXISTS (
            SELECT 1 FROM tasks
            WHERE tasks.id = entry.task_id AND status = iif(entry.cancelled, 'cancelled', 'failed')
        )
)
FROM stretch ORDER BY task_id";

/// Compares once more: what was in vain when it was read may not be any more.
pub(super) const UNLIST_IN_VAIN: &str = "
DELETE FROM stopped WHERE cancelled IN (0, 1) AND task_id IN (SELECT value FROM json_each(?1))
    AND NOT EXISTS (
        SELECT 1 FROM tasks WHERE tasks.id = task_id AND status = iif(stopped.cancelled, 'cancelled', 'failed')
    )";

/// `?1` the id before the first, `?2` how many tasks listed as cancelled to walk, `?3` and `?4` between which times one has moved
/// lately. Of each whose news is not told the id, the fence and when it moved; in one more row, marked by the last column, how many
/// were walked, with the id of the last one in the first.
pub(super) const UNTOLD: &str = "
WITH stretch AS MATERIALIZED (
    SELECT task_id, told FROM stopped WHERE cancelled = 1 AND task_id > ?1 ORDER BY task_id LIMIT ?2
)
SELECT id, fence, updated_at, NULL FROM stretch CROSS JOIN tasks ON id = task_id
WHERE NOT told AND status = 'cancelled' AND (updated_at <= ?3 OR updated_at > ?4)
UNION ALL
SELECT (SELECT max(task_id) FROM stretch), NULL, NULL, (SELECT count(*) FROM stretch)";

/// `?1` ids.
pub(super) const MARK_TOLD: &str = "
UPDATE stopped SET told = 1 WHERE cancelled = 1 AND told = 0 AND task_id IN (SELECT value FROM json_each(?1))";

/// `?1` the id before the first, `?2` how many tasks to walk, `?3` up to which time a task is old. Answers each, and whether it
/// is at rest and old.
pub(super) const WALK_TASKS: &str = "
SELECT id, status IN ('done', 'failed', 'cancelled') AND updated_at <= ?3 FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2";

/// `?1` ids, `?2` up to which time a task is old. Compares once more, with the claims too. Answers which were done, and the time
/// that each took.
pub(super) const PRUNE: &str = "
DELETE FROM tasks
WHERE id IN (SELECT value FROM json_each(?1)) AND status IN ('done', 'failed', 'cancelled') AND updated_at <= ?2
    AND id NOT IN (SELECT held.value ->> 0 FROM claims CROSS JOIN json_each(claims.tasks) AS held)
RETURNING status = 'done', updated_at - created_at, id";

/// The foreign key forbids what it looks for; a restored file may have been written without it.
pub(super) const ORPHANED_CLAIMS: &str = "
SELECT id, worker_id, tasks, claimed_at FROM claims WHERE worker_id NOT IN (SELECT id FROM workers)
ORDER BY id LIMIT ?1";

/// Of failed and cancelled tasks: whether it was cancelled, and the id.
pub(super) const LIST_AS_STOPPED: &str = "
INSERT INTO stopped (cancelled, task_id) SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true
ON CONFLICT (cancelled, task_id) DO UPDATE SET told = 0";

pub(super) const UNLIST_STOPPED: &str = "
DELETE FROM stopped WHERE cancelled IN (0, 1) AND task_id IN (SELECT value FROM json_each(?1))";

/// The statements of the catalog: `?1` the id after the last, `?2` how many rows to walk. Each with what it is like, and how long
/// its texts are; nulls for one whose task does not exist. Lengths are read without the texts.
macro_rules! walk {
    ($walked:literal) => {
        concat!(
            "WITH walked AS MATERIALIZED (
    ",
            $walked,
            "
)
SELECT walked.id, status, priority, created_at,
    octet_length(payload) + coalesce(octet_length(result), 0) + coalesce(octet_length(error), 0)
FROM walked LEFT JOIN tasks ON tasks.id = walked.id ORDER BY walked.id DESC"
        )
    };
}

pub(super) const WALK: &str = walk!("SELECT id FROM tasks WHERE id < ?1 ORDER BY id DESC LIMIT ?2");

pub(super) const WALK_QUEUED: &str =
    walk!("SELECT task_id AS id FROM queue WHERE task_id < ?1 ORDER BY task_id DESC LIMIT ?2");

pub(super) const WALK_CLAIMED: &str = walk!(
    "SELECT DISTINCT held.value ->> 0 AS id FROM claims CROSS JOIN json_each(claims.tasks) AS held
    WHERE held.value ->> 0 < ?1 ORDER BY id DESC LIMIT ?2"
);

pub(super) const WALK_FAILED: &str = walk!(
    "SELECT task_id AS id FROM stopped WHERE cancelled = 0 AND task_id < ?1 ORDER BY task_id DESC LIMIT ?2"
);

pub(super) const WALK_CANCELLED: &str = walk!(
    "SELECT task_id AS id FROM stopped WHERE cancelled = 1 AND task_id < ?1 ORDER BY task_id DESC LIMIT ?2"
);

/// `?1` the id, `?2` how far to count, `?3` now. The columns of [`GET`], then as PostgreSQL answers: its queue row, how many are
/// ahead, its claim.
pub(super) const INSPECT: &str = "
WITH task AS MATERIALIZED (
    SELECT id, payload, priority, status, result, error, attempts, max_attempts, rescues, fence, created_at, updated_at
    FROM tasks WHERE id = ?1
), waiting AS MATERIALIZED (
    SELECT not_before, messaged FROM queue WHERE task_id = ?1 AND (SELECT status FROM task) = 'pending'
), own AS MATERIALIZED (
    SELECT not_before FROM waiting WHERE not_before <= ?3
), holder AS MATERIALIZED (
    SELECT worker_id, claimed_at FROM claims CROSS JOIN json_each(claims.tasks) AS held
    WHERE (SELECT status FROM task) = 'processing' AND held.value ->> 0 = ?1
        AND held.value ->> 1 = (SELECT fence FROM task)
    ORDER BY claims.id LIMIT 1
)
SELECT task.*, (SELECT not_before FROM waiting), (SELECT messaged FROM waiting),
    (SELECT count(*) FROM (
        SELECT 1 FROM queue
        WHERE messaged = 0 AND not_before <= (SELECT not_before FROM own)
            AND (not_before < (SELECT not_before FROM own) OR task_id < ?1)
        ORDER BY not_before DESC LIMIT ?2
    )),
    (SELECT count(*) FROM (
        SELECT 1 FROM queue
        WHERE messaged = 1 AND not_before <= (SELECT not_before FROM own)
            AND (not_before < (SELECT not_before FROM own) OR task_id < ?1)
        ORDER BY not_before DESC LIMIT ?2
    )),
    (SELECT worker_id FROM holder), (SELECT name FROM workers WHERE id = (SELECT worker_id FROM holder)),
    (SELECT claimed_at FROM holder)
FROM task";

/// `?1` now, `?2` how many rows to count. Answers how many wait, how many of them are due, since when the first of these is, how
/// many claims there are, and when the first was made.
pub(super) const SURVEY: &str = "
WITH due AS MATERIALIZED (
    SELECT * FROM (SELECT not_before FROM queue WHERE messaged = 0 AND not_before <= ?1 ORDER BY not_before LIMIT ?2)
    UNION ALL
    SELECT * FROM (SELECT not_before FROM queue WHERE messaged = 1 AND not_before <= ?1 ORDER BY not_before LIMIT ?2)
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM queue LIMIT ?2)), (SELECT count(*) FROM due), (SELECT min(not_before) FROM due),
    (SELECT count(*) FROM (SELECT 1 FROM claims LIMIT ?2)), (SELECT claimed_at FROM claims ORDER BY id LIMIT 1)";
