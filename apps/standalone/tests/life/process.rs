//! A running program and the least HTTP client that can talk to it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bootstrap::testing::Sandbox;
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_task-processor");

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

pub(crate) struct Process {
    address: SocketAddr,
    child: Mutex<Child>,
    log: Arc<Mutex<String>>,
    logging: Mutex<Option<JoinHandle<()>>>,
}

impl Process {
    /// Starts the program on a free port and waits until it says where it is.
    pub(crate) fn start(sandbox: &Sandbox, settings: &[(&str, &str)]) -> Self {
        let mut environment = vec![("PORT", "0")];
        environment.extend(settings);
        let mut child = sandbox
            .command(PROGRAM, &environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        let logging = thread::spawn(move || {
            // What was read before the pipe broke is all there is.
            for line in errors.split(b'\n').map_while(Result::ok) {
                let mut log = lines.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = out
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("://")?.1.parse().ok());
        let Some(address) = address else {
            let code = child.wait();
            // Then the log is whole.
            let _ = logging.join();
            panic!("it did not start ({code:?}): {log:?}");
        };
        Self {
            address,
            child: Mutex::new(child),
            log,
            logging: Mutex::new(Some(logging)),
        }
    }

    /// Posts a task; its id if it was accepted, `None` if the process is gone.
    pub(crate) fn post(&self, payload: &str) -> Option<String> {
        let body = json!({ "payload": payload, "priority": 1 }).to_string();
        let (status, answer) = self.exchange("POST", "/tasks", &body).ok()?;
        assert_eq!(status, 201, "{answer}");
        let answer: Value = serde_json::from_str(&answer).ok()?;
        Some(answer["id"].as_str()?.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, Value)> {
        let (status, text) = self.get_text(path)?;
        Ok((status, serde_json::from_str(&text)?))
    }

    pub(crate) fn get_text(&self, path: &str) -> io::Result<(u16, String)> {
        self.exchange("GET", path, "")
    }

    /// A connection on which nothing was sent yet.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.address)
    }

    /// The value of a meter, named with its labels if it has any.
    pub(crate) fn meter(&self, name: &str) -> f64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/plain\r\n\r\n";
        let mut stream = self.connect().expect("the program accepts");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    /// The memory that it holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))
            .expect("the system tells");
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .expect("it holds some")
    }

    /// Waits until a task is done, as a client that polls.
    pub(crate) fn result_of(&self, id: &str, patience: Duration) -> String {
        let until = Instant::now() + patience;
        loop {
            let (status, answer) = self.get(&format!("/tasks/{id}")).expect("an answer");
            assert_eq!(status, 200, "{answer}");
            if let Some(result) = answer["result"].as_str() {
                assert_eq!(answer["taskId"], id);
                return result.to_owned();
            }
            assert!(Instant::now() < until, "not done in time: {answer}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = Command::new("kill")
            .args([format!("-{name}"), child.id().to_string()])
            .status()
            .expect("kill is there");
        assert!(sent.success());
    }

    /// Waits for the end; the exit code and the log.
    pub(crate) fn wait(self) -> (Option<i32>, String) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let code = child.wait().expect("it ends").code();
        drop(child);
        let logging = self
            .logging
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(logging) = logging {
            logging.join().expect("the log is read");
        }
        (code, self.log_so_far())
    }

    /// What it has logged.
    pub(crate) fn log_so_far(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The status of an answer to whoever has this key.
    pub(crate) fn status_with_key(&self, key: &str) -> u16 {
        self.status_of("GET", "/metrics", key)
    }

    /// The status of an answer to a request without a body, with this API key.
    pub(crate) fn status_of(&self, method: &str, path: &str, key: &str) -> u16 {
        self.status_to(method, path, &format!("Authorization: Bearer {key}\r\n"))
    }

    /// The status of an answer to a request without a body, with these lines of header.
    pub(crate) fn status_to(&self, method: &str, path: &str, headers: &str) -> u16 {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        );
        let mut stream = self.connect().expect("the program accepts");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {answer}"))
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let length = body.len();
        stream.write_all(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
