//! What is going on, for whoever watches: lines on the standard error, with the seconds since the start.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

pub(crate) fn say(text: &str) {
    let start = START.get_or_init(Instant::now);
    eprintln!("{:>8.1} s  {text}", start.elapsed().as_secs_f64());
}
