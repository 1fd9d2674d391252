//! Whatever panics: no task is lost to it, and no worker goes on without one of its stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Event, Failure, Job, Observer, Processor, Step, TaskStatus};
use tokio::time::Instant;

use crate::submit::panics;
use crate::world::{World, scripted, submit};

/// Panics where the payload says.
struct Careless;

struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("in the drop");
    }
}

#[async_trait]
impl Processor for Careless {
    fn process<'a: 'r, 'r>(
        &'a self,
        job: Job,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<String, Failure>> + Send + 'r>> {
        assert_ne!(job.payload.as_str(), "early", "before the future");
        Box::pin(async move {
            if job.payload.as_str() == "drop" {
                let _mine = Mine;
                tokio::time::sleep(Duration::from_secs(3_600)).await;
            }
            Ok("done".into())
        })
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        assert_ne!(job.payload.as_str(), "deadline", "choosing the deadline");
        None
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_function_panics_its_task_has_failed() {
    let world = World::new();
    let ids = submit(&world.submitter(), &["early", "drop", "deadline", "fine"]).await;
    let worker = world.work(Careless);
    let tasks = world.memory.store.at_rest(&ids).await;
    let says = ["before the future", "in the drop", "choosing the deadline"];
    for (task, says) in tasks.iter().zip(says) {
        assert_eq!(
            (task.status, task.attempts),
            (TaskStatus::Failed, 5),
            "{task:?}"
        );
        let error = task.error.as_deref().unwrap_or_default();
        assert!(
            error.contains("panicked: ") && error.contains(says),
            "{error}"
        );
    }
    assert_eq!(tasks[3].status, TaskStatus::Done);
    worker.stop().await;
    world.assert_consistent();
}

/// Panics once, when it is told of this step.
struct Panicky {
    at: Step,
    is_armed: AtomicBool,
    told: Arc<dyn Observer>,
}

impl Observer for Panicky {
    fn observe(&self, event: &Event) {
        let is_it = matches!(event, Event::Batched { step, .. } if *step == self.at);
        assert!(
            !(is_it && self.is_armed.swap(false, Ordering::Relaxed)),
            "boom"
        );
        self.told.observe(event);
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_stage_panics_every_task_is_done_soon() {
    for at in [Step::Claim, Step::Settle, Step::Announce] {
        let mut world = World::new();
        world.ports.observer = Arc::new(Panicky {
            at,
            is_armed: AtomicBool::new(true),
            told: world.ports.observer.clone(),
        });
        let ids = submit(&world.submitter(), &["ok"; 50]).await;
        let worker = world.work(scripted());
        let started = Instant::now();
        for task in world.memory.store.at_rest(&ids).await {
            assert_eq!(task.status, TaskStatus::Done, "{at:?}");
        }
        world
            .memory
            .log
            .until_announced(|outputs, _| outputs.len() >= 50)
            .await;
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(panics(&world), [("stage", "boom".to_owned())], "{at:?}");
        worker.stop().await;
        world.assert_consistent();
    }
}
