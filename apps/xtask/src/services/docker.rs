//! The same services from `deploy/compose.yaml`, where a Docker engine answers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::place::{Alone, Place};
use super::{Endpoints, Up};
use crate::failure::Failure;

/// The ports that `deploy/compose.yaml` publishes; Kafka 3.9 stands there under the profile `kafka-3`.
const ENDPOINTS: Endpoints = Endpoints {
    postgres: 5432,
    redis: 6379,
    kafka_3: 19092,
    kafka_4: 9092,
};

fn note(place: &Place) -> PathBuf {
    place.path("docker")
}

pub(super) fn runs(place: &Place) -> bool {
    note(place).exists()
}

/// A project name of its own keeps these containers and volumes apart from a deployment on the same engine.
fn compose(place: &Place, arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new("docker")
        .args([
            "compose",
            "--project-name",
            &place.name(),
            "--profile",
            "kafka-3",
            "--file",
        ])
        .arg(place.checkout().join("deploy/compose.yaml"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(Failure::starting("docker"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::said(format!(
        "docker compose {} ended with {status}; its own words are above",
        arguments.join(" ")
    )))
}

pub(super) fn up(place: &Place, _alone: &Alone) -> Result<Up, Failure> {
    if let Some(endpoints) = place.endpoints()?
        && super::daemons(place, &endpoints)
            .iter()
            .any(super::Daemon::is_running)
    {
        return Err(Failure::said(
            "services of this checkout run without Docker; stop them first: cargo xtask services down",
        ));
    }
    let engine = Command::new("docker")
        .args(["info", "--format", "{{.ServerVersion}}"])
        .output();
    match engine {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return Err(Failure::said(format!(
                "no Docker engine answers: {}\nwithout --docker the services run as programs of this machine",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Err(source) => return Err(Failure::starting("docker")(source)),
    }
    let already = runs(place);
    let path = note(place);
    std::fs::write(&path, "").map_err(Failure::at("write", &path))?;
    compose(
        place,
        &[
            "up", "--detach", "--wait", "postgres", "redis", "kafka", "kafka-3",
        ],
    )?;
    Ok(Up {
        endpoints: ENDPOINTS,
        found_running: already,
    })
}

pub(super) fn status(place: &Place) -> Result<(), Failure> {
    compose(place, &["ps"])?;
    ENDPOINTS.print()
}

pub(super) fn down(place: &Place) -> Result<(), Failure> {
    compose(place, &["down", "--volumes"])
}
