//! What takes long passes the load balancer, whose file is the one in `deploy/`.

use std::time::{Duration, Instant};

use crate::clients::{curl, post, try_curl};
use crate::eventually;
use crate::follow::Stream;
use crate::programs::{Program, directory, free_port};
use crate::world::text;

/// As long as a wait may be, and longer than the timeouts that a proxy has in most of its examples.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs HAProxy and the programs: run cargo xtask test"]
fn the_longest_wait_and_a_stream_without_events_pass_the_load_balancer() {
    let home = directory("balanced");
    let port = free_port();
    let _program = Program::serve(
        "task-processor",
        port,
        &home,
        &[("PORT".to_owned(), port.to_string())],
    );
    let front = free_port();
    let address = |port: u16| format!("127.0.0.1:{port}");
    let environment = [
        ("HAPROXY_BIND", address(front)),
        ("HAPROXY_STATS", address(free_port())),
        // One server by three names: to which of them a request goes does not matter here.
        ("API_1", address(port)),
        ("API_2", address(port)),
        ("API_3", address(port)),
    ];
    let balancer = Program::haproxy(front, &home, &environment);
    let tasks = format!("{}/tasks", balancer.url);
    let later = r#"{"payload":"later","runAt":"2999-12-31T00:00:00Z"}"#;
    let accepted = eventually("the load balancer has found the server", || {
        try_curl(&balancer.url, &[])?;
        Some(post(&tasks, later)).filter(|answer| answer.status == 201)
    });
    let id = text(&accepted.json()["id"]);

    let mut stream = Stream::open(&balancer, &format!("?task={id}"), None);
    let asked = Instant::now();
    let waited = curl(
        &format!("{tasks}/{id}?wait={}s", LONGEST.as_secs()),
        &["--max-time", "90"],
    );
    assert_eq!(waited.status, 200, "{waited:?}\n{}", balancer.log());
    assert_eq!(waited.json()["status"], "pending");
    assert!(asked.elapsed() >= LONGEST, "{:?}", asked.elapsed());
    // All that time there was nothing on the stream but signs of life.
    let cancelled = post(&format!("{tasks}/{id}/cancel"), "");
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    let message = stream.message();
    assert_eq!(message.data["taskId"], id.as_str());
    assert_eq!(message.data["status"], "cancelled");
}
