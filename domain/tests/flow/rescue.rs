use std::time::Duration;

use domain::rescue::recover_all;
use ports::{Event, TaskStatus};
use tokio::time::Instant;

use crate::world::{World, scripted, submit};

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_dead_worker_run_elsewhere_within_seconds() {
    let world = World::new();
    let submitter = world.submitter();
    let dying = world.work(scripted());
    let ids = submit(&submitter, &["sleep 40", "sleep 41"]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let _living = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(20)).await;
    dying.crash().await;
    let died = Instant::now();
    let mut waited = None;
    while waited.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tasks: Vec<_> = ids.iter().map(|id| world.memory.task(*id)).collect();
        let again = tasks
            .iter()
            .all(|task| task.status == TaskStatus::Processing && task.rescues == 1);
        waited = again.then(|| died.elapsed());
    }
    assert!(
        waited.is_some_and(|waited| waited < Duration::from_secs(8)),
        "{waited:?}"
    );
    world.memory.store.at_rest(&ids).await;
    for id in &ids {
        let task = world.memory.task(*id);
        assert_eq!(
            (task.status, task.attempts),
            (TaskStatus::Done, 1),
            "a rescue spends no attempt"
        );
    }
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_living_worker_keeps_its_task_for_hours() {
    let world = World::new();
    let submitter = world.submitter();
    let config = domain::WorkerConfig {
        task_timeout: Duration::ZERO,
        ..domain::WorkerConfig::default()
    };
    let _one = world.work_with(scripted(), config.clone());
    let _two = world.work_with(scripted(), config);
    let ids = submit(&submitter, &["sleep 10800"]).await;
    world.memory.store.at_rest(&ids).await;
    let task = world.memory.task(ids[0]);
    assert_eq!(
        (task.status, task.rescues, task.fence.0),
        (TaskStatus::Done, 0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_finished_but_did_not_announce_is_announced() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok"]).await;
    // A worker that dies between the commit and the announcement, step by step.
    let worker = ports::IdSource::worker_id(&*world.memory.ids);
    let claim = ports::IdSource::claim_id(&*world.memory.ids);
    world
        .ports
        .registry
        .register(worker, "dying")
        .await
        .expect("registered");
    let ticket = ports::ClaimTicket { claim, worker };
    let claimed = world
        .ports
        .store
        .claim_delivered(ticket, &ids)
        .await
        .expect("claimed");
    let ports::DeliveryOutcome::Claimed(task) = &claimed[0] else {
        panic!("{claimed:?}");
    };
    let done = ports::Next::Done {
        result: "by the dead".into(),
    };
    let settled = domain::lifecycle::settle(task, done, ports::Spent::Attempt);
    world
        .ports
        .store
        .transition(&[settled])
        .await
        .expect("settled");

    let _living = world.work(scripted());
    world
        .memory
        .log
        .until_announced(|outputs, _| !outputs.is_empty())
        .await;
    assert_eq!(world.memory.log.outputs()[0].result, "by the dead");
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_kills_its_workers_fails_in_the_end() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["sleep 30"]).await;
    for _ in 0..11 {
        let dying = world.work(scripted());
        world
            .memory
            .store
            .until(|snapshot| snapshot.queue.is_empty())
            .await;
        dying.crash().await;
        recover_all(&world.ports, 10).await.expect("recovered");
    }
    let task = world.memory.task(ids[0]);
    assert_eq!(
        (task.status, task.rescues, task.attempts),
        (TaskStatus::Failed, 11, 0)
    );
    assert_eq!(world.memory.log.dead_letters().len(), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_worker_presumed_dead_changes_nothing_and_comes_back_as_another() {
    let world = World::new();
    let submitter = world.submitter();
    let worker = world.work(scripted());
    let ids = submit(&submitter, &["sleep 30"]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let before = world.ports.registry.workers().await.expect("workers");
    // Someone is sure that it is dead.
    recover_all(&world.ports, 10).await.expect("recovered");
    world.memory.store.at_rest(&ids).await;
    let after = world.ports.registry.workers().await.expect("workers");
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before[0].id, after[0].id);
    let task = world.memory.task(ids[0]);
    assert_eq!(
        (task.status, task.attempts, task.rescues),
        (TaskStatus::Done, 1, 1)
    );
    assert_eq!(world.memory.log.outputs().len(), 1);
    let outlived = world
        .memory
        .observer
        .count(|event| matches!(event, Event::Outlived { abandoned: 1 }));
    assert_eq!(outlived, 1);
    worker.stop().await;
    assert!(
        world
            .ports
            .registry
            .workers()
            .await
            .expect("workers")
            .is_empty()
    );
}
