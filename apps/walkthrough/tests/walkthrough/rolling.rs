//! Every process is replaced, one after the other, while clients go on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::programs::{Program, free_port};
use crate::world::{Kafka, World, text};
use crate::{SERVER, WORKER, eventually};

/// How many requests are due each second, whatever became of those before.
const RATE: u64 = 100;
/// How many of them may be under way; enough for all that are due while one takes its longest.
const CLIENTS: usize = 64;
/// Every so many requests one reads a task instead of posting one.
const READS: u64 = 4;
/// What nobody waits longer than, neither for an answer nor for a task to be done.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs HAProxy, PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_rolling_restart_under_load_fails_no_request_and_delays_nothing() {
    let world = World::new("rolling", Kafka::Four, "rdkafka");
    world.migrate();
    // The delay as users have it; the other tests do without. Connections are few, because making one is slow work for programs
    // that are not optimised, and the patience is long, because a disk that others keep busy is not what is tested.
    let settings: &[(&str, &str)] = &[
        ("DRAIN_DELAY", "3s"),
        ("DATABASE_POOL", "3"),
        ("SUBMIT_PATIENCE", "20s"),
    ];
    let start = |name: &str| {
        let port = free_port();
        let mut program = world.begin_at(port, name, settings);
        program.wait_until_ready();
        (port, program)
    };
    let mut servers: Vec<(u16, Program)> = (0..3).map(|_| start(SERVER)).collect();
    let mut workers: Vec<(u16, Program)> = (0..3).map(|_| start(WORKER)).collect();
    let (front, numbers) = (free_port(), free_port());
    let address = |port: u16| format!("127.0.0.1:{port}");
    let environment = [
        ("HAPROXY_BIND", address(front)),
        ("HAPROXY_STATS", address(numbers)),
        ("API_1", address(servers[0].0)),
        ("API_2", address(servers[1].0)),
        ("API_3", address(servers[2].0)),
    ];
    let balancer = Program::haproxy(front, &world.directory, &environment);
    let front = address(front);
    let stats = format!("http://{}/;csv", address(numbers));
    eventually("every server is taken up", || {
        let up = |line: &Line| line.field("status") == "UP";
        (servers_of(&stats).iter().filter(|line| up(line)).count() == 3).then_some(())
    });

    let load = Load::default();
    let bystander = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(&front));
        }
        scope.spawn(|| stand_by(&world.database, &load.over, &bystander));
        // What is replaced first is replaced under load too.
        eventually("the load runs", || {
            (load.accepted().len() > 100).then_some(())
        });
        let (world, roll) = (&world, &roll);
        let rolling = [
            scope.spawn(move || {
                servers
                    .drain(..)
                    .map(|old| roll(world, SERVER, old, settings))
                    .collect::<Vec<_>>()
            }),
            scope.spawn(move || {
                workers
                    .drain(..)
                    .map(|old| roll(world, WORKER, old, settings))
                    .collect::<Vec<_>>()
            }),
        ];
        let rolled = rolling.map(thread::ScopedJoinHandle::join);
        load.over.store(true, Ordering::Relaxed);
        // Dropped, and so killed, when the rest has been looked at.
        let _running = rolled.map(|outcome| outcome.expect("every process was replaced"));
        eventually("every request was answered", || {
            (load.under_way.load(Ordering::Relaxed) == 0).then_some(())
        });
        world.at_rest();
    });

    let failures = load.failures.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{failures:#?}\n{}", balancer.log());
    let accepted = load.accepted();
    println!(
        "{} accepted, {} read, slowest answer {} ms",
        accepted.len(),
        load.read.load(Ordering::Relaxed),
        load.slowest_ms.load(Ordering::Relaxed)
    );
    // On a machine that does more than this test, the database is slow for everybody at times.
    let bystander = Duration::from_millis(bystander.load(Ordering::Relaxed));
    println!("slowest commit of a bystander {bystander:?}");
    let longest = LONGEST + bystander;
    let slowest = Duration::from_millis(load.slowest_ms.load(Ordering::Relaxed));
    assert!(slowest <= longest, "an answer took {slowest:?}");
    let done =
        world.sql("SELECT count(*), count(DISTINCT payload) FROM tasks WHERE status = 'done'");
    assert_eq!(done, format!("{0}|{0}", accepted.len()), "each once");
    let totals = world.sql("SELECT sum(done) FROM totals");
    assert_eq!(totals, accepted.len().to_string());
    let slowest = world.sql(
        "SELECT coalesce(ceil(extract(epoch FROM max(updated_at - created_at)) * 1000), 0)::bigint FROM tasks",
    );
    let slowest = Duration::from_millis(slowest.parse().expect("it is a number"));
    println!("slowest task {slowest:?}");
    assert!(slowest <= longest, "a task took {slowest:?}");
    // Not even a connection had to be tried again: the servers went when nobody was sent there any more.
    for line in servers_of(&stats) {
        for (field, what) in [
            ("econ", "refused"),
            ("eresp", "broken"),
            ("wretr", "tried again"),
            ("wredis", "sent elsewhere"),
        ] {
            assert_eq!(line.field(field), "0", "{what}: {line:?}");
        }
    }
}

