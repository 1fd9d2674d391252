//! Which way the crates depend, compared with what was agreed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::steps::{cargo, output_of};

/// The golden file of workspace edges.
const GOLDEN: &str = "docs/dependencies.txt";

/// What the domain's library may be built of: the ports, and crates without input or output.
const DOMAIN_MAY: &[&str] = &[
    "async-trait",
    "futures-util",
    "task-processor-ports",
    "thiserror",
    "tokio",
    "unicode-segmentation",
];

/// What the domain may take from tokio: nothing that touches the outside.
const DOMAIN_MAY_TOKIO: &[&str] = &["macros", "rt", "sync", "time"];

/// Client libraries that the embedded default must not build.
const STANDALONE_MUST_NOT: &[&str] = &[
    "deadpool-redis",
    "kafka",
    "rdkafka",
    "rdkafka-sys",
    "redis",
    "sqlx-mysql",
    "sqlx-postgres",
    "tokio-postgres",
];

pub(super) fn check_edges(checkout: &Path) -> Result<(), Failure> {
    let path = checkout.join(GOLDEN);
    let agreed = fs::read_to_string(&path).map_err(Failure::at("read", &path))?;
    let found = edges(&metadata(checkout)?);
    if agreed == found {
        return Ok(());
    }
    let (agreed, found): (BTreeSet<&str>, BTreeSet<&str>) =
        (agreed.lines().collect(), found.lines().collect());
    let mut text =
        format!("{GOLDEN} and the manifests differ; if that is meant: cargo xtask lint --write");
    for gone in agreed.difference(&found) {
        text.push_str(&format!("\n- {gone}"));
    }
    for new in found.difference(&agreed) {
        text.push_str(&format!("\n+ {new}"));
    }
    Err(Failure::said(text))
}

pub(super) fn write(checkout: &Path) -> Result<(), Failure> {
    let path = checkout.join(GOLDEN);
    fs::write(&path, edges(&metadata(checkout)?)).map_err(Failure::at("write", &path))
}

pub(super) fn check_domain(checkout: &Path) -> Result<(), Failure> {
    let metadata = metadata(checkout)?;
    let domain = package(&metadata, "task-processor-domain")?;
    let mut wrong = Vec::new();
    for dependency in list(&domain["dependencies"])
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
    {
        let name = text(&dependency["name"]);
        if !DOMAIN_MAY.contains(&name) {
            wrong.push(format!(
                "domain depends on {name}; it may depend on {} alone",
                DOMAIN_MAY.join(", ")
            ));
        }
        if name == "tokio" {
            let extra = list(&dependency["features"])
                .iter()
                .map(text)
                .filter(|feature| !DOMAIN_MAY_TOKIO.contains(feature));
            wrong.extend(extra.map(|feature| {
                format!(
                    "domain takes {feature} from tokio; it may take {}",
                    DOMAIN_MAY_TOKIO.join(", ")
                )
            }));
            if dependency["uses_default_features"] == Value::Bool(true) {
                wrong.push("domain takes tokio's default features".to_owned());
            }
        }
    }
    none_wrong(&wrong)
}

pub(super) fn check_standalone(checkout: &Path) -> Result<(), Failure> {
    let tree = output_of(
        cargo(checkout)
            .args(["tree", "--locked", "--package", "task-processor"])
            .args([
                "--edges",
                "normal,build",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ]),
    )?;
    let built: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if !built.contains("task-processor-domain") {
        return Err(Failure::said(
            "the dependency tree of standalone does not hold the domain: cargo tree was misread",
        ));
    }
    let wrong: Vec<String> = STANDALONE_MUST_NOT
        .iter()
        .filter(|name| built.contains(*name))
        .map(|name| format!("standalone is built with {name}"))
        .collect();
    none_wrong(&wrong)
}

pub(super) fn features_of(checkout: &Path, name: &str) -> Result<Vec<String>, Failure> {
    let metadata = metadata(checkout)?;
    let features = package(&metadata, name)?["features"].as_object();
    Ok(features
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .cloned()
        .collect())
}

fn none_wrong(wrong: &[String]) -> Result<(), Failure> {
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::said(wrong.join("\n")))
    }
}

fn metadata(checkout: &Path) -> Result<Value, Failure> {
    let json = output_of(cargo(checkout).args(["metadata", "--format-version", "1", "--no-deps"]))?;
    serde_json::from_str(&json).map_err(|error| Failure::said(format!("cargo metadata: {error}")))
}

fn package<'a>(metadata: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    list(&metadata["packages"])
        .iter()
        .find(|package| package["name"] == name)
        .ok_or_else(|| Failure::said(format!("there is no package {name} in the workspace")))
}

/// One line for each edge between packages of the workspace, sorted.
fn edges(metadata: &Value) -> String {
    let packages = list(&metadata["packages"]);
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let mut lines = BTreeSet::new();
    for package in packages {
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            if !members.contains(to) {
                continue;
            }
            let kind = dependency["kind"]
                .as_str()
                .map(|kind| format!(" ({kind})"))
                .unwrap_or_default();
            lines.insert(format!("{} -> {to}{kind}\n", text(&package["name"])));
        }
    }
    lines.into_iter().collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::edges;

    #[test]
    fn edges_are_those_between_members_with_their_kind() {
        let metadata = json!({ "packages": [
            { "name": "outer", "dependencies": [
                { "name": "inner", "kind": null },
                { "name": "inner", "kind": "dev" },
                { "name": "from-the-registry", "kind": null },
            ] },
            { "name": "inner", "dependencies": [] },
        ] });
        assert_eq!(edges(&metadata), "outer -> inner\nouter -> inner (dev)\n");
    }
}
