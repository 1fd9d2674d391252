//! `cargo xtask lint`: everything that can be said about the code without running it.

mod dependencies;
mod documents;
mod text;

use std::path::Path;

use clap::Args;

use crate::failure::Failure;
use crate::services::{self, Place};
use crate::steps::{Steps, cargo, must_succeed};
use crate::{deploy, openapi, simulate};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Write docs/dependencies.txt from the manifests instead of comparing the two, and do nothing else
    #[arg(long)]
    write: bool,
    /// Check deploy/compose.yaml and deploy/Dockerfile with linters from the npm registry (fetched if missing), and do nothing else
    #[arg(long)]
    deploy: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    let checkout = place.checkout();
    if arguments.write {
        return dependencies::write(checkout);
    }
    if arguments.deploy {
        return deploy::check(&place);
    }
    let mut steps = Steps::default();
    steps.run("tools", services::build_tools);
    steps.run("formatting", || {
        must_succeed(cargo(checkout).args(["fmt", "--all", "--check"]))
    });
    steps.run("words and paths", || text::check(checkout));
    steps.run("what the architecture names", || documents::check(checkout));
    steps.run("breaks on purpose", || simulate::check_breaks(checkout));
    steps.run("workspace edges", || dependencies::check_edges(checkout));
    steps.run("what domain may depend on", || {
        dependencies::check_domain(checkout)
    });
    steps.run("what standalone is built of", || {
        dependencies::check_standalone(checkout)
    });
    steps.run("clippy", || clippy(checkout));
    steps.run("each adapter alone", || each_adapter_alone(checkout));
    steps.run("documentation", || documentation(checkout));
    steps.run("OpenAPI document", || openapi::check(checkout));
    steps.run("style of the OpenAPI document", || {
        openapi::check_style(checkout)
    });
    steps.run("breaks of the OpenAPI document", || {
        openapi::check_breaks(checkout)
    });
    steps.print_times();
    match steps.failed() {
        0 => Ok(()),
        failed => Err(Failure::said(format!("{failed} parts of lint failed"))),
    }
}

fn clippy(checkout: &Path) -> Result<(), Failure> {
    must_succeed(
        cargo(checkout)
            .args([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
            ])
            .args(["-D", "warnings"]),
    )
}

/// A feature that compiles only beside another is found by nobody who enables them all.
fn each_adapter_alone(checkout: &Path) -> Result<(), Failure> {
    for package in ["task-processor-adapters", "task-processor-migration"] {
        for feature in dependencies::features_of(checkout, package)? {
            // `sql` is what its two databases share; alone it has nothing to talk to.
            if matches!(feature.as_str(), "default" | "sql") {
                continue;
            }
            // Clippy takes its flags for these packages alone, where RUSTFLAGS would build every dependency anew.
            must_succeed(
                cargo(checkout)
                    .args(["clippy", "--locked", "--quiet", "--package", package])
                    .args([
                        "--no-default-features",
                        "--features",
                        &feature,
                        "--",
                        "-D",
                        "warnings",
                    ]),
            )?;
        }
    }
    Ok(())
}

fn documentation(checkout: &Path) -> Result<(), Failure> {
    must_succeed(
        cargo(checkout)
            .args([
                "doc",
                "--locked",
                "--quiet",
                "--workspace",
                "--all-features",
                "--no-deps",
            ])
            .args(["--document-private-items"])
            .env(
                "RUSTDOCFLAGS",
                "-D warnings -A rustdoc::private_intra_doc_links",
            ),
    )
}
