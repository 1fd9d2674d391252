//! The program as a process: it serves, it stops when asked, it dies and loses nothing.

mod commands;
mod hangup;
mod hostile;
mod process;
mod processor;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bootstrap::testing::Sandbox;
use process::Process;

/// How long a slow machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_task_is_accepted_processed_and_counted() {
    let sandbox = Sandbox::new();
    let process = Process::start(&sandbox, &[]);
    let id = process.post("Hello world!").expect("accepted");
    assert_eq!(process.result_of(&id, PATIENCE), "!dlrow olleH (len=12)");
    let (status, metrics) = process.get("/metrics").expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(metrics["totalTasks"], 1);
    assert!(metrics["averageProcessingTimeMs"].is_i64(), "{metrics}");
    let (status, _page) = process.get_text("/docs").expect("an answer");
    assert!(status < 400, "{status}");
}

#[test]
fn it_stops_when_asked_and_goes_on_where_it_stopped() {
    let sandbox = Sandbox::new();
    let process = Process::start(&sandbox, &[]);
    let id = process.post("stop").expect("accepted");
    process.signal("TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
    let again = Process::start(&sandbox, &[]);
    assert_eq!(again.result_of(&id, PATIENCE), "pots (len=4)");
}

#[test]
fn a_stop_is_announced_before_it_happens_and_a_second_signal_quits() {
    let sandbox = Sandbox::new();
    let process = Process::start(&sandbox, &[("DRAIN_DELAY", "5m")]);
    assert_eq!(process.get_text("/health/ready").expect("an answer").0, 200);
    process.signal("TERM");
    let until = Instant::now() + PATIENCE;
    while process
        .get_text("/health/ready")
        .expect("it still serves")
        .0
        != 503
    {
        assert!(Instant::now() < until, "readiness stays green");
    }
    assert!(process.post("still taken").is_some());
    process.signal("INT");
    assert_eq!(process.wait().0, Some(130));
}

#[test]
fn two_processes_do_not_share_a_file() {
    let sandbox = Sandbox::new();
    let first = Process::start(&sandbox, &[]);
    let said = sandbox.run(process::PROGRAM, &[], &[("PORT", "0")]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err
            .contains("task-processor.db is in use by another process"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("refused the data"), "{}", said.err);
    let id = first.post("mine").expect("the first one goes on");
    assert_eq!(first.result_of(&id, PATIENCE), "enim (len=4)");
}

/// Killed again and again under load: whatever was answered with 201 becomes done. The lease is an hour, so what the dead
/// process held can only have been given back at the next start.
#[test]
fn what_was_accepted_survives_kill_9() {
    let sandbox = Sandbox::new();
    let settings = [("LEASE", "1h")];
    let mut accepted: Vec<(String, String)> = Vec::new();
    for round in 0..4 {
        let process = Arc::new(Process::start(&sandbox, &settings));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (process, answered) = (Arc::clone(&process), Arc::clone(&answered));
                thread::spawn(move || {
                    let mut mine = Vec::new();
                    for number in 0.. {
                        let payload = format!("{round}-{client}-{number}");
                        // The first request that fails met the dead process.
                        let Some(id) = process.post(&payload) else {
                            return mine;
                        };
                        answered.fetch_add(1, Ordering::SeqCst);
                        mine.push((id, payload));
                    }
                    mine
                })
            })
            .collect();
        let since = Instant::now();
        while answered.load(Ordering::SeqCst) < 300 {
            assert!(
                since.elapsed() < PATIENCE,
                "300 tasks were not accepted in time"
            );
            thread::yield_now();
        }
        process.kill();
        for client in clients {
            accepted.extend(client.join().expect("the client ends"));
        }
    }
    assert!(accepted.len() >= 1_200);
    let process = Process::start(&sandbox, &settings);
    let until = Instant::now() + PATIENCE;
    for (id, payload) in &accepted {
        let reversed: String = payload.chars().rev().collect();
        let expected = format!("{reversed} (len={})", payload.len());
        let left = until.saturating_duration_since(Instant::now());
        assert_eq!(process.result_of(id, left), expected);
    }
    // Tasks whose answer was cut off may have been stored too; none counts twice.
    let (_, metrics) = process.get("/metrics").expect("an answer");
    let total = metrics["totalTasks"].as_u64().expect("a number");
    let stored = accepted.len() as u64;
    assert!(
        (stored..=stored + 4 * 8).contains(&total),
        "{total} for {stored}"
    );
}
