//! SQLite: times are microseconds since 1970.

use super::Dialect;

pub(super) const DIALECT: Dialect = Dialect {
    limits: "
SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?1 AS past,
    CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?1 AS future",
    // The shard below zero holds what was pruned, which is among the others too.
    counts: "
SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM tasks WHERE status = 'done'),
    (SELECT CAST(coalesce(sum(updated_at - created_at), 0) AS TEXT) FROM tasks WHERE status = 'done'),
    (SELECT count(*) FROM queue), (SELECT count(*) FROM claims),
    (SELECT coalesce(sum(CASE WHEN shard < 0 THEN -done ELSE done END), 0) FROM totals),
    (SELECT CAST(coalesce(sum(CASE WHEN shard < 0 THEN -elapsed_us ELSE elapsed_us END), 0) AS TEXT) FROM totals),
    (SELECT count(*) FROM tasks LEFT JOIN queue ON task_id = id
        WHERE status = 'pending' AND fence = 0 AND task_id IS NULL)",
    unclaimed: "
SELECT id FROM tasks
WHERE status = 'processing' AND (id, fence) NOT IN (
    SELECT value ->> 0, value ->> 1 FROM claims, json_each(claims.tasks)
)",
    claimed_twice: "
SELECT tasks.id AS id FROM claims, json_each(claims.tasks) AS held
JOIN tasks ON tasks.id = held.value ->> 0 AND tasks.fence = held.value ->> 1
WHERE status = 'processing' GROUP BY tasks.id HAVING count(*) > 1",
    idle_claims: "
SELECT claims.id AS id FROM claims
LEFT JOIN json_each(claims.tasks) AS held ON true
LEFT JOIN tasks ON tasks.id = held.value ->> 0
GROUP BY claims.id
HAVING NOT coalesce(max(status = 'processing' AND fence = held.value ->> 1), false)
    AND max(claimed_at, coalesce(max(updated_at), claimed_at)) <= (SELECT past FROM limits)",
    unburied: "
SELECT workers.id AS id FROM workers
LEFT JOIN claims ON worker_id = workers.id
LEFT JOIN json_each(claims.tasks) AS held ON true
LEFT JOIN tasks ON tasks.id = held.value ->> 0
WHERE dead
GROUP BY workers.id
HAVING max(registered_at, coalesce(max(claimed_at), 0), coalesce(max(updated_at), 0)) <= (SELECT past FROM limits)",
};
