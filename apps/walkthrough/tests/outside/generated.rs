//! Clients that the usual generators make of the committed document, compiled strictly and put to work.

use std::fs;
use std::path::{Path, PathBuf};

use crate::programs::{Program, directory};
use crate::tools::{copy, link_modules, must_succeed, tool};
use crate::{API_KEY, Distributed, standalone};

#[test]
#[ignore = "needs PostgreSQL, Redis, Kafka 4 and the tools: run cargo xtask test"]
fn a_client_in_typescript_is_generated_compiled_and_understood() {
    let client = TypeScript::generate("generated-typescript");
    client.walk(&standalone("generated-typescript-embedded"));
    client.walk(&Distributed::start("typescript").server);
}

#[test]
#[ignore = "needs PostgreSQL, Redis, Kafka 4 and the tools: run cargo xtask test"]
fn a_client_in_python_is_generated_checked_and_understood() {
    let client = Python::generate("generated-python");
    client.walk(&standalone("generated-python-embedded"));
    client.walk(&Distributed::start("python").server);
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
}

/// Types by openapi-typescript, requests by openapi-fetch.
struct TypeScript(PathBuf);

impl TypeScript {
    fn generate(name: &str) -> Self {
        let directory = directory(name);
        copy("typescript/tsconfig.json", &directory);
        copy("typescript/walk.ts", &directory);
        fs::write(directory.join("package.json"), r#"{"type":"module"}"#)
            .expect("a file can be written");
        link_modules(&directory);
        must_succeed(
            tool("openapi-typescript")
                .arg(document())
                // Otherwise what has a default must be sent.
                .arg("--default-non-nullable=false")
                .arg("--output")
                .arg(directory.join("task-processor.ts")),
        );
        must_succeed(tool("tsc").arg("--project").arg(&directory));
        Self(directory)
    }

    fn walk(&self, program: &Program) {
        let said = must_succeed(
            tool("node")
                .arg(self.0.join("built/walk.js"))
                .env("TASK_URL", &program.url)
                .env("TASK_API_KEY", API_KEY),
        );
        assert_eq!(said, "as the document says\n");
    }
}

/// A package by openapi-python-client.
struct Python(PathBuf);

impl Python {
    fn generate(name: &str) -> Self {
        let directory = directory(name);
        copy("python/walk.py", &directory);
        copy("python/mypy.ini", &directory);
        let said = must_succeed(
            tool("openapi-python-client")
                .args(["generate", "--meta", "none", "--fail-on-warning", "--path"])
                .arg(document())
                .arg("--output-path")
                .arg(directory.join("task_processor")),
        );
        assert!(!said.contains("WARNING"), "{said}");
        must_succeed(
            tool("mypy")
                .current_dir(&directory)
                .args(["walk.py", "task_processor"]),
        );
        Self(directory)
    }

    fn walk(&self, program: &Program) {
        let said = must_succeed(
            tool("python")
                .current_dir(&self.0)
                .arg("walk.py")
                .env("TASK_URL", &program.url)
                .env("TASK_API_KEY", API_KEY),
        );
        assert_eq!(said, "as the document says\n");
    }
}
