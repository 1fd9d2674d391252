//! PostgreSQL.

use super::Dialect;

pub(super) const DIALECT: Dialect = Dialect {
    limits: "
SELECT LOCALTIMESTAMP - $1::bigint * interval '1 microsecond' AS past,
    LOCALTIMESTAMP + $1::bigint * interval '1 microsecond' AS future",
    // The shard below zero holds what was pruned, which is among the others too.
    counts: "
SELECT count(*), count(*) FILTER (WHERE status = 'done'),
    coalesce(extract(epoch FROM sum(updated_at - created_at) FILTER (WHERE status = 'done')) * 1000000, 0)
        ::numeric(38, 0)::text,
    (SELECT count(*) FROM queue), (SELECT count(*) FROM claims),
    (SELECT coalesce(sum(CASE WHEN shard < 0 THEN -done ELSE done END), 0)::bigint FROM totals),
    (SELECT coalesce(sum(CASE WHEN shard < 0 THEN -elapsed_us ELSE elapsed_us END), 0)::numeric(38, 0)::text FROM totals),
    (SELECT count(*) FROM tasks LEFT JOIN queue ON task_id = id
        WHERE status = 'pending' AND fence = 0 AND task_id IS NULL)
FROM tasks",
    unclaimed: "
WITH held AS (SELECT unnest(task_ids) AS task_id, unnest(fences) AS held_fence FROM claims)
SELECT id FROM tasks LEFT JOIN held ON task_id = id AND held_fence = fence
WHERE status = 'processing' AND task_id IS NULL",
    claimed_twice: "
WITH held AS (SELECT unnest(task_ids) AS task_id, unnest(fences) AS held_fence FROM claims)
SELECT id FROM tasks JOIN held ON task_id = id AND held_fence = fence
WHERE status = 'processing' GROUP BY id HAVING count(*) > 1",
    idle_claims: "
SELECT claims.id AS id FROM claims
LEFT JOIN LATERAL unnest(task_ids, fences) AS held (task_id, held_fence) ON true
LEFT JOIN tasks ON tasks.id = task_id
GROUP BY claims.id
HAVING NOT coalesce(bool_or(status = 'processing' AND fence = held_fence), false)
    AND greatest(claimed_at, max(updated_at)) <= (SELECT past FROM limits)",
    unburied: "
SELECT workers.id AS id FROM workers
LEFT JOIN claims ON worker_id = workers.id
LEFT JOIN LATERAL unnest(task_ids) AS held (task_id) ON true
LEFT JOIN tasks ON tasks.id = task_id
WHERE dead
GROUP BY workers.id
HAVING greatest(registered_at, max(claimed_at), max(updated_at)) <= (SELECT past FROM limits)",
};
