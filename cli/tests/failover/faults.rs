//! The leader is lost in each way that there is, while a build runs.

use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{tree, wrong};

const ALL: [&str; 3] = ["ada", "ben", "cyd"];

/// Has a build run through a coordinator that does not lead, loses the leader in its midst, and waits for the build's end. Returns the
/// leader before and after.
fn through_a_loss(farm: &Replicas, word: &str, lose: impl FnOnce(&str)) -> (String, String) {
    let before = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != before).unwrap();
    let dir = tree(word, 30);
    let mut build = farm.start_build_at(&other, dir.path(), &[]);
    build.until("the step to print", |event| {
        event["type"] == "log" && event["text"].as_str().unwrap_or_default().contains("deps 3")
    });
    lose(&before);
    let after = farm.wait_for_another(&before);
    let built = build.end();
    assert_eq!(wrong(&built, dir.path(), word), None);
    // A build that was resumed says so, and tells of its steps again.
    let mut events = built.events();
    let again = events.iter().rposition(|event| event["type"] == "build_started").unwrap();
    assert!(again > 0 && events[again]["resumed"] == true, "expected the build to be resumed: {}", built.0.out);
    let told = events.split_off(again);
    let of = |kind: &str, step: &str| {
        let is_it = |event: &&Value| event["type"] == kind && event["step"] == step;
        told.iter().filter(is_it).cloned().collect::<Vec<_>>()
    };
    for step in ["deps", "compile"] {
        let finished = of("step_finished", step);
        assert_eq!(finished.len(), 1, "expected `{step}` to end once: {}", built.0.out);
        let text: String = of("log", step).iter().filter_map(|event| event["text"].as_str()).collect();
        let all: String = (1..=30).map(|tenth| format!("{step} {tenth}\n")).collect();
        assert!(finished[0]["cache"] == "hit" || text == all, "expected each line once: {}", built.0.out);
    }
    (before, after)
}

#[test]
fn a_build_survives_a_leader_that_is_killed() {
    let Some(farm) = Replicas::start(&ALL, &["one", "two"]) else { return };
    let (before, _) = through_a_loss(&farm, "killed", |leader| farm.kill_coordinator(leader));
    // Whoever comes back follows, and has the builds as all the others have them.
    farm.start_coordinator(&before);
    let listed = |name: &str| farm.kiln_at(name, &["builds", "--json"]).out;
    let at = |name: &String| until("its builds", || Some(listed(name)).filter(|text| text.contains("made")));
    let all: Vec<String> = farm.names().iter().map(at).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "expected the same builds everywhere: {all:#?}");
    assert_ne!(farm.leader(), Some(before));
}

#[test]
fn a_leader_that_was_stopped_changes_nothing_when_it_continues() {
    let Some(farm) = Replicas::start(&ALL, &["one", "two"]) else { return };
    let (before, after) = through_a_loss(&farm, "stopped", |leader| farm.signal_coordinator(leader, Signal::SIGSTOP));
    farm.signal_coordinator(&before, Signal::SIGCONT);
    // It follows, and passes on what it is asked.
    let dir = tree("continued", 1);
    let built = until("it to pass builds on", || {
        let built = farm.build_at(&before, dir.path(), &[]);
        (built.0.code == 0).then_some(built)
    });
    assert_eq!(wrong(&built, dir.path(), "continued"), None);
    assert_eq!(farm.leader(), Some(after), "expected the one that took over to lead still");
    assert!(farm.log(&before).contains("leads no more"), "{}", farm.log(&before));
}

#[test]
fn a_leader_that_is_cut_off_from_redis_leads_no_more() {
    let Some(farm) = Replicas::start(&ALL, &["one", "two"]) else { return };
    let (before, _) = through_a_loss(&farm, "cut", |leader| farm.cut(leader, true));
    farm.cut(&before, false);
    let dir = tree("joined", 1);
    until("it to take part again", || (farm.build_at(&before, dir.path(), &[]).0.code == 0).then_some(()));
}

#[test]
fn a_leader_that_is_replaced_hands_over_at_once() {
    let Some(farm) = Replicas::start(&ALL, &["one", "two"]) else { return };
    let (before, _) = through_a_loss(&farm, "replaced", |leader| {
        assert_eq!(farm.stop_coordinator(leader), Some(0), "{}", farm.log(leader));
    });
    farm.start_coordinator(&before);
    let dir = tree("again", 1);
    until("it to take part again", || (farm.build_at(&before, dir.path(), &[]).0.code == 0).then_some(()));
}
