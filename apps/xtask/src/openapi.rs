//! `cargo xtask openapi`: the committed OpenAPI document, printed by the program itself.

mod breaks;
mod style;

use std::fs;
use std::path::Path;

use clap::Args;

use crate::failure::Failure;
use crate::services::Place;
use crate::steps::{cargo, output_of};
pub(crate) use breaks::check as check_breaks;
pub(crate) use style::check as check_style;

const DOCUMENT: &str = "docs/openapi.json";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Check the committed document instead of writing it: against what the program says, for style, and for what would break clients
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    let checkout = place.checkout();
    if arguments.check {
        check(checkout)?;
        check_style(checkout)?;
        return check_breaks(checkout);
    }
    let path = checkout.join(DOCUMENT);
    fs::write(&path, generate(checkout)?).map_err(Failure::at("write", &path))?;
    println!("wrote {DOCUMENT}");
    Ok(())
}

pub(crate) fn check(checkout: &Path) -> Result<(), Failure> {
    let path = checkout.join(DOCUMENT);
    let committed = fs::read_to_string(&path).map_err(Failure::at("read", &path))?;
    let generated = generate(checkout)?;
    if committed == generated {
        return Ok(());
    }
    let line = committed
        .lines()
        .zip(generated.lines())
        .position(|(old, new)| old != new);
    Err(Failure::said(format!(
        "{DOCUMENT} is not what the program says{}; if that is meant: cargo xtask openapi",
        line.map(|line| format!(", from line {}", line + 1))
            .unwrap_or_default()
    )))
}

fn generate(checkout: &Path) -> Result<String, Failure> {
    let run = [
        "run",
        "--locked",
        "--quiet",
        "--package",
        "task-processor-http",
        "--example",
        "openapi",
    ];
    output_of(cargo(checkout).args(run))
}
