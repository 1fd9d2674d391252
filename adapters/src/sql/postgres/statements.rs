//! The statements.
//!
//! Their plans must not depend on what the planner believes about tables that are all churn: sessions run with
//! sequential scans, bitmap scans, nested loops and merge joins off and with generic plans (see `pool`), and every table
//! is entered through `= ANY(array)` on its primary key or through the one range of the queue's index, so that an index
//! scan is the only plan left. Entering by array also locks rows in the order of their ids.
//!
//! `LOCALTIMESTAMP` is the time at which the statement began, in the session's time zone, which is UTC.

/// Stores tasks none of which exists: a duplicate is an error. `run_at` before AD 1 is none: the driver's arrays hold no
/// nulls.
pub(super) const INSERT_FRESH: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::timestamp[], $6::bool[])
        AS input (id, payload, priority, max_attempts, run_at, messaged)
), stored AS (
    INSERT INTO tasks (id, payload, priority, status, created_at, updated_at, max_attempts)
    SELECT id, payload, priority, 'pending', LOCALTIMESTAMP, LOCALTIMESTAMP, max_attempts FROM input
), queued AS (
    INSERT INTO queue (task_id, not_before, messaged, priority)
    SELECT id, CASE WHEN run_at < '0001-01-01' THEN LOCALTIMESTAMP ELSE run_at END, messaged, priority FROM input
)
SELECT LOCALTIMESTAMP";

/// [`INSERT_FRESH`] for one task, as whoever submits one after the other has it: without arrays to take apart.
pub(super) const INSERT_ONE: &str = "
WITH stored AS (
    INSERT INTO tasks (id, payload, priority, status, created_at, updated_at, max_attempts)
    VALUES ($1::uuid, $2::text, $3::int, 'pending', LOCALTIMESTAMP, LOCALTIMESTAMP, $4::int)
), queued AS (
    INSERT INTO queue (task_id, not_before, messaged, priority)
    VALUES ($1::uuid, COALESCE($5::timestamp, LOCALTIMESTAMP), $6::bool, $3::int)
)
SELECT LOCALTIMESTAMP";

/// Stores those tasks that do not exist, and answers which. A queue row that stood there without its task is replaced.
pub(super) const INSERT_REPEATED: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::timestamp[], $6::bool[])
        AS input (id, payload, priority, max_attempts, run_at, messaged)
), stored AS (
    INSERT INTO tasks (id, payload, priority, status, created_at, updated_at, max_attempts)
    SELECT id, payload, priority, 'pending', LOCALTIMESTAMP, LOCALTIMESTAMP, max_attempts FROM input
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), queued AS (
    INSERT INTO queue (task_id, not_before, messaged, priority)
    SELECT id, CASE WHEN run_at < '0001-01-01' THEN LOCALTIMESTAMP ELSE run_at END, messaged, priority
    FROM input WHERE id IN (SELECT id FROM stored)
    ON CONFLICT (task_id) DO UPDATE SET not_before = excluded.not_before, messaged = excluded.messaged
)
SELECT id FROM stored";

/// `$1` keys in ascending order, `$2` fingerprints, `$3` the ids of each request as the text of an array; the tasks with `$4` the
/// number of their request, from 1. Answers the keys that were new, in the columns of [`KEPT`].
///
/// A key that another session is just storing is waited for; whatever that session stores, the next statement sees.
pub(super) const INSERT_KEYED: &str = "
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS wanted (key, fingerprint, ids, number)
), kept AS (
    INSERT INTO idempotency_keys (key, fingerprint, task_ids, created_at)
    SELECT key, fingerprint, ids::uuid[], LOCALTIMESTAMP FROM wanted ORDER BY number
    ON CONFLICT (key) DO NOTHING
    RETURNING key, fingerprint, task_ids, created_at
), input AS MATERIALIZED (
    SELECT * FROM unnest($4::bigint[], $5::uuid[], $6::text[], $7::int[], $8::int[], $9::timestamp[], $10::bool[])
        AS input (number, id, payload, priority, max_attempts, run_at, messaged)
    WHERE number = ANY(ARRAY(SELECT wanted.number FROM wanted WHERE wanted.key IN (SELECT key FROM kept)))
), stored AS (
    INSERT INTO tasks (id, payload, priority, status, created_at, updated_at, max_attempts)
    SELECT id, payload, priority, 'pending', LOCALTIMESTAMP, LOCALTIMESTAMP, max_attempts FROM input
), queued AS (
    INSERT INTO queue (task_id, not_before, messaged, priority)
    SELECT id, CASE WHEN run_at < '0001-01-01' THEN LOCALTIMESTAMP ELSE run_at END, messaged, priority FROM input
)
SELECT key, fingerprint, task_ids, created_at FROM kept";

/// `$1` keys.
pub(super) const KEPT: &str =
    "SELECT key, fingerprint, task_ids, created_at FROM idempotency_keys WHERE key = ANY($1)";

