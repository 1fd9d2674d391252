//! The program as it is called, against a whole service: what it prints, and how it ends.

#[path = "../../client/tests/client/server.rs"]
mod server;

use bootstrap::testing::{Said, Sandbox};
use serde_json::Value;

use server::Server;

const TASK: &str = env!("CARGO_BIN_EXE_task");

/// A service, and a place to call it from.
struct Shell {
    server: Server,
    sandbox: Sandbox,
}

impl Shell {
    async fn start() -> Self {
        Self {
            server: Server::start().await,
            sandbox: Sandbox::new(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let environment = [("TASK_URL", self.server.url.as_str())];
        self.sandbox.run(TASK, arguments, &environment)
    }

    /// What is printed by a call that must end well.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.run(arguments);
        assert_eq!(
            (said.code, said.err.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        let lines = said.out.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[track_caller]
    fn ends(&self, arguments: &[&str], code: i32) -> Said {
        let said = self.run(arguments);
        assert_eq!(
            said.code,
            Some(code),
            "{arguments:?}: {}{}",
            said.out,
            said.err
        );
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_and_shown() {
    let shell = Shell::start().await;
    let done = shell.json(&["submit", "Hello world!", "--priority", "3", "--wait"]);
    assert_eq!(done[0]["result"], "!dlrow olleH (len=12)");
    let id = done[0]["taskId"].as_str().expect("an id");
    assert_eq!(shell.json(&["get", id]), done);
    let text = shell.ends(&["get", id, "--output", "text"], 0).out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("id         {id}"));
    assert_eq!(
        (lines[1], lines[3]),
        ("status     done", "result     !dlrow olleH (len=12)")
    );
    let accepted = shell.json(&["submit", "hang"]);
    assert_eq!(accepted[0]["status"], "pending");
    let id = accepted[0]["id"].as_str().expect("an id");
    let said = shell.ends(&["submit", "a", "--output", "text"], 0);
    assert_eq!(said.out.trim().len(), id.len(), "the id alone, for $(…)");
    let numbers = shell.json(&["metrics"]);
    assert!(numbers[0]["totalTasks"].is_u64(), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_task_is_shown_with_why_it_is_not_done() {
    let shell = Shell::start().await;
    let submitted = shell.json(&["submit", "a", "--run-at", "2999-01-01T00:00:00Z"]);
    let id = submitted[0]["id"].as_str().expect("an id");
    let record = &shell.json(&["get", id, "--full"])[0];
    assert_eq!(
        (&record["id"], &record["status"]),
        (&id.into(), &"pending".into())
    );
    assert_eq!(record["reason"]["code"], "scheduled");
    assert_eq!(record["estimatedStart"], "2999-01-01T00:00:00.000Z");
    // As the API writes it: what is not there is null.
    assert!(record.get("result").is_some_and(Value::is_null), "{record}");
    let text = shell
        .ends(&["get", id, "--full", "--output", "text"], 0)
        .out;
    let sentence = record["reason"]["sentence"].as_str().expect("a sentence");
    assert!(
        text.contains(&format!("\nwhy        {sentence}\n")),
        "{text}"
    );
    assert!(text.contains("\nattempts   0 of 5\n"), "{text}");
    assert!(!text.contains("result"), "{text}");
    // Together with waiting it ends as that does.
    shell.ends(&["get", id, "--full", "--wait=10ms"], 6);
    let done = shell.json(&["submit", "b", "--wait"])[0]["taskId"].to_string();
    let done = shell.json(&["get", done.trim_matches('"'), "--full", "--wait"]);
    assert_eq!(
        (&done[0]["result"], &done[0]["reason"]),
        (&"b (len=1)".into(), &Value::Null)
    );
    shell.ends(
        &["get", "00000000-0000-0000-0000-000000000000", "--full"],
        3,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_called_off_and_put_back() {
    let shell = Shell::start().await;
    let hanging = shell.json(&["submit", "hang"])[0]["id"].to_string();
    let hanging = hanging.trim_matches('"');
    assert_eq!(shell.json(&["cancel", hanging])[0]["status"], "cancelled");
    let cancelled = shell.ends(&["get", hanging, "--wait"], 5);
    assert_eq!(cancelled.err, "task: the task is cancelled\n");
    let refused = shell.ends(&["retry", hanging], 1);
    assert!(refused.err.contains("cancelled"), "{}", refused.err);
    let failed: Value =
        serde_json::from_str(&shell.ends(&["submit", "fail", "--wait"], 4).out).expect("JSON");
    let back = shell.json(&["retry", failed["id"].as_str().expect("an id")]);
    assert_eq!(back[0]["attempts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tasks_each_is_tried_and_each_refusal_names_its_task() {
    const UNKNOWN: &str = "00000000-0000-0000-0000-000000000000";
    let shell = Shell::start().await;
    let failed = || {
        let said = shell.ends(&["submit", "fail", "--wait"], 4);
        let task: Value = serde_json::from_str(&said.out).expect("JSON");
        task["id"].as_str().expect("an id").to_owned()
    };
    let (first, last) = (failed(), failed());
    let hanging = shell.json(&["submit", "hang"])[0]["id"].to_string();
    let hanging = hanging.trim_matches('"');
    let said = shell.ends(&["retry", &first, UNKNOWN, hanging, &last], 3);
    let back: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(back.len(), 2, "{}", said.out);
    assert_eq!(
        (&back[0]["id"], &back[1]["id"]),
        (&first.into(), &last.into())
    );
    let refusals: Vec<&str> = said.err.lines().collect();
    assert_eq!(refusals.len(), 2, "{}", said.err);
    for (refusal, id) in refusals.iter().zip([UNKNOWN, hanging]) {
        assert!(refusal.starts_with(&format!("task: {id}: ")), "{refusal}");
    }
    // The worst comes first, and is the end all the same.
    let said = shell.ends(&["cancel", UNKNOWN, hanging], 3);
    assert_eq!(said.out.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_for_programs_and_for_people() {
    let shell = Shell::start().await;
    for number in 0..4 {
        let priority = (number % 2).to_string();
        let payload = format!("hang {number}\nand on");
        shell.json(&["submit", &payload, "--priority", &priority]);
    }
    let payloads = |arguments: &[&str]| -> Vec<String> {
        let tasks = shell.json(arguments);
        let texts = tasks.iter().map(|task| task["payload"].as_str());
        let texts = texts.map(|text| text.expect("a payload"));
        texts.map(|text| text.replace("\nand on", "")).collect()
    };
    let all = ["hang 3", "hang 2", "hang 1", "hang 0"];
    assert_eq!(payloads(&["list"]), all);
    assert_eq!(payloads(&["list", "--all"]), all);
    assert_eq!(payloads(&["list", "--limit", "3"]), all[..3]);
    assert_eq!(payloads(&["list", "--priority", "1"]), ["hang 3", "hang 1"]);
    assert!(payloads(&["list", "--status", "failed"]).is_empty());
    assert!(payloads(&["list", "--created-before", "2025-01-01T00:00:00Z"]).is_empty());
    let table = shell.ends(&["list", "--limit", "2", "--output", "text"], 0);
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", table.out);
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("PAYLOAD"));
    assert!(lines[1].ends_with("  hang 3 and on"), "{}", lines[1]);
    assert_eq!(
        table.err,
        "task: there are more: --limit NUMBER or --all shows them\n"
    );
    let none = shell.ends(&["list", "--status", "failed", "--output", "text"], 0);
    assert_eq!(
        (none.out.as_str(), none.err.as_str()),
        ("", "task: there are none\n")
    );
    let refused = shell.ends(&["list", "--created-after", "yesterday"], 1);
    assert!(refused.err.contains("createdAfter"), "{}", refused.err);
    for wrong in [
        &["list", "--status", "lost"][..],
        &["list", "--priority", "11"],
        &["list", "--limit", "0"],
        &["list", "--limit", "1", "--all"],
    ] {
        shell.ends(wrong, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_has_its_code() {
    let shell = Shell::start().await;
    let failed = shell.ends(&["submit", "fail", "--wait"], 4);
    assert!(failed.out.contains("it was told to fail"), "{}", failed.out);
    assert_eq!(failed.err, "task: the task is failed\n");
    let open = shell.ends(&["submit", "hang", "--wait=200ms"], 6);
    assert!(open.out.contains("hang"), "{}", open.out);
    let unknown = shell.ends(&["get", "00000000-0000-0000-0000-000000000000"], 3);
    assert_eq!(unknown.out, "");
    let refused = shell.ends(&["submit", "a", "--run-at", "tomorrow"], 1);
    assert!(refused.err.contains("runAt"), "{}", refused.err);
    for wrong in [
        &["get", "one"][..],
        &["submit"],
        &["submit", "a", "--priority", "11"],
        &["submit", "a", "--wait=soon"],
        &["submit", "a", "--file", "tasks.ndjson"],
        &["metrics", "--url", "ftp://here"],
        &["submit", "--file", "nowhere.ndjson"],
        &[],
    ] {
        shell.ends(wrong, 2);
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let gone = shell.ends(&["metrics", "--url", &nobody], 8);
    assert!(
        gone.err.starts_with("task: the server did not answer"),
        "{}",
        gone.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_tasks_is_submitted_in_its_order() {
    let shell = Shell::start().await;
    let path = shell.sandbox.path().join("tasks.ndjson");
    let lines: String = (0..300)
        .map(|number| format!("{{\"payload\":\"{number}\",\"priority\":1}}\n\n"))
        .collect();
    std::fs::write(&path, lines).expect("a file");
    let accepted = shell.json(&["submit", "--file", "tasks.ndjson"]);
    assert_eq!(accepted.len(), 300);
    for number in [0, 299] {
        let id = accepted[number]["id"].as_str().expect("an id");
        let done = shell.json(&["get", id, "--wait"]);
        let expected: String = number.to_string().chars().rev().collect();
        let result = done[0]["result"].as_str().expect("a result");
        assert!(result.starts_with(&expected), "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_key_a_task_and_a_file_are_stored_once() {
    let shell = Shell::start().await;
    let path = shell.sandbox.path().join("tasks.ndjson");
    let lines: String = (0..1_005)
        .map(|number| format!("{{\"payload\":\"{number}\"}}\n"))
        .collect();
    std::fs::write(&path, lines).expect("a file");
    let one = ["submit", "a", "--idempotency-key", "k"];
    let file = ["submit", "--file", "tasks.ndjson", "--idempotency-key", "k"];
    let (first, all) = (shell.json(&one), shell.json(&file));
    assert_eq!((first.len(), all.len()), (1, 1_005));
    assert_eq!(shell.json(&one), first);
    assert_eq!(shell.json(&file), all);
    // From where an earlier call ended.
    let rest = shell.json(&[file.as_slice(), &["--after", "1000"]].concat());
    assert_eq!(rest, all[1_000..]);
    assert_eq!(shell.json(&["list", "--all"]).len(), 1_006);
    shell.ends(&["submit", "b", "--idempotency-key", "k"], 1);
    shell.ends(&["submit", "b", "--idempotency-key", "two words"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_task_is_named_and_the_way_on_is_told() {
    let shell = Shell::start().await;
    let path = shell.sandbox.path().join("tasks.ndjson");
    let good = "{\"payload\":\"a\"}\n".repeat(1_005);
    std::fs::write(&path, format!("{good}{{\"payload\":1}}\n")).expect("a file");
    let said = shell.ends(&["submit", "--file", "tasks.ndjson"], 2);
    assert_eq!(said.out.lines().count(), 1_000);
    assert!(
        said.err.contains("task: line 1006 is no task"),
        "{}",
        said.err
    );
    assert!(
        said.err
            .contains("up to line 1000; go on with --after 1000"),
        "{}",
        said.err
    );
    std::fs::write(&path, good).expect("a file");
    let rest = shell.json(&["submit", "--file", "tasks.ndjson", "--after", "1000"]);
    assert_eq!(rest.len(), 5);
}

#[test]
fn help_tells_the_codes_and_completions_are_made_for_every_shell() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(TASK, &["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for word in ["TASK_URL", "TASK_API_KEY", "Exit codes:", "completions"] {
        assert!(help.out.contains(word), "{word} in {}", help.out);
    }
    let mut scripts = std::collections::BTreeSet::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = sandbox.run(TASK, &["completions", shell], &[]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{shell}");
        for word in ["metrics", "list", "watch", "created-after"] {
            assert!(said.out.contains(word), "{word} for {shell}");
        }
        // The scripts of the other two complete no values.
        if matches!(shell, "bash" | "fish" | "zsh") {
            assert!(said.out.contains("cancelled"), "{shell}");
        }
        scripts.insert(said.out);
    }
    assert_eq!(scripts.len(), 5);
    sandbox.check_version(TASK, "task", env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_key_is_never_shown() {
    let sandbox = Sandbox::new();
    let environment = [
        ("TASK_API_KEY", "hunter2\n"),
        ("TASK_URL", "http://127.0.0.1:1"),
    ];
    for arguments in [&["metrics"][..], &["--help"]] {
        let said = sandbox.run(TASK, arguments, &environment);
        assert!(!format!("{}{}", said.out, said.err).contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_with_the_entry_that_knows_it() {
    let shell = Shell::start().await;
    let made = &shell.json(&["key", "ci", "--scopes", "read"])[0];
    let entry = made["entry"].as_str().expect("an entry");
    let keys = access::ApiKeys::parse(entry).expect("it is one");
    let known = keys.recognise(made["key"].as_str().expect("a key"));
    assert_eq!(known.map(access::ApiKey::name), Some("ci"));
    let other = &shell.json(&["key", "ci", "--scopes", "read"])[0];
    assert_ne!(made["key"], other["key"]);
    for wrong in [&["key", "a b"][..], &["key", "ci", "--scopes", "write"]] {
        shell.ends(wrong, 2);
    }
}
