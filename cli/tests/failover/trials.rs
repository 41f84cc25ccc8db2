//! How long the farm is without a leader, measured: `KILN_FAILOVER_TRIALS=100 cargo test -p kiln-cli --test failover trials -- --ignored
//! --nocapture`. The figures are in `benches/README.md`.

use std::time::{Duration, Instant};

use kiln_harness::replicas::Replicas;
use kiln_proto::channel::{Access, Channel};
use kiln_proto::v1::{self, builds_client::BuildsClient};
use nix::sys::signal::Signal;

const ALL: [&str; 3] = ["ada", "ben", "cyd"];

/// Asks a coordinator for its builds until it answers, which it cannot before somebody leads; returns how long that took.
async fn until_answered(channel: &Channel, since: Instant) -> Duration {
    loop {
        let mut builds = BuildsClient::new(channel.clone());
        let asking = builds.list(v1::ListRequest { limit: 1, ..Default::default() });
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), asking).await {
            return since.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn told(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).ceil() as usize].as_secs_f64();
    eprintln!(
        "failover: {name}: {} trials: median {:.2} s, 99th percentile {:.2} s, longest {:.2} s",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[test]
#[ignore = "takes a quarter of an hour, and measures"]
fn trials() {
    let trials: usize = std::env::var("KILN_FAILOVER_TRIALS").ok().map_or(20, |trials| trials.parse().unwrap());
    let Some(farm) = Replicas::start(&ALL, &["one"]) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, share) in [("killed", 4), ("stopped", 4), ("cut off from Redis", 4), ("replaced", 4)] {
        let mut times = Vec::new();
        for _ in 0..trials.div_ceil(share) {
            let leader = kiln_harness::until("a leader", || farm.leader());
            let other = farm.names().into_iter().find(|other| *other != leader).unwrap();
            let connecting = async { kiln_proto::channel::connect(&farm.url_of(&other), &Access::default()).await };
            let channel = runtime.block_on(connecting).unwrap();
            runtime.block_on(until_answered(&channel, Instant::now()));
            let since = Instant::now();
            match name {
                "killed" => farm.kill_coordinator(&leader),
                "stopped" => farm.signal_coordinator(&leader, Signal::SIGSTOP),
                "replaced" => drop(farm.stop_coordinator(&leader)),
                _ => farm.cut(&leader, true),
            }
            if name.starts_with("cut") {
                // Until its lease ends, it still answers what it is asked.
                farm.wait_for_another(&leader);
            }
            times.push(runtime.block_on(until_answered(&channel, since)));
            match name {
                "killed" | "replaced" => farm.start_coordinator(&leader),
                "stopped" => farm.signal_coordinator(&leader, Signal::SIGCONT),
                _ => farm.cut(&leader, false),
            }
            kiln_harness::until("it to take part again", || {
                (farm.kiln_at(&leader, &["builds", "--json"]).code == 0).then_some(())
            });
        }
        told(name, &mut times);
    }
}