/// `$1` the age in microseconds, `$2` the limit.
pub(super) const PRUNE_KEYS: &str = "
WITH old AS MATERIALIZED (
    SELECT key FROM idempotency_keys WHERE created_at < LOCALTIMESTAMP - $1::bigint * interval '1 microsecond'
    ORDER BY created_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys WHERE key = ANY(ARRAY(SELECT key FROM old))";

pub(super) const CREATED_AT: &str = "SELECT id, created_at FROM tasks WHERE id = ANY($1)";

pub(super) const GET: &str = "
SELECT id, payload, priority, status::text, result, error, attempts, max_attempts, rescues, fence,
    created_at, updated_at
FROM tasks WHERE id = ANY($1)";

pub(super) const WHEREABOUTS: &str = "SELECT id, status::text, fence FROM tasks WHERE id = ANY($1)";

/// Kinds of rows that a claiming statement answers, in its first column.
pub(super) const KIND_GATE: i32 = 0;
pub(super) const KIND_CLAIMED: i32 = 1;

/// Waits until no claim under this ticket is under way.
pub(super) const AWAIT_TICKET: &str = "SELECT 1 FROM pg_advisory_xact_lock($1)";

/// Asks the worker and the ticket first: `$1` claim, `$2` worker, `$3` the ticket's lock.
macro_rules! gate {
    () => {
        "gate AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM workers WHERE id = $2 AND NOT dead) AS alive,
        EXISTS (SELECT FROM claims WHERE id = $1) AS held
    FROM pg_advisory_xact_lock($3)
)"
    };
}

/// Takes the tasks whose ids `$wanted` selects, and the queue rows in `picked`.
///
/// The worker's row is locked until the claim is committed, against death and removal but not against its beats; and only
/// if there is something to take: a question that finds nothing writes nothing.
macro_rules! take {
    ($wanted:literal) => {
        concat!(
            "wanted AS MATERIALIZED (
    ",
            $wanted,
            "
), holder AS MATERIALIZED (
    SELECT id FROM workers WHERE id = $2 AND NOT dead AND (SELECT count(*) FROM wanted) > 0 FOR KEY SHARE
), taken AS (
    UPDATE tasks SET status = 'processing', fence = fence + 1, updated_at = LOCALTIMESTAMP
    WHERE id = ANY(ARRAY(SELECT id FROM wanted)) AND status = 'pending' AND (SELECT count(*) FROM holder) = 1
    RETURNING id, payload, priority, attempts, max_attempts, fence, created_at
), removed AS (
    DELETE FROM queue
    WHERE task_id = ANY(ARRAY(SELECT task_id FROM picked)) AND (SELECT count(*) FROM holder) = 1
), "
        )
    };
}

/// Records the claim of what was taken and answers the gate and the claimed tasks, from `picked` and `taken`.
macro_rules! record_and_answer {
    () => {
        "recorded AS (
    INSERT INTO claims (id, worker_id, task_ids, fences, claimed_at)
    SELECT $1, $2, array_agg(id ORDER BY id), array_agg(fence ORDER BY id), LOCALTIMESTAMP
    FROM taken HAVING count(*) > 0
)
SELECT 0, alive AND ((SELECT count(*) FROM wanted) = 0 OR (SELECT count(*) FROM holder) = 1), held, NULL::text, NULL::uuid, NULL::text, NULL::int, NULL::int, NULL::int,
    NULL::bigint, NULL::timestamp, NULL::timestamp, LOCALTIMESTAMP
FROM gate
UNION ALL
SELECT 1, NULL, NULL, NULL, taken.id, payload, taken.priority, attempts, max_attempts, fence, created_at,
    coalesce(picked.not_before, created_at), LOCALTIMESTAMP
FROM taken LEFT JOIN picked ON picked.task_id = taken.id"
    };
}

/// `$4` the delivered ids. The sums with an empty interval keep `not_before` away from the index that starts with
/// `messaged`: entered without it, that index is walked from end to end.
pub(super) const CLAIM_DELIVERED: &str = concat!(
    "WITH ",
    gate!(),
    ", picked AS MATERIALIZED (
    SELECT task_id, not_before FROM queue
    WHERE task_id = ANY($4) AND not_before + interval '0' <= LOCALTIMESTAMP
        AND (SELECT alive AND NOT held FROM gate)
    FOR UPDATE SKIP LOCKED
), others AS MATERIALIZED (
    SELECT unnest($4) AS id EXCEPT SELECT task_id FROM picked
), waiting AS MATERIALIZED (
    SELECT task_id, not_before + interval '0' > LOCALTIMESTAMP AS early FROM queue
    WHERE task_id = ANY(ARRAY(SELECT id FROM others))
), unqueued AS MATERIALIZED (
    SELECT id FROM tasks
    WHERE id = ANY(ARRAY(SELECT id FROM others EXCEPT SELECT task_id FROM waiting))
        AND status = 'pending' AND fence = 0 AND (SELECT alive AND NOT held FROM gate)
    FOR UPDATE SKIP LOCKED
), ",
    take!("SELECT task_id AS id FROM picked UNION ALL SELECT id FROM unqueued"),
    record_and_answer!(),
    "
