//! Files of tools that Kiln recognises but does not support.
//!
//! Invariant: no suggested fix changes or replaces a file of the project.

use super::tree;
use kiln_plan::Source;

/// A file, its tool, and a fix.
type Known = (&'static str, &'static str, &'static str);

const WRITE: &str = "write a `kiln.toml` with the commands that build it";

const FILES: &[Known] = &[
    (
        "Pipfile",
        "Pipenv",
        "export what it locks with `pipenv requirements > requirements.txt`, or write a `kiln.toml` that calls pipenv",
    ),
    ("Containerfile", "a Containerfile", "build it by `kiln build --file Containerfile`"),
    ("MODULE.bazel", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    ("WORKSPACE", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    ("WORKSPACE.bazel", "Bazel", "Bazel itself uses the farm: `bazel build --remote_executor=grpc://HOST:8980 //...`"),
    (".buckconfig", "Buck2", "Buck2 itself uses the farm, by its `[buck2_re_client]` settings"),
    ("composer.json", "PHP (Composer)", WRITE),
    ("deno.json", "Deno", WRITE),
    ("deno.jsonc", "Deno", WRITE),
    ("mix.exs", "Elixir (Mix)", WRITE),
    ("rebar.config", "Erlang (Rebar)", WRITE),
    ("build.sbt", "Scala (sbt)", WRITE),
    ("project.clj", "Clojure (Leiningen)", WRITE),
    ("deps.edn", "Clojure", WRITE),
    ("stack.yaml", "Haskell (Stack)", WRITE),
    ("cabal.project", "Haskell (Cabal)", WRITE),
    ("Package.swift", "Swift", WRITE),
    ("pubspec.yaml", "Dart", WRITE),
    ("build.zig", "Zig", WRITE),
    ("dune-project", "OCaml (Dune)", WRITE),
    ("shard.yml", "Crystal", WRITE),
    ("build.xml", "Ant", WRITE),
    ("SConstruct", "SCons", WRITE),
    ("environment.yml", "Conda", WRITE),
    ("flake.nix", "Nix", WRITE),
];

const ENDINGS: &[Known] =
    &[(".sln", ".NET", WRITE), (".csproj", ".NET", WRITE), (".fsproj", ".NET", WRITE), (".cabal", "Haskell", WRITE)];

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
