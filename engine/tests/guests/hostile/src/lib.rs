//! A guest that keeps to a limit, or breaks it, as its parameters say.

// Natively there is nothing to run it in.
#![cfg(target_family = "wasm")]

use std::hint::black_box;
use std::time::Duration;

use rollout_sdk::prelude::*;
use rollout_sdk::{Level, Weight};

#[derive(Deserialize, JsonSchema)]
struct Parameters {
    act: String,
    #[serde(default)]
    amount: u32,
}

rollout_sdk::strategy! {
    name: "hostile",
    summary: "Does what it must not.",
    parameters: Parameters,
    run: run,
}

fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    let amount = p.amount as usize;
    match p.act.as_str() {
        "promote" => {}
        "error" => return Err(Error("the model registry is empty".to_owned())),
        "panic" => panic!("the cat sat on the keyboard"),
        "spin" => spin(u64::MAX),
        // `amount` segments of work with a call after each.
        "segments" => {
            for _ in 0..amount {
                spin(20_000_000);
                rollout.health()?;
            }
        }
        // For benches: nothing but calls.
        "calls" => {
            for _ in 0..amount {
                rollout.health()?;
            }
        }
        // Everything that is known, again and again.
        "history" => {
            for _ in 0..amount {
                rollout.samples(0.0)?;
            }
        }
        "recursion" => {
            black_box(recurse(black_box(1)));
        }
        "shallow" => {
            black_box(recurse_to(black_box(amount as u64)));
        }
        "memory" => {
            let bytes = vec![1_u8; amount << 20];
            black_box(bytes.iter().map(|b| u64::from(*b)).sum::<u64>());
        }
        "text" => rollout.log(Level::Info, &"x".repeat(amount)),
        "list" => {
            let weight = |n| Weight {
                arm: format!("arm-{n}"),
                weight: 1,
            };
            let weights: Vec<Weight> = (0..amount).map(weight).collect();
            let error = rollout.set_weights(&weights).expect_err("not the arms");
            rollout.log(Level::Info, &error.message);
        }
        "flood" => {
            for n in 0..amount {
                rollout.log(Level::Debug, &n.to_string());
            }
        }
        "now-flood" => loop {
            black_box(rollout.now());
        },
        "wasi-flood" => loop {
            black_box(std::env::args().count());
        },
        "print" => {
            for n in 0..amount {
                println!("line {n}");
            }
            panic!("enough");
        }
        "sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "senses" => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("after 1970")
                .as_millis();
            let map: std::collections::HashMap<u32, u32> = (0..20).map(|n| (n, n)).collect();
            let order: Vec<String> = map.keys().map(ToString::to_string).collect();
            let env = std::env::vars().count() + std::env::args().count();
            let file = std::fs::read("/etc/passwd").is_ok();
            let net = std::net::TcpStream::connect("127.0.0.1:80").is_ok();
            let line = format!(
                "now {now} order {} env {env} file {file} net {net}",
                order.join(",")
            );
            rollout.log(Level::Info, &line);
        }
        "jump" => {
            let error = rollout.set_share(100);
            rollout.log(Level::Info, &format!("{error:?}"));
            return Ok(rolled_back("tried"));
        }
        "leave" => {
            rollout.set_share(50)?;
            return Err(Error("left the traffic at half".to_owned()));
        }
        "trap-at-half" => {
            rollout.set_share(50)?;
            panic!("fell over at 50 %");
        }
        "wait" => {
            rollout.wait(Duration::from_secs(amount as u64));
        }
        other => return Err(Error(format!("cannot {other}"))),
    }
    Ok(promoted("did as told"))
}

fn spin(rounds: u64) {
    let mut sum = 0_u64;
    for n in 0..rounds {
        sum = black_box(sum.wrapping_add(n));
    }
}

#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    black_box(n) + recurse(black_box(n + 1))
}

fn recurse_to(n: u64) -> u64 {
    if n == 0 {
        0
    } else {
        black_box(n) + recurse_to(black_box(n - 1))
    }
}