UNION ALL
SELECT 2, coalesce(early, false), NULL, status::text, id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM (SELECT id, status FROM tasks WHERE id = ANY(ARRAY(SELECT unnest($4) EXCEPT SELECT id FROM taken))) AS passed
LEFT JOIN waiting ON waiting.task_id = passed.id"
);

/// `$4` the latest `not_before`, `$5` the grace in microseconds, `$6` the limit, `$7` and `$8` the earliest `not_before` of
/// rows without and with a message.
macro_rules! claim_aged {
    ($first:literal, $first_range:expr, $second:literal, $second_range:expr) => {
        concat!(
            "WITH ",
            gate!(),
            ", earlier AS MATERIALIZED (
    SELECT task_id, not_before FROM queue
    WHERE messaged = ",
            $first,
            " AND not_before <= ",
            $first_range,
            " AND (SELECT alive AND NOT held FROM gate)
    ORDER BY not_before LIMIT $6
    FOR UPDATE SKIP LOCKED
), later AS MATERIALIZED (
    SELECT task_id, not_before FROM queue
    WHERE messaged = ",
            $second,
            " AND not_before <= ",
            $second_range,
            " AND (SELECT alive AND NOT held FROM gate)
    ORDER BY not_before LIMIT greatest($6 - (SELECT count(*) FROM earlier), 0)
    FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
    SELECT * FROM earlier UNION ALL SELECT * FROM later
), ",
            take!("SELECT task_id AS id FROM picked"),
            record_and_answer!()
        )
    };
}

macro_rules! unmessaged_range {
    () => {
        "least($4::timestamp, LOCALTIMESTAMP) AND not_before >= $7"
    };
}

macro_rules! messaged_range {
    () => {
        "least($4::timestamp, LOCALTIMESTAMP) - $5::bigint * interval '1 microsecond' AND not_before >= $8"
    };
}

pub(super) const CLAIM_AGED_UNMESSAGED_FIRST: &str =
    claim_aged!("false", unmessaged_range!(), "true", messaged_range!());

pub(super) const CLAIM_AGED_MESSAGED_FIRST: &str =
    claim_aged!("true", messaged_range!(), "false", unmessaged_range!());

/// What a recorded claim still holds, as if just claimed.
pub(super) const HELD: &str = "
WITH held AS MATERIALIZED (
    SELECT unnest(task_ids) AS id, unnest(fences) AS fence, claimed_at FROM claims WHERE id = $1 AND worker_id = $2
)
SELECT tasks.id, payload, priority, attempts, max_attempts, tasks.fence, created_at, created_at, claimed_at
FROM tasks JOIN held ON held.id = tasks.id AND held.fence = tasks.fence
WHERE tasks.id = ANY(ARRAY(SELECT id FROM held)) AND status = 'processing'";

/// `$1` ids, `$2` fences, `$3` from, `$4` to, `$5` results, `$6` whether the error is kept, `$7` errors,
/// `$8` delays in microseconds, `$9` whether counters are reset, `$10` attempts and `$11` rescues to add.
///
/// A task becomes done at most once, so totals are exact. What is left out of a statement costs nothing: for one task, most of
/// what it costs is the making ready of its parts.
macro_rules! transition {
    ($before:literal, $if_ready:literal, $after:expr) => {
        concat!(
            "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::text[],
            $8::bigint[], $9::bool[], $10::int[], $11::int[])
        AS input (id, fence, was, becomes, result, keeps_error, error, delay, resets, attempts, rescues)
)",
            $before,
            ", moved AS (
    UPDATE tasks SET
        status = input.becomes::task_status,
        fence = tasks.fence + 1,
        updated_at = LOCALTIMESTAMP,
        result = CASE WHEN input.becomes = 'done' THEN input.result END,
        error = CASE WHEN input.keeps_error THEN tasks.error WHEN input.becomes <> 'done' THEN input.error END,
        attempts = CASE WHEN input.resets THEN 0 ELSE tasks.attempts + input.attempts END,
        rescues = CASE WHEN input.resets THEN 0 ELSE tasks.rescues + input.rescues END
    FROM input
    WHERE tasks.id = ANY($1) AND tasks.id = input.id AND tasks.fence = input.fence
        AND tasks.status = input.was::task_status",
            $if_ready,
            "
    RETURNING tasks.id, tasks.priority, tasks.created_at, input.was, input.becomes, input.delay
), totalled AS (
    INSERT INTO totals (shard, done, elapsed_us)
    SELECT pg_backend_pid() % 16, count(*), extract(epoch FROM sum(LOCALTIMESTAMP - created_at)) * 1000000
    FROM moved WHERE becomes = 'done' HAVING count(*) > 0
    ON CONFLICT (shard) DO UPDATE SET
        done = totals.done + excluded.done, elapsed_us = totals.elapsed_us + excluded.elapsed_us
)",
            $after,
            "
SELECT id, LOCALTIMESTAMP FROM moved"
        )
    };
}

