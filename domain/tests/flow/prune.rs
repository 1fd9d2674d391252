//! Old tasks are deleted, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use adapters::memory::MemoryTaskStore;
use domain::{PruneConfig, WorkerConfig};
use ports::{Event, NewTask, Payload, Priority, TaskId};

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

/// `count` tasks for a time long after the retention stand at the head of the table, and `done` behind them.
async fn past_behind_waiting(
    world: &World,
    count: usize,
    done: usize,
) -> (Vec<TaskId>, Vec<TaskId>) {
    let submitter = world.submitter();
    let late = world.ports.clock.now().after(DAY * 30);
    let later = || {
        let mut later = submission("later");
        later.run_at = Some(late);
        later
    };
    let waiting = submitter.submit((0..count).map(|_| later()).collect());
    let waiting = waiting.await.expect("accepted");
    let waiting = waiting.into_iter().map(|accepted| accepted.id).collect();
    let past = submit(&submitter, &vec!["ok"; done]).await;
    let worker = world.work(scripted());
    world.memory.store.at_rest(&past).await;
    worker.stop().await;
    tokio::time::sleep(DAY * 3).await;
    (waiting, past)
}

/// Two stretches that may not go hold up nothing that stands behind them.
#[tokio::test(start_paused = true)]
async fn what_stays_at_the_head_of_the_table_holds_up_nothing_behind_it() {
    let world = World::new();
    let (waiting, past) = past_behind_waiting(&world, 1_000, 3_000).await;
    let worker = world.work_with(scripted(), kept_for(DAY * 2));
    // In this time the walk through everything gets over 2,000 rows at most.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(exist(&world, &past).await.iter().all(|exists| !exists));
    assert!(exist(&world, &waiting).await.iter().all(|exists| *exists));
    assert_eq!(pruned(&world), 3_000);
    world.assert_consistent();
    worker.stop().await;
}

/// What stays takes several turns to get over, as the next worker's turn comes after seconds, and now and then the store fails.
#[tokio::test(start_paused = true)]
async fn what_stays_may_be_longer_than_a_turn_of_each_of_two_workers() {
    let mut world = World::new();
    let (waiting, past) = past_behind_waiting(&world, 300, 30).await;
    let store = counted(&mut world);
    store
        .faults()
        .always(Fault::Delay(Duration::from_millis(100)));
    let mut config = kept_for(DAY * 2);
    config.prune.stretch = 1;
    // The walk through everything gets over no more than one row in a turn.
    config.prune.interval = Duration::from_secs(9);
    let workers = [(); 2].map(|()| world.work_with(scripted(), config.clone()));
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        store.faults().next_of("prune", 1, Fault::FailBefore);
    }
    assert!(exist(&world, &past).await.iter().all(|exists| !exists));
    assert!(exist(&world, &waiting).await.iter().all(|exists| *exists));
    assert_eq!(pruned(&world), 30);
    world.assert_consistent();
    for worker in workers {
        worker.stop().await;
    }
}

/// A row of others refers to it, say.
#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_let_go_keeps_nothing_else() {
    let mut world = World::new();
    let (_, past) = past_behind_waiting(&world, 0, 3_000).await;
    let store = counted(&mut world);
    let kept = past[700];
    store.faults().shield(kept);
    let worker = world.work_with(scripted(), kept_for(DAY * 2));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let exist: Vec<_> = exist(&world, &past).await;
    assert!(exist[700], "it stays");
    assert_eq!(exist.iter().filter(|exists| **exists).count(), 1);
    assert_eq!(pruned(&world), 2_999);
    // A pass over one row of it and nothing else.
    let before = store.faults().calls_of("prune");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = store.faults().calls_of("prune") - before;
    assert!(asked < 2_000, "{asked}");
    store.faults().heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pruned(&world), 3_000);
    world.assert_consistent();
    worker.stop().await;
}

fn counted(world: &mut World) -> Arc<Faulty<MemoryTaskStore>> {
    let counted = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.audit = Arc::<Faulty<MemoryTaskStore>>::clone(&counted);
    counted
}

/// A long row of what stays is not read all the time.
#[tokio::test(start_paused = true)]
async fn after_a_row_of_what_stays_comes_a_rest() {
    let mut world = World::new();
    past_behind_waiting(&world, 300, 0).await;
    let store = counted(&mut world);
    store
        .faults()
        .always(Fault::Delay(Duration::from_millis(100)));
    let mut config = kept_for(DAY * 2);
    config.prune.stretch = 1;
    config.prune.interval = Duration::from_secs(10);
    let _worker = world.work_with(scripted(), config);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let reads = store.faults().calls_of("prune");
    // A pass takes a minute, half of it in pauses, and is followed by two: 20 of them, and 360 stretches of the whole.
    assert!((5_500..7_000).contains(&reads), "{reads}");
}

#[tokio::test(start_paused = true)]
async fn the_walk_over_what_is_old_ends_where_ids_are_too_young() {
    let mut world = World::new();
    let now = world.ports.clock.now().after(DAY * 3);
    let young = |number: u64| NewTask {
        id: TaskId::first_at(now.after(Duration::from_millis(number))),
        payload: Payload::default(),
        priority: Priority::default(),
        max_attempts: 1,
        run_at: None,
        messaged: false,
    };
    tokio::time::sleep(DAY * 3).await;
    let tasks: Vec<_> = (0..5_000).map(young).collect();
    world.ports.store.insert(&tasks).await.expect("insert");
    let store = counted(&mut world);
    let _worker = world.work_with(scripted(), kept_for(DAY * 2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reads = store.faults().calls_of("prune");
    assert!(reads <= 122, "{reads}: one a second, and one of the whole");
    assert_eq!(pruned(&world), 0);
}
