//! The whole ledger under seeded faults. A failing seed prints itself; play it alone with
//! `SEED=n cargo test --release -p medledger-tests --test simulation`.

// A failing seed is found by what the seeds before it printed.
#![allow(clippy::print_stdout)]

use medledger_tests::simulation::{Outcome, Plan, run};

fn play(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(run(plan))
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let count = std::env::var("SEEDS")
                .ok()
                .and_then(|count| count.parse().ok())
                .unwrap_or(8);
            (0..count).collect()
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_in_a_storm() {
    let mut total = [0; 3];
    for seed in seeds() {
        let outcome = play(Plan::stormy(seed));
        println!("seed {seed}: {outcome:?}");
        assert!(
            outcome.valid > 0 && outcome.acknowledged > 0,
            "seed {seed}: something happened"
        );
        total[0] += outcome.conflicts;
        total[1] += outcome.duplicates;
        total[2] += outcome.valid;
    }
    if seeds().len() > 1 {
        assert!(
            total.iter().all(|n| *n > 0),
            "conflicts, duplicates and successes all occur: {total:?}"
        );
    }
}

#[test]
fn a_seed_gives_one_history() {
    for seed in [1, 2] {
        assert_eq!(play(Plan::stormy(seed)), play(Plan::stormy(seed)));
    }
    assert_ne!(play(Plan::stormy(1)).history, play(Plan::stormy(2)).history);
}