/// Of tasks of which some are or become `pending`: `$12` those that are. Queue rows are locked before tasks, in the order in
/// which claims lock them.
macro_rules! transition_of_queued {
    ($lists:literal) => {
        transition!(
            ", locked AS MATERIALIZED (
    SELECT task_id FROM queue WHERE task_id = ANY($12) FOR UPDATE
)",
            " AND (SELECT count(*) FROM locked) >= 0",
            concat!(
                ", queued AS (
    INSERT INTO queue (task_id, not_before, messaged, priority)
    SELECT id, LOCALTIMESTAMP + delay * interval '1 microsecond', false, least(greatest(priority, 0), 10)
    FROM moved WHERE becomes = 'pending'
    ON CONFLICT (task_id) DO UPDATE SET not_before = excluded.not_before, messaged = false
), removed AS (
    DELETE FROM queue
    WHERE task_id = ANY(ARRAY(SELECT id FROM moved WHERE was = 'pending' AND becomes <> 'pending'))
)",
                $lists
            )
        )
    };
}

/// Of tasks in hand that become done.
pub(super) const TRANSITION: &str = transition!("", "", "");

/// Of tasks that neither become nor were failed or cancelled: the list of those is not touched.
pub(super) const TRANSITION_OF_QUEUED: &str = transition_of_queued!("");

/// Of any tasks. A row of the list is written and deleted by whoever has the task's row locked. An entry that is there already,
/// by other hands, stays; what it says of the news is of another time.
pub(super) const TRANSITION_OF_STOPPED: &str = transition_of_queued!(
    ", listed AS (
    INSERT INTO stopped (cancelled, task_id)
    SELECT becomes = 'cancelled', id FROM moved WHERE becomes IN ('failed', 'cancelled')
    ON CONFLICT (cancelled, task_id) DO UPDATE SET told = false
), unlisted AS (
    DELETE FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true])
        AND task_id = ANY(ARRAY(SELECT id FROM moved WHERE was IN ('failed', 'cancelled')))
        AND NOT (cancelled AND task_id = ANY(ARRAY(SELECT id FROM moved WHERE becomes = 'cancelled')))
        AND (cancelled OR NOT task_id = ANY(ARRAY(SELECT id FROM moved WHERE becomes = 'failed')))
)"
);

pub(super) const RELEASE: &str = "DELETE FROM claims WHERE id = ANY($1)";

pub(super) const CLAIMS_OF: &str = "
SELECT id, worker_id, task_ids, fences, claimed_at FROM claims WHERE worker_id = $1 AND id > $2
ORDER BY id LIMIT $3";

/// The cast keeps `messaged` away from the index that starts with it.
pub(super) const MARK_UNMESSAGED: &str =
    "UPDATE queue SET messaged = false WHERE task_id = ANY($1) AND messaged::int = 1";

/// What was pruned since is among them, and once more in a shard of its own, −1.
pub(super) const TOTALS: &str = "
SELECT coalesce(sum(done), 0)::bigint, coalesce(sum(elapsed_us), 0)::numeric(38, 0)::text FROM totals
WHERE shard >= 0";

pub(super) const PING: &str = "SELECT 1";

pub(super) const REGISTER: &str = "
INSERT INTO workers (id, name, beat, dead, registered_at) VALUES ($1, $2, 0, false, LOCALTIMESTAMP)
ON CONFLICT (id) DO NOTHING";

pub(super) const BEAT: &str =
    "UPDATE workers SET beat = beat + 1, position = $2 WHERE id = $1 AND NOT dead";

pub(super) const WORKERS: &str = "SELECT id, name, beat, position, dead FROM workers ORDER BY id";

/// `FOR UPDATE` waits for the claims that the worker is just making; the update alone would not.
pub(super) const DECLARE_DEAD: &str = "
WITH standing AS MATERIALIZED (
    SELECT id FROM workers WHERE id = $1 AND NOT dead AND beat = $2 FOR UPDATE
)
UPDATE workers SET dead = true WHERE id = ANY(ARRAY(SELECT id FROM standing))";

pub(super) const IS_DEAD: &str = "SELECT 1 FROM workers WHERE id = $1 AND dead";

pub(super) const REMOVE: &str = "DELETE FROM workers WHERE id = $1";

