//! Two independent stages of equal length on two workers, and one of them alone.

use super::{Bench, dockerfile, project};
use crate::client::Client;
use crate::report::{Figure, Latencies};

/// What each stage waits for. It computes nothing: two workers share this machine's cores.
const SECONDS: u32 = 2;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<Vec<Figure>> {
    let arguments = [bench.options.worker_arg.as_slice(), &["--cpus=1".to_owned()]].concat();
    bench.farm.stop_workers();
    for name in ["stages-1", "stages-2"] {
        bench.farm.add_worker(name, &arguments).await?;
    }
    let (dir, client) = (project()?, Client::new(&bench.farm.url)?);
    let stage = |name: &str| {
        let number: u64 = rand::random();
        format!("FROM {} AS {name}\nRUN sleep {SECONDS}; echo {number} > /{name}\n", bench.base)
    };
    let result = |names: &[&str]| {
        let copies: String = names.iter().map(|name| format!("COPY --from={name} /{name} /\n")).collect();
        format!("{}FROM scratch\n{copies}", names.iter().map(|name| stage(name)).collect::<String>())
    };
    let (mut one, mut two) = (Latencies::default(), Latencies::default());
    // Both workers have the base after the first round.
    for round in 0..=bench.options.fresh {
        for (names, latencies) in [(&["a"][..], &mut one), (&["a", "b"], &mut two)] {
            dockerfile(dir.path(), &result(names))?;
            let run = client.build(dir.path(), &[])?;
            if round > 0 {
                latencies.record(run.whole);
            }
        }
    }
    let (one, two) = (one.quantile_ms(0.5), two.quantile_ms(0.5));
    Ok(vec![
        Figure::new(format!("a stage of {SECONDS} s, p50"), one, "ms"),
        Figure::new("two such stages on two workers, p50", two, "ms"),
        Figure::new("  as a share of one", 100.0 * two / one, "%").wanted("at most 115"),
    ])
}
