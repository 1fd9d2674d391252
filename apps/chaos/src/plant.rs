//! Contradictions, as hand edits and restored backups leave them, planted in the books.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::database::Database;
use crate::failure::Failure;
use crate::script::at_once;

/// One kind of contradiction: how it is planted, and the question whose answer is 0 as soon as it is repaired. `$1` stands
/// for an id of its own, `$2` for a payload. What nobody asked for and nobody runs is taken out again in the end.
pub(crate) struct Plant {
    pub(crate) name: &'static str,
    pub(crate) found: Found,
    /// How many repairs the audit counts. A dead worker's tasks are taken back, which is counted as a rescue.
    pub(crate) repairs: u64,
    sow: &'static [&'static str],
    left: &'static str,
    clear: &'static [&'static str],
}

/// By which walk of the audit it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Of queue, claims, workers or the list of failed and cancelled tasks: as small as what waits, is in hand or has stopped.
    InSmallTables,
    /// Of all tasks, however many there are.
    InTasks,
}

const PAUSE: Duration = Duration::from_millis(100);
/// A contradiction that stands for so long is not repaired at all.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(180);
/// The numbers of planted payloads begin where no request's does.
const FIRST: u64 = 2_000_000_000;

pub(crate) static PLANTS: [Plant; 9] = [
    Plant {
        name: "waiting, moved before, no queue row",
        found: Found::InTasks,
        repairs: 1,
        sow: &["INSERT INTO tasks (id, payload, priority, fence) VALUES ('$1', '$2', 1, 4)"],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "waiting, never moved, no queue row",
        found: Found::InTasks,
        repairs: 1,
        sow: &["INSERT INTO tasks (id, payload, priority) VALUES ('$1', '$2', 1)"],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "in hand, no claim",
        found: Found::InTasks,
        repairs: 1,
        sow: &[
            "INSERT INTO tasks (id, payload, priority, status, fence) VALUES ('$1', '$2', 1, 'processing', 5)",
        ],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "queue row of no task",
        found: Found::InSmallTables,
        repairs: 1,
        sow: &[
            "INSERT INTO queue (task_id, not_before, messaged, priority) VALUES ('$1', LOCALTIMESTAMP + interval '1 day', false, 1)",
        ],
        left: "SELECT count(*) FROM queue WHERE task_id = '$1'",
        clear: &[],
    },
    Plant {
        name: "queue row of a task at rest",
        found: Found::InSmallTables,
        repairs: 1,
        sow: &[
            "INSERT INTO queue (task_id, not_before, messaged, priority)
             SELECT id, LOCALTIMESTAMP + interval '1 day', true, 3 FROM tasks WHERE status = 'done' ORDER BY id DESC LIMIT 1",
        ],
        left: "SELECT count(*) FROM queue JOIN tasks ON id = task_id WHERE status = 'done' AND queue.priority = 3 AND not_before > LOCALTIMESTAMP",
        clear: &[],
    },
    Plant {
        name: "worker that nobody is, with a claim",
        found: Found::InSmallTables,
        repairs: 0,
        sow: &[
            "INSERT INTO workers (id, name, beat, dead, registered_at) VALUES ('$1', 'nobody', 7, false, LOCALTIMESTAMP)",
            "INSERT INTO tasks (id, payload, priority, status, fence) VALUES ('$1', '$2', 1, 'processing', 5)",
            "INSERT INTO claims (id, worker_id, task_ids, fences, claimed_at) VALUES ('$1', '$1', ARRAY['$1'::uuid], ARRAY[5], LOCALTIMESTAMP)",
        ],
        left: "SELECT (SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done')
            + (SELECT count(*) FROM workers WHERE id = '$1') + (SELECT count(*) FROM claims WHERE id = '$1')",
        clear: &[],
    },
    Plant {
        name: "claim of a worker that is not registered",
        found: Found::InSmallTables,
        repairs: 1,
        sow: &[
            "INSERT INTO tasks (id, payload, priority, status, fence) VALUES ('$1', '$2', 1, 'processing', 5)",
            // The foreign key forbids it; a restored backup may hold it all the same.
            "WITH off AS MATERIALIZED (SELECT set_config('session_replication_role', 'replica', true))
             INSERT INTO claims (id, worker_id, task_ids, fences, claimed_at)
             SELECT '$1', '$1', ARRAY['$1'::uuid], ARRAY[5], LOCALTIMESTAMP FROM off",
        ],
        left: "SELECT (SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done')
            + (SELECT count(*) FROM claims WHERE id = '$1')",
        clear: &[],
    },
    Plant {
        name: "failed, not listed",
        found: Found::InTasks,
        repairs: 1,
        sow: &[
            "INSERT INTO tasks (id, payload, priority, status, fence) VALUES ('$1', '$2', 1, 'failed', 2)",
        ],
        left: "SELECT count(*) FROM tasks LEFT JOIN stopped ON task_id = id AND cancelled = false
            WHERE id = '$1' AND task_id IS NULL",
        clear: &[
            "DELETE FROM stopped WHERE task_id = '$1'",
            "DELETE FROM tasks WHERE id = '$1'",
        ],
    },
    Plant {
        name: "listed as cancelled, and no such task",
        found: Found::InSmallTables,
        repairs: 1,
        sow: &["INSERT INTO stopped (cancelled, task_id) VALUES (true, '$1')"],
        left: "SELECT count(*) FROM stopped WHERE task_id = '$1'",
        clear: &[],
    },
];

/// Those that the walks of the small tables find.
pub(crate) fn in_small_tables() -> Vec<&'static Plant> {
    let small = |plant: &&Plant| plant.found == Found::InSmallTables;
    PLANTS.iter().filter(small).collect()
}

impl Plant {
    /// The statements for the one that is planted as `seed`.
    fn filled(text: &str, seed: u64) -> String {
        let id = Uuid::from_u64_pair(0x0199_0000_0000_7000, (0x8 << 60) + seed);
        text.replace("$1", &id.to_string())
            .replace("$2", &at_once(FIRST + seed))
    }
}

/// Plants one of each, and answers how long each stood; none for what was never repaired. No two may be planted under one
/// seed; each takes one, from `seed` on.
///
/// # Errors
/// When the database does not take them. It may go away later, and is then asked again.
pub(crate) async fn plant(
    database: &Database,
    plants: &[&Plant],
    seed: u64,
) -> Result<Vec<Option<Duration>>, Failure> {
    for (plant, seed) in plants.iter().zip(seed..) {
        let sow = plant.sow.iter().map(|sql| Plant::filled(sql, seed));
        database.execute_all(sow.collect()).await?;
    }
    let start = Instant::now();
    let mut took = vec![None; plants.len()];
    while took.contains(&None) && start.elapsed() < GIVE_UP {
        for ((plant, seed), took) in plants.iter().zip(seed..).zip(&mut took) {
            let left = Plant::filled(plant.left, seed);
            if took.is_none() && matches!(database.one::<i64>(&left).await, Ok(0)) {
                *took = Some(start.elapsed());
            }
        }
        sleep(PAUSE).await;
    }
    for (plant, seed) in plants.iter().zip(seed..) {
        for sql in plant.clear {
            database.execute(&Plant::filled(sql, seed)).await?;
        }
    }
    Ok(took)
}
