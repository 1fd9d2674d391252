use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapters::faulty::{Fault, Faults, Faulty};
use adapters::memory::MemoryTaskStore;
use async_trait::async_trait;
use domain::{Catalog, Commander, Metrics, Reader, Reading, Search, Verdict};
use ports::{
    CacheError, Event, ResultCache, StoreError, TaskId, TaskResult, TaskStatus, TaskStore,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

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

/// A reader on a store that takes 100 ms for each question, and where its questions are counted.
async fn slow_reader(tasks: &[&str]) -> (Reader, Arc<Faults>, Vec<TaskId>) {
    let world = World::new();
    let ids = submit(&world.submitter(), tasks).await;
    let (slow, faults) = slow_store(&world);
    let mut ports = world.ports.clone();
    ports.store = slow;
    (Reader::new(&ports), faults, ids)
}

fn slow_store(world: &World) -> (Arc<dyn TaskStore>, Arc<Faults>) {
    let slow = Arc::new(Faulty::new(world.memory.store.clone()));
    let faults = Arc::clone(slow.faults());
    faults.always(Fault::Delay(Duration::from_millis(100)));
    (slow, faults)
}

/// Reads each of these ids, all at once.
fn all_at_once(
    reader: &Reader,
    ids: impl IntoIterator<Item = TaskId>,
) -> JoinSet<(TaskId, Result<Reading, StoreError>)> {
    let mut reads = JoinSet::new();
    for id in ids {
        let reader = reader.clone();
        reads.spawn(async move { (id, reader.read(id).await) });
    }
    reads
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_share_a_few_questions() {
    let (reader, faults, ids) = slow_reader(&["ok"; 20]).await;
    let unknown = "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab"
        .parse()
        .expect("an id");
    let wanted = ids.iter().copied().chain([unknown]).cycle().take(105);
    let reads = all_at_once(&reader, wanted).join_all().await;
    assert_eq!(reads.len(), 105);
    for (id, reading) in reads {
        match reading.expect("read") {
            Reading::Unfinished(task) => assert_eq!(task.id, id),
            other => assert_eq!((id, other), (unknown, Reading::Unknown)),
        }
    }
    // Two that found the store idle, and as many for all who came meanwhile.
    assert_eq!(faults.calls_of("get"), 4);
}

/// Counts the results that are put in the cache, and holds none.
#[derive(Default)]
struct Forgetful(AtomicUsize);

#[async_trait]
impl ResultCache for Forgetful {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        Ok(vec![None; ids.len()])
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        self.0.fetch_add(results.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_one_result_make_one_query_and_one_write_to_the_cache() {
    let world = World::new();
    let ids = submit(&world.submitter(), &["ok"]).await;
    let worker = world.work(scripted());
    world.memory.store.at_rest(&ids).await;
    worker.stop().await;
    let (slow, faults) = slow_store(&world);
    let cache = Arc::new(Forgetful::default());
    let mut ports = world.ports.clone();
    ports.store = slow;
    ports.cache = cache.clone();
    let reader = Reader::new(&ports);
    let wanted = std::iter::repeat_n(ids[0], 1_000);
    for (_, reading) in all_at_once(&reader, wanted).join_all().await {
        assert!(matches!(reading, Ok(Reading::Done(_))), "{reading:?}");
    }
    assert_eq!(faults.calls_of("get"), 1);
    assert_eq!(cache.0.load(Ordering::Relaxed), 1);
}

/// Whoever comes while a question is under way may know of what was written after it was asked.
#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_one_unfinished_task_join_no_question_that_was_asked_before_they_came()
 {
    let (reader, faults, ids) = slow_reader(&["ok"]).await;
    let wanted = std::iter::repeat_n(ids[0], 1_000);
    for (_, reading) in all_at_once(&reader, wanted).join_all().await {
        assert!(matches!(reading, Ok(Reading::Unfinished(_))), "{reading:?}");
    }
    assert_eq!(faults.calls_of("get"), 2);
}

#[tokio::test(start_paused = true)]
async fn one_who_hangs_up_while_asking_for_others_takes_nobody_with_it() {
    let (reader, faults, ids) = slow_reader(&["ok"; 8]).await;
    let mut first = all_at_once(&reader, ids[..2].iter().copied());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut second = all_at_once(&reader, ids[2..5].iter().copied());
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.shutdown().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Two of these three ask by now, one of them for the third too.
    let third = all_at_once(&reader, ids[5..].iter().copied());
    second.shutdown().await;
    for (id, reading) in third.join_all().await {
        match reading.expect("read") {
            Reading::Unfinished(task) => assert_eq!(task.id, id),
            other => panic!("{id}: {other:?}"),
        }
    }
    assert!(faults.calls_of("get") <= 6);
}

#[tokio::test(start_paused = true)]
async fn of_a_task_whose_asker_hung_up_the_next_who_waits_asks() {
    let (reader, faults, ids) = slow_reader(&["ok"]).await;
    let mut first = all_at_once(&reader, [ids[0]]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let others = all_at_once(&reader, std::iter::repeat_n(ids[0], 5));
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.shutdown().await;
    for (_, reading) in others.join_all().await {
        assert!(matches!(reading, Ok(Reading::Unfinished(_))), "{reading:?}");
    }
    assert_eq!(faults.calls_of("get"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_everybody_who_shared_the_question() {
    let (reader, faults, ids) = slow_reader(&["ok"; 50]).await;
    faults.always(Fault::FailBefore);
    let reads = all_at_once(&reader, ids.iter().copied()).join_all().await;
    assert_eq!(reads.len(), 50);
    assert!(
        reads
            .iter()
            .all(|(_, reading)| matches!(reading, Err(StoreError::Unavailable(_))))
    );
    faults.heal();
    reader.read(ids[0]).await.expect("the store is back");
}

/// A reader, a catalog and a commander, and the store and the catalog's store that go wrong when they are told to.
fn clients(
    world: &World,
) -> (
    Reader,
    Catalog,
    Commander,
    [Arc<Faulty<MemoryTaskStore>>; 2],
) {
    let mut ports = world.ports.clone();
    let stores = [(); 2].map(|()| Arc::new(Faulty::new(world.memory.store.clone())));
    ports.store = stores[0].clone();
    ports.catalog = stores[1].clone();
    (
        Reader::new(&ports),
        Catalog::new(&ports),
        Commander::new(&ports),
        stores,
    )
}

#[tokio::test(start_paused = true)]
async fn clients_are_not_sent_away_because_connections_broke() {
    let world = World::new();
    let id = world.memory.submit("ok").await;
    let (reader, catalog, commander, stores) = clients(&world);
    let broken = |store: usize| stores[store].faults().next(5, Fault::FailBefore);
    let search = Search {
        limit: 1,
        ..Search::default()
    };
    broken(0);
    assert!(matches!(
        reader.read(id).await.expect("read"),
        Reading::Unfinished(_)
    ));
    broken(0);
    reader.metrics().await.expect("metrics");
    broken(1);
    let listed = catalog.search(&search).await.expect("a page");
    assert_eq!(listed.tasks.len(), 1);
    broken(1);
    let explained = catalog.explain(id).await.expect("an explanation");
    assert!(explained.is_some());
    broken(0);
    assert!(matches!(
        commander.cancel(id).await.expect("an answer"),
        Verdict::Obeyed(_)
    ));
}

/// A store that says nothing keeps nobody for longer than one that fails.
#[tokio::test(start_paused = true)]
async fn clients_are_told_after_3_seconds_that_the_store_is_silent() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let world = World::new();
    let id = world.memory.submit("ok").await;
    let (reader, catalog, commander, stores) = clients(&world);
    for fault in [Fault::Delay(Duration::from_secs(40)), Fault::FailBefore] {
        for store in &stores {
            store.faults().always(fault);
        }
        let search = Search {
            limit: 1,
            ..Search::default()
        };
        let started = Instant::now();
        let (read, measured, page, explained, cancelled) = tokio::join!(
            reader.read(id),
            reader.metrics(),
            catalog.search(&search),
            catalog.explain(id),
            commander.cancel(id),
        );
        assert!(started.elapsed() <= PATIENCE, "{:?}", started.elapsed());
        let errors = [
            read.expect_err("silent"),
            measured.expect_err("silent"),
            page.expect_err("silent"),
            explained.expect_err("silent"),
            cancelled.expect_err("silent"),
        ];
        for error in errors {
            assert!(error.is_transient(), "{error:?}");
        }
    }
}
