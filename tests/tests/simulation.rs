//! One server and several mirrors under seeded faults. `SEED=n` replays one run and prints its
//! events; `SIM_SEEDS=n` runs more of them.

use std::time::Duration;

use datahike_tests::sim::{
    Options, Summary,
    model::{ModelMirror, ModelSite},
    real::{DatabaseMirror, DatabaseSite},
    run, seeds,
};

fn simulate(seed: u64) -> Summary {
    run(seed, &Options::default(), ModelSite::new, ModelMirror::new)
        .unwrap_or_else(|broken| panic!("{broken}"))
}

/// Real databases: shorter runs, as each commit and each look at a copy costs more.
fn simulate_databases(seed: u64) -> Summary {
    let options = Options {
        duration: Duration::from_secs(3),
        fault_every: Duration::from_millis(200),
        ..Options::default()
    };
    run(seed, &options, DatabaseSite::new, DatabaseMirror::new)
        .unwrap_or_else(|broken| panic!("{broken}"))
}

#[test]
fn mirrors_converge_under_any_seed() {
    converge(1000, simulate);
}

#[test]
fn mirrors_of_databases_converge_under_any_seed() {
    converge(1000, simulate_databases);
}

fn converge(count: u64, simulate: impl Fn(u64) -> Summary) {
    let mut all = Summary::default();
    let seeds = seeds(count);
    let single = seeds.end - seeds.start == 1;
    for seed in seeds {
        let summary = simulate(seed);
        all.commits += summary.commits;
        all.messages += summary.messages;
        all.bytes += summary.bytes;
        all.crashes += summary.crashes;
        all.drops += summary.drops;
        all.resets += summary.resets;
        all.jumps += summary.jumps;
        all.faults += summary.faults;
    }
    println!("{all:?}");
    // A simulation in which nothing happens proves nothing.
    if !single {
        assert!(all.crashes > 0 && all.drops > 0 && all.resets > 0 && all.jumps > 0);
        assert!(all.faults > 0);
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 4] {
        assert_eq!(simulate(seed), simulate(seed));
    }
    assert_ne!(simulate(3).trace, simulate(4).trace);
}

#[test]
fn a_mirror_that_loses_commits_is_found() {
    let found = (0..20).filter(|seed| {
        let mirror = ModelMirror::forgetful;
        let broken = run(*seed, &Options::default(), ModelSite::new, mirror).err();
        broken.is_some_and(|broken| broken.to_string().contains("holds something else"))
    });
    assert!(found.count() > 5);
}
