use std::time::Duration;

use domain::{Catalog, WorkerConfig};
use tokio::task::JoinSet;

use crate::world::{World, scripted, submit};

#[tokio::test(start_paused = true)]
async fn who_asks_first_is_told_when_his_task_is_likely_to_start() {
    let world = World::new();
    let catalog = Catalog::new(&world.ports);
    let kept = catalog.clone();
    let mut pace = JoinSet::new();
    pace.spawn(async move { kept.keep_pace().await });
    let ids = submit(&world.submitter(), &["sleep 1"; 100]).await;
    let one_by_one = WorkerConfig {
        concurrency: 1,
        in_flight: 1,
        ..WorkerConfig::default()
    };
    let _worker = world.work_with(scripted(), one_by_one);
    tokio::time::sleep(Duration::from_secs(21)).await;
    let explained = catalog.explain(ids[99]).await.expect("in memory");
    let explanation = explained.expect("it is known");
    let likely = explanation.estimated_start.expect("the pace is known");
    let wait = likely.micros_since(explanation.inspection.now);
    // It starts when the 78 before it that are not done are.
    assert!((70_000_000..=90_000_000).contains(&wait), "{wait} µs");
}
