use domain::{Metrics, Reader, Reading};
use ports::{Event, TaskId, TaskStatus};

use crate::world::{World, scripted, submit};

#[tokio::test(start_paused = true)]
async fn the_states_of_a_task_are_told_apart() {
    let world = World::new();
    let submitter = world.submitter();
    let reader = Reader::new(&world.ports);
    let unknown = TaskId(ports::IdSource::next(&*world.memory.ids));
    assert_eq!(reader.read(unknown).await.expect("read"), Reading::Unknown);

    let ids = submit(&submitter, &["ok", "permanent"]).await;
    let Reading::Unfinished(task) = reader.read(ids[0]).await.expect("read") else {
        panic!("not processed yet");
    };
    assert_eq!(task.status, TaskStatus::Pending);

    let _worker = world.work(scripted());
    world.memory.store.at_rest(&ids).await;
    let Reading::Done(result) = reader.read(ids[0]).await.expect("read") else {
        panic!("done");
    };
    assert_eq!(result.result, "OK");
    let Reading::Unfinished(failed) = reader.read(ids[1]).await.expect("read") else {
        panic!("failed is not done");
    };
    assert_eq!(
        (failed.status, failed.error.as_deref()),
        (TaskStatus::Failed, Some("never"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_miss_asks_the_store_and_fills_the_cache() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok"]).await;
    let worker = world.work(scripted());
    world.memory.store.at_rest(&ids).await;
    worker.stop().await;
    let mut ports = world.ports.clone();
    let empty = World::new();
    ports.cache = empty.memory.cache.clone();
    let reader = Reader::new(&ports);
    let first = reader.read(ids[0]).await.expect("read");
    let second = reader.read(ids[0]).await.expect("read");
    assert_eq!(first, second);
    let hits = |hit| {
        world
            .memory
            .observer
            .count(|event| *event == Event::CacheLookup { hit })
    };
    assert_eq!((hits(false), hits(true)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn metrics_are_the_totals() {
    let world = World::new();
    let reader = Reader::new(&world.ports);
    let none = Metrics {
        total_tasks: 0,
        average_processing_time_ms: None,
    };
    assert_eq!(reader.metrics().await.expect("metrics"), none);
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["sleep 1", "sleep 3"]).await;
    world.memory.store.at_rest(&ids).await;
    let metrics = reader.metrics().await.expect("metrics");
    assert_eq!(metrics.total_tasks, 2);
    let mean = metrics.average_processing_time_ms.expect("two are done");
    assert!((2_000..2_010).contains(&mean), "{mean}");
}
