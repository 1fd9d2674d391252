//! Our programs, and others that a test needs for itself.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::clients::try_curl;
use crate::eventually;

/// A port that nobody has. From below the range that the system gives to outgoing connections, so that none of
/// these takes it before its program does.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start =
        u16::try_from(std::process::id() % u32::from(COUNT)).expect("it is less than 9,000");
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(2, Ordering::Relaxed)) % COUNT)
        // A broker takes the next one too.
        .find(|port| {
            [*port, port + 1]
                .iter()
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        })
        .expect("some port is free")
}

/// A program of this project, as `cargo xtask test` built it.
fn built(name: &str) -> PathBuf {
    let directory = std::env::var_os("TASK_PROCESSOR_BINARIES")
        .expect("TASK_PROCESSOR_BINARIES is set: run cargo xtask test");
    Path::new(&directory).join(name)
}

/// A directory for a test of its own, empty.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).expect("what an earlier run left can be removed");
    }
    fs::create_dir_all(&path).expect("a directory can be made");
    path
}

/// A running program; killed when it is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    /// What goes away with it.
    home: Option<PathBuf>,
    /// Where it answers by HTTP, if it does.
    pub(crate) url: String,
}

/// What a program that ended left.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
}

/// A program with nothing in its environment but what is given.
fn command(program: &Path, directory: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null());
    command
}

/// Runs one of our programs to its end.
pub(crate) fn run(
    name: &str,
    arguments: &[&str],
    directory: &Path,
    environment: &[(String, String)],
) -> End {
    let output = command(&built(name), directory, environment)
        .args(arguments)
        .output()
        .expect("the program was built");
    let log = [output.stdout, output.stderr].concat();
    End {
        code: output.status.code(),
        log: String::from_utf8_lossy(&log).into_owned(),
    }
}

impl Program {
    /// Starts one of our programs and waits until it says that it is ready.
    pub(crate) fn serve(
        name: &str,
        port: u16,
        directory: &Path,
        environment: &[(String, String)],
    ) -> Self {
        let mut program = Self::begin(name, port, directory, environment);
        program.wait_until_ready();
        program
    }

    /// Starts one of our programs, ready or not.
    pub(crate) fn begin(
        name: &str,
        port: u16,
        directory: &Path,
        environment: &[(String, String)],
    ) -> Self {
        let command = command(&built(name), directory, environment);
        Self::start(name, command, port, directory)
    }

    fn start(name: &str, mut command: Command, port: u16, directory: &Path) -> Self {
        let log = directory.join(format!("{name}-{port}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log can be made");
        let errors = file.try_clone().expect("a file can be shared");
        let child = command
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            home: None,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        let url = format!("{}/health/ready", self.url);
        eventually("a program is ready", || {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                panic!("{} ended: {status}", self.name);
            }
            try_curl(&url, &[]).filter(|answer| answer.status == 200)
        });
    }

    /// A Redis of the test's own.
    pub(crate) fn redis(port: u16, directory: &Path) -> Self {
        Self::redis_with(port, directory, &[])
    }

    /// A Redis of the test's own that is told more.
    pub(crate) fn redis_with(port: u16, directory: &Path, more: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        command.current_dir(directory).args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--port",
            &port.to_string(),
        ]);
        command.args(more);
        let program = Self::start("redis", command, port, directory);
        eventually("Redis answers", || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .is_err()
                .then_some(())
        });
        program
    }

    /// The load balancer, configured as users are told to.
    pub(crate) fn haproxy(port: u16, directory: &Path, environment: &[(&str, String)]) -> Self {
        // Debian installs it where only root looks for programs.
        let debian = Path::new("/usr/sbin/haproxy");
        let program = if debian.exists() {
            debian
        } else {
            Path::new("haproxy")
        };
        let configuration = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/haproxy.cfg");
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .args(["-f", configuration])
            .envs(environment.iter().map(|(name, value)| (name, value)));
        Self::start("haproxy", command, port, directory)
    }

    /// A PostgreSQL of the test's own that takes clients with TLS alone; the directory holds `server.pem` and `server.key`.
    pub(crate) fn postgres(port: u16, directory: &Path) -> Self {
        // Where the user that PostgreSQL runs as can walk to.
        let home = std::env::temp_dir().join(format!("task-processor-walkthrough-{port}"));
        if home.exists() {
            fs::remove_dir_all(&home).expect("what an earlier run left can be removed");
        }
        let mut command = Command::new(built("xtask"));
        command
            .args(["services", "postgres", "--certificate"])
            .arg(directory)
            .arg(&home)
            .arg(port.to_string());
        let mut program = Self::start("postgres", command, port, directory);
        program.home = Some(home);
        program
    }

    /// A broker of the test's own. Its data stays in the directory and is there when it is started again.
    pub(crate) fn broker(major: &str, port: u16, directory: &Path) -> Self {
        Self::broker_with(major, port, directory, &[])
    }

    /// A broker of the test's own that is told more.
    pub(crate) fn broker_with(major: &str, port: u16, directory: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(built("xtask"));
        command
            .args(["services", "broker", major])
            .arg(directory.join("kafka"))
            .arg(port.to_string())
            .args(more);
        let program = Self::start("kafka", command, port, directory);
        let address = format!("127.0.0.1:{port}");
        eventually("a broker answers", || {
            let output = Command::new("kcat")
                .args(["-L", "-b", &address, "-m", "2"])
                .output()
                .expect("kcat is installed");
            String::from_utf8_lossy(&output.stdout)
                .contains(" 1 brokers")
                .then_some(())
        });
        program
    }

    /// Ends it without a warning, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Asks it to stop, as a supervisor does.
    pub(crate) fn stop(mut self) -> End {
        self.signal("TERM");
        self.ended()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid])
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "{} is not there to get {name}", self.name);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> End {
        let code = eventually("a program ends", || {
            self.child.try_wait().expect("it can be asked")
        })
        .code();
        End {
            code,
            log: self.log(),
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, which is all that is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(home) = &self.home {
            fs::remove_dir_all(home).ok();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