/// `$1` the first id, `$2` how many tasks to walk, `$3` the time in microseconds. Tasks in the columns of [`GET`]; in one more
/// row, marked by the last two columns, how many were walked and which are not listed, with the id of the last one in the first.
///
/// Everything is read under one snapshot. The claims are read only when a task that is said to be in hand has not moved for
/// so long: in the older stretches of a table there is none. A row whose times are no calendar's (`infinity`) cannot be read
/// by any of our programs; it must not hold up the walk.
pub(super) const STRANDED: &str = "
WITH stretch AS MATERIALIZED (
    SELECT id, status, fence, created_at, updated_at FROM tasks WHERE id >= $1 ORDER BY id LIMIT $2
), unmoved AS MATERIALIZED (
    SELECT id, status, fence FROM stretch
    WHERE status IN ('pending', 'processing')
        AND (updated_at <= LOCALTIMESTAMP - $3::bigint * interval '1 microsecond'
            OR updated_at > LOCALTIMESTAMP + $3::bigint * interval '1 microsecond')
        AND created_at BETWEEN '0001-01-01' AND '9999-12-31' AND updated_at BETWEEN '0001-01-01' AND '9999-12-31'
), in_queue AS MATERIALIZED (
    SELECT task_id FROM queue WHERE task_id = ANY(ARRAY(SELECT id FROM unmoved WHERE status = 'pending'))
), held AS MATERIALIZED (
    SELECT unnest(task_ids) AS id, unnest(fences) AS fence FROM claims
    WHERE id >= '00000000-0000-0000-0000-000000000000'
        AND (SELECT count(*) FROM unmoved WHERE status = 'processing') > 0
), stranded AS MATERIALIZED (
    (SELECT id FROM unmoved WHERE status = 'pending' EXCEPT SELECT task_id FROM in_queue)
    UNION ALL
    SELECT id FROM (
        SELECT id, fence FROM unmoved WHERE status = 'processing' EXCEPT SELECT id, fence FROM held
    ) AS in_no_hand
), stopping AS MATERIALIZED (
    SELECT id, status = 'cancelled' AS cancelled FROM stretch WHERE status IN ('failed', 'cancelled')
), listed AS MATERIALIZED (
    SELECT task_id, cancelled FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true]) AND task_id = ANY(ARRAY(SELECT id FROM stopping))
), unlisted AS MATERIALIZED (
    SELECT id, cancelled FROM stopping EXCEPT SELECT task_id, cancelled FROM listed
)
SELECT id, payload, priority, status::text, result, error, attempts, max_attempts, rescues, fence,
    created_at, updated_at, NULL::bigint, NULL::uuid[]
FROM tasks WHERE id = ANY(ARRAY(SELECT id FROM stranded))
UNION ALL
SELECT (SELECT id FROM stretch ORDER BY id DESC LIMIT 1), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, (SELECT count(*) FROM stretch), ARRAY(SELECT id FROM unlisted)";

/// `$1` ids. The tasks are locked against whoever moves them; those that someone is just moving are passed over.
pub(super) const ENQUEUE: &str = "
WITH waiting AS MATERIALIZED (
    SELECT id, priority FROM tasks WHERE id = ANY($1) AND status = 'pending' FOR NO KEY UPDATE SKIP LOCKED
)
INSERT INTO queue (task_id, not_before, messaged, priority)
SELECT id, LOCALTIMESTAMP, false, least(greatest(priority, 0), 10) FROM waiting
ON CONFLICT (task_id) DO NOTHING";

/// `$1` the first id, `$2` how many rows to walk. Answers how many were walked, the last of them, and how many were deleted.
///
/// Whoever makes a task wait writes its queue row in the same commit, so a row of which there is a newer version than the
/// one that was compared is not in vain any more: `xmin` tells.
pub(super) const SWEEP_QUEUE: &str = "
WITH stretch AS MATERIALIZED (
    SELECT task_id, xmin AS version FROM queue WHERE task_id >= $1 ORDER BY task_id LIMIT $2
), waiting AS MATERIALIZED (
    SELECT id FROM tasks WHERE id = ANY(ARRAY(SELECT task_id FROM stretch)) AND status = 'pending'
), in_vain AS MATERIALIZED (
    SELECT task_id, version FROM stretch
    WHERE task_id = ANY(ARRAY(SELECT task_id FROM stretch EXCEPT SELECT id FROM waiting))
), locked AS MATERIALIZED (
    SELECT queue.task_id FROM queue JOIN in_vain ON in_vain.task_id = queue.task_id AND in_vain.version = queue.xmin
    WHERE queue.task_id = ANY(ARRAY(SELECT task_id FROM in_vain))
    FOR UPDATE OF queue SKIP LOCKED
), removed AS (
    DELETE FROM queue WHERE task_id = ANY(ARRAY(SELECT task_id FROM locked)) RETURNING task_id
)
SELECT (SELECT count(*) FROM stretch), (SELECT task_id FROM stretch ORDER BY task_id DESC LIMIT 1),
    (SELECT count(*) FROM removed)";

/// `$1` ids. The tasks are locked against whoever moves them; those that someone is just moving are passed over.
pub(super) const ENLIST: &str = "
WITH stopping AS MATERIALIZED (
    SELECT id, status FROM tasks WHERE id = ANY($1) AND status IN ('failed', 'cancelled')
    FOR NO KEY UPDATE SKIP LOCKED
)
INSERT INTO stopped (cancelled, task_id) SELECT status = 'cancelled', id FROM stopping
ON CONFLICT (cancelled, task_id) DO NOTHING";

