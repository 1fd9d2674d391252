//! Clients that mean harm, and what others notice of them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bootstrap::testing::Sandbox;

use super::process::Process;

/// A third each drips its header, drips its body, and says nothing.
const CLIENTS: usize = 2_000;

/// hyper's first buffer for a connection holds 8 KiB; three times as much for everything else, in a build that is not optimised.
const KIB_A_CLIENT: u64 = 32;

/// The median of 200 answers to a task that is done.
fn median(process: &Process, id: &str) -> Duration {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            let (status, _) = process.get(&format!("/tasks/{id}")).expect("an answer");
            assert_eq!(status, 200);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn two_thousand_slow_clients_cost_little_and_delay_nobody() {
    // Both ends of a connection are files of somebody; the program raises its own limit.
    let wanted = u64::try_from(CLIENTS).expect("a number") + 512;
    let limit = rlimit::increase_nofile_limit(wanted).expect("there is a limit");
    assert!(limit >= wanted, "the system allows only {limit} open files");
    let sandbox = Sandbox::new();
    let settings = [("HEADER_TIMEOUT", "10m"), ("BODY_TIMEOUT", "10m")];
    let process = Process::start(&sandbox, &settings);
    let id = process.post("x").expect("accepted");
    process.result_of(&id, super::PATIENCE);
    let alone = median(&process, &id);
    let before = process.resident_kib();
    let openings = [
        "GET /tasks HTTP/1.1\r\nhost: test\r\nx: ",
        "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
        "",
    ];
    let mut clients: Vec<TcpStream> = openings
        .iter()
        .cycle()
        .take(CLIENTS)
        .map(|opening| {
            let mut client = process.connect().expect("the program accepts");
            client.write_all(opening.as_bytes()).expect("it reads");
            client
        })
        .collect();
    for client in clients.iter_mut().step_by(3) {
        client.write_all(b"x").expect("it reads");
    }
    let crowded = median(&process, &id);
    let grown = process.resident_kib().saturating_sub(before);
    eprintln!("alone {alone:?}, crowded {crowded:?}, {grown} KiB for {CLIENTS} clients");
    let open = process.meter("task_processor_http_connections");
    assert!(open >= CLIENTS as f64, "{open} are open");
    assert!(grown < KIB_A_CLIENT * 2_000, "{grown} KiB");
    // On a machine that does other things too; a delay by the crowd would be of another order.
    assert!(
        crowded < alone * 3 + Duration::from_millis(5),
        "{alone:?} alone, {crowded:?} in the crowd"
    );
    drop(clients);
}

#[test]
fn batches_that_are_held_back_cost_no_more_than_their_part_and_keep_nobody_out() {
    const SENT: usize = (4 << 20) - 1;
    let sandbox = Sandbox::new();
    let settings = [("SUBMIT_BYTES", "16MiB"), ("BODY_TIMEOUT", "10m")];
    let process = Process::start(&sandbox, &settings);
    let id = process.post("x").expect("accepted");
    process.result_of(&id, super::PATIENCE);
    let before = process.resident_kib();
    let head = format!(
        "POST /tasks/batch HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        SENT + 1
    );
    let body = vec![b' '; SENT];
    let clients: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut client = process.connect().expect("the program accepts");
            client.write_all(head.as_bytes()).expect("it reads");
            // Most are refused on the way, and may be cut.
            let _ = client.write_all(&body);
            process.post("y").expect("a neighbour is accepted");
            client
        })
        .collect();
    let grown = process.resident_kib().saturating_sub(before);
    eprintln!("{grown} KiB for 64 batches of 4 MiB");
    // Half of 16 MiB is theirs; three times as much for what is on its way through, and for what the allocator keeps.
    assert!(grown < 32 << 10, "{grown} KiB");
    drop(clients);
}
