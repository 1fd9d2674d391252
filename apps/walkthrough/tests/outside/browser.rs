//! The page of the documentation in a real browser, used as a person uses it; and pages of other origins.

use std::path::{Path, PathBuf};
use std::thread;

use crate::clients::try_curl;
use crate::patience::eventually;
use crate::programs::{Program, directory, free_port};
use crate::tools::{copy, link_modules, must_succeed, tool};
use crate::{API_KEY, standalone, standalone_with};

#[test]
#[ignore = "needs the programs, the tools and Chromium: run cargo xtask test"]
fn a_person_authorizes_tries_a_task_and_sees_its_result() {
    let program = standalone("browser");
    let directory = directory("browser-script");
    copy("browser/walk.mjs", &directory);
    link_modules(&directory);
    let said = must_succeed(
        tool("node")
            .arg(directory.join("walk.mjs"))
            .env("TASK_URL", &program.url)
            .env("TASK_API_KEY", API_KEY)
            .env("CHROMIUM", chromium()),
    );
    assert_eq!(said, "as the document says\n");
}

#[test]
#[ignore = "needs the programs, the tools and Chromium: run cargo xtask test"]
fn a_page_of_another_origin_may_use_the_api_where_it_is_named() {
    let port = free_port().to_string();
    let origin = format!("http://127.0.0.1:{port}");
    let program = standalone_with("elsewhere", &[("CORS_ALLOWED_ORIGINS", &origin)]);
    let directory = directory("elsewhere-script");
    copy("browser/elsewhere.mjs", &directory);
    link_modules(&directory);
    let said = must_succeed(
        tool("node")
            .arg(directory.join("elsewhere.mjs"))
            .env("TASK_URL", &program.url)
            .env("TASK_API_KEY", API_KEY)
            .env("PAGE_PORT", port)
            .env("CHROMIUM", chromium()),
    );
    assert_eq!(said, "as the settings say\n");
}

#[test]
#[ignore = "needs the programs, the tools and Chromium: run cargo xtask test"]
fn an_event_source_survives_a_restart() {
    let port = free_port();
    let of_program = directory("restart");
    let settings = [("PORT", port.to_string().as_str()), ("DRAIN_DELAY", "3s")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let start = || Program::serve("task-processor", port, &of_program, &settings);
    let followed = |program: &Program| {
        let numbers = try_curl(
            &format!("{}/metrics", program.url),
            &["-H", "accept: text/plain"],
        )?;
        let streams = "task_processor_http_streams 1";
        numbers
            .body
            .lines()
            .find(|line| *line == streams)
            .map(|_| ())
    };
    let script = directory("restart-script");
    copy("browser/restart.mjs", &script);
    link_modules(&script);
    let program = start();
    let mut page = tool("node");
    page.arg(script.join("restart.mjs"))
        .env("TASK_URL", &program.url)
        .env("CHROMIUM", chromium());
    let page = thread::spawn(move || must_succeed(&mut page));
    eventually("the page follows", || followed(&program));
    let end = program.stop();
    assert_eq!(end.code, Some(0), "{}", end.log);
    let program = start();
    eventually("the page follows again", || followed(&program));
    let body = r#"{"payload":"Hello world!"}"#;
    let url = format!("{}/tasks", program.url);
    let created = try_curl(&url, &["-H", "content-type: application/json", "-d", body]);
    assert_eq!(created.map(|answer| answer.status), Some(201));
    let said = page.join().expect("the page hears of it");
    assert_eq!(said, "as the page says\n");
}

/// Debian's, which `cargo xtask test` installs.
fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("chromium"))
        .find(|program| Path::is_file(program))
        .expect("chromium is installed")
}
