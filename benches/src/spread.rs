//! The calls of one step on a farm of hosts with one CPU each, from one host to many.
//!
//! The hosts are workers on this machine. So that they do not share its processors, the compiler sleeps for a second before it becomes the
//! real one; with `--real` it does not, and what is measured is whether a second worker makes anything slower.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::client::{Client, Run};
use crate::farm::{Farm, Setup};
use crate::report::{self, Figure};

/// The compiler that sleeps.
const SLEEPER: &str = "#include <unistd.h>\n\
    int main(int count, char **words) { (void)count; sleep(1); words[0] = \"/usr/bin/cc\"; execv(words[0], words); return 127; }\n";
/// Where programs may lie that steps see.
const VISIBLE: &str = "/opt";

/// `kiln-bench spread`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of workers to measure, each on a farm of its own; all are compared with the first.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,16")]
    pub workers: Vec<u32>,
    /// Number of C files.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(1..))]
    pub files: u32,
    /// Use the real compiler, which takes the machine's own processors.
    #[arg(long)]
    pub real: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Measures each number of workers and prints the figures.
///
/// # Errors
/// If a farm cannot be started, or a build fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let visible = tempfile::Builder::new().prefix("kiln-bench-").tempdir_in(VISIBLE);
    let visible =
        visible.with_context(|| format!("cannot write to `{VISIBLE}`, where steps would see the compiler"))?;
    let compiler = if options.real { "/usr/bin/cc".into() } else { sleeper(visible.path())?.display().to_string() };
    let mut figures = Vec::new();
    let mut first = None;
    for workers in &options.workers {
        let mut farm = Farm::start(0, Setup::default()).await?;
        let one_cpu = ["--cpus".to_owned(), "1".to_owned()];
        for number in 1..=*workers {
            farm.add_worker(&format!("worker-{number}"), &one_cpu).await?;
        }
        let project = tempfile::tempdir()?;
        write(project.path(), &compiler, options.files)?;
        eprintln!("spread, {workers} worker(s) ...");
        let (url, path) = (farm.url.clone(), project.path().to_owned());
        let ran = tokio::task::spawn_blocking(move || Client::new(&url)?.build(&path, &[])).await??;
        if ran.calls.here + ran.calls.elsewhere != u64::from(options.files) {
            bail!("not all calls ran apart from the step: {:?}", ran.calls);
        }
        first = first.or(Some(ran));
        figures.extend(figures_of(*workers, &ran, first.unwrap_or(ran)));
    }
    report::print(&figures, options.json)
}

fn figures_of(workers: u32, ran: &Run, first: Run) -> Vec<Figure> {
    let seconds = |ran: &Run| ran.steps.unwrap_or_default().as_secs_f64();
    let wanted = match workers {
        2 => "at least 1.7",
        4 => "at least 3",
        16 => "at least 10",
        _ => "",
    };
    let speed = Figure::new("  times as fast as the first", seconds(&first) / seconds(ran).max(f64::EPSILON), "");
    vec![
        Figure::new(format!("{workers} worker(s)"), seconds(ran), "s"),
        if wanted.is_empty() { speed } else { speed.wanted(wanted) },
        Figure::new("  calls on the step's own worker", ran.calls.here as f64, ""),
        Figure::new("  calls elsewhere", ran.calls.elsewhere as f64, ""),
    ]
}

/// Compiles the compiler that sleeps.
fn sleeper(directory: &Path) -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    let (source, program) = (directory.join("sleeper.c"), directory.join("cc"));
    std::fs::write(&source, SLEEPER)?;
    let status = Command::new("cc").arg("-O1").arg("-o").args([&program, &source]).status();
    if !status.context("cannot run `cc`; install a C compiler")?.success() {
        bail!("`cc` cannot compile a program");
    }
    Ok(program)
}

/// A project of C files that nobody has compiled before.
fn write(directory: &Path, compiler: &str, files: u32) -> anyhow::Result<()> {
    let run = "make -s -j$KILN_JOBS && mkdir out && cp obj/*.o out";
    std::fs::write(
        directory.join("kiln.toml"),
        format!(
            "name = \"spread\"\nversion = \"1\"\n\n[steps.compile]\nrun = \"{run}\"\noutputs = [\"out\"]\ncpus = 1\n\n\
             [artifacts.out]\nfrom = \"compile\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
        ),
    )?;
    std::fs::write(
        directory.join("Makefile"),
        format!(
            "OBJECTS = $(patsubst src/%.c,obj/%.o,$(sort $(wildcard src/*.c)))\nall: $(OBJECTS)\n\
             obj/%.o: src/%.c\n\t@mkdir -p obj\n\t/kiln/call/bin/kiln-call {compiler} -O2 -Iinclude -c -o $@ $<\n"
        ),
    )?;
    for directory in ["src", "include"].map(|name| directory.join(name)) {
        std::fs::create_dir(directory)?;
    }
    let nonce: u64 = rand::random();
    std::fs::write(directory.join("include/own.h"), format!("/* {nonce} */\n#define OWN 3\n"))?;
    for number in 0..files {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"own.h\"\n\
             int f{number}(const char *text) {{ printf(\"%s %d\\n\", text, OWN); return (int)strlen(text) + {number}; }}\n"
        );
        std::fs::write(directory.join(format!("src/f{number}.c")), text)?;
    }
    Ok(())
}
