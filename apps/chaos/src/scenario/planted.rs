//! Contradictions, as hand edits and restored backups leave them, planted in the books while tasks flow.

use std::time::Duration;

use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use super::{Finding, conclude};
use crate::database::Database;
use crate::failure::Failure;
use crate::load::Mix;
use crate::log::say;
use crate::run::Options;
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// One kind of contradiction: how it is planted, and the question whose answer is 0 as soon as it is repaired. `$1` stands
/// for an id of its own, `$2` for a payload. What nobody asked for and nobody runs is taken out again in the end.
struct Plant {
    name: &'static str,
    sow: &'static [&'static str],
    left: &'static str,
    clear: &'static [&'static str],
}

const PLANTS: [Plant; 9] = [
    Plant {
        name: "waiting, moved before, no queue row",
        sow: &["INSERT INTO tasks (id, payload, priority, fence) VALUES ('$1', '$2', 1, 4)"],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "waiting, never moved, no queue row",
        sow: &["INSERT INTO tasks (id, payload, priority) VALUES ('$1', '$2', 1)"],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "in hand, no claim",
        sow: &[
            "INSERT INTO tasks (id, payload, priority, status, fence) VALUES ('$1', '$2', 1, 'processing', 5)",
        ],
        left: "SELECT count(*) FROM tasks WHERE id = '$1' AND status <> 'done'",
        clear: &[],
    },
    Plant {
        name: "queue row of no task",
        sow: &[
            "INSERT INTO queue (task_id, not_before, messaged, priority) VALUES ('$1', LOCALTIMESTAMP + interval '1 day', false, 1)",
        ],
        left: "SELECT count(*) FROM queue WHERE task_id = '$1'",
        clear: &[],
    },
    Plant {
        name: "queue row of a task at rest",
        sow: &[
            "INSERT INTO queue (task_id, not_before, messaged, priority)
             SELECT id, LOCALTIMESTAMP + interval '1 day', true, 3 FROM tasks WHERE status = 'done' ORDER BY id DESC LIMIT 1",
        ],
        left: "SELECT count(*) FROM queue JOIN tasks ON id = task_id WHERE status = 'done' AND queue.priority = 3 AND not_before > LOCALTIMESTAMP",
        clear: &[],
    },
    Plant {
        name: "worker that nobody is, with a claim",
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
        sow: &["INSERT INTO stopped (cancelled, task_id) VALUES (true, '$1')"],
        left: "SELECT count(*) FROM stopped WHERE task_id = '$1'",
        clear: &[],
    },
];

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Healthy, options.seed);
    let database = world.database().await?;
    sleep(Duration::from_secs(5)).await;
    let rounds = (options.length.as_secs() / 20).max(1);
    let mut slowest = vec![Duration::ZERO; PLANTS.len()];
    for round in 0..rounds {
        say(&format!("planting, round {} of {rounds}", round + 1));
        let took = plant_all(&database, round).await?;
        for (slowest, took) in slowest.iter_mut().zip(took) {
            *slowest = (*slowest).max(took);
        }
    }
    database.close().await?;
    load.end().await?;
    let (_, seen, holds) = conclude(world).await?;
    let mut found = Map::new();
    for (plant, slowest) in PLANTS.iter().zip(&slowest) {
        println!(
            "{:<42} repaired after at most {:.1} s in {rounds} rounds",
            plant.name,
            slowest.as_secs_f64()
        );
        found.insert(plant.name.to_owned(), json!(slowest.as_secs_f64()));
    }
    found.insert(
        "repairsCounted".to_owned(),
        json!(seen.total("contradictions_repaired")),
    );
    Ok(Finding {
        holds: holds && slowest.iter().all(|slowest| *slowest <= LIMIT),
        found: found.into(),
    })
}

/// Plants one of each, and answers how long each stood.
async fn plant_all(database: &Database, round: u64) -> Result<Vec<Duration>, Failure> {
    /// A contradiction that stands for so long is not repaired at all.
    const GIVE_UP: Duration = Duration::from_secs(90);
    let filled = |text: &str, number: usize| {
        let number = number as u64;
        let id = uuid::Uuid::from_u64_pair(0x0199_0000_0000_7000 + round, (0x8 << 60) + number);
        let payload = format!(
            "chaos number={} sleep=0 failures=0 end=success needs=false",
            2_000_000_000 + round * 1_000 + number
        );
        text.replace("$1", &id.to_string()).replace("$2", &payload)
    };
    for (number, plant) in PLANTS.iter().enumerate() {
        for sql in plant.sow {
            database.execute(&filled(sql, number)).await?;
        }
    }
    let start = Instant::now();
    let mut took = vec![None; PLANTS.len()];
    while took.contains(&None) && start.elapsed() < GIVE_UP {
        for (number, plant) in PLANTS.iter().enumerate() {
            if took[number].is_none()
                && database.one::<i64>(&filled(plant.left, number)).await? == 0
            {
                took[number] = Some(start.elapsed());
            }
        }
        sleep(PAUSE).await;
    }
    for (number, plant) in PLANTS.iter().enumerate() {
        for sql in plant.clear {
            database.execute(&filled(sql, number)).await?;
        }
    }
    Ok(took
        .into_iter()
        .map(|took| took.unwrap_or(GIVE_UP))
        .collect())
}