/// `$1` the first id, `$2` how many listed tasks to walk. Answers as [`SWEEP_QUEUE`].
///
/// Whoever moves a task has its row locked, and finds an entry that is there good enough: so what is in vain is deleted
/// only under that lock, and after the task was looked at once more, as it stands then.
pub(super) const SWEEP_STOPPED: &str = "
WITH stretch AS MATERIALIZED (
    (SELECT task_id FROM stopped WHERE cancelled = false AND task_id >= $1 ORDER BY task_id LIMIT $2)
    UNION
    (SELECT task_id FROM stopped WHERE cancelled = true AND task_id >= $1 ORDER BY task_id LIMIT $2)
    ORDER BY task_id LIMIT $2
), entries AS MATERIALIZED (
    SELECT task_id, cancelled FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true]) AND task_id = ANY(ARRAY(SELECT task_id FROM stretch))
), standing AS MATERIALIZED (
    SELECT id, status FROM tasks WHERE id = ANY(ARRAY(SELECT task_id FROM stretch))
), in_vain AS MATERIALIZED (
    SELECT task_id, cancelled FROM entries
    EXCEPT SELECT id, status = 'cancelled' FROM standing WHERE status IN ('failed', 'cancelled')
), locked AS MATERIALIZED (
    SELECT id, status FROM tasks WHERE id = ANY(ARRAY(SELECT task_id FROM in_vain)) FOR NO KEY UPDATE SKIP LOCKED
), confirmed AS MATERIALIZED (
    (SELECT task_id, cancelled FROM in_vain
        WHERE NOT task_id = ANY(ARRAY(SELECT id FROM standing)) OR task_id = ANY(ARRAY(SELECT id FROM locked)))
    EXCEPT SELECT id, status = 'cancelled' FROM locked WHERE status IN ('failed', 'cancelled')
), ours AS MATERIALIZED (
    SELECT task_id, cancelled FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true]) AND task_id = ANY(ARRAY(SELECT task_id FROM confirmed))
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true]) AND task_id = ANY(ARRAY(SELECT task_id FROM ours))
        AND (cancelled, task_id) IN (SELECT cancelled, task_id FROM confirmed)
        AND (cancelled, task_id) IN (SELECT cancelled, task_id FROM ours)
    RETURNING task_id
)
SELECT (SELECT count(*) FROM stretch), (SELECT task_id FROM stretch ORDER BY task_id DESC LIMIT 1),
    (SELECT count(*) FROM removed)";

/// `$1` the first id, `$2` how many tasks listed as cancelled to walk, `$3` the time in microseconds. Of each whose news is not
/// told the id, the fence and when it moved; in one more row, marked by the last column, how many were walked, with the id of the
/// last one in the first.
pub(super) const UNTOLD: &str = "
WITH stretch AS MATERIALIZED (
    SELECT task_id, told FROM stopped WHERE cancelled = true AND task_id >= $1 ORDER BY task_id LIMIT $2
)
SELECT id, fence, updated_at, NULL::bigint FROM tasks
WHERE id = ANY(ARRAY(SELECT task_id FROM stretch WHERE NOT told)) AND status = 'cancelled'
    AND (updated_at <= LOCALTIMESTAMP - $3::bigint * interval '1 microsecond'
        OR updated_at > LOCALTIMESTAMP + $3::bigint * interval '1 microsecond')
    AND updated_at BETWEEN '0001-01-01' AND '9999-12-31'
UNION ALL
SELECT (SELECT task_id FROM stretch ORDER BY task_id DESC LIMIT 1), NULL, NULL, (SELECT count(*) FROM stretch)";

/// `$1` ids. No index names `told`.
pub(super) const MARK_TOLD: &str = "
WITH ours AS MATERIALIZED (
    SELECT task_id FROM stopped WHERE cancelled = true AND task_id = ANY($1) AND NOT told FOR UPDATE SKIP LOCKED
)
UPDATE stopped SET told = true WHERE cancelled = true AND task_id = ANY(ARRAY(SELECT task_id FROM ours))";

