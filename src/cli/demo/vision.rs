//! Vision, detect and segment: frames, detections, tracks, models, Redis, and the service's own StatsD metrics.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, System, every, tide};

const MODELS: [(&str, f64); 2] = [("owlv2", 0.09), ("sam2", 0.16)];
const CLASSES: [&str; 5] = ["person", "cat", "chair", "cup", "robot"];

#[derive(Default)]
pub(super) struct Vision {
    /// Open tracks by model.
    tracks: [u64; 2],
    has_begun: bool,
}

impl System for Vision {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        let begins = !std::mem::replace(&mut self.has_begun, true);
        for (index, (model, seconds)) in MODELS.into_iter().enumerate() {
            for _ in 0..random.count(8.0 * STEP_SECONDS * tide(at, index as f64)) {
                frame(model, seconds, random, out);
            }
            self.tracks(index, random, out);
            if begins || every(at, 5.0) {
                out.event("active_tracks").text("model", model).whole("count", self.tracks[index]);
            }
        }
        for _ in 0..random.count(10.0 * STEP_SECONDS * tide(at, 0.4)) {
            let success = !random.chance(0.01);
            let event = out.event("redis_operation").text("operation", random.pick(&["publish", "get", "set"]));
            let event = event.number("duration", random.around(0.0012, 0.8)).flag("success", success);
            if !success {
                drop(event.text("error_type", random.pick(&["timeout", "connection"])));
            }
        }
        for _ in 0..random.count(0.05 * STEP_SECONDS) {
            let event = out.event("vision_error").text("component", random.pick(&["detector", "tracker", "camera"]));
            drop(event.text("error_type", random.pick(&["cuda", "decode", "timeout"])));
        }
        for queue in ["frames", "results"] {
            if begins || every(at, 1.0) {
                out.event("queue_size")
                    .text("queue_type", queue)
                    .whole("size", random.count(3.0 * tide(at, 1.1)) as u64);
            }
            for _ in 0..random.count(6.0 * STEP_SECONDS) {
                out.event("queue_wait").text("queue_type", queue).number("duration", random.around(0.008, 0.9));
            }
        }
        if begins || every(at, 5.0) {
            let rss = random.around(3.1e9, 0.03);
            out.event("memory_usage").whole("rss", rss as u64).whole("vms", (rss * 4.2) as u64);
            out.event("gpu_memory").text("device", "cuda:0").whole("bytes", random.around(6.4e9, 0.04) as u64);
        }
        own(at, random, out);
    }
}

impl Vision {
    fn tracks(&mut self, index: usize, random: &mut Random, out: &mut Lines) {
        let (model, open) = (MODELS[index].0, &mut self.tracks[index]);
        for _ in 0..random.count(0.8 * STEP_SECONDS) {
            *open += 1;
            out.event("track_created").text("model", model);
            out.event("active_tracks_changed").text("model", model).whole("started", 1);
        }
        for _ in 0..random.count(*open as f64 * 0.07 * STEP_SECONDS).min(*open as usize) {
            *open -= 1;
            let event = out.event("track_lost").text("model", model);
            drop(event.text("reason", random.pick(&["left_frame", "occluded", "low_confidence"])));
            out.event("active_tracks_changed").text("model", model).whole("ended", 1);
            let event = out.event("track_lifetime").text("model", model).text("class_name", random.pick(&CLASSES));
            drop(event.number("lifetime", random.around(9.0, 0.8)));
        }
    }
}

fn frame(model: &str, seconds: f64, random: &mut Random, out: &mut Lines) {
    if random.chance(0.02) {
        out.event("frame_dropped").text("model", model).text("reason", random.pick(&["backpressure", "stale"]));
        return;
    }
    out.event("frame_processed").text("model", model).flag("success", !random.chance(0.01));
    for _ in 0..random.count(1.4) {
        let event = out.event("detection").text("model", model).text("class_name", random.pick(&CLASSES));
        drop(event.number("confidence", 1.0 - random.around(0.12, 0.6).min(0.9)));
    }
    let inference = random.around(seconds, 0.25);
    let event = out.event("model_inference").text("model", model).number("duration", inference);
    drop(event.text("device", "cuda:0").whole("batch_size", 1 << random.below(4)));
    for (stage, time) in [("preprocess", 0.1), ("inference", 1.0), ("postprocess", 0.25)] {
        let event = out.event("detection_latency").text("model", model).text("stage", stage);
        drop(event.number("duration", inference * time));
    }
}

/// Metrics of the service's own making, by their full names: in one pipeline with other systems the short ones are not
/// the only ones.
fn own(at: f64, random: &mut Random, out: &mut Lines) {
    for _ in 0..random.count(4.0 * STEP_SECONDS) {
        let endpoint = random.pick(&["/detect", "/segment", "/status"]);
        let status = if random.chance(0.03) { 500 } else { 200 };
        let name = "vision_detect_segment";
        out.statsd(format_args!("{name}_api_requests_total:1|c|#endpoint:{endpoint},method:POST,status:{status}"));
        let ms = random.around(140.0, 0.5);
        out.statsd(format_args!("{name}_response_time_seconds:{ms:.3}|ms|#endpoint:{endpoint}"));
        let ms = random.around(11.0, 0.5);
        out.statsd(format_args!("{name}_processing_time_seconds:{ms:.3}|ms|#operation:preprocessing"));
    }
    if every(at, 0.5) {
        for (axis, phase) in [("x", 0.0), ("y", 1.6), ("z", 3.0)] {
            let mm = 150.0 * (at / 6.0 + phase).sin();
            out.statsd(format_args!("vision_detect_segment_robot_position_mm:0|g|#axis:{axis},robot_id:r1"));
            out.statsd(format_args!("vision_detect_segment_robot_position_mm:{mm:+.2}|g|#axis:{axis},robot_id:r1"));
        }
    }
}
