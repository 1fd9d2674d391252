//! Hostile input for whatever reads bytes from outside.
//!
//! A test that fuzzes stands beside the reader, in a module named `fuzz`, and gives [`run`] its samples. A few thousand
//! inputs are part of every `cargo test`; `cargo xtask fuzz` gives each reader a million, in an optimised build that still
//! stops at an overflow.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// How many inputs each reader gets; few unless told.
const INPUTS: &str = "FUZZ_INPUTS";
const FEW: u32 = 2_000;

/// The inputs follow from it.
const SEED: &str = "FUZZ_SEED";

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Gives `check` as many inputs as asked for. The first that fails is made as small as it can be and shown with the seed.
///
/// # Panics
/// When an input fails, or a variable of the environment is no number.
pub fn run<S: Strategy>(name: &str, inputs: &S, check: impl Fn(S::Value) -> TestCaseResult)
where
    S::Value: Debug,
{
    let count = u32::try_from(number(INPUTS, FEW.into())).unwrap_or(u32::MAX);
    let seed = number(SEED, 0);
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let start = Instant::now();
    let done = std::cell::Cell::new((0_u32, start));
    let outcome = runner.run(inputs, |input| {
        let (before, said) = done.get();
        let says = said.elapsed() >= PROGRESS;
        if says {
            eprintln!("{name}: {before} of {count}");
        }
        done.set((before + 1, if says { Instant::now() } else { said }));
        check(input)
    });
    if let Err(error) = outcome {
        panic!("{name}, {SEED}={seed}: {error}");
    }
    println!(
        "{name}: {count} inputs, seed {seed}, {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, but is {text:?}")),
        Err(_) => default,
    }
}

/// Input that a failing test shows as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

impl Debug for Bytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes as a reader may get them: a sample with a few changes, or, one time in eight, no sample at all.
pub fn bytes(samples: &'static [&'static [u8]]) -> impl Strategy<Value = Bytes> {
    let sample = (
        prop::sample::select(samples),
        prop::collection::vec(change(), 0..5),
    )
        .prop_map(|(sample, changes)| {
            let mut bytes = sample.to_vec();
            for change in changes {
                change.apply(&mut bytes);
            }
            Bytes(bytes)
        });
    prop_oneof![
        7 => sample,
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes),
    ]
}

/// As [`bytes`], for readers of text.
pub fn text(samples: &'static [&'static [u8]]) -> impl Strategy<Value = String> {
    bytes(samples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What is done to a sample. Places are fractions of its length, so that shrinking moves them to the front.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: u16, mask: u8 },
    Cut { at: u16 },
    Remove { at: u16, length: u8 },
    Repeat { at: u16, length: u8, times: u8 },
    Insert { at: u16, what: Vec<u8> },
    Replace { at: u16, what: Vec<u8> },
    Nest { at: u16, open: u8, depth: u16 },
}

/// What readers of JSON, numbers, times, headers and settings stumble over.
const TRAPS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b";",
    b"=",
    b"*",
    b"%",
    b"@",
    b"/",
    b"//",
    b"\0",
    b"\r\n",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\udc4d",
    b"\\u0022",
    b"-",
    b"-0",
    b"0",
    b"1.0",
    b"1e1",
    b"1e308",
    b"1e309",
    b"-1e400",
    b"0.1",
    b"NaN",
    b"9007199254740993",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"340282366920938463463374607431768211456",
    b"2147483648",
    b"\"taskId\":",
    b"\"payload\":",
    b"\"priority\":",
    b"\"result\":",
    b"\"runAt\":",
    b"\"maxAttempts\":",
    b"9999-12-31T23:59:59-14:00",
    b"0000-01-01T00:00:00+14:00",
    b"2016-12-31T23:59:60Z",
    b"+262143-01-01T00:00:00Z",
    "\u{1F44D}\u{1F3FD}".as_bytes(),
    "\u{e9}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"W/",
    b"q=0",
    b"q=1.001",
    b"gzip",
    b"ms",
    b"KiB",
    b"0x10",
    b"localhost",
    b"postgres://",
    b"\t",
];

fn change() -> impl Strategy<Value = Change> {
    let trap = || {
        prop_oneof![
            3 => prop::sample::select(TRAPS).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 1..9),
        ]
    };
    prop_oneof![
        2 => (any::<u16>(), 1..=u8::MAX).prop_map(|(at, mask)| Change::Flip { at, mask }),
        1 => any::<u16>().prop_map(|at| Change::Cut { at }),
        2 => (any::<u16>(), 1..40_u8).prop_map(|(at, length)| Change::Remove { at, length }),
        1 => (any::<u16>(), 1..40_u8, 1..20_u8)
            .prop_map(|(at, length, times)| Change::Repeat { at, length, times }),
        3 => (any::<u16>(), trap()).prop_map(|(at, what)| Change::Insert { at, what }),
        3 => (any::<u16>(), trap()).prop_map(|(at, what)| Change::Replace { at, what }),
        1 => (any::<u16>(), prop::sample::select(b"[{(\"".as_slice()), 1..400_u16)
            .prop_map(|(at, open, depth)| Change::Nest { at, open, depth }),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) * bytes.len() / (usize::from(u16::MAX) + 1);
        match self {
            Self::Flip { at, mask } => {
                let at = place(*at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::Cut { at } => bytes.truncate(place(*at)),
            Self::Remove { at, length } => {
                let at = place(*at);
                let end = (at + usize::from(*length)).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Repeat { at, length, times } => {
                let at = place(*at);
                let end = (at + usize::from(*length)).min(bytes.len());
                let again = bytes[at..end].repeat(usize::from(*times));
                bytes.splice(at..at, again);
            }
            Self::Insert { at, what } => {
                let at = place(*at);
                bytes.splice(at..at, what.iter().copied());
            }
            // A value of JSON, or a word, as a whole: from here to where something else begins.
            Self::Replace { at, what } => {
                let at = place(*at);
                let ends = |byte: &u8| b",:}]; =&\"".contains(byte);
                let start = bytes[..at].iter().rposition(ends).map_or(0, |end| end + 1);
                let end = bytes[at..]
                    .iter()
                    .position(ends)
                    .map_or(bytes.len(), |end| at + end);
                bytes.splice(start..end, what.iter().copied());
            }
            Self::Nest { at, open, depth } => {
                let at = place(*at);
                bytes.splice(at..at, std::iter::repeat_n(*open, usize::from(*depth)));
            }
        }
    }
}

/// Checks that reading takes time in proportion to the length: of an input sixteen times as long, at most sixty-four times
/// as long. The shortest of the readings counts, because the machine has other things to do, and there are more of them
/// while it does not hold.
///
/// # Panics
/// When it does not.
pub fn linear(name: &str, input: impl Fn(usize) -> Vec<u8>, read: impl Fn(&[u8])) {
    let (short, long) = (input(16 * 1024), input(256 * 1024));
    let time = |bytes: &[u8]| {
        let start = Instant::now();
        read(bytes);
        start.elapsed()
    };
    // Below that a clock says more of itself than of the reader.
    const LEAST: Duration = Duration::from_micros(20);
    let (mut shortest, mut longest) = (Duration::MAX, Duration::MAX);
    for _ in 0..100 {
        shortest = shortest.min(time(&short));
        longest = longest.min(time(&long));
        if longest <= shortest.max(LEAST) * 64 {
            return;
        }
    }
    panic!("{name}: 16 KiB took {shortest:?} and 256 KiB {longest:?}");
}
