//! The embedded default: no service, and nothing lost by `kill -9`.

use std::path::Path;

use serde_json::json;

use crate::clients::{curl, post, post_all};
use crate::eventually;
use crate::programs::{Program, directory, free_port};
use crate::world::text;

fn standalone(home: &Path) -> Program {
    let port = free_port();
    Program::serve(
        "task-processor",
        port,
        home,
        &[("PORT".to_owned(), port.to_string())],
    )
}

#[test]
#[ignore = "needs the programs: run cargo xtask test"]
fn the_two_commands_of_the_readme() {
    let home = directory("standalone-readme");
    let program = standalone(&home);
    let accepted = post(
        &format!("{}/tasks", program.url),
        r#"{"payload":"Hello world!","priority":1}"#,
    );
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let url = format!("{}/tasks/{}", program.url, text(&accepted.json()["id"]));
    let done = eventually("the task is done", || {
        Some(curl(&url, &[]).json()).filter(|task| task["result"].is_string())
    });
    assert_eq!(done["result"], "!dlrow olleH (len=12)");
    assert_eq!(
        curl(&format!("{}/metrics", program.url), &[]).json()["totalTasks"],
        1
    );

    let page = curl(&format!("{}/docs", program.url), &["--compressed"]);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("swagger"), "the page is Swagger UI");
    let document = curl(&format!("{}/openapi.json", program.url), &["--compressed"]).json();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let committed = std::fs::read_to_string(committed).expect("the document is committed");
    assert_eq!(
        document,
        serde_json::from_str::<serde_json::Value>(&committed).expect("it is JSON")
    );
    let end = program.stop();
    assert_eq!(end.code, Some(0), "{}", end.log);
}

#[test]
#[ignore = "needs the programs: run cargo xtask test"]
fn accepted_tasks_survive_kill_9() {
    let home = directory("standalone-killed");
    let program = standalone(&home);
    let bodies: Vec<String> = (0..200)
        .map(|number| json!({ "payload": format!("task {number}") }).to_string())
        .collect();
    let accepted = post_all(&format!("{}/tasks", program.url), &bodies);
    program.kill();
    assert_eq!(accepted.len(), bodies.len());

    let program = standalone(&home);
    for task in &accepted {
        let url = format!("{}/tasks/{}", program.url, text(&task["id"]));
        eventually("a task is done after the restart", || {
            curl(&url, &[]).json()["result"].is_string().then_some(())
        });
    }
    assert_eq!(
        curl(&format!("{}/metrics", program.url), &[]).json()["totalTasks"],
        200
    );
}
