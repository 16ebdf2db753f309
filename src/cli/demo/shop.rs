//! A shop that speaks DogStatsD, for pipelines that declare no events.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, System, every, tide};

const REGIONS: [&str; 3] = ["eu", "us", "asia"];

pub(super) struct Shop;

impl System for Shop {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        for _ in 0..random.count(20.0 * STEP_SECONDS * tide(at, 0.0)) {
            let region = random.pick(&REGIONS);
            let endpoint = random.pick(&["search", "cart", "pay"]);
            let status = if random.chance(0.02) { 500 } else { 200 };
            let ms = random.around(42.0, 0.6);
            out.statsd(format_args!("http.requests:1|c|#region:{region},endpoint:{endpoint},status:{status}"));
            out.statsd(format_args!("http.latency:{ms:.3}|ms|#region:{region},endpoint:{endpoint}"));
            if endpoint == "pay" {
                out.statsd(format_args!("orders:1|c|#region:{region}"));
                out.statsd(format_args!("order.value:{:.2}|h|#region:{region}", random.around(38.0, 0.9)));
                out.statsd(format_args!("buyers:{}|s|#region:{region}", random.below(5_000)));
            }
        }
        if every(at, 1.0) {
            for region in REGIONS {
                let length = random.count(6.0 * tide(at, 1.0));
                out.statsd(format_args!("queue.length:{length}|g|#region:{region}"));
            }
        }
    }
}
