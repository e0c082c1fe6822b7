//! The file store on a disk that fails, and after a power loss at any point.

use datahike_store::file::simulated::{Fault, Lie, SimulatedDisk};
use datahike_store::{FileStore, StoreError};

use crate::workload::{Model, PLACE, options};

const STEPS: usize = 40;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..std::env::var("STORE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
    }
}

/// Runs until the steps are done or the disk gives up.
fn run(disk: &SimulatedDisk, model: &mut Model) -> Result<(), StoreError> {
    let store = FileStore::create(PLACE, options(disk.clone()))?;
    (0..STEPS).try_for_each(|_| model.step(&store))
}

/// What a store must be after an interruption: whole, open to writing, and the same next time.
fn check(image: &SimulatedDisk, model: &Model) -> Result<(), String> {
    let mut model = model.clone();
    if !FileStore::exists(PLACE, &options(image.clone())).unwrap() {
        // It may be interrupted before it exists, and never cease to exist.
        return if model.branches.is_empty() { Ok(()) } else { Err("the store is gone".into()) };
    }
    for _ in 0..2 {
        let opened = FileStore::open(PLACE, options(image.clone()));
        let store = opened.map_err(|error| format!("{error}: {error:?}"))?;
        model.verify(&store)?;
        drop(store);
        let reader = FileStore::open_read_only(PLACE, options(image.clone()));
        model.verify(&reader.map_err(|error| error.to_string())?)?;
    }
    let store = FileStore::open(PLACE, options(image.clone())).map_err(|e| e.to_string())?;
    for _ in 0..5 {
        model.step(&store).map_err(|error| format!("later step: {error}: {error:?}"))?;
    }
    model.verify(&store)
}

/// Stops a run at one point and looks at some of the disks that a power loss may leave.
fn power_loss(seed: u64, lie: Option<Lie>) -> Result<(), String> {
    let length = {
        let disk = SimulatedDisk::new();
        run(&disk, &mut Model::new(seed)).unwrap();
        disk.operations()
    };
    // Every point of a run over all the seeds, some of them for each.
    for point in (seed % 7..length).step_by(7) {
        let disk = lie.map_or_else(SimulatedDisk::new, SimulatedDisk::lying);
        disk.fail(point, Fault::Stop);
        let mut model = Model::new(seed);
        // It may die where a failure is none: removing what nobody needs.
        let died = run(&disk, &mut model);
        assert!(died.is_err() || point + 50 > length, "SEED={seed} point {point}");
        for image in 0..3 {
            let at = format!("SEED={seed} point {point} image {image}");
            check(&disk.after_power_loss(image * 1000 + point), &model)
                .map_err(|error| format!("{at}: {error}"))?;
        }
        check(&disk.after_kill(), &model)
            .map_err(|error| format!("SEED={seed} point {point} killed: {error}"))?;
        // Killed, opened again, and only then without power: what was adopted must be durable.
        let killed = disk.after_kill();
        if FileStore::exists(PLACE, &options(killed.clone())).unwrap() {
            let store = FileStore::open(PLACE, options(killed.clone()))
                .map_err(|error| format!("SEED={seed} point {point} killed: {error}"))?;
            let mut seen = model.clone();
            seen.verify(&store)?;
            for _ in 0..point % 4 {
                seen.step(&store).map_err(|error| error.to_string())?;
            }
            drop(store);
            check(&killed.after_power_loss(point), &seen)
                .map_err(|error| format!("SEED={seed} point {point} killed, then: {error}"))?;
        }
    }
    Ok(())
}

#[test]
fn power_loss_at_any_point_loses_nothing_acknowledged() {
    for seed in seeds() {
        power_loss(seed, None).unwrap();
    }
}

#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    assert!((0..3).any(|seed| power_loss(seed, Some(Lie::FileSync)).is_err()));
    assert!((0..3).any(|seed| power_loss(seed, Some(Lie::DirSync)).is_err()));
}

#[test]
fn any_failing_operation_is_an_error_and_nothing_is_lost() {
    for seed in seeds() {
        let length = {
            let disk = SimulatedDisk::new();
            run(&disk, &mut Model::new(seed)).unwrap();
            disk.operations()
        };
        for fault in [Fault::Full, Fault::Write, Fault::ShortWrite, Fault::Sync, Fault::SyncDir] {
            for point in (10 + seed % 11..length).step_by(11) {
                fail_once(seed, fault, point);
            }
        }
    }
}

fn fail_once(seed: u64, fault: Fault, point: u64) {
    let at = format!("SEED={seed} {fault:?} at {point}");
    let disk = SimulatedDisk::new();
    let mut model = Model::new(seed);
    let store = FileStore::create(PLACE, options(disk.clone())).unwrap();
    disk.fail(point, fault);
    for _ in 0..STEPS {
        let done = model.step(&store);
        let Err(error) = done else { continue };
        match fault {
            Fault::Full | Fault::ShortWrite => {
                assert!(matches!(error, StoreError::NoSpace { .. }), "{at}: {error:?}");
            }
            Fault::Write => assert!(matches!(error, StoreError::Io { .. }), "{at}: {error:?}"),
            _ => {
                assert!(matches!(error, StoreError::Poisoned { .. }), "{at}: {error:?}");
                assert!(error.outcome_unknown());
                // Nothing is tried again, and what was acknowledged can be read.
                let operations = disk.operations();
                assert!(
                    model.clone().step(&store).is_err_and(|e| e.outcome_unknown()) || {
                        disk.operations() == operations
                    }
                );
                assert_eq!(disk.operations(), operations, "{at}");
                model.clone().verify(&store).unwrap_or_else(|error| panic!("{at}: {error}"));
                break;
            }
        }
        // Once there is room the same handle goes on.
        model.verify(&store).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    drop(store);
    for image in [disk.after_kill(), disk.after_power_loss(point)] {
        check(&image, &model).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
}
