//! Old tasks are deleted, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use adapters::memory::MemoryTaskStore;
use domain::{PruneConfig, WorkerConfig};
use ports::{Event, TaskId};

use crate::world::{World, scripted, submission, submit};

/// The domain counts no days: what holds for a thousand seconds holds for them.
const DAY: Duration = Duration::from_secs(1_000);

fn kept_for(retention: Duration) -> WorkerConfig {
    WorkerConfig {
        prune: PruneConfig {
            retention: Some(retention),
            ..PruneConfig::default()
        },
        ..WorkerConfig::default()
    }
}

async fn exist(world: &World, ids: &[TaskId]) -> Vec<bool> {
    let found = world.ports.store.get(ids).await.expect("get");
    found.iter().map(Option::is_some).collect()
}

fn pruned(world: &World) -> usize {
    let count = |event: &Event| match event {
        Event::Pruned { count } => *count,
        _ => 0,
    };
    world.memory.observer.events().iter().map(count).sum()
}

#[tokio::test(start_paused = true)]
async fn what_is_at_rest_goes_after_its_retention_and_stays_counted() {
    let world = World::new();
    let submitter = world.submitter();
    let worker = world.work_with(scripted(), kept_for(DAY * 2));
    let first = submit(&submitter, &["one", "permanent", "two"]).await;
    let mut later = submission("later");
    later.run_at = Some(ports::Clock::now(&*world.memory.clock).after(DAY * 30));
    let waiting = submitter.submit(vec![later]).await.expect("accepted")[0].id;
    tokio::time::sleep(DAY).await;
    let second = submit(&submitter, &["three"]).await;
    tokio::time::sleep(DAY * 9 / 10).await;
    assert_eq!(exist(&world, &first).await, [true, true, true]);
    let before = world.ports.store.totals().await.expect("totals");
    tokio::time::sleep(DAY / 5).await;
    assert_eq!(exist(&world, &first).await, [false, false, false]);
    assert_eq!(exist(&world, &second).await, [true]);
    tokio::time::sleep(DAY).await;
    assert_eq!(exist(&world, &[second[0], waiting]).await, [false, true]);
    assert_eq!(pruned(&world), 4);
    assert_eq!(world.ports.store.totals().await.expect("totals"), before);
    assert_eq!(before.done, 3);
    world.assert_consistent();
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stretch_that_took_an_hour_is_not_followed_by_four_of_rest() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut world = World::new();
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.audit = Arc::<Faulty<MemoryTaskStore>>::clone(&faulty);
    let submitter = world.submitter();
    let mut config = kept_for(DAY * 2);
    config.prune.stretch = 1;
    let _worker = world.work_with(scripted(), config);
    let ids = submit(&submitter, &["one", "two"]).await;
    tokio::time::sleep(DAY * 2 - Duration::from_secs(10)).await;
    faulty.faults().next_of("prune", 1, Fault::Delay(HOUR));
    tokio::time::sleep(HOUR + Duration::from_secs(60)).await;
    assert_eq!(exist(&world, &ids).await, [false, false]);
}

#[tokio::test(start_paused = true)]
async fn without_a_retention_everything_is_kept() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["one", "permanent"]).await;
    tokio::time::sleep(DAY * 4).await;
    assert_eq!(exist(&world, &ids).await, [true, true]);
}

/// More than a stretch that is old goes at once, however many workers there are, and none is deleted twice.
#[tokio::test(start_paused = true)]
async fn several_workers_prune_a_long_past_once() {
    let world = World::new();
    let submitter = world.submitter();
    let payloads = vec!["ok"; 3_000];
    let ids = submit(&submitter, &payloads).await;
    let first = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(60)).await;
    first.stop().await;
    tokio::time::sleep(DAY * 3).await;
    let workers = [(); 3].map(|()| world.work_with(scripted(), kept_for(DAY * 2)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(exist(&world, &ids).await.iter().all(|exists| !exists));
    assert_eq!(pruned(&world), 3_000);
    world.assert_consistent();
    for worker in workers {
        worker.stop().await;
    }
}