/// `$1` the first id, `$2` how many tasks to walk, `$3` the age in microseconds. Answers as [`SWEEP_QUEUE`].
///
/// Everything is chosen under one snapshot, so a task that came to rest meanwhile is not old in it, and one that is in a claim is
/// in a claim of it. What moved since is not locked: its newer version is compared again.
pub(super) const PRUNE: &str = "
WITH stretch AS MATERIALIZED (
    SELECT id, status, created_at, updated_at FROM tasks WHERE id >= $1 ORDER BY id LIMIT $2
), old AS MATERIALIZED (
    SELECT id FROM stretch
    WHERE status IN ('done', 'failed', 'cancelled')
        AND updated_at <= LOCALTIMESTAMP - $3::bigint * interval '1 microsecond'
        AND created_at BETWEEN '0001-01-01' AND '9999-12-31' AND updated_at >= '0001-01-01'
), held AS MATERIALIZED (
    SELECT unnest(task_ids) AS id FROM claims
    WHERE id >= '00000000-0000-0000-0000-000000000000' AND (SELECT count(*) FROM old) > 0
), free AS MATERIALIZED (
    SELECT id FROM old EXCEPT SELECT id FROM held
), locked AS MATERIALIZED (
    SELECT id FROM tasks
    WHERE id = ANY(ARRAY(SELECT id FROM free)) AND status IN ('done', 'failed', 'cancelled')
        AND updated_at <= LOCALTIMESTAMP - $3::bigint * interval '1 microsecond'
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM tasks WHERE id = ANY(ARRAY(SELECT id FROM locked)) RETURNING id, status, created_at, updated_at
), unlisted AS (
    DELETE FROM stopped
    WHERE cancelled = ANY(ARRAY[false, true])
        AND task_id = ANY(ARRAY(SELECT id FROM removed WHERE status IN ('failed', 'cancelled')))
), counted AS (
    INSERT INTO totals (shard, done, elapsed_us)
    SELECT -1, count(*), extract(epoch FROM sum(updated_at - created_at)) * 1000000
    FROM removed WHERE status = 'done' HAVING count(*) > 0
    ON CONFLICT (shard) DO UPDATE SET
        done = totals.done + excluded.done, elapsed_us = totals.elapsed_us + excluded.elapsed_us
)
SELECT (SELECT count(*) FROM stretch), (SELECT id FROM stretch ORDER BY id DESC LIMIT 1),
    (SELECT count(*) FROM removed)";

/// `$1` the limit. Goes from one worker to the next in the index of the claims, so that its cost is that of the workers and
/// not of the claims. The foreign key forbids what it looks for; a restored backup may have been loaded without it.
pub(super) const ORPHANED_CLAIMS: &str = "
WITH RECURSIVE holders AS (
    (SELECT worker_id FROM claims WHERE worker_id >= '00000000-0000-0000-0000-000000000000'
        ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT (SELECT worker_id FROM claims WHERE worker_id > holders.worker_id ORDER BY worker_id LIMIT 1)
    FROM holders WHERE holders.worker_id IS NOT NULL
), orphaned AS MATERIALIZED (
    SELECT id FROM claims WHERE worker_id = ANY(ARRAY(
        SELECT worker_id FROM holders WHERE worker_id IS NOT NULL EXCEPT SELECT id FROM workers
    ))
), first AS MATERIALIZED (
    SELECT id FROM orphaned ORDER BY id LIMIT $1
)
SELECT id, worker_id, task_ids, fences, claimed_at FROM claims WHERE id = ANY(ARRAY(SELECT id FROM first))";

/// The statements of the catalog: `$1` the largest id, `$2` how many rows to walk, `$3` the status or null, `$4` the priority or
/// null, `$5` and `$6` between which times created, `$7` how many tasks and `$8` how many bytes of text to answer. Tasks in the
/// columns of [`GET`]; in one more row, marked by the last two columns, how many were walked and how many match, with the id of the
/// last walked in the first.
///
/// Ids first, then the sizes of those that match, then the texts of those that are answered. A row whose times are no
/// calendar's is passed over, as in [`STRANDED`].
macro_rules! list {
    ($walked:literal) => {
        concat!(
            "WITH walked AS MATERIALIZED (
    ",
            $walked,
            "
), matching AS MATERIALIZED (
    SELECT id FROM tasks
    WHERE id = ANY(ARRAY(SELECT id FROM walked))
        AND ($3::text IS NULL OR status::text = $3) AND ($4::int IS NULL OR least(greatest(priority, 0), 10) = $4)
        AND created_at >= $5::timestamp AND created_at < $6::timestamp
        AND created_at BETWEEN '0001-01-01' AND '9999-12-31' AND updated_at BETWEEN '0001-01-01' AND '9999-12-31'
    ORDER BY id DESC LIMIT $7
), measured AS MATERIALIZED (
    SELECT id, coalesce(sum(octet_length(payload) + coalesce(octet_length(result), 0) + coalesce(octet_length(error), 0))
        OVER (ORDER BY id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), -1) AS before
    FROM tasks WHERE id = ANY(ARRAY(SELECT id FROM matching))
)
SELECT id, payload, priority, status::text, result, error, attempts, max_attempts, rescues, fence,
    created_at, updated_at, NULL::bigint, NULL::bigint
FROM tasks WHERE id = ANY(ARRAY(SELECT id FROM measured WHERE before < $8::bigint))
UNION ALL
SELECT (SELECT id FROM walked ORDER BY id LIMIT 1), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    (SELECT count(*) FROM walked), (SELECT count(*) FROM matching)"
        )
    };
}

pub(super) const LIST: &str =
    list!("SELECT id FROM tasks WHERE id <= $1 ORDER BY id DESC LIMIT $2");

pub(super) const LIST_QUEUED: &str =
    list!("SELECT task_id AS id FROM queue WHERE task_id <= $1 ORDER BY task_id DESC LIMIT $2");

/// What is in hand at one time is bounded by what the workers may hold.
pub(super) const LIST_CLAIMED: &str = list!(
    "SELECT DISTINCT id FROM (
        SELECT unnest(task_ids) AS id FROM claims WHERE id >= '00000000-0000-0000-0000-000000000000'
    ) AS held WHERE id <= $1 ORDER BY id DESC LIMIT $2"
);

