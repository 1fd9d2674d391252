//! The OpenAPI document and its page.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use task_processor_http::document;

use crate::server::Server;

fn parsed() -> Value {
    serde_json::from_str(&document()).expect("the document is JSON")
}

#[tokio::test]
async fn the_committed_document_is_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let committed = std::fs::read_to_string(path).expect("docs/openapi.json is there");
    assert!(
        committed == document(),
        "docs/openapi.json is stale; if the change is meant: cargo xtask openapi"
    );
    let server = Server::start().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), committed);
}

#[test]
fn everything_is_described() {
    let document = parsed();
    let operations: Vec<(String, &Value)> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect();
    let names: Vec<&str> = operations.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "post /tasks",
            "get /tasks",
            "post /tasks/batch",
            "get /tasks/{id}",
            "post /tasks/{id}/cancel",
            "post /tasks/{id}/retry",
            "get /events",
            "get /metrics",
            "get /health/live",
            "get /health/ready",
            "get /",
            "get /docs",
            "get /openapi.json",
        ]
    );
    for (name, operation) in operations {
        assert!(operation["summary"].is_string(), "{name}");
        for (code, response) in operation["responses"].as_object().into_iter().flatten() {
            let described = response["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(described, "{code} of {name}");
            // What comes before a request can be read is described in words alone.
            if code == "431" {
                assert_eq!(response.get("content"), None, "{name}");
            } else if code.starts_with(['4', '5']) {
                let content = &response["content"]["application/problem+json"];
                assert_eq!(
                    content["schema"]["$ref"], "#/components/schemas/Problem",
                    "{code} of {name}"
                );
                for example in content["examples"].as_object().expect("examples").values() {
                    assert_eq!(example["value"]["status"].to_string(), *code, "{name}");
                }
            }
        }
    }
    for (name, schema) in document["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        assert!(schema["description"].is_string(), "{name}");
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let described = property["description"].is_string() || property["$ref"].is_string();
            assert!(described, "{field} of {name}");
        }
    }
}

#[test]
fn the_two_forms_of_a_task_are_one_of_two_schemas_by_name() {
    let document = parsed();
    let schemas = &document["components"]["schemas"];
    let forms: Vec<&Value> = schemas["TaskState"]["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|form| &form["$ref"])
        .collect();
    assert_eq!(
        forms,
        [
            "#/components/schemas/TaskResult",
            "#/components/schemas/TaskDetails"
        ]
    );
    // No body can be of both forms.
    assert_eq!(
        schemas["TaskResult"]["required"],
        serde_json::json!(["taskId", "result", "processedAt"])
    );
    assert_eq!(schemas["TaskDetails"]["properties"].get("taskId"), None);
}

#[tokio::test]
async fn the_example_of_a_task_is_accepted() {
    let server = Server::start().await;
    let document = parsed();
    let example = &document["components"]["schemas"]["NewTask"]["example"];
    assert_eq!(example["payload"], "Hello world!");
    assert_eq!(server.post(example.to_string()).await.status, 201);
}

#[tokio::test]
async fn the_root_leads_to_the_page() {
    let server = Server::start().await;
    let answer = server.get("/").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("/docs"))
    );
}

#[tokio::test]
async fn the_page_holds_the_document_and_may_load_nothing() {
    let server = Server::start().await;
    let plain = server.get("/docs").await;
    assert_eq!(plain.status, 200);
    assert_eq!(
        plain.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = plain.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    let escaped = document().trim_end().replace("</", "<\\/");
    assert!(plain.text().contains(&format!("let spec = {escaped};")));
    assert!(plain.text().contains("<title>Task Processor</title>"));
    assert!(plain.text().contains("<link rel=\"icon\" href=\"data:,\">"));
    for loading in ["<script src", "rel=\"stylesheet\"", "@import"] {
        assert!(!plain.text().contains(loading), "{loading}");
    }
}

#[tokio::test]
async fn the_page_is_packed_for_whoever_takes_it() {
    let server = Server::start().await;
    let packed = server
        .answer("GET /docs HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip, deflate, br\r\n\r\n")
        .await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() < 600_000, "{} bytes", packed.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.body.as_slice())
        .read_to_end(&mut unpacked)
        .expect("the page is gzip");
    let plain = server.get("/docs").await;
    assert_eq!(plain.header("content-encoding"), None);
    assert!(unpacked == plain.body);
}
