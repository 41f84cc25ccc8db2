//! Files of tools that Kiln recognises but does not support.
//!
//! Invariant: no suggested fix changes or replaces a file of the project.

use super::tree;
use kiln_plan::Source;

/// A file, its tool, and a fix.
type Known = (&'static str, &'static str, &'static str);

const WRITE: &str = "write a `kiln.toml` with the commands that build it";

/// What the following lines are.
macro_rules! steps {
    ($text:literal) => {
        concat!(
            "build it by a `Dockerfile`, or add a `kiln.toml` with the commands of its tools, which a worker or an `image` of the steps must \
             have, such as\n\n",
            $text
        )
    };
}

const DOTNET: &str = steps!(
    r#"[steps.deps]
inputs = ["**/*.*proj", "**/packages.lock.json", "*.sln", "Directory.*", "global.json", "nuget.config"]
run = "dotnet restore --locked-mode"
env = { NUGET_PACKAGES = "/build/.nuget" }
outputs = [".nuget"]
network = true

[steps.build]
needs = ["deps"]
run = "dotnet publish --configuration Release --output out"
env = { NUGET_PACKAGES = "/build/.nuget" }
outputs = ["out"]

[artifacts.app]
from = "build"
kind = "archive"
files = [{ path = "out", dest = "." }]
"#
);

const MIX: &str = steps!(
    r#"[steps.deps]
inputs = ["mix.exs", "mix.lock", "config"]
run = "mix local.hex --force && mix local.rebar --force && mix deps.get --only prod --check-locked"
env = { MIX_HOME = "/build/.mix", HEX_HOME = "/build/.hex" }
outputs = [".mix", ".hex", "deps"]
network = true

[steps.build]
needs = ["deps"]
run = "mix release --path out"
env = { MIX_HOME = "/build/.mix", HEX_HOME = "/build/.hex", HEX_OFFLINE = "1", MIX_ENV = "prod" }
outputs = ["out"]

[artifacts.app]
from = "build"
kind = "archive"
files = [{ path = "out", dest = "." }]
"#
);

const SBT: &str = steps!(
    r#"[steps.deps]
inputs = ["build.sbt", "project"]
run = "sbt update"
env = { COURSIER_CACHE = "/build/.coursier", SBT_OPTS = "-Dsbt.global.base=/build/.sbt -Dsbt.boot.directory=/build/.sbt/boot" }
outputs = [".coursier", ".sbt"]
network = true

[steps.build]
needs = ["deps"]
run = "sbt 'set offline := true' package && mkdir out && cp target/scala-*/*.jar out/"
env = { COURSIER_CACHE = "/build/.coursier", SBT_OPTS = "-Dsbt.global.base=/build/.sbt -Dsbt.boot.directory=/build/.sbt/boot" }
outputs = ["out"]

[artifacts.app]
from = "build"
kind = "archive"
files = [{ path = "out", dest = "." }]
"#
);

const CONDA: &str = steps!(
    r#"[steps.deps]
inputs = ["conda-lock.yml"]
run = "conda-lock install --prefix /build/env conda-lock.yml"
outputs = ["env"]
network = true

[steps.build]
needs = ["deps"]
run = "conda run --prefix /build/env python -m build --wheel --no-isolation --outdir out"
outputs = ["out"]

[artifacts.app]
from = "build"
kind = "archive"
files = [{ path = "out", dest = "." }]
"#
);

const PIXI: &str = steps!(
    r#"[steps.deps]
inputs = ["pixi.toml", "pixi.lock"]
run = "pixi install --locked"
env = { PIXI_CACHE_DIR = "/tmp/pixi" }
outputs = [".pixi"]
network = true

[steps.build]
needs = ["deps"]
run = "pixi run --frozen build"
outputs = ["out"]

[artifacts.app]
from = "build"
kind = "archive"
files = [{ path = "out", dest = "." }]
"#
);

const FILES: &[Known] = &[
    ("Containerfile", "a Containerfile", "build it by `kiln build --file Containerfile`"),
    ("MODULE.bazel", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    ("WORKSPACE", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    ("WORKSPACE.bazel", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    (".buckconfig", "Buck2", "Buck2 itself uses the farm, by its `[buck2_re_client]` settings"),
    ("mix.exs", "Elixir (Mix)", MIX),
    ("rebar.config", "Erlang (Rebar)", WRITE),
    ("build.sbt", "Scala (sbt)", SBT),
    ("project.clj", "Clojure (Leiningen)", WRITE),
    ("deps.edn", "Clojure", WRITE),
    ("stack.yaml", "Haskell (Stack)", WRITE),
    ("cabal.project", "Haskell (Cabal)", WRITE),
    ("Package.swift", "Swift", WRITE),
    ("pubspec.yaml", "Dart", WRITE),
    ("dune-project", "OCaml (Dune)", WRITE),
    ("shard.yml", "Crystal", WRITE),
    ("build.xml", "Ant", WRITE),
    ("SConstruct", "SCons", WRITE),
    ("pixi.toml", "Pixi", PIXI),
    ("environment.yml", "Conda", CONDA),
    ("environment.yaml", "Conda", CONDA),
    ("conda-lock.yml", "Conda", CONDA),
    ("global.json", ".NET", DOTNET),
    ("flake.nix", "Nix", WRITE),
];

const ENDINGS: &[Known] = &[
    (".sln", ".NET", DOTNET),
    (".slnx", ".NET", DOTNET),
    (".csproj", ".NET", DOTNET),
    (".fsproj", ".NET", DOTNET),
    (".vbproj", ".NET", DOTNET),
    (".cabal", "Haskell", WRITE),
];

/// The first known file in the root: its name, its tool, and a fix.
pub(super) fn find(source: &dyn Source) -> Option<(String, &'static str, &'static str)> {
    if let Some((file, what, fix)) = FILES.iter().find(|(file, _, _)| tree::has(source, file)) {
        return Some(((*file).to_owned(), what, fix));
    }
    let in_root = |path: &&String| path.matches('/').count() <= 1;
    source.paths().iter().filter(in_root).find_map(|path| {
        let (_, what, fix) = ENDINGS.iter().find(|(ending, _, _)| path.ends_with(ending))?;
        Some((path.clone(), *what, *fix))
    })
}
