//! The program as people call it: on a terminal.

#[path = "../../client/tests/client/server.rs"]
mod server;

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

use bootstrap::testing::Sandbox;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use server::Server;

/// The exit code of a call on a terminal of its own, and everything that the terminal was shown.
fn on_terminal(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let name = name.to_str().expect("text");
    let side = || {
        let side = File::options().read(true).write(true).open(name);
        Stdio::from(side.expect("the other side"))
    };
    let mut program = Command::new(env!("CARGO_BIN_EXE_task"))
        .args(arguments)
        .env("TASK_URL", &server.url)
        .env("TERM", "xterm")
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .expect("the program");
    let (mut master, mut shown, mut piece) = (File::from(master), Vec::new(), [0; 4_096]);
    // When the program has let go of its side, reading is an error.
    while let Ok(count @ 1..) = master.read(&mut piece) {
        shown.extend_from_slice(&piece[..count]);
    }
    let code = program.wait().expect("it ends").code();
    (code, String::from_utf8(shown).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_shown_text() {
    let server = Server::start().await;
    let (code, shown) = on_terminal(&server, &["submit", "Hello world!", "--wait"]);
    assert_eq!(code, Some(0), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("id         "), "{shown}");
    assert_eq!(lines[3], "result     !dlrow olleH (len=12)", "{shown}");
    let (code, shown) = on_terminal(&server, &["list", "--limit", "1"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with("ID "), "{shown}");
    let (code, shown) = on_terminal(&server, &["list", "--limit", "1", "--output", "json"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with('{'), "{shown}");
}

/// What a result holds must not move the cursor, or change the title of the window.
#[tokio::test(flavor = "multi_thread")]
async fn no_task_commands_the_terminal() {
    let server = Server::start().await;
    let (code, shown) = on_terminal(&server, &["submit", "\u{1b}]0;title\u{7}", "--wait"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_a_progress_bar_that_goes_away() {
    let server = Server::start().await;
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("tasks.ndjson");
    let lines: String = (0..2_500)
        .map(|number| format!("{{\"payload\":\"{number}\"}}\n"))
        .collect();
    std::fs::write(&path, lines).expect("a file");
    let path = path.to_str().expect("text");
    let (code, shown) = on_terminal(&server, &["submit", "--file", path]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("1000 tasks"), "{shown:?}");
    assert!(shown.contains('%'), "{shown:?}");
    let ids = shown.lines().filter(|line| {
        let last = line.rsplit(['\u{1b}', '\r', 'K', 'J']).next();
        last.is_some_and(|id| id.trim().len() == 36)
    });
    assert!(ids.count() >= 2_490, "{shown:?}");
    let (_, end) = shown.rsplit_once('\u{1b}').expect("it is cleared");
    assert!(!end.contains('%'), "{end:?}");
}
