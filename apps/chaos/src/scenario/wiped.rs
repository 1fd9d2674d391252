//! `tasks-input` wiped, and made anew, while tasks flow and nothing else is wrong: with rdkafka, then with kafka-rust.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{Finding, conclude};
use crate::failure::Failure;
use crate::judge::{Judgement, UNMESSAGED};
use crate::load::Mix;
use crate::log::say;
use crate::measure::{Times, waits, waits_beside};
use crate::nemesis::{Fault, INPUT_REMADE, INPUT_WIPED, STRANGERS, act};
use crate::run::Options;
use crate::world::{HALVES, World};

/// How long a topic is wiped again and again.
const WIPED: Duration = Duration::from_secs(3);
/// Between two faults: traces of the first are no longer looked for when the second comes.
const APART: Duration = Duration::from_secs(12);
/// Two faults, and what follows each.
const ROUND: Duration = Duration::from_secs(28);
/// Who waits for longer than this had no message, in microseconds.
const WITHOUT_MESSAGE: i64 = 1_000_000;
/// How many of a hundred must have their message again soon after. A partition that nobody reads any more has 25 of them.
const MOST: f64 = 90.0;

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Healthy, options.seed);
    sleep(APART).await;
    let rounds = (options.length / 2).as_secs() / ROUND.as_secs();
    let mut seeds = options.seed..;
    for (number, half) in HALVES.iter().enumerate() {
        if number > 0 {
            say(&format!("all programs change to {}", half.client));
            world.change_over(number, half.client).await?;
            sleep(APART).await;
        }
        for _ in 0..rounds.max(1) {
            for fault in [Fault::WipeInput { time: WIPED }, Fault::RemakeInput] {
                // Among what is taken out are records that nobody can read.
                let seed = seeds.next().unwrap_or_default();
                for fault in [Fault::Strangers { seed }, fault] {
                    say(&fault.to_string());
                    act(world, fault).await?;
                }
                sleep(APART).await;
            }
        }
    }
    load.end().await?;
    let (facts, _, holds) = conclude(world).await?;
    let beside = waits_beside(&facts, &[INPUT_WIPED, INPUT_REMADE, STRANGERS]);
    let unmessaged = Times::of(
        beside
            .into_iter()
            .filter(|waited| *waited >= WITHOUT_MESSAGE),
    );
    let judgement = UNMESSAGED.judge(&unmessaged);
    println!(
        "tasks whose message was taken away, to their first run: {}\n{judgement}",
        unmessaged.to_text()
    );
    let after = waits(&facts).calm;
    println!(
        "the others, 5 s and more after a fault: {}",
        after.to_text()
    );
    let is_soon = |millis: f64| millis * 1_000.0 < WITHOUT_MESSAGE as f64;
    let is_read_again = after.percentile(MOST).is_some_and(is_soon);
    println!("messages are read again: {is_read_again}");
    Ok(Finding {
        holds: holds && matches!(judgement, Judgement::Kept(_)) && is_read_again,
        found: json!({
            "unmessaged": unmessaged.to_json(),
            "after": after.to_json(),
            "readAgain": is_read_again,
        }),
    })
}
