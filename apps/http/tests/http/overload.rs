//! More than the server takes: who comes then is told to come back, and memory is bounded.

use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use domain::SubmitConfig;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::Answer;
use crate::server::{Server, post};

const LONG: Duration = Duration::from_secs(20);

fn assert_overloaded(answer: &Answer) {
    let problem = answer.problem(503);
    assert_eq!(problem["type"], "urn:task-processor:problem:overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// A request whose payload is this long.
fn of_length(bytes: usize) -> Vec<u8> {
    let body = json!({"payload": "x".repeat(bytes)});
    post("application/json", body.to_string())
}

#[tokio::test]
async fn a_full_queue_is_a_503_that_says_when_to_come_back() {
    let (asked, mut is_asked) = mpsc::unbounded_channel();
    let submit = SubmitConfig {
        queue: 1,
        writers: 1,
        patience: LONG * 3,
        ..SubmitConfig::default()
    };
    let server = Server::start_submitting(submit, |ports| {
        let store = Faulty::new(Arc::clone(&ports.store));
        store.faults().rule(move |method| {
            if method != "insert" {
                return None;
            }
            // A test that has ended does not listen.
            let _ = asked.send(());
            Some(Fault::Delay(LONG * 3))
        });
        ports.store = Arc::new(store);
    })
    .await;
    let mut first = server.connect().await;
    first.send(of_length(1)).await;
    is_asked.recv().await.expect("the store is asked");
    // One of these waits for the next commit, whichever comes first; for the other there is no place.
    let (mut second, mut third) = (server.connect().await, server.connect().await);
    second.send(of_length(1)).await;
    third.send(of_length(1)).await;
    let refused = tokio::select! {
        refused = second.receive() => refused,
        refused = third.receive() => refused,
        _ = first.receive() => panic!("its commit hangs"),
    };
    assert_overloaded(&refused);
    assert!(server.memory.store.snapshot().tasks.is_empty());
}

/// Until so many bytes are free, or are not.
async fn until_free(server: &Server, bytes: usize, is_free: bool) {
    let free = async {
        while server.submitter.arrival().grow(bytes, true) != is_free {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, free).await.expect("it comes to that");
}

#[tokio::test]
async fn bodies_that_are_on_their_way_take_room_and_what_finds_none_is_refused() {
    let submit = SubmitConfig {
        max_bytes: 20_000,
        ..SubmitConfig::default()
    };
    let server = Server::start_submitting(submit, |_| {}).await;
    for is_finished in [true, false] {
        let mut slow = server.connect().await;
        let mut whole = of_length(9_000);
        let last = whole.split_off(whole.len() - 1);
        slow.send(whole).await;
        until_free(&server, 12_000, false).await;
        assert_overloaded(&server.answer(of_length(12_000)).await);
        let mut second = server.connect().await;
        let mut held_back = of_length(3_000);
        held_back.truncate(2_500);
        second.send(held_back).await;
        assert_overloaded(&second.receive().await);
        let complete = server.answer(of_length(3_000)).await;
        assert_eq!(complete.status, 201, "half is for what is complete");
        if is_finished {
            slow.send(last).await;
            assert_eq!(slow.receive().await.status, 201, "it has its room already");
        }
        drop(slow);
        until_free(&server, 20_000, true).await;
    }
    assert_eq!(server.memory.store.snapshot().tasks.len(), 3);
}