pub(super) const LIST_STOPPED: &str = list!(
    "SELECT task_id AS id FROM stopped
    WHERE cancelled = ($3::text = 'cancelled') AND task_id <= $1 ORDER BY task_id DESC LIMIT $2"
);

/// `$1` the id, `$2` how far to count, `$3` and `$4` the earliest `not_before` of rows without and with a message. The columns of
/// [`GET`], then of its queue row `not_before` and `messaged`, how many are ahead of it without and with a message, then of its
/// claim the worker, its name and the time; and the present.
///
/// The rows ahead are walked backwards from its own place, where they stand side by side; the dead entries of the index are at
/// its beginning.
pub(super) const INSPECT: &str = "
WITH task AS MATERIALIZED (
    SELECT id, payload, priority, status::text AS status, result, error, attempts, max_attempts, rescues, fence,
        created_at, updated_at
    FROM tasks WHERE id = ANY(ARRAY[$1::uuid])
), waiting AS MATERIALIZED (
    SELECT not_before, messaged FROM queue
    WHERE task_id = ANY(ARRAY[$1::uuid]) AND (SELECT status FROM task) = 'pending'
), own AS MATERIALIZED (
    SELECT not_before FROM waiting WHERE not_before + interval '0' <= LOCALTIMESTAMP
), ahead_unmessaged AS MATERIALIZED (
    SELECT 1 FROM queue
    WHERE messaged = false AND not_before <= (SELECT not_before FROM own) AND not_before >= $3
        AND (not_before + interval '0' < (SELECT not_before FROM own) OR task_id < $1)
    ORDER BY not_before DESC LIMIT $2
), ahead_messaged AS MATERIALIZED (
    SELECT 1 FROM queue
    WHERE messaged = true AND not_before <= (SELECT not_before FROM own) AND not_before >= $4
        AND (not_before + interval '0' < (SELECT not_before FROM own) OR task_id < $1)
    ORDER BY not_before DESC LIMIT $2
), holder AS MATERIALIZED (
    SELECT worker_id, claimed_at FROM claims
    WHERE id >= '00000000-0000-0000-0000-000000000000' AND (SELECT status FROM task) = 'processing'
        AND fences[array_position(task_ids, $1)] = (SELECT fence FROM task)
    ORDER BY id LIMIT 1
)
SELECT task.*, (SELECT not_before FROM waiting), (SELECT messaged FROM waiting),
    (SELECT count(*) FROM ahead_unmessaged), (SELECT count(*) FROM ahead_messaged),
    (SELECT worker_id FROM holder),
    (SELECT name FROM workers WHERE id = ANY(ARRAY(SELECT worker_id FROM holder))),
    (SELECT claimed_at FROM holder), LOCALTIMESTAMP
FROM task";

/// `$1` how many rows to count. Answers how many wait; how many of them are due; how many the statistics know; the age of the
/// first that is due; how many claims; the age of the first; the age of the oldest transaction in this database that keeps
/// vacuum from its work. Ages in microseconds.
///
/// Who began a transaction when is shown to a member of that role, or of `pg_read_all_stats`.
pub(super) const SURVEY: &str = "
WITH due AS MATERIALIZED (
    (SELECT not_before FROM queue WHERE messaged = false AND not_before <= LOCALTIMESTAMP ORDER BY not_before LIMIT $1)
    UNION ALL
    (SELECT not_before FROM queue WHERE messaged = true AND not_before <= LOCALTIMESTAMP ORDER BY not_before LIMIT $1)
), counted AS MATERIALIZED (
    SELECT task_id FROM queue WHERE task_id >= '00000000-0000-0000-0000-000000000000' ORDER BY task_id LIMIT $1
), claimed AS MATERIALIZED (
    SELECT claimed_at FROM claims WHERE id >= '00000000-0000-0000-0000-000000000000' ORDER BY id LIMIT $1
), here AS MATERIALIZED (
    SELECT oid FROM pg_database WHERE datname = current_database()
), begun AS MATERIALIZED (
    SELECT xact_start FROM pg_stat_get_activity(NULL)
    WHERE datid = (SELECT oid FROM here) AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND coalesce(backend_xmin, backend_xid) IS NOT NULL
    UNION ALL
    SELECT prepared FROM pg_prepared_xact() WHERE dbid = (SELECT oid FROM here)
)
SELECT (SELECT count(*) FROM counted), (SELECT count(*) FROM due), pg_stat_get_live_tuples('queue'::regclass),
    (SELECT extract(epoch FROM LOCALTIMESTAMP - min(greatest(not_before, '0001-01-01'))) * 1000000 FROM due)::bigint,
    (SELECT count(*) FROM claimed),
    (SELECT extract(epoch FROM LOCALTIMESTAMP - greatest(claimed_at, '0001-01-01')) * 1000000 FROM claimed LIMIT 1)::bigint,
    (SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) * 1000000 FROM begun)::bigint";
