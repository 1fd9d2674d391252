//! Every process is replaced, one after the other, while clients go on.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::callee::{self, Call};
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
/// How long a stop may take. Shorter than users have it, so that what outlasts it is not waited for that long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of so many tasks one outlasts every drain: its function ends only when it is called a second time, or nothing is replaced
/// any more.
const OUTLAST: u64 = 100;
const LONG: &str = "outlasting";

#[test]
#[ignore = "needs HAProxy, PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_rolling_restart_under_load_fails_no_request_and_delays_nothing() {
    let world = World::new("rolling", Kafka::Four, "rdkafka");
    world.migrate();
    let functions = Arc::new(Functions::default());
    let own = Arc::clone(&functions);
    let url = callee::serve(move |call| own.run(call));
    // The other tests do without the delay. All else, the patience and the connections among it, is as users have it.
    let deadline = format!("{}s", DEADLINE.as_secs());
    let settings: &[(&str, &str)] = &[("DRAIN_DELAY", "3s"), ("DRAIN_DEADLINE", &deadline)];
    let of_workers = [settings, &callee::settings(&url)].concat();
    let start = |name: &str, settings: &[(&str, &str)]| {
        let port = free_port();
        let mut program = world.begin_at(port, name, settings);
        program.wait_until_ready();
        (port, program)
    };
    let mut servers: Vec<(u16, Program)> = (0..3).map(|_| start(SERVER, settings)).collect();
    let mut workers: Vec<(u16, Program)> = (0..3).map(|_| start(WORKER, &of_workers)).collect();
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
        eventually("tasks that outlast the drain are in hand", || {
            (functions.in_hand() > 5).then_some(())
        });
        let (world, roll, of_workers) = (&world, &roll, &of_workers);
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
                    .map(|old| roll(world, WORKER, old, of_workers))
                    .collect::<Vec<_>>()
            }),
        ];
        let rolled = rolling.map(thread::ScopedJoinHandle::join);
        load.over.store(true, Ordering::Relaxed);
        functions.over.store(true, Ordering::Relaxed);
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
    let slowest = world.sql(&format!(
        "SELECT coalesce(ceil(extract(epoch FROM max(updated_at - created_at)) * 1000), 0)::bigint
         FROM tasks WHERE payload NOT LIKE '{LONG}%'"
    ));
    let slowest = Duration::from_millis(slowest.parse().expect("it is a number"));
    println!("slowest task {slowest:?}");
    // A worker keeps its partitions of the log until it is gone: what comes in them meanwhile is claimed by age.
    assert!(slowest <= longest, "a task took {slowest:?}");
    // What was not finished in time was handed back: at once, at the price of no attempt, and to no dead worker's account.
    let calls = functions
        .calls
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let handed_back: Vec<&Calls> = calls
        .values()
        .filter(|calls| calls.again.is_some())
        .collect();
    println!("{} of {} handed back", handed_back.len(), calls.len());
    assert!(handed_back.len() >= 3, "one or more by each worker");
    for calls in &handed_back {
        let idle = calls.again.zip(calls.given_up);
        let idle = idle.map(|(again, given_up)| again.saturating_duration_since(given_up));
        assert!(idle.is_some_and(|idle| idle <= longest), "{calls:?}");
    }
    let spent = world.sql("SELECT count(*) FROM tasks WHERE attempts <> 1 OR rescues <> 0");
    assert_eq!(spent, "0", "tasks that an attempt or a rescue was spent on");
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

/// The processing function of every task, and what it saw of those that outlast the drain.
#[derive(Default)]
struct Functions {
    calls: Mutex<BTreeMap<String, Calls>>,
    /// Nothing is replaced any more.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Calls {
    given_up: Option<Instant>,
    again: Option<Instant>,
    ended: bool,
}

impl Functions {
    fn run(&self, call: Call) {
        if call.payload.starts_with(LONG) && self.is_first(&call.id) {
            let id = call.id.clone();
            let given_up = call.hold(|| self.over.load(Ordering::Relaxed));
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let own = calls.entry(id).or_default();
            own.given_up = given_up.then(Instant::now);
            own.ended = true;
            return;
        }
        // A worker that is stopping may have given it up; then it is called again.
        call.answer("200 OK", "heard").ok();
    }

    /// Whether the task is called for the first time; of the second time the moment is noted.
    fn is_first(&self, id: &str) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(id) {
            Some(calls) => {
                calls.again.get_or_insert_with(Instant::now);
                false
            }
            None => {
                calls.insert(id.to_owned(), Calls::default());
                true
            }
        }
    }

    fn in_hand(&self) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.values().filter(|calls| !calls.ended).count()
    }
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
                let kind = if number % OUTLAST == 1 {
                    LONG
                } else {
                    "rolling"
                };
                let body = format!("{{\"payload\":\"{kind} {number}\"}}");
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
