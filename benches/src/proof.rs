//! What proof costs: MACs, signatures, and `kiln verify` of an image beside hashing its bytes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use futures::{StreamExt, stream};
use kiln_signing::Signer;
use kiln_state::FarmKey;
use kiln_state::farm_key::Purpose;

use crate::actions::FUNCTION;
use crate::client::Client;
use crate::cost::median;
use crate::farm::{Farm, Setup, binary, text};
use crate::report::{Figure, Latencies};

/// Layers of the image.
const LAYERS: usize = 20;
/// Builds at a time when throughput is measured.
const AT_ONCE: usize = 4;
/// Size of an action's result, about.
const RESULT_BYTES: usize = 1024;

/// `kiln-bench proof`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Number of MACs and signatures of each size.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Number of times that the image is verified and hashed, in turns.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Number of pairs of rounds in which artifacts are built: signed once by the farm, and signed again beside it.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// Number of builds in each of these rounds.
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u32).range(1..))]
    pub builds: u32,
    /// Size of each of the image's 20 layers, in KiB.
    #[arg(long, default_value = "1024", value_parser = clap::value_parser!(u32).range(1..))]
    pub layer: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Measures all of it and prints the figures.
///
/// # Errors
/// If a farm cannot be started, a build fails, or its image is not verified.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut figures = vec![macs(options.repeats)?];
    for kilobytes in [8, 200] {
        figures.push(signatures(options.repeats, kilobytes).await?);
    }
    let farm = Farm::start(1, Setup::default()).await?;
    figures.extend(image(&farm, options)?);
    figures.extend(throughput(&farm, options).await?);
    crate::report::print(&figures, options.json)
}

/// A MAC over an action's result, made and verified.
fn macs(repeats: u32) -> anyhow::Result<Figure> {
    let (key, result) = (FarmKey::ephemeral(), vec![7; RESULT_BYTES]);
    let began = Instant::now();
    for number in 0..repeats {
        let parts: [&[u8]; 2] = [&number.to_le_bytes(), &result];
        let tag = key.seal(Purpose::Cache, &parts);
        if !key.verify(Purpose::Cache, &parts, &tag) {
            bail!("a MAC was refused");
        }
    }
    let micros = began.elapsed().as_secs_f64() * 1e6 / f64::from(repeats);
    Ok(Figure::new("a MAC over 1 KiB, made and verified", micros, "µs"))
}

/// A statement of this size, signed by the farm's own code with a key from a file.
async fn signatures(repeats: u32, kilobytes: usize) -> anyhow::Result<Figure> {
    let directory = tempfile::tempdir()?;
    let signer = Signer::open(&kiln_signing::Options::default(), &directory.path().join("signing.key"))?;
    let statement = format!("{{\"predicate\":\"{}\"}}", "x".repeat(kilobytes * 1000)).into_bytes();
    let mut latencies = Latencies::default();
    for _ in 0..repeats {
        let began = Instant::now();
        signer.sign(statement.clone()).await?;
        latencies.record(began.elapsed());
    }
    Ok(Figure::new(format!("a statement of {kilobytes} KB signed, p50"), latencies.quantile_ms(0.5), "ms")
        .wanted("under 1"))
}

/// What signatures cost in throughput. A farm always signs, so what is measured is the same cost once more: rounds of builds that each make an
/// artifact, in pairs, and in one round of each pair every artifact's statements are signed a second time on the same machine.
async fn throughput(farm: &Farm, options: Options) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    let signer = Signer::open(&kiln_signing::Options::default(), &directory.path().join("signing.key"))?;
    let client = Arc::new(Client::new(&farm.url)?);
    // What is only done once is done before.
    round(&client, None, options.builds.min(AT_ONCE as u32)).await?;
    let (mut once, mut twice, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        eprintln!("pair {} of {} ...", pair + 1, options.pairs);
        let mut rates = [0.0; 2];
        // Each is first as often as the other.
        for turn in 0..2 {
            let again = (turn + pair) % 2 == 1;
            rates[usize::from(again)] = round(&client, again.then_some(&signer), options.builds).await?;
        }
        once.push(rates[0]);
        twice.push(rates[1]);
        ratios.push(rates[1] / rates[0]);
    }
    Ok(vec![
        Figure::new(format!("builds of an artifact, {AT_ONCE} at once, median"), median(&once), "builds/s"),
        Figure::new("  with every statement signed twice, median", median(&twice), "builds/s"),
        Figure::new("  twice to once, median of the pairs' ratios", median(&ratios), "").wanted("1"),
    ])
}

