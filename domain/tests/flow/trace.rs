//! One trace from the submission to the announcement.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use adapters::faulty::{Fault, Faulty};
use adapters::memory::MemoryObserver;
use domain::{Submission, processor_fn};
use ports::observer::ClaimedBy;
use ports::{Event, Observer, RunOutcome, Span, TaskStatus, TraceContext, Work};

use crate::world::{World, scripted, submission, submit};

/// Gives every piece of work a number of its own, and remembers what it is told.
struct Tracing {
    told: Arc<MemoryObserver>,
    next: AtomicU64,
    is_sampled: bool,
}

impl Observer for Tracing {
    fn observe(&self, event: &Event) {
        self.told.observe(event);
    }

    fn begin_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        let span = NonZeroU64::new(self.next.fetch_add(1, Ordering::Relaxed))?;
        match parent {
            Some(parent) => Some(parent.at(span, parent.is_sampled())),
            None => TraceContext::new(u128::from(span.get()), span.get(), self.is_sampled),
        }
    }
}

fn traced_world(is_sampled: bool) -> World {
    let mut world = World::new();
    world.ports.observer = Arc::new(Tracing {
        told: world.memory.observer.clone(),
        next: AtomicU64::new(1),
        is_sampled,
    });
    world
}

fn client(flags: &str) -> TraceContext {
    let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
    TraceContext::parse(&text)
        .expect("valid")
        .with_state("vendor=a")
}

fn spans(world: &World) -> Vec<Span> {
    let events = world.memory.observer.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Traced(span) => Some(span),
            _ => None,
        })
        .collect()
}

async fn at_the_end(world: &World, ids: &[ports::TaskId]) {
    world.memory.store.at_rest(ids).await;
    let released = |snapshot: &adapters::memory::StoreSnapshot| snapshot.claims.is_empty();
    world.memory.store.until(released).await;
}

#[tokio::test(start_paused = true)]
async fn one_trace_leads_from_the_submission_to_the_announcement() {
    let world = traced_world(true);
    let submitter = world.submitter();
    let seen = Arc::new(Mutex::new(None));
    let seen_by_run = Arc::clone(&seen);
    let _worker = world.work(processor_fn(move |job| {
        *seen_by_run.lock().expect("not poisoned") = job.trace;
        async { Ok("done".into()) }
    }));
    let of_client = Submission {
        trace: Some(client("01")),
        ..submission("hello")
    };
    let id = submitter.submit(vec![of_client]).await.expect("accepted")[0].id;
    at_the_end(&world, &[id]).await;

    let mut spans = spans(&world);
    // Whoever submits may hear of the commit only when the message has gone.
    let stored = Work::Submit {
        id: Some(id),
        count: 1,
    };
    let wait = spans.iter().position(|span| span.work == stored);
    let wait = spans.remove(wait.expect("the commit is a span"));
    assert_eq!(wait.parent, Some(client("01")));
    let [publish, claim, run, settle, announce] = spans.as_slice() else {
        panic!("{spans:#?}");
    };
    assert_eq!(publish.work, Work::Publish { id });
    let by = ClaimedBy::Delivery;
    assert_eq!(claim.work, Work::Claim { id, by });
    let ran = Work::Run {
        id,
        attempt: 1,
        outcome: RunOutcome::Success,
    };
    assert_eq!(run.work, ran);
    let status = Some(TaskStatus::Done);
    assert_eq!(settle.work, Work::Settle { id, status });
    assert_eq!(announce.work, Work::Announce { id });
    assert_eq!(publish.parent, Some(client("01")));
    assert_eq!(claim.parent, Some(publish.context.clone()));
    for part in [run, settle, announce] {
        assert_eq!(part.parent, Some(claim.context.clone()), "{part:?}");
    }
    for span in spans.iter().chain([&wait]) {
        assert_eq!(span.context.trace_id(), client("01").trace_id());
        assert_eq!(span.context.tracestate(), Some("vendor=a"));
        assert_eq!(span.error, None);
    }
    let given = seen.lock().expect("not poisoned").take();
    assert_eq!(given, Some(run.context.clone()));
    let told = world.memory.observer.events();
    assert!(told.iter().any(|event| matches!(
        event,
        Event::Ran { trace: Some(trace), .. } if *trace == claim.context
    )));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_traces_is_passed_on_and_what_is_not_sampled_tells_nothing() {
    // Nobody traces.
    let world = World::new();
    let seen = Arc::new(Mutex::new(None));
    let seen_by_run = Arc::clone(&seen);
    let processor = move |job: ports::Job| {
        *seen_by_run.lock().expect("not poisoned") = job.trace;
        async { Ok("done".into()) }
    };
    let submitter = world.submitter();
    let _worker = world.work(processor_fn(processor));
    let of_client = Submission {
        trace: Some(client("01")),
        ..submission("hello")
    };
    let id = submitter.submit(vec![of_client]).await.expect("accepted")[0].id;
    at_the_end(&world, &[id]).await;
    assert_eq!(
        seen.lock().expect("not poisoned").take(),
        Some(client("01"))
    );
    assert_eq!(spans(&world), []);

    // The client's trace is not sampled.
    let world = traced_world(true);
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let of_client = Submission {
        trace: Some(client("00")),
        ..submission("hello")
    };
    let id = submitter.submit(vec![of_client]).await.expect("accepted")[0].id;
    at_the_end(&world, &[id]).await;
    assert_eq!(spans(&world), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_message_begins_a_trace_of_its_own() {
    let world = traced_world(true);
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["retry"]).await;
    at_the_end(&world, &ids).await;
    let spans = spans(&world);
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_none()).collect();
    // Five attempts: one by delivery, and each retry by age.
    assert_eq!(roots.len(), 5, "{spans:#?}");
    for root in &roots {
        assert!(matches!(root.work, Work::Claim { .. }));
        let of_root = |span: &&Span| span.context.trace_id() == root.context.trace_id();
        let failed = |span: &&Span| span.error.as_deref().is_some();
        assert_eq!(spans.iter().filter(of_root).count(), 3);
        assert_eq!(spans.iter().filter(of_root).filter(failed).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_traced_of_a_batch_are_traced() {
    let world = traced_world(false);
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let traced = Submission {
        trace: Some(client("01")),
        ..submission("traced")
    };
    let submissions = vec![submission("before"), traced, submission("after")];
    let accepted = submitter.submit(submissions).await.expect("accepted");
    let ids: Vec<_> = accepted.iter().map(|accepted| accepted.id).collect();
    at_the_end(&world, &ids).await;
    let spans = spans(&world);
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let announced = Work::Announce { id: ids[1] };
    assert!(spans.iter().any(|span| span.work == announced));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stores_nothing_says_why_in_its_trace() {
    let mut world = traced_world(true);
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
    world.ports.store = faulty.clone();
    faulty.faults().always(Fault::FailBefore);
    let submitter = world.submitter();
    let of_client = Submission {
        trace: Some(client("01")),
        ..submission("hello")
    };
    assert!(submitter.submit(vec![of_client]).await.is_err());
    let spans = spans(&world);
    let [wait] = spans.as_slice() else {
        panic!("{spans:#?}");
    };
    assert_eq!(wait.work, Work::Submit { id: None, count: 0 });
    let error = wait.error.as_deref().unwrap_or_default();
    assert!(
        error.starts_with("the task store is unavailable"),
        "{error}"
    );
}
