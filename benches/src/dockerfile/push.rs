//! An image of 300 MB whose last layer of 1 MB changed, built and pushed.

use anyhow::{Context, bail};

use super::docker::Pairs;
use super::{Bench, dockerfile, project};
use crate::client::Client;
use crate::report::Figure;

/// Files of the large layer, of ten MB each.
const FILES: u32 = 30;
const OWN_BYTES: usize = 1_000_000;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<Vec<Figure>> {
    bench.fresh_worker("push").await?;
    let (dir, client) = (project()?, Client::new(&bench.farm.url)?);
    let tree = dir.path();
    std::fs::create_dir(tree.join("deps"))?;
    for number in 0..FILES {
        std::fs::write(tree.join(format!("deps/{number}")), random(10_000_000))?;
    }
    dockerfile(tree, "FROM scratch\nCOPY deps /deps\nCOPY own.bin /own.bin\n")?;
    let (mut pairs, mut sent) = (Pairs::default(), 0);
    for round in 0..=bench.options.rounds {
        std::fs::write(tree.join("own.bin"), random(OWN_BYTES))?;
        let run = client.build(tree, &["--push", &format!("{}/kiln/image:{round}", bench.registry.name)])?;
        let docker = match &bench.docker {
            Some(docker) => {
                let name = format!("{}/docker/image:{round}", bench.registry.name);
                Some(docker.build(tree, &["--tag", &name])? + docker.push(&name)?)
            }
            None => None,
        };
        run.delivered.context("nothing was pushed")?;
        if round == 0 {
            continue;
        }
        if run.bytes_pushed > 2 * OWN_BYTES as u64 {
            bail!("a push of 1 MB that changed sent {} bytes", run.bytes_pushed);
        }
        sent = sent.max(run.bytes_pushed);
        pairs.record(run.whole, docker);
    }
    let mut figures = pairs.figures("300 MB of which 1 MB changed, built and pushed", "under 1000");
    figures.push(Figure::new("  bytes sent to the registry", sent as f64, "bytes").wanted("the changed 1 MB"));
    Ok(figures)
}

fn random(bytes: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut content = vec![0; bytes];
    rand::rng().fill_bytes(&mut content);
    content
}