/// Builds so many projects that nobody has built before; how many a second.
async fn round(client: &Arc<Client>, again: Option<&Signer>, builds: u32) -> anyhow::Result<f64> {
    let projects = (0..builds).map(|_| small_project()).collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let built = stream::iter(projects).map(|project| {
        let (client, again) = (client.clone(), again.cloned());
        async move {
            let statements = tokio::task::spawn_blocking(move || {
                let output = project.path().join("out");
                client.build(project.path(), &["--output", text(&output)?])?;
                statements(&output)
            });
            let statements = statements.await??;
            if let Some(signer) = again {
                for statement in statements {
                    signer.sign(statement).await?;
                }
            }
            anyhow::Ok(())
        }
    });
    let done: Vec<anyhow::Result<()>> = built.buffer_unordered(AT_ONCE).collect().await;
    done.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(f64::from(builds) / began.elapsed().as_secs_f64())
}

/// A project with one step and one artifact, whose content is new.
fn small_project() -> anyhow::Result<tempfile::TempDir> {
    let config = "name = \"small\"\nversion = \"1\"\n[steps.copy]\ninputs = [\"in\"]\nrun = \"cat in > out\"\noutputs = [\"out\"]\n\
                  [artifacts.small]\nfrom = \"copy\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let project = tempfile::tempdir()?;
    std::fs::write(project.path().join("kiln.toml"), config)?;
    std::fs::write(project.path().join("in"), rand::random::<u128>().to_string())?;
    Ok(project)
}

/// What the farm has signed for the artifact in a directory that a build wrote: whole bundles, which are longer than what they state.
fn statements(output: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(output)? {
        let path = entry?.path();
        if text(&path)?.ends_with(".sigstore.json") {
            found.push(std::fs::read(&path)?);
        }
    }
    if found.is_empty() {
        bail!("expected signed statements in `{}`", output.display());
    }
    Ok(found)
}

/// `kiln verify` of an image's layout, and hashing all its bytes, in turns.
fn image(farm: &Farm, options: Options) -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let mut dockerfile = "FROM scratch\n".to_owned();
    for number in 0..LAYERS {
        let name = format!("layer-{number}");
        let own: Vec<u8> = (0..options.layer * 1024).map(|_| rand::random()).collect();
        std::fs::write(dir.path().join(&name), own)?;
        dockerfile.push_str(&format!("COPY {name} /\n"));
    }
    std::fs::write(dir.path().join("Dockerfile"), dockerfile)?;
    let output = dir.path().join("out");
    Client::new(&farm.url)?.build(dir.path(), &["--output", text(&output)?])?;
    let (keys, layout) = (dir.path().join("farm.pem"), layout(&output)?);
    std::fs::write(&keys, kiln(&["--farm", &farm.url, "farm", "keys"])?)?;
    let (mut verified, mut hashed, mut bytes) = (Latencies::default(), Latencies::default(), 0);
    for _ in 0..options.rounds {
        let began = Instant::now();
        kiln(&["verify", text(&layout)?, "--key", text(&keys)?])?;
        verified.record(began.elapsed());
        let began = Instant::now();
        bytes = hash(&layout.join("blobs/sha256"))?;
        hashed.record(began.elapsed());
    }
    let (all, hashing) = (verified.quantile_ms(0.5), hashed.quantile_ms(0.5));
    Ok(vec![
        Figure::new(format!("`kiln verify` of a layout of {LAYERS} layers, p50"), all, "ms"),
        Figure::new(format!("hashing its {:.1} MB, p50", bytes as f64 / 1e6), hashing, "ms"),
        Figure::new("  verification beyond hashing", all - hashing, "ms").wanted("under 200"),
    ])
}

/// The image's layout in the directory that a build wrote.
fn layout(output: &Path) -> anyhow::Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(output)? {
        let path = entry?.path();
        if path.join("oci-layout").exists() {
            return Ok(path);
        }
    }
    bail!("expected an image's layout in `{}`", output.display())
}

/// Reads and hashes all files of a directory; how many bytes they have.
fn hash(directory: &Path) -> anyhow::Result<usize> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let data = std::fs::read(&path)?;
        bytes += data.len();
        if path.file_name().and_then(|name| name.to_str()) != Some(FUNCTION.digest(&data).hex().as_str()) {
            bail!("`{}` does not have the content that its name says", path.display());
        }
    }
    Ok(bytes)
}

fn kiln(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(binary("kiln")?).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        bail!("`kiln {}` failed:\n{said}", arguments.join(" "));
    }
    Ok(output.stdout)
}
