//! C and C++: CMake, Meson, `configure` and plain Make.
//!
//! One step compiles and installs into a staging directory, like a distribution's package build. Dependencies have
//! their own layer only if the project names them: Conan's lock file, Meson's wraps, CMake's `FetchContent`.

mod data;
mod downloads;
mod identity;
mod makefile;
mod tools;

use std::collections::BTreeMap;

pub(super) use identity::identity;

use super::{
    Detected, Error,
    found::{artifact, compile_step, fetch_step, strings},
    git::{self, GitUse},
    shell,
    staging::{COLLECT_IF_EMPTY, OUT, refuse_empty},
    submodules, tree,
};
use kiln_plan::{ArtifactKind, Source, Step};
use tools::Tool;

/// Where programs look for the project's own libraries, so that they run wherever the archive is unpacked. GNU ld takes
/// it from `LD_RUN_PATH` unless another path is given.
const BESIDE: &str = "$ORIGIN/../lib";

const NOTHING: &str = "the build installed nothing and left no program or library, so there is no artifact";

/// Detects a C or C++ project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let conan = tree::first_of(source, &["conanfile.txt", "conanfile.py"]);
    let found = downloads::find(source);
    let Some(tool) = tools::choose(source, conan.is_some(), &found) else {
        return Ok(None);
    };
    let mut notes: Vec<String> = check_submodules(source, &tool)?.into_iter().collect();
    if tree::has(source, "vcpkg.json") {
        notes.push("`vcpkg.json` is not understood: write a `kiln.toml` with a step that runs `vcpkg install`".into());
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    if let Some(manifest) = conan {
        env.insert("CONAN_HOME".into(), "/build/.kiln/conan-home".into());
        steps.push(conan_step(source, manifest, &env)?);
    }
    if tool.name == "meson" && tools::has_wraps(source) {
        steps.push(wraps_step(source));
    }
    if tool.name == "cmake" {
        // Enables coloured diagnostics; whoever displays the output removes colours if necessary.
        env.insert("CMAKE_COLOR_DIAGNOSTICS".into(), "ON".into());
        notes.extend(found.note());
        if let Some(step) = found.step(source) {
            env.extend(step.env.clone());
            steps.push(step);
        }
    }
    let compile = compile(source, tool, &steps, env, &found);
    let because = compile.1;
    steps.push(compile.0);
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: format!("c ({})", because.0),
        because: because.1,
        identity,
        steps,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "compile", &[(OUT, ".")])],
        notes,
    }))
}

type Because = (&'static str, Vec<String>);

fn compile(
    source: &dyn Source,
    tool: Tool,
    needs: &[Step],
    env: BTreeMap<String, String>,
    found: &downloads::Downloads,
) -> (Step, Because) {
    let left_out = data::note(source)
        .map_or_else(String::new, |words| format!("has_files {OUT} || note {}\n", tree::shell_word(&words)));
    let mut env = env;
    env.insert("LD_RUN_PATH".into(), BESIDE.into());
    if tool.name == "meson" {
        // CMake removes the search paths that it has added itself, and keeps those from the environment.
        env.insert("LDFLAGS".into(), format!("-Wl,-rpath,{BESIDE}"));
    }
    let quick = if found.is_empty() { "" } else { "fail_at_once_without_network\n" };
    let run = format!("{quick}{}{left_out}{COLLECT_IF_EMPTY}{}", tool.run, refuse_empty(NOTHING));
    let mut step = compile_step("compile", "compiles the project and installs it into a staging directory", run);
    step.needs = needs.iter().map(|s| s.name.clone()).collect();
    (step.outputs, step.env, step.tools) = (strings([OUT]), env, tool.tools);
    let mut because = tool.because;
    if let Some(used) = GitUse::of_build_files(source) {
        because.push(format!("`{}` asks git, so the step gets the version and the commit", used.path));
        git::answer(&mut step, &used);
    }
    shell::provide(&mut step, &[shell::GATHER, shell::JOBS, shell::INSTALL]);
    (step, (tool.name, because))
}

/// Rejects a project whose build requires a submodule that is not checked out; returns a note about any other.
fn check_submodules(source: &dyn Source, tool: &Tool) -> Result<Option<String>, Error> {
    let missing = submodules::missing(source);
    let text = tree::text(source, "CMakeLists.txt").filter(|_| tool.name == "cmake").unwrap_or_default();
    if let Some(path) = missing.iter().find(|path| adds_always(&text, path)) {
        let note = submodules::note(std::slice::from_ref(path));
        return Err(Error::MissingSubmodule { note, by: "CMakeLists.txt".to_owned() });
    }
    Ok((!missing.is_empty()).then(|| submodules::note(&missing)))
}

/// Whether a `CMakeLists.txt` adds a directory unconditionally.
fn adds_always(text: &str, directory: &str) -> bool {
    let mut conditions = 0i32;
    for line in text.lines().map(|line| line.trim_start().to_ascii_lowercase()) {
        let call = line.split(['(', ' ']).next().unwrap_or_default();
        match call {
            "if" | "function" | "macro" | "foreach" | "while" => conditions = conditions.saturating_add(1),
            "endif" | "endfunction" | "endmacro" | "endforeach" | "endwhile" => {
                conditions = conditions.saturating_sub(1)
            }
            "add_subdirectory" => {
                let argument = line.split('(').nth(1).unwrap_or_default();
                let argument = argument.split([' ', ')']).find(|word| !word.is_empty()).unwrap_or_default();
                let argument = argument.trim_matches('"').rsplit('}').next().unwrap_or_default();
                if conditions == 0 && argument.trim_matches('/').eq_ignore_ascii_case(directory) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

fn conan_step(source: &dyn Source, manifest: &str, env: &BTreeMap<String, String>) -> Result<Step, Error> {
    if !tree::has(source, "conan.lock") {
        return Err(Error::MissingLock {
            manifest: manifest.into(),
            lock: "conan.lock".into(),
            command: "conan lock create .".into(),
        });
    }
    let run = "conan profile detect --exist-ok\n\
               conan install . --lockfile=conan.lock --output-folder=.kiln/conan --build=missing";
    let mut fetch = fetch_step("deps", "installs the packages that `conan.lock` names", run);
    fetch.inputs = strings([manifest, "conan.lock"]);
    fetch.outputs = strings([".kiln/conan", ".kiln/conan-home"]);
    (fetch.env, fetch.tools) = (env.clone(), strings(["conan", "cmake", "cc"]));
    Ok(fetch)
}

fn wraps_step(source: &dyn Source) -> Step {
    let mut fetch = fetch_step("fetch", "fetches the subprojects that wraps name", "meson subprojects download");
    fetch.inputs = tree::all_of(source, &["meson.build", "meson_options.txt", "meson.options"]);
    fetch.inputs.push("subprojects".into());
    (fetch.outputs, fetch.tools) = (strings(["subprojects"]), strings(["meson"]));
    fetch
}