/// Stops a process politely and starts another in its place.
fn roll(
    world: &World,
    name: &str,
    (port, mut old): (u16, Program),
    settings: &[(&str, &str)],
) -> Program {
    old.signal("TERM");
    let end = old.ended();
    assert_eq!(end.code, Some(0), "{}", end.log);
    let mut new = world.begin_at(port, name, settings);
    new.wait_until_ready();
    new
}

/// Commits a row now and then, as anybody could, and notes the longest that it took.
fn stand_by(database: &str, over: &AtomicBool, longest_ms: &AtomicU64) {
    let mut psql = Command::new("psql")
        .args(["--no-psqlrc", "-qtA", database])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    let mut orders = psql.stdin.take().expect("it is piped");
    let mut answers = BufReader::new(psql.stdout.take().expect("it is piped"));
    orders
        .write_all(b"CREATE TABLE bystander (moment timestamptz);\n")
        .expect("psql reads");
    let mut said = String::new();
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        orders
            .write_all(b"INSERT INTO bystander VALUES (now()); SELECT 'done';\n")
            .expect("psql reads");
        answers.read_line(&mut said).expect("psql answers");
        let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        longest_ms.fetch_max(took, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
    }
    drop(orders);
    psql.wait().expect("psql ends");
}

/// A line of the load balancer's statistics.
#[derive(Debug)]
struct Line {
    names: Vec<String>,
    fields: Vec<String>,
}

impl Line {
    fn field(&self, name: &str) -> &str {
        let at = self.names.iter().position(|known| known == name);
        at.and_then(|at| self.fields.get(at))
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// What the load balancer says of its servers.
fn servers_of(stats: &str) -> Vec<Line> {
    let Some(answer) = crate::clients::try_curl(stats, &[]) else {
        return Vec::new();
    };
    let split = |line: &str| line.split(',').map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut lines = answer.body.trim_start_matches("# ").lines();
    let names = split(lines.next().unwrap_or_default());
    lines
        .filter(|line| line.starts_with("servers,api-"))
        .map(|line| Line {
            names: names.clone(),
            fields: split(line),
        })
        .collect()
}

/// Clients that send when a request is due, not when the last was answered.
struct Load {
    start: Instant,
    next: AtomicU64,
    under_way: AtomicU64,
    over: AtomicBool,
    accepted: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
    read: AtomicU64,
    slowest_ms: AtomicU64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            next: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            over: AtomicBool::new(false),
            accepted: Mutex::default(),
            failures: Mutex::default(),
            read: AtomicU64::new(0),
            slowest_ms: AtomicU64::new(0),
        }
    }
}

impl Load {
    fn accepted(&self) -> Vec<String> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.clone()
    }

    /// One client, on one connection for as long as that lives.
    fn run(&self, address: &str) {
        let mut connection = None;
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.start + Duration::from_millis(number * 1_000 / RATE);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let outcome = self.ask(number, address, &mut connection);
            // From when it was due: that all clients are waiting is a delay too.
            let took = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.slowest_ms.fetch_max(took, Ordering::Relaxed);
            if let Err(failure) = outcome {
                connection = None;
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(failure);
            }
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn ask(
        &self,
        number: u64,
        address: &str,
        connection: &mut Option<Connection>,
    ) -> Result<(), String> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = accepted.len() as u64;
        let read = (number.is_multiple_of(READS) && known > 0)
            .then(|| accepted[usize::try_from(number * 7 % known).unwrap_or(0)].clone());
        drop(accepted);
        let request = match &read {
            Some(id) => format!("GET /tasks/{id} HTTP/1.1\r\nhost: {address}\r\n\r\n"),
            None => {
                let body = format!("{{\"payload\":\"rolling {number}\"}}");
                let length = body.len();
                format!(
                    "POST /tasks HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\n\r\n{body}"
                )
            }
        };
        let open = match connection.take() {
            Some(open) => open,
            None => Connection::open(address).map_err(|error| format!("connecting: {error}"))?,
        };
        let (status, body, open) = open
            .exchange(&request)
            .map_err(|error| format!("{}: {error}", request.lines().next().unwrap_or_default()))?;
        *connection = open;
        match read {
            Some(_) if status == 200 => {
                self.read.fetch_add(1, Ordering::Relaxed);
            }
            None if status == 201 => {
                let answer: Value =
                    serde_json::from_str(&body).map_err(|error| error.to_string())?;
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                accepted.push(text(&answer["id"]));
            }
            _ => return Err(format!("{status}: {body}")),
        }
        Ok(())
    }
}

/// A connection of a client.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST * 4))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Status and body, and the connection, unless the answer closes it.
    fn exchange(mut self, request: &str) -> std::io::Result<(u16, String, Option<Self>)> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or_else(cut)?;
        let (mut length, mut stays) = (0, true);
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(cut());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(|_not_one| cut())?,
                "connection" => stays = !value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok((status, body, stays.then_some(self)))
    }
}
