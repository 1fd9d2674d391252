//! `GET /tasks` and `GET /tasks/{id}?view=full`.

use std::sync::Arc;
use std::time::Duration;

use ports::catalog::MockTaskCatalog;
use ports::{
    NewTask, Next, Payload, Priority, StoreError, TaskId, TaskStore, WorkerId, WorkerRegistry,
    WriteOutcome,
};
use serde_json::Value;
use task_processor_http::HttpConfig;

use crate::server::{Server, bring_to_rest};

fn ids(page: &Value) -> Vec<String> {
    let tasks = page["tasks"].as_array().expect("tasks");
    tasks
        .iter()
        .map(|task| task["id"].as_str().expect("an id").to_owned())
        .collect()
}

async fn page(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/tasks{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(answer.text()).expect("JSON")
}

async fn submitted(server: &Server, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(server.memory.submit("Hello world!").await);
        server.memory.advance(Duration::from_secs(1));
    }
    ids
}

fn newest_first(ids: &[TaskId]) -> Vec<String> {
    ids.iter().rev().map(ToString::to_string).collect()
}

#[tokio::test]
async fn pages_follow_each_other_and_miss_nothing() {
    let server = Server::start().await;
    let all = submitted(&server, 5).await;
    let first = server.get("/tasks?limit=2&status=pending").await;
    let body: Value = serde_json::from_str(first.text()).expect("JSON");
    let link = first.header("link").expect("a link").to_owned();
    let next = body["next"].as_str().expect("a cursor");
    assert_eq!(
        link,
        format!("</tasks?status=pending&limit=2&cursor={next}>; rel=\"next\"")
    );
    let mut met = ids(&body);
    // Newer ones come, and one that was met goes.
    submitted(&server, 1).await;
    bring_to_rest(&server, all[4], Next::Cancelled).await;
    let mut path = link;
    loop {
        let (target, _) = path[1..].split_once('>').expect("a target");
        let answer = server.get(target).await;
        let body: Value = serde_json::from_str(answer.text()).expect("JSON");
        met.extend(ids(&body));
        match answer.header("link") {
            Some(link) => path = link.to_owned(),
            None => {
                assert!(body["next"].is_null());
                break;
            }
        }
    }
    assert_eq!(met, newest_first(&all));
}

#[tokio::test]
async fn tasks_are_found_by_status_priority_and_age() {
    let server = Server::start().await;
    let all = submitted(&server, 4).await;
    let result = "!dlrow".to_owned();
    bring_to_rest(&server, all[0], Next::Done { result }).await;
    let error = "out of order".to_owned();
    bring_to_rest(&server, all[1], Next::Failed { error }).await;
    bring_to_rest(&server, all[2], Next::Cancelled).await;
    let statuses = [("done", 0), ("failed", 1), ("cancelled", 2), ("pending", 3)];
    for (status, index) in statuses {
        let found = page(&server, &format!("?status={status}")).await;
        assert_eq!(ids(&found), [all[index].to_string()], "{status}");
    }
    let failed = page(&server, "?status=failed").await;
    insta::assert_snapshot!(failed["tasks"][0], @r#"{"id":"01941f29-7c00-7000-8000-000000000002","payload":"Hello world!","priority":0,"status":"failed","result":null,"createdAt":"2025-01-01T00:00:01.000Z","updatedAt":"2025-01-01T00:00:04.000Z","attempts":1,"error":"out of order"}"#);
    let done = page(&server, "?status=done").await;
    assert_eq!(done["tasks"][0]["result"], "!dlrow");
    let middle = "?createdAfter=2025-01-01T00:00:01Z&createdBefore=2025-01-01T01:00:03%2B01:00";
    assert_eq!(ids(&page(&server, middle).await), newest_first(&all[1..3]));
    let urgent = NewTask {
        id: TaskId(uuid::Uuid::from_u128(7)),
        payload: Payload::new("urgent").expect("no NUL"),
        priority: Priority::MAX,
        max_attempts: 1,
        run_at: None,
        messaged: false,
    };
    let stored = server
        .memory
        .store
        .insert(std::slice::from_ref(&urgent))
        .await;
    stored.expect("the store in memory answers");
    let found = page(&server, "?priority=10").await;
    assert_eq!(ids(&found), [urgent.id.to_string()]);
}

#[tokio::test]
async fn every_wrong_parameter_is_named() {
    let server = Server::start().await;
    submitted(&server, 2).await;
    let wrong = server
        .get(
            "/tasks?status=open&priority=11&createdAfter=now&createdBefore=&limit=0&view=x&limit=5",
        )
        .await;
    let problem = wrong.problem(400);
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["field"].as_str().expect("a field"))
        .collect();
    let expected = [
        "status",
        "priority",
        "createdAfter",
        "createdBefore",
        "limit",
    ];
    assert_eq!(fields, expected);
    assert_eq!(problem["errors"][4]["detail"], "must come once");
    let first = page(&server, "?limit=1").await;
    let cursor = first["next"].as_str().expect("a cursor");
    let tampered = cursor.replacen(['0', '1'], "2", 1);
    let queries = [
        format!("?limit=1&cursor={tampered}"),
        format!("?limit=1&status=pending&cursor={cursor}"),
        "?cursor=%F0%9F%91%8D".to_owned(),
    ];
    for query in queries {
        let answer = server.get(&format!("/tasks{query}")).await;
        let problem = answer.problem(400);
        assert_eq!(problem["errors"][0]["field"], "cursor", "{query}");
        assert_eq!(
            problem["type"],
            "urn:task-processor:problem:invalid-parameter"
        );
    }
    // With another size of the page it is the same listing.
    let rest = page(&server, &format!("?limit=7&cursor={cursor}")).await;
    assert_eq!(ids(&rest).len(), 1);
}

