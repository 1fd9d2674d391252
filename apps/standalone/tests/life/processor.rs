//! Tasks that are processed by a service in another language: the programs of `docs/PROCESSOR-HTTP.md`, run as they stand
//! there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bootstrap::testing::Sandbox;

use crate::PATIENCE;
use crate::process::Process;

/// The sample of the libraries of Standard Webhooks, which has a signed message of 2021.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_b3RoZXIgYnl0ZXMgb3RoZXIgYnl0ZXMh";
const OLD: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\nwebhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n\
    webhook-timestamp: 1614265330\r\nwebhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n\r\n\
    {\"test\": 2432232314}";

const SUCCESSES: &str = "task_processor_processor_calls_total{outcome=\"success\"}";
const REFUSALS: &str = "task_processor_processor_calls_total{outcome=\"refused\"}";
const UNREACHABLE: &str = "task_processor_processor_calls_total{outcome=\"unreachable\"}";
const OPEN: &str = "task_processor_processor_circuit_open";

/// A receiver of the documentation, until it is dropped.
struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    /// Runs the program under this heading, on a port of its choice when that is 0.
    fn start(sandbox: &Sandbox, heading: &str, port: u16) -> Self {
        let (interpreter, name) = match heading {
            "Python" => ("python3", "receiver.py"),
            _ => ("node", "receiver.mjs"),
        };
        let path = sandbox.path().join(name);
        std::fs::write(&path, documented(heading)).expect("a file");
        let mut child = Command::new(interpreter)
            .arg(&path)
            .envs([
                ("PORT", port.to_string()),
                ("PROCESSOR_SECRET", SECRET.to_owned()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{interpreter}: {error}"));
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut line).expect("it says where it is");
        let address = line.trim().to_owned();
        assert!(address.starts_with("http://"), "{interpreter}: {line:?}");
        Self { child, address }
    }

    /// The status and body of the answer to these bytes.
    fn answer(&self, request: &str) -> (String, String) {
        let host = self.address.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.to_owned(), body.to_owned())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The code block under a heading of the page.
fn documented(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROCESSOR-HTTP.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, section) = page
        .split_once(&format!("\n### {heading}\n"))
        .expect("the heading");
    let (_, block) = section.split_once("```").expect("a code block");
    let (_, code) = block.split_once('\n').expect("the name of its language");
    code.split("\n```").next().expect("its end").to_owned() + "\n"
}

fn start(sandbox: &Sandbox, url: &str, secret: &str) -> Process {
    let settings = [
        ("PROCESSOR", "http"),
        ("PROCESSOR_URL", url),
        ("PROCESSOR_SECRET", secret),
        ("MAX_ATTEMPTS", "1"),
    ];
    Process::start(sandbox, &settings)
}

/// A request as the program sends it.
fn genuine_request() -> String {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let receiving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut piece = [0; 1_024];
            let read = stream.read(&mut piece).expect("a request");
            assert!(read > 0, "the request ends before its body");
            request.extend_from_slice(&piece[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .expect("it reads");
        String::from_utf8(request).expect("text")
    });
    let process = start(&sandbox, &url, SECRET);
    let id = process.post("genuine").expect("accepted");
    assert_eq!(process.result_of(&id, PATIENCE), "ok");
    receiving.join().expect("a request came")
}

#[test]
fn the_documented_receivers_process_tasks_and_refuse_forgeries() {
    let genuine = genuine_request();
    for heading in ["Python", "Node"] {
        let sandbox = Sandbox::new();
        let receiver = Receiver::start(&sandbox, heading, 0);
        let while_changing = format!("{OTHER},{SECRET}");
        let process = start(&sandbox, &receiver.address, &while_changing);
        let id = process.post("Grüße, world!").expect("accepted");
        assert_eq!(
            process.result_of(&id, PATIENCE),
            "GRÜSSE, WORLD!",
            "{heading}"
        );
        assert_eq!(process.meter(SUCCESSES), 1.0, "{heading}");
        process.kill();

        let (status, body) = receiver.answer(&genuine);
        assert_eq!(
            (status.as_str(), body.contains("GENUINE")),
            ("200", true),
            "{heading}: {body}"
        );
        for (what, forged) in [
            ("another body", genuine.replace("genuine", "Genuine")),
            (
                "another id",
                genuine.replacen("webhook-id: 0", "webhook-id: 1", 1),
            ),
            (
                "another time",
                genuine.replacen("webhook-timestamp: 1", "webhook-timestamp: 2", 1),
            ),
            (
                "no signature",
                genuine.replacen("webhook-signature", "signature", 1),
            ),
            ("an old message", OLD.to_owned()),
        ] {
            assert_ne!(forged, genuine, "{what}");
            let (status, body) = receiver.answer(&forged);
            assert_eq!(status, "401", "{heading}, {what}: {body}");
        }

        let process = start(&sandbox, &receiver.address, OTHER);
        let id = process.post("under another secret").expect("accepted");
        let until = Instant::now() + PATIENCE;
        let failed = loop {
            let (_, task) = process.get(&format!("/tasks/{id}")).expect("an answer");
            if task["status"] == "failed" {
                break task;
            }
            assert!(Instant::now() < until, "{task}");
            thread::sleep(Duration::from_millis(5));
        };
        let error = "the processing service answered 401 Unauthorized: the signature is wrong";
        assert_eq!(failed["error"], error, "{heading}");
        let told = [REFUSALS, SUCCESSES, OPEN].map(|name| process.meter(name));
        assert_eq!(told, [1.0, 0.0, 0.0], "{heading}");
    }
}

/// The task has one attempt, so that the first that were spent would end it.
#[test]
fn no_attempt_is_spent_while_the_service_is_down() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let process = start(&sandbox, &format!("http://127.0.0.1:{port}"), SECRET);
    let id = process.post("patience").expect("accepted");
    let path = format!("/tasks/{id}");
    let until = Instant::now() + PATIENCE;
    let mut last_change = String::new();
    let mut changes = 0;
    // Each run that found the service down moved the task.
    while changes < 6 {
        let (_, task) = process.get(&path).expect("an answer");
        assert_ne!(task["status"], "failed", "{task}");
        assert_eq!(task["attempts"], 0, "{task}");
        let changed = task["updatedAt"].to_string();
        if changed != last_change {
            last_change = changed;
            changes += 1;
        }
        assert!(Instant::now() < until, "it was not tried: {task}");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(process.meter(UNREACHABLE) > 0.0);
    let _receiver = Receiver::start(&sandbox, "Python", port);
    assert_eq!(process.result_of(&id, PATIENCE), "PATIENCE");
}
