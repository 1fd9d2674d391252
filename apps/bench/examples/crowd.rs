//! Many clients that wait for tasks, or follow them, on one server: how soon each is told, and what they cost.
//!
//! ```text
//! ulimit -n 65536
//! MAX_CONNECTIONS=20000 target/release/task-processor &
//! cargo run --release -p task-processor-bench --example crowd -- --waiters 10000 --pid $!
//! cargo run --release -p task-processor-bench --example crowd -- --streams 10000 --pid $!
//! ```
//!
//! With `--max-kib` and `--max-p99` it fails when a client costs more memory of the server, or one in a hundred is told later.
//!
//! A waiter has a task of its own, due some time after all of them wait; the tasks come due over ten seconds. A waiter that came when its task was done
//! is not counted; one that is not told makes the run fail. A stream follows all tasks, of which then one is submitted every half second. Each is late by the time from the task's completion, as the
//! service stamped it (in whole milliseconds, by the clock of its database), to the arrival here: clocks must be the same.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many tasks the streams hear of.
const TOLD: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:3000")]
    address: SocketAddr,
    /// How many wait, each for a task of its own
    #[arg(long, default_value_t = 0, conflicts_with = "streams")]
    waiters: usize,
    /// How many follow all tasks
    #[arg(long, default_value_t = 0)]
    streams: usize,
    /// The process of the server, to tell its memory
    #[arg(long)]
    pid: Option<u32>,
    /// Fail if a client costs the server more memory than this, in KiB
    #[arg(long, requires = "pid")]
    max_kib: Option<f64>,
    /// Fail if more than one in a hundred is late by more than this, in milliseconds
    #[arg(long)]
    max_p99: Option<u64>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Outcome { late, each_kib } = runtime.block_on(async {
        if arguments.streams > 0 {
            streams(&arguments).await
        } else {
            waiters(&arguments).await
        }
    })?;
    println!(
        "{} told, late by ms: p50 {} p90 {} p99 {} max {}",
        late.len(),
        late.value_at_quantile(0.5),
        late.value_at_quantile(0.9),
        late.value_at_quantile(0.99),
        late.max()
    );
    let p99 = late.value_at_quantile(0.99);
    if let Some(limit) = arguments.max_p99.filter(|limit| p99 > *limit) {
        return Err(format!("p99 is {p99} ms, more than {limit}").into());
    }
    if let Some(limit) = arguments.max_kib {
        let each = each_kib.ok_or("the memory of the server cannot be read")?;
        if each > limit {
            return Err(format!("a client costs {each:.1} KiB, more than {limit}").into());
        }
    }
    Ok(())
}

/// What a run found.
struct Outcome {
    late: Histogram<u64>,
    /// Memory of the server for each client, if it can be read.
    each_kib: Option<f64>,
}

/// Resident memory in KiB.
fn memory(pid: Option<u32>) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse().ok()
}

/// How much of it each client costs.
fn tell_memory(pid: Option<u32>, before: Option<u64>, count: usize) -> Option<f64> {
    let (before, after) = (before?, memory(pid)?);
    let each = after.saturating_sub(before) as f64 / count as f64;
    println!("memory {before} KiB before, {after} KiB with {count} clients: {each:.1} KiB each");
    Some(each)
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0)
}

/// Milliseconds since the epoch of a time as the API writes it: of the day alone, which is all that matters here.
fn millis_of_day(time: &str) -> Option<u64> {
    let clock = time.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = clock.split([':', '.']).map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    Some(((next()? * 60 + next()?) * 60 + next()?) * 1_000 + next()?)
}

fn lateness(time: &str) -> Option<u64> {
    let day = 86_400_000;
    Some((now_millis() % day + day - millis_of_day(time)?) % day).filter(|late| *late < day / 2)
}

/// `runAt` in so many milliseconds, as the API reads it.
fn in_millis(millis: u64) -> String {
    let at = now_millis() + millis;
    let (days, rest) = (at / 86_400_000, at % 86_400_000);
    let (seconds, milli) = (rest / 1_000, rest % 1_000);
    // Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{milli:03}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

async fn submit(address: SocketAddr, tasks: &[Value]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for part in tasks.chunks(1_000) {
        let body = serde_json::to_vec(part)?;
        let mut stream = TcpStream::connect(address).await?;
        let head = format!(
            "POST /tasks/batch HTTP/1.0\r\nhost: crowd\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let accepted: Vec<Value> = serde_json::from_str(body)?;
        ids.extend(
            accepted
                .iter()
                .filter_map(|task| task["id"].as_str().map(str::to_owned)),
        );
    }
    Ok(ids)
}

/// The answer to a waiter whose task is done.
struct Told {
    late: u64,
    /// Whether the task was not done yet when it asked.
    waited: bool,
}

async fn waiters(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (address, count) = (arguments.address, arguments.waiters);
    let before = memory(arguments.pid);
    // Due when all of them wait, over ten seconds.
    let tasks: Vec<Value> = (0..count)
        .map(|number| {
            let due = 30_000 + 10_000 * number as u64 / count as u64;
            json!({"payload": "crowd", "runAt": in_millis(due)})
        })
        .collect();
    let ids = submit(address, &tasks).await?;
    let mut waiting = JoinSet::new();
    for id in ids {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /tasks/{id}?wait=60s HTTP/1.0\r\nhost: crowd\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let asked = now_millis();
        waiting.spawn(async move {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
            let late = lateness(body["processedAt"].as_str()?)?;
            Some(Told {
                late,
                waited: now_millis() - late > asked,
            })
        });
    }
    // Until the last of them is accepted and has read its task; none of the tasks is due yet.
    sleep(Duration::from_secs(10)).await;
    let each_kib = tell_memory(arguments.pid, before, count);
    let (mut late, mut tardy, mut missed) = (Histogram::new(3)?, 0, 0);
    while let Some(told) = waiting.join_next().await {
        match told? {
            Some(told) if told.waited => late.record(told.late)?,
            Some(_) => tardy += 1,
            None => missed += 1,
        }
    }
    if tardy > 0 {
        println!("{tardy} came when their task was already done, and are not counted");
    }
    if missed > 0 {
        return Err(format!("{missed} were not told").into());
    }
    Ok(Outcome { late, each_kib })
}

async fn streams(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (address, count) = (arguments.address, arguments.streams);
    let before = memory(arguments.pid);
    let mut following = JoinSet::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /events HTTP/1.0\r\nhost: crowd\r\n\r\n")
            .await?;
        let mut reader = BufReader::with_capacity(512, stream);
        let mut line = String::new();
        while !line.starts_with("retry:") {
            line.clear();
            if reader.read_line(&mut line).await? == 0 {
                return Err("a stream was refused".into());
            }
        }
        following.spawn(async move {
            let mut late = Vec::with_capacity(TOLD);
            let mut line = String::new();
            while late.len() < TOLD {
                line.clear();
                if reader.read_line(&mut line).await.unwrap_or(0) == 0 {
                    break;
                }
                let Some(data) = line.strip_prefix("data: ") else {
                    continue;
                };
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                if event["status"] == "done" {
                    late.extend(event["at"].as_str().and_then(lateness));
                }
            }
            late
        });
    }
    let each_kib = tell_memory(arguments.pid, before, count);
    for _ in 0..TOLD {
        submit(address, &[json!({"payload": "crowd"})]).await?;
        sleep(Duration::from_millis(500)).await;
    }
    let mut late = Histogram::new(3)?;
    while let Some(told) = following.join_next().await {
        for millis in told? {
            late.record(millis)?;
        }
    }
    Ok(Outcome { late, each_kib })
}
