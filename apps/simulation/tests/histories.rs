//! Promises hold in many histories, a history repeats itself, and the checker can tell a broken promise.

use std::process::Command;

use simulation::{Keep, Outcome, Promise, simulate, simulate_with_a_liar};

/// How many histories the tests live in an unoptimised build; `cargo xtask simulate` lives more.
const HISTORIES: u64 = 400;

fn assert_holds(outcome: &Outcome) {
    if !outcome.violations.is_empty() {
        panic!("{}", simulate(outcome.seed, Keep::Lines).to_text());
    }
}

#[test]
fn every_promise_holds_in_hundreds_of_histories() {
    for seed in 0..HISTORIES {
        assert_holds(&simulate(seed, Keep::Fingerprint));
    }
}

#[test]
fn faults_of_every_kind_strike() {
    let mut sum = simulation::Tally::default();
    for seed in 0..100 {
        sum.add(&simulate(seed, Keep::Fingerprint).tally);
    }
    let struck = [
        ("accepted", sum.accepted),
        ("killed", sum.killed),
        ("stopped", sum.stopped),
        ("paused", sum.paused),
        ("outages", sum.outages),
        ("wiped topics", sum.wiped),
        ("topics made anew", sum.recreated),
        ("messages lost", sum.lost),
        ("rubbish", sum.rubbish),
        ("struck", sum.struck),
        ("declared dead", sum.declared_dead),
        ("rescued", sum.rescued),
        ("late results", sum.late),
        ("repaired", sum.repaired),
        ("repeated", sum.repeated),
        ("cancelled", sum.cancelled),
        ("tried again", sum.retried),
        ("pruned", sum.pruned),
    ];
    // The rarest is a late result: one history in ten has one.
    let rarely: Vec<_> = struck.iter().filter(|(_, count)| *count < 5).collect();
    assert!(rarely.is_empty(), "{rarely:?} of {struck:?}");
}

#[test]
fn a_seed_gives_the_same_history_event_by_event() {
    for seed in 0..40 {
        let (once, again) = (simulate(seed, Keep::Lines), simulate(seed, Keep::Lines));
        assert_eq!(once.lines, again.lines, "seed {seed}");
        assert!(once.lines.len() > 50, "seed {seed}");
        let short = simulate(seed, Keep::Fingerprint);
        assert_eq!(once.fingerprint, again.fingerprint, "seed {seed}");
        assert_eq!(once.fingerprint, short.fingerprint, "seed {seed}");
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let alone: Vec<u64> = (0..40)
        .map(|seed| simulate(seed, Keep::Fingerprint).fingerprint)
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let alone = &alone;
            scope.spawn(move || {
                for (seed, fingerprint) in (0..).zip(alone) {
                    assert_eq!(simulate(seed, Keep::Fingerprint).fingerprint, *fingerprint);
                }
            });
        }
    });
}

#[test]
fn seeds_differ() {
    let one = simulate(1, Keep::Fingerprint).fingerprint;
    let other = simulate(2, Keep::Fingerprint).fingerprint;
    assert_ne!(one, other);
}

/// A server that says `201` before anything is stored.
#[test]
fn the_checker_sees_a_lost_task() {
    let found = (0..200).any(|seed| {
        let violations = simulate_with_a_liar(seed).violations;
        violations
            .iter()
            .any(|violation| violation.promise == Promise::Accepted)
    });
    assert!(found);
}

#[test]
fn more_processor_time_than_the_budget_is_a_failure() {
    for (budget, is_enough) in [("0", false), ("600", true)] {
        let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
            .args(["--seeds", "3", "--budget", budget])
            .output()
            .expect("starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("histories=3"), "{said}");
        assert!(said.contains("violations=0"), "{said}");
        assert_eq!(output.status.success(), is_enough, "{budget}");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(complaint.contains("--budget"), !is_enough, "{complaint}");
    }
}
