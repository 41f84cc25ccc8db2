//! Dockerfiles: what their users wait for, beside `docker build` with BuildKit in the same run where it can do the work.

mod compile;
mod context;
mod docker;
mod push;
mod run;
mod stages;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::farm::{Farm, Setup};
use crate::registry::Registry;
use crate::report::{self, Figure};
use docker::Docker;

/// `kiln-bench dockerfile`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The base of the images: a directory with an OCI layout, such as `skopeo copy docker://debian:12 oci:DIR:12` or `mmdebstrap` with
    /// `umoci` make.
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// A Go toolchain (`GOROOT`) that runs here and in the base, for `compile`.
    #[arg(long, value_name = "DIR")]
    pub go: Option<PathBuf>,
    /// Build each with the local Docker Engine's BuildKit too, in turns, and print the ratios.
    #[arg(long)]
    pub docker: bool,
    /// What to measure; default: everything.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Case>,
    /// Builds of each kind.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Workers with an empty cache that `run` and `compile` use.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub fresh: u32,
    /// Files of the context of `context`.
    #[arg(long, default_value = "10000")]
    pub files: usize,
    /// An argument for the workers, such as `--root-layout=unpacked`; repeatable.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub worker_arg: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 20 instructions and a context of many files: nothing changed, and one file edited.
    Context,
    /// A new `RUN` in the base, on workers that have nothing of it and on one that has it.
    Run,
    /// Two independent stages on two workers.
    Stages,
    /// An edited Go program whose compile has a cache mount.
    Compile,
    /// An image of 300 MB whose last layer changed, pushed.
    Push,
}

/// What every case builds with.
#[derive(Debug)]
struct Bench {
    options: Options,
    farm: Farm,
    registry: Registry,
    /// The base in the registry.
    base: String,
    docker: Option<Docker>,
}

/// Measures and prints the figures.
///
/// # Errors
/// If the base cannot be used, a program is missing, or a build fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let base = registry.import(&options.base)?;
    let docker = options.docker.then(Docker::new).transpose()?;
    let arguments = vec!["--allow-registry".to_owned(), registry.name.clone()];
    let farm = Farm::start(0, Setup { arguments, ..Setup::default() }).await?;
    let json = options.json;
    let mut bench = Bench { options, farm, registry, base, docker };
    let mut figures = Vec::new();
    for case in Case::value_variants() {
        if !bench.options.only.is_empty() && !bench.options.only.contains(case) {
            continue;
        }
        figures.extend(match case {
            Case::Context => context::measure(&mut bench).await?,
            Case::Run => run::measure(&mut bench).await?,
            Case::Stages => stages::measure(&mut bench).await?,
            Case::Compile if bench.options.go.is_none() => {
                vec![Figure::new("compile: not measured without `--go`", 0.0, "")]
            }
            Case::Compile => compile::measure(&mut bench).await?,
            Case::Push => push::measure(&mut bench).await?,
        });
    }
    report::print(&figures, json)
}

impl Bench {
    /// A worker with an empty cache in place of those that run.
    async fn fresh_worker(&mut self, name: &str) -> anyhow::Result<()> {
        self.farm.stop_workers();
        self.farm.add_worker(name, &self.options.worker_arg).await
    }
}

/// A project that is nothing but a Dockerfile.
fn project() -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join(".dockerignore"), "Dockerfile\n.dockerignore\nkiln-out\n")?;
    Ok(dir)
}

fn dockerfile(tree: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(tree.join("Dockerfile"), text)
}
