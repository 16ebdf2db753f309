//! V4, Q2: sliding quantiles of ten distributions against an exact sort, over any shards, batches, ticks and
//! restarts.

use super::truth::{Event, TARGETS, quantile};
use super::world::{SECOND, START, Setup, World};
use crate::event::LabelsBuilder;
use crate::store::tests::script::{Rng, SLICE_NANOS};

/// Targets of one, two and three digits.
const MEASURED: [usize; 3] = [4, 7, 8];
const QUANTILES: [f64; 8] = [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0];

fn uniform(rng: &mut Rng) -> f64 {
    (rng.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// One of ten shapes, in scale units.
fn draw(shape: u64, rng: &mut Rng) -> i64 {
    let u = uniform(rng).max(1e-12);
    match shape {
        // Constant, zeros, and one sample (the caller sends one).
        0 => 42_000_000,
        1 => (rng.below(2) * 1000) as i64,
        2 => 42_000_000,
        // Uniform, exponential, lognormal, Pareto.
        3 => rng.below(1_000_000_000) as i64,
        4 => (-u.ln() * 1e7) as i64,
        5 => ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos() * 0.8 + 16.0).exp() as i64,
        6 => (1e6 / u.powf(1.0 / 1.1)).min(9e17) as i64,
        // Bimodal, negative, and the ends of the range.
        7 => {
            if rng.below(2) == 0 {
                1_000 + rng.below(50) as i64
            } else {
                5_000_000_000 + rng.below(1 << 30) as i64
            }
        }
        8 => rng.below(2_000_000) as i64 - 1_000_000,
        _ => [1, 999_999_999_999_999_999, 1_000_000_000_000_000_000, 0, 255, 256][rng.below(6) as usize],
    }
}

fn run(shape: u64, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(1000) + shape);
    let setup = Setup { shards: 1 + rng.below(4) as usize, ..Setup::default() };
    let partitions = 1 + rng.below(3) as usize;
    let mut world = World::new(setup, vec![Vec::new(); partitions]);
    let mut all: Vec<Event> = Vec::new();
    for slice in 0..9 {
        let begin = START + slice * SLICE_NANOS;
        let count = if shape == 2 { 1 } else { rng.below(400) };
        for n in 0..count {
            let target = MEASURED[if shape == 2 { 0 } else { rng.below(3) as usize }];
            let is_timing = TARGETS[target].name == "took";
            let value = draw(shape, &mut rng);
            let value = if is_timing { value.abs() } else { value };
            let weight = if rng.below(20) == 0 { 4096 * (1 + rng.below(9)) } else { 4096 };
            let weight = if shape == 2 { 4096 } else { weight };
            // Up to three slices late.
            let time =
                begin + (n * 20_000_000) as i64 % SLICE_NANOS - (rng.below(4) * rng.below(2)) as i64 * SLICE_NANOS;
            let partition = rng.below(partitions as u64) as usize;
            let position = (partition as u64) << 48 | world.partitions[partition].len() as u64;
            let event = Event { target, value: i128::from(value), weight, time, position };
            world.partitions[partition].push(event);
            all.push(event);
        }
        while world.now().0 < begin + SLICE_NANOS - SECOND {
            let (partition, shard) =
                (rng.below(partitions as u64) as usize, rng.below(world.setup.shards as u64) as usize);
            world.read(partition, 1 + rng.below(60) as usize, shard);
            world.clock.advance(rng.below(900_000_000) as i64);
            if rng.below(2) == 0 {
                world.turn_all();
            }
            if rng.below(40) == 0 {
                world.kill(1 + rng.below(4) as usize);
            }
        }
        world.settle(&mut rng);
        if rng.below(3) == 0 {
            world.kill(1 + rng.below(4) as usize);
            world.settle(&mut rng);
        }
        check(&mut world, &all, &format!("shape {shape}, seed {seed}, slice {slice}"));
        let edge = START + (slice + 1) * SLICE_NANOS;
        let rest = edge - world.now().0;
        world.clock.advance(rest.max(0));
    }
}

fn check(world: &mut World, all: &[Event], context: &str) {
    let open = world.now().0.div_euclid(SLICE_NANOS);
    let view = &world.process().view;
    for target in MEASURED {
        let inside = |event: &&Event| {
            event.target == target && event.time.div_euclid(SLICE_NANOS) > open - i64::from(super::truth::WINDOW)
        };
        let mut samples: Vec<(i64, u64)> =
            all.iter().filter(inside).map(|event| (event.value as i64, event.weight)).collect();
        let Some(metric) = view.metric(TARGETS[target].exposed) else { continue };
        let mut labels = LabelsBuilder::new();
        labels.push("k", TARGETS[target].label);
        let Some(id) = view.id_of(&metric, &labels.build().expect("valid")) else { continue };
        let stats = view.stats(&metric, id, &QUANTILES).expect("live");
        assert_eq!(stats.window_samples, samples.len() as u64, "{context}: {}", metric.name);
        for answer in &stats.quantiles {
            if samples.is_empty() {
                assert!(answer.value.is_nan(), "{context}");
                continue;
            }
            let exact = metric.scale.value_of(i128::from(quantile(&mut samples, answer.q)));
            let error = (answer.value - exact).abs();
            // At zero the bound is half a unit; one ulp is what the division by the scale may cost.
            let unit = metric.scale.value_of(1);
            let allowed = if exact == 0.0 { unit / 2.0 } else { answer.bound * exact.abs() } * (1.0 + 1e-12);
            assert!(error <= allowed, "{context}: {} q {} is {} and not {exact}", metric.name, answer.q, answer.value);
        }
        if samples.len() == 1 {
            let exact = metric.scale.value_of(i128::from(samples[0].0));
            assert!(stats.quantiles.iter().all(|answer| answer.value == exact), "{context}: one sample reads itself");
        }
    }
}

#[test]
fn v4_q2_sliding_quantiles_of_ten_distributions_stay_within_their_bound() {
    for shape in 0..10 {
        for seed in 0..6 {
            run(shape, seed);
        }
    }
}
