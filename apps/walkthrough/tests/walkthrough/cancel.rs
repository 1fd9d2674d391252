//! Commands about tasks that a service elsewhere is busy with.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::callee;
use crate::clients::{curl, records_with_key};
use crate::eventually;
use crate::patience::PATIENCE;
use crate::world::{Kafka, World, meter, text};

/// Within which a run is told that its task was cancelled.
const PROMISED: Duration = Duration::from_secs(2);

/// How much later that may be on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(3);

const HANG: &str = "never answered";

/// What a service sees of its caller.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// A task came.
    Came(String),
    /// The connection of a task that got no answer was closed.
    Left(String),
}

/// A service that never answers some tasks, and refuses each of the others once; its address, and what it sees.
fn service() -> (String, Receiver<Sight>) {
    let (tell, seen) = channel();
    let refused = Mutex::<BTreeSet<String>>::default();
    let url = callee::serve(move |call| {
        let id = call.id.clone();
        // A test that failed listens no more.
        tell.send(Sight::Came(id.clone())).ok();
        if call.payload == HANG {
            call.until_given_up();
            tell.send(Sight::Left(id)).ok();
            return;
        }
        let is_first = refused.lock().expect("no panic").insert(id);
        let status = if is_first {
            "400 Bad Request"
        } else {
            "200 OK"
        };
        call.answer(status, "heard").expect("the worker reads");
    });
    (url, seen)
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn a_cancelled_call_is_closed_in_time_and_a_failed_task_is_called_again() {
    let world = World::new("cancel", Kafka::Three, "rdkafka");
    world.migrate();
    let server = world.server();
    let (url, seen) = service();
    let worker = world.worker(&callee::settings(&url));
    let status_of =
        |id: &str| text(&curl(&format!("{}/tasks/{id}", server.url), &[]).json()["status"]);
    let command = |id: &str, command: &str| {
        let url = format!("{}/tasks/{id}/{command}", server.url);
        let answer = curl(&url, &["--request", "POST"]);
        assert_eq!(answer.status, 200, "{answer:?}");
    };

    let hanging = world.submit(&server, HANG);
    assert_eq!(
        seen.recv_timeout(PATIENCE),
        Ok(Sight::Came(hanging.clone()))
    );
    assert_eq!(status_of(&hanging), "processing");
    let asked = Instant::now();
    command(&hanging, "cancel");
    assert_eq!(
        seen.recv_timeout(PATIENCE),
        Ok(Sight::Left(hanging.clone()))
    );
    let took = asked.elapsed();
    assert!(took < PROMISED + SLACK, "{took:?}");
    assert_eq!(status_of(&hanging), "cancelled");

    let failing = world.submit(&server, "refused once");
    assert_eq!(
        seen.recv_timeout(PATIENCE),
        Ok(Sight::Came(failing.clone()))
    );
    eventually("the refused task has failed", || {
        (status_of(&failing) == "failed").then_some(())
    });
    command(&failing, "retry");
    assert_eq!(
        seen.recv_timeout(PATIENCE),
        Ok(Sight::Came(failing.clone()))
    );
    assert!(world.done(&server, &failing).contains("heard"));

    // Whatever there was to announce has been by then.
    world.at_rest();
    assert_eq!(
        records_with_key(&world.brokers, "tasks-output", &failing).len(),
        1
    );
    assert_eq!(
        records_with_key(&world.brokers, "tasks-output", &hanging),
        []
    );
    assert_eq!(status_of(&hanging), "cancelled");
    let calls = ["success", "permanent", "retryable", "timeout"].map(|outcome| {
        let series = format!("task_processor_processor_calls_total{{outcome=\"{outcome}\"}}");
        meter(&worker, &series)
    });
    assert_eq!(calls, [1, 1, 0, 0], "the cancelled call is none of them");
}
