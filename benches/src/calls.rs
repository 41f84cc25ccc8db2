//! Compiler calls of a generated C project: without the split, with nothing known, with everything known, and with one file edited.
//!
//! The CPU time is that of all processes, the farm's and the compilers': on a busy machine it says more than the time that a build takes.

use std::path::Path;
use std::time::Duration;

use crate::client::Client;
use crate::farm::{Farm, Setup};
use crate::process::Process;
use crate::report::{self, Figure};

/// How long the farm may go on after a build: it keeps results while the next step runs.
const SETTLING: Duration = Duration::from_secs(2);

/// `kiln-bench calls`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Source files.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(1..))]
    pub files: u32,
    /// Headers of the project's own that each of them includes.
    #[arg(long, default_value = "20")]
    pub headers: u32,
    /// Functions in each source file.
    #[arg(long, default_value = "15")]
    pub functions: u32,
    /// Directories in which headers are looked for in vain.
    #[arg(long, default_value = "4")]
    pub directories: u32,
    /// How many times each kind of build is measured.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Whether the project's step is split into its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Off,
    On,
}

/// Runs the builds, in turns, and prints the median CPU time and time of each kind.
///
/// # Errors
/// If the farm cannot be started or a build fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let farm = Farm::start(1, Setup::default()).await?;
    let figures = tokio::task::block_in_place(|| measure(&farm.url, &options))?;
    report::print(&figures, options.json)
}

fn measure(url: &str, options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (directory, client, own) = (tempfile::tempdir()?, Client::new(url)?, Process::new(std::process::id())?);
    let tree = directory.path();
    let names = ["plain", "nothing known", "everything known", "one file edited"];
    let mut measured: [Vec<(f64, f64)>; 4] = Default::default();
    for round in 0..options.rounds {
        let build = |number: usize, split, kind: &mut Vec<(f64, f64)>| -> anyhow::Result<()> {
            eprintln!("round {} of {}: {} ...", round + 1, options.rounds, names[number]);
            write_step(tree, &format!("{round}.{number}"), split)?;
            let before = own.cpu_of_tree();
            let took = client.build(tree, &[])?.whole;
            std::thread::sleep(SETTLING);
            let cpu = own.cpu_of_tree().saturating_sub(before);
            kind.push((cpu.as_secs_f64(), took.as_secs_f64()));
            Ok(())
        };
        let [plain, cold, warm, edited] = &mut measured;
        write_sources(tree, options, 2 * round)?;
        build(0, Split::Off, plain)?;
        // Other sources, so that the farm has none of the outputs either.
        write_sources(tree, options, 2 * round + 1)?;
        build(1, Split::On, cold)?;
        build(2, Split::On, warm)?;
        let source = tree.join("src/file0.c");
        std::fs::write(&source, std::fs::read_to_string(&source)? + &format!("int edited{round};\n"))?;
        build(3, Split::On, edited)?;
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let mut figures = Vec::new();
    for (name, values) in names.into_iter().zip(&measured) {
        let (cpu, took) = values.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>();
        figures.push(Figure::new(format!("{} files, {name}: CPU of all processes", options.files), median(cpu), "s"));
        figures.push(Figure::new("  the build", median(took), "s"));
    }
    let more: Vec<f64> = measured[0].iter().zip(&measured[1]).map(|((plain, _), (cold, _))| cold - plain).collect();
    let a_call = median(more) * 1000.0 / f64::from(options.files);
    figures.push(Figure::new("more for each call when nothing is known", a_call, "ms").wanted("at most 5 % of a call"));
    Ok(figures)
}

fn write_step(tree: &Path, round: &str, split: Split) -> std::io::Result<()> {
    let split = if split == Split::Off { "split = false\n" } else { "" };
    std::fs::write(
        tree.join("kiln.toml"),
        format!(
            "name = \"calls\"\nversion = \"1\"\n\n[steps.build]\nrun = \"make -s -j2\"\noutputs = [\"all.o\"]\ncpus = 2\nenv = {{ ROUND = \"{round}\" }}\n\
             {split}\n[artifacts.all]\nfrom = \"build\"\nfiles = [\"all.o\"]\nkind = \"binary\"\n"
        ),
    )
}

/// Sources that are the same in each run with the same `variant`, and in no other.
fn write_sources(tree: &Path, options: &Options, variant: u32) -> std::io::Result<()> {
    let (sources, headers) = (tree.join("src"), tree.join("include"));
    std::fs::create_dir_all(&sources)?;
    std::fs::create_dir_all(&headers)?;
    let mut search = String::new();
    for number in 0..options.directories {
        std::fs::create_dir_all(tree.join(format!("empty{number}")))?;
        std::fs::write(tree.join(format!("empty{number}/readme.txt")), "no header here\n")?;
        search += &format!("-Iempty{number} ");
    }
    for number in 0..options.headers {
        let declared: String = (0..40).map(|at| format!("int header{number}_{at}(int);\n")).collect();
        std::fs::write(headers.join(format!("header{number}.h")), format!("#pragma once\n{declared}"))?;
    }
    for number in 0..options.files {
        let mut text = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n".to_owned();
        text.extend((0..options.headers).map(|header| format!("#include \"header{header}.h\"\n")));
        for function in 0..options.functions {
            text += &format!(
                "int f{number}_{function}(int *a, int n) {{\n    int sum = {variant};\n    for (int i = 0; i < n; i++)\n        for (int j = i; j < n; j++)\n            \
                 if (a[i] * {function} > a[j]) {{ int t = a[i]; a[i] = a[j]; a[j] = t; sum += strlen(\"{number}\") + t; }}\n    printf(\"%d\\n\", sum);\n    return sum;\n}}\n"
            );
        }
        std::fs::write(sources.join(format!("file{number}.c")), text)?;
    }
    std::fs::write(
        tree.join("Makefile"),
        format!(
            "objects := $(patsubst %.c,%.o,$(wildcard src/*.c))\nall.o: $(objects)\n\tld -r -o $@ $^\n%.o: %.c\n\tcc -O2 -g {search}-Iinclude -c $< -o $@\n"
        ),
    )
}
