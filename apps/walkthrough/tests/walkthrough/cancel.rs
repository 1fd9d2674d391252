//! Commands about tasks that a service elsewhere is busy with.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clients::{curl, records_with_key};
use crate::eventually;
use crate::patience::PATIENCE;
use crate::world::{Kafka, World, meter, text};

/// Within which a run is told that its task was cancelled.
const PROMISED: Duration = Duration::from_secs(2);

/// How much later that may be on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(3);

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
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
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, seen) = channel();
    let refused = Arc::<Mutex<BTreeSet<String>>>::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (tell, refused) = (tell.clone(), Arc::clone(&refused));
            thread::spawn(move || serve(stream.expect("a connection"), &tell, &refused));
        }
    });
    (url, seen)
}

fn serve(stream: TcpStream, tell: &Sender<Sight>, refused: &Mutex<BTreeSet<String>>) {
    let mut stream = BufReader::new(stream);
    let call = received(&mut stream).expect("a call");
    let id = text(&call["taskId"]);
    // A test that failed listens no more.
    tell.send(Sight::Came(id.clone())).ok();
    if call["payload"] == HANG {
        // It ends when the connection does, in whichever way.
        let more = stream.read(&mut [0]).unwrap_or(0);
        assert_eq!(more, 0, "nothing comes after a call");
        tell.send(Sight::Left(id)).ok();
        return;
    }
    let is_first = refused.lock().expect("no panic").insert(id);
    let status = if is_first {
        "400 Bad Request"
    } else {
        "200 OK"
    };
    write!(
        stream.get_mut(),
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 5\r\n\r\nheard"
    )
    .expect("the worker reads");
}

fn received(stream: &mut BufReader<TcpStream>) -> io::Result<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn a_cancelled_call_is_closed_in_time_and_a_failed_task_is_called_again() {
    let world = World::new("cancel", Kafka::Three, "rdkafka");
    world.migrate();
    let server = world.server();
    let (url, seen) = service();
    let worker = world.worker(&[
        ("PROCESSOR", "http"),
        ("PROCESSOR_URL", &url),
        ("PROCESSOR_SECRET", SECRET),
        ("PROCESSOR_TIMEOUT", "10m"),
    ]);
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