#[tokio::test]
async fn the_whole_record_says_why_a_task_is_not_done() {
    let server = Server::start().await;
    let all = submitted(&server, 3).await;
    let path = format!("/tasks/{}?view=full", all[2]);
    let registry = &server.memory.store;
    let worker = WorkerId(all[0].0);
    registry.register(worker, "one").await.expect("in memory");
    let waiting = server.get(&path).await;
    assert_eq!(waiting.header("cache-control"), Some("no-store"));
    insta::assert_snapshot!(waiting.text(), @r#"{"id":"01941f29-7c00-7000-8000-000000000003","taskId":"01941f29-7c00-7000-8000-000000000003","payload":"Hello world!","priority":0,"status":"pending","result":null,"error":null,"attempts":0,"maxAttempts":5,"rescues":0,"createdAt":"2025-01-01T00:00:02.000Z","updatedAt":"2025-01-01T00:00:02.000Z","notBefore":"2025-01-01T00:00:02.000Z","claimedAt":null,"worker":null,"finishedAt":null,"processedAt":null,"reason":{"code":"behind","sentence":"It waits behind 2 others.","ahead":2,"moreAhead":false},"estimatedStart":null}"#);
    let result = "!dlrow".to_owned();
    bring_to_rest(&server, all[0], Next::Done { result }).await;
    server.memory.advance(Duration::from_secs(4));
    // One became done in four seconds, and one is ahead.
    let body: Value = serde_json::from_str(server.get(&path).await.text()).expect("JSON");
    assert_eq!(body["reason"]["ahead"], 1);
    assert_eq!(body["estimatedStart"], "2025-01-01T00:00:11.000Z");
    let error = "out of order".to_owned();
    bring_to_rest(&server, all[2], Next::Failed { error }).await;
    let body: Value = serde_json::from_str(server.get(&path).await.text()).expect("JSON");
    assert_eq!(body["reason"]["sentence"], "It failed with: out of order");
    assert_eq!(body["finishedAt"], "2025-01-01T00:00:07.000Z");
    let done = server.get(&format!("/tasks/{}?view=full", all[0])).await;
    let body: Value = serde_json::from_str(done.text()).expect("JSON");
    assert!(body["reason"].is_null());
    assert_eq!(body["result"], "!dlrow");
    assert_eq!(body["processedAt"], body["finishedAt"]);
    let wrong = server.get(&format!("/tasks/{}?view=all", all[0])).await;
    assert_eq!(wrong.problem(400)["errors"][0]["field"], "view");
    let unknown = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057?view=full";
    server.get(unknown).await.problem(404);
}

#[tokio::test]
async fn a_task_that_is_due_says_when_no_worker_lives() {
    let server = Server::start().await;
    let all = submitted(&server, 2).await;
    let registry = &server.memory.store;
    let expect = async |expected: [&str; 2]| {
        for (id, expected) in all.iter().zip(expected) {
            let record = server.get(&format!("/tasks/{id}?view=full")).await;
            let body: Value = serde_json::from_str(record.text()).expect("JSON");
            assert_eq!(body["reason"]["code"], expected);
            assert!(body["estimatedStart"].is_null());
            if expected == "no-worker" {
                let sentence = &body["reason"]["sentence"];
                assert_eq!(sentence, "No worker is there to take it.");
            }
        }
    };
    expect(["no-worker", "no-worker"]).await;
    let worker = WorkerId(all[0].0);
    registry.register(worker, "one").await.expect("in memory");
    expect(["not-delivered", "behind"]).await;
    let declared = registry.declare_dead(worker, 0).await.expect("in memory");
    assert_eq!(declared, WriteOutcome::Applied);
    expect(["no-worker", "no-worker"]).await;
}

#[tokio::test]
async fn a_store_that_does_not_list_is_a_503() {
    let mut catalog = MockTaskCatalog::new();
    let down = || StoreError::Unavailable("refused".into());
    catalog.expect_list().returning(move |_| Err(down()));
    catalog.expect_inspect().returning(move |_, _| Err(down()));
    let server = Server::start_with(HttpConfig::default(), |ports| {
        ports.catalog = Arc::new(catalog);
    })
    .await;
    server.get("/tasks").await.problem(503);
    let path = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057?view=full";
    server.get(path).await.problem(503);
}
