//! Q4: recorded expressions over a running pipeline, boundary by boundary.

use super::failing::{commit, live, say};
use super::world::{SECOND, START, Setup, World};
use crate::event::{Kind, Timestamp};
use crate::query::Expression;
use crate::query::world::Worlds;
use crate::record::{Recorded, Recorder, event};
use crate::rule::MetricSpec;
use crate::store::tests::script::SLICE_NANOS;

/// A world with these expressions recorded, in this order. Edges of two minutes are looked at again.
fn recording(group: &[(&str, &str)]) -> (World, Recorder) {
    let mut world = live(Setup::default());
    let process = world.process();
    let recorded = |(name, text): &(&str, &str)| Recorded {
        metric: process.rules.metric(&MetricSpec::new(name, Kind::Gauge, "recorded", "internal")).expect("valid"),
        expression: Expression::parse(text).expect(text),
        scale: 1.0,
        labels: Vec::new(),
    };
    let group = group.iter().map(recorded).collect();
    let worlds = Worlds::new(process.view.clone(), process.actor.store().ledger().reader());
    let recorder = Recorder::new(std::sync::Arc::new(worlds), group, Vec::new(), 120 * SECOND);
    (world, recorder)
}

/// What an advance said: (metric, edge since the start, value).
type Said = Vec<(String, i64, f64)>;

fn advance_at(world: &mut World, recorder: &mut Recorder, now: Timestamp) -> Said {
    let results = recorder.advance(now).expect("reads");
    results.iter().for_each(|result| say(world, 0, &event(result)));
    let edge = |time: Timestamp| (time.0 + 1 - START) / SLICE_NANOS;
    results.iter().map(|result| (result.metric.name.to_string(), edge(result.time), result.value)).collect()
}

/// Goes to the next boundary with a commit, and records.
fn boundary(world: &mut World, recorder: &mut Recorder) -> Said {
    let now = world.now().0;
    world.clock.advance(SLICE_NANOS - (now - START) % SLICE_NANOS);
    // Without anything to commit there is no commit, and no boundary is noticed.
    say(world, 0, "ticks:1|c");
    commit(world);
    let now = world.process().view.last_commit_time();
    advance_at(world, recorder, now)
}

fn said(name: &str, edge: i64, value: f64) -> (String, i64, f64) {
    (name.to_owned(), edge, value)
}

const GROUP: [(&str, &str); 2] = [("recent", "sum(increase(hits_total[30s]))"), ("recent_plus", "recent + 1")];

#[test]
fn q4_a_revision_evaluates_its_slice_again_and_only_what_changed_is_said() {
    let (mut world, mut recorder) = recording(&GROUP);
    say(&mut world, 0, "hits:1|c");
    commit(&mut world);
    assert_eq!(boundary(&mut world, &mut recorder), [said("recent", 1, 1.0), said("recent_plus", 1, 2.0)]);
    // Its own results have changed slices, and are not said again.
    assert_eq!(boundary(&mut world, &mut recorder), [said("recent", 2, 1.0), said("recent_plus", 2, 2.0)]);
    say(&mut world, 0, &format!("hits:5|c|T{}", START / SECOND + 3));
    commit(&mut world);
    let all = [(1, 6.0), (2, 6.0), (3, 6.0)];
    let expected: Vec<_> =
        all.iter().flat_map(|(edge, v)| [said("recent", *edge, *v), said("recent_plus", *edge, v + 1.0)]).collect();
    assert_eq!(boundary(&mut world, &mut recorder), expected, "the edges that the slice lies before");
    assert_eq!(boundary(&mut world, &mut recorder), [said("recent", 4, 0.0), said("recent_plus", 4, 1.0)]);
}

#[test]
fn q4_an_expression_sees_what_is_durable_and_what_was_recorded_before_it_in_the_file() {
    let (mut world, mut recorder) =
        recording(&[("later", "recent or vector(-1)"), ("recent", "sum(hits_total)"), ("after", "recent")]);
    say(&mut world, 0, "hits:1|c");
    commit(&mut world);
    // It came, but no commit holds it yet.
    say(&mut world, 0, "hits:10|c");
    let now = Timestamp(START + SLICE_NANOS);
    world.clock.advance(now.0 - world.now().0);
    assert_eq!(
        advance_at(&mut world, &mut recorder, now),
        [said("later", 1, -1.0), said("recent", 1, 1.0), said("after", 1, 1.0)],
        "the first reads what is recorded after it, which is not there yet"
    );
    // Now it is durable, and so is what was recorded: the boundary is evaluated again. The first one reads its
    // neighbour of the last time, which is of the same slice by now.
    let mut found = boundary(&mut world, &mut recorder);
    found.retain(|(name, edge, _)| name != "later" || *edge > 1);
    assert_eq!(
        found,
        [
            said("recent", 1, 11.0),
            said("after", 1, 11.0),
            said("later", 2, 1.0),
            said("recent", 2, 11.0),
            said("after", 2, 11.0)
        ]
    );
}

#[test]
fn q4_boundaries_that_no_commit_came_with_are_evaluated_with_the_next() {
    let (mut world, mut recorder) = recording(&GROUP[..1]);
    say(&mut world, 0, "hits:1|c");
    commit(&mut world);
    assert_eq!(boundary(&mut world, &mut recorder), [said("recent", 1, 1.0)]);
    world.clock.advance(3 * SLICE_NANOS);
    let expected = [(2, 1.0), (3, 1.0), (4, 0.0), (5, 0.0)].map(|(edge, value)| said("recent", edge, value));
    assert_eq!(boundary(&mut world, &mut recorder), expected);
    // A pause of a day does not say a day anew: as many as are looked at again.
    world.clock.advance(86_400 * SECOND);
    let found = boundary(&mut world, &mut recorder);
    assert_eq!(found.len(), 14, "two minutes, and two");
    assert_eq!(found.last(), Some(&said("recent", 8_646, 0.0)));
}

#[test]
fn q4_t3_a_clock_that_steps_back_says_each_boundary_once() {
    let (mut world, mut recorder) = recording(&GROUP[..1]);
    say(&mut world, 0, "hits:1|c");
    commit(&mut world);
    for _ in 0..30 {
        boundary(&mut world, &mut recorder);
    }
    let mut at = |seconds: i64| recorder.advance(Timestamp(START + seconds * SECOND)).expect("reads").len();
    assert_eq!((at(301), at(309)), (0, 0));
    // An hour back would be before the first sample, where the sum has no series: half of it.
    assert_eq!((at(21), at(22), at(29)), (1, 0, 0), "the wall clock stepped back");
    assert_eq!((at(30), at(35)), (1, 0));
    assert_eq!(at(301), 14, "and forth: as after a pause");
}
