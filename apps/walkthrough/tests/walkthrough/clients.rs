//! Clients that are not ours.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// What a program said that ended well; otherwise the test ends here.
fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("the client is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// An answer by HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An answer, or nothing while nobody listens.
pub(crate) fn try_curl(url: &str, arguments: &[&str]) -> Option<Answer> {
    let output = Command::new("curl")
        .args(["--silent", "--include", "--max-time", "20"])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

pub(crate) fn curl(url: &str, arguments: &[&str]) -> Answer {
    try_curl(url, arguments).unwrap_or_else(|| panic!("{url} does not answer"))
}

/// Posts a body as JSON.
pub(crate) fn post(url: &str, body: &str) -> Answer {
    curl(
        url,
        &[
            "--header",
            "Content-Type: application/json",
            "--data-binary",
            body,
        ],
    )
}

/// Posts many bodies through one client, several at a time; their answers in any order.
pub(crate) fn post_all(url: &str, bodies: &[String]) -> Vec<Value> {
    let mut requests = String::new();
    for body in bodies {
        let quoted = body.replace('\\', "\\\\").replace('"', "\\\"");
        // Options hold for one request. A body ends with a line break, so that the answers can be told apart.
        writeln!(
            requests,
            "next\nshow-error\nfail\nurl = \"{url}\"\nheader = \"Content-Type: application/json\"\n\
             data-binary = \"{quoted}\"\nwrite-out = \"\\n\""
        )
        .expect("a string takes everything");
    }
    let mut child = Command::new("curl")
        .args(["--parallel", "--parallel-max", "16", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // In parallel curl shows its progress whatever it was told.
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut input = child.stdin.take().expect("it is piped");
    input
        .write_all(requests.as_bytes())
        .expect("curl reads its configuration");
    drop(input);
    let output = child.wait_with_output().expect("curl ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "posting {} tasks: {}\n{errors}",
        bodies.len(),
        output.status
    );
    let text = String::from_utf8(output.stdout).expect("answers are text");
    serde_json::Deserializer::from_str(&text)
        .into_iter()
        .map(|value| value.expect("answers are JSON"))
        .collect()
}

/// Runs SQL and answers the rows, without headers, columns separated by `|`.
pub(crate) fn psql(url: &str, sql: &str) -> String {
    let mut text = output_of(Command::new("psql").args([
        "--no-psqlrc",
        "-v",
        "ON_ERROR_STOP=1",
        "-qtAc",
        sql,
        url,
    ]));
    text.truncate(text.trim_end().len());
    text
}

/// The answer of Redis, as it is, without a line break at the end.
pub(crate) fn redis(url: &str, arguments: &[&str]) -> String {
    let mut text = output_of(
        Command::new("redis-cli")
            .args(["-u", url, "--raw"])
            .args(arguments),
    );
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: String,
    pub(crate) offset: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Record {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Every record that a topic holds. Records that were made to have a line break in them come out as more than one.
pub(crate) fn records(brokers: &str, topic: &str) -> Vec<Record> {
    let text = Command::new("kcat")
        .args([
            "-C",
            "-b",
            brokers,
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%p\\t%o\\t%k\\t%s\\n",
        ])
        .output()
        .expect("kcat is installed")
        .stdout;
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(4, '\t').map(ToOwned::to_owned);
            Some(Record {
                partition: fields.next()?,
                offset: fields.next()?,
                key: fields.next()?,
                value: fields.next()?,
            })
        })
        .collect()
}

pub(crate) fn records_with_key(brokers: &str, topic: &str, key: &str) -> Vec<Record> {
    records(brokers, topic)
        .into_iter()
        .filter(|record| record.key == key)
        .collect()
}

/// Sends one record, as it is.
pub(crate) fn produce(brokers: &str, topic: &str, key: &str, value: &[u8]) {
    let mut child = Command::new("kcat")
        // A delimiter that no value here holds: the whole input is one record.
        .args(["-P", "-b", brokers, "-t", topic, "-k", key, "-D", "\\x1e"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat is installed");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(value).expect("kcat reads");
    drop(input);
    let status = child.wait().expect("kcat ends");
    assert!(status.success(), "kcat: {status}");
}

/// A member of a consumer group that agrees on partitions by a protocol of its own, as the workers of the older service do.
pub(crate) struct Member(Child);

impl Member {
    /// Joins, and returns when partitions were assigned.
    pub(crate) fn join(brokers: &str, group: &str, topic: &str) -> Self {
        let mut child = Command::new("kcat")
            .args([
                "-b",
                brokers,
                "-X",
                "partition.assignment.strategy=roundrobin",
            ])
            // It is killed without leaving; the group waits this long for it.
            .args(["-X", "session.timeout.ms=6000"])
            .args(["-G", group, topic])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kcat is installed");
        let said = child.stderr.take().expect("it is piped");
        let member = Self(child);
        let mut lines = BufReader::new(said).lines();
        let assigned = lines.any(|line| line.expect("kcat writes text").contains("assigned"));
        assert!(assigned, "kcat ended without partitions");
        // What it says from here on is read by nobody and must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        member
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many partitions a topic has; none if it does not exist.
pub(crate) fn partitions(brokers: &str, topic: &str) -> usize {
    let text = Command::new("kcat")
        .args(["-L", "-J", "-b", brokers])
        .output()
        .expect("kcat is installed")
        .stdout;
    let listing: Value = serde_json::from_slice(&text).unwrap_or_default();
    let topics = listing["topics"].as_array().cloned().unwrap_or_default();
    topics
        .iter()
        .find(|entry| entry["topic"] == topic)
        .and_then(|entry| entry["partitions"].as_array().map(Vec::len))
        .unwrap_or(0)
}
