//! C and C++: CMake, Meson, `configure` and plain Make.
//!
//! One step compiles and installs into a staging directory, as a package of a distribution is built. Dependencies are
//! a layer of their own only where the project names them: Conan's lock file, Meson's wraps.

use std::collections::BTreeMap;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{COLLECT_EXECUTABLES, OUT, refuse_empty},
    tree,
};
use crate::plan::{ArtifactKind, Source, Step};

const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];
const NOTHING: &str = "the build installed nothing and left no executable, so there is nothing to hand over";

struct Tool {
    name: &'static str,
    because: String,
    run: String,
    tools: Vec<String>,
}

/// The name and version that the root's build file says.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let call = |path: &str| {
        let text = tree::text(source, path)?;
        let start = text.find("project(").or_else(|| text.find("project ("))?;
        let rest = &text[text[start..].find('(')? + start + 1..];
        Some(rest.split(')').next()?.to_owned())
    };
    if let Some(arguments) = call("CMakeLists.txt") {
        let words: Vec<&str> = arguments.split_whitespace().map(|w| w.trim_matches('"')).collect();
        let version = words.iter().position(|w| *w == "VERSION").and_then(|i| words.get(i + 1));
        return Identity { name: plain(words.first()), version: plain(version) };
    }
    let Some(arguments) = call("meson.build") else { return Identity::default() };
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    let version = arguments.find("version").and_then(|at| {
        let rest = arguments[at..].strip_prefix("version")?.trim_start().strip_prefix(':')?;
        quoted(rest.split(',').next()?)
    });
    Identity { name: quoted(&arguments), version }
}

/// A word in which no variable of the build file stands.
fn plain(word: Option<&&str>) -> Option<String> {
    word.filter(|w| !w.contains('$')).map(|w| (*w).to_owned())
}

/// A C or C++ project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let conan = tree::first_of(source, &["conanfile.txt", "conanfile.py"]);
    let tool = if tree::has(source, "CMakeLists.txt") {
        cmake(conan.is_some())
    } else if tree::has(source, "meson.build") {
        meson(source, conan.is_some())
    } else if let Some(path) = tree::first_of(source, &["configure", "configure.ac"]) {
        configure(path)
    } else if let Some(path) = tree::first_of(source, &MAKEFILES) {
        make(source, path)
    } else {
        return Ok(None);
    };
    let mut notes = Vec::new();
    if tree::has(source, "vcpkg.json") {
        notes.push("`vcpkg.json` is not understood: write a `kiln.toml` with a step that runs `vcpkg install`".into());
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    if let Some(manifest) = conan {
        if !tree::has(source, "conan.lock") {
            return Err(Error::MissingLock {
                manifest: manifest.into(),
                lock: "conan.lock".into(),
                command: "conan lock create .".into(),
            });
        }
        env.insert("CONAN_HOME".into(), "/build/.kiln/conan-home".into());
        let run = "conan profile detect --exist-ok\n\
                   conan install . --lockfile=conan.lock --output-folder=.kiln/conan --build=missing";
        let mut fetch = fetch_step("deps", "installs the packages that `conan.lock` names", run);
        fetch.inputs = strings([manifest, "conan.lock"]);
        fetch.outputs = strings([".kiln/conan", ".kiln/conan-home"]);
        (fetch.env, fetch.tools) = (env.clone(), strings(["conan", "cmake", "cc"]));
        steps.push(fetch);
    }
    let wraps = source.paths().iter().any(|p| p.starts_with("subprojects/") && p.ends_with(".wrap"));
    if tool.name == "meson" && wraps {
        let mut fetch = fetch_step("fetch", "fetches the subprojects that wraps name", "meson subprojects download");
        fetch.inputs = tree::all_of(source, &["meson.build", "meson_options.txt", "meson.options"]);
        fetch.inputs.push("subprojects".into());
        (fetch.outputs, fetch.tools) = (strings(["subprojects"]), strings(["meson"]));
        steps.push(fetch);
    }
    let mut compile =
        compile_step("compile", "compiles the project and installs it into a staging directory", tool.run);
    compile.needs = steps.iter().map(|s| s.name.clone()).collect();
    (compile.outputs, compile.env, compile.tools) = (strings([OUT]), env, tool.tools);
    steps.push(compile);
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: format!("c ({})", tool.name),
        because: vec![tool.because],
        identity,
        steps,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "compile", &[(OUT, ".")])],
        notes,
    }))
}

fn cmake(conan: bool) -> Tool {
    let toolchain = if conan { " -DCMAKE_TOOLCHAIN_FILE=/build/.kiln/conan/conan_toolchain.cmake" } else { "" };
    Tool {
        name: "cmake",
        because: "`CMakeLists.txt` is a CMake project".into(),
        run: format!(
            "cmake -S . -B .kiln/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local{toolchain}\n\
             cmake --build .kiln/build -j \"$(nproc)\"\nmkdir -p {OUT}\n\
             DESTDIR=/build/{OUT} cmake --install .kiln/build\n{}",
            collect_if_empty()
        ),
        tools: strings(["cmake", "make", "cc"]),
    }
}

fn meson(source: &dyn Source, conan: bool) -> Tool {
    let options = tree::first_of(source, &["meson_options.txt", "meson.options"]);
    let native = if conan { " --native-file .kiln/conan/conan_meson_native.ini" } else { "" };
    Tool {
        name: "meson",
        because: match options {
            Some(options) => format!("`meson.build` is a Meson project with `{options}`"),
            None => "`meson.build` is a Meson project".into(),
        },
        run: format!(
            "meson setup .kiln/build --buildtype=release --prefix=/usr/local --wrap-mode=nodownload{native}\n\
             meson compile -C .kiln/build\nmkdir -p {OUT}\n\
             DESTDIR=/build/{OUT} meson install -C .kiln/build --no-rebuild\n\
             {}",
            collect_if_empty()
        ),
        tools: strings(["meson", "ninja", "cc"]),
    }
}

fn configure(path: &str) -> Tool {
    let generate = if path == "configure" { "" } else { "autoreconf -fi\n" };
    let mut tools = strings(["make", "cc"]);
    if path != "configure" {
        tools.push("autoreconf".into());
    }
    Tool {
        name: "configure",
        because: format!("`{path}` is an Autoconf project"),
        run: format!(
            "{generate}./configure --prefix=/usr/local\nmake -j \"$(nproc)\"\nmkdir -p {OUT}\n\
             make DESTDIR=/build/{OUT} install\n{}",
            collect_if_empty()
        ),
        tools,
    }
}

fn make(source: &dyn Source, path: &str) -> Tool {
    let text = tree::text(source, path).unwrap_or_default();
    let target = text.lines().any(|line| line.starts_with("install") && line[7..].trim_start().starts_with(':'));
    let (because, install) = if target && stages_by_destdir(&text) {
        let install = format!("make DESTDIR=/build/{OUT} PREFIX=/usr/local prefix=/usr/local install\n");
        (format!("`{path}` is built by Make, and has an `install` that knows `DESTDIR`"), install)
    } else {
        (
            format!(
                "`{path}` is built by Make; without an `install` that knows `DESTDIR`, its executables are collected"
            ),
            String::new(),
        )
    };
    Tool {
        name: "make",
        because,
        run: format!("make -j \"$(nproc)\"\nmkdir -p {OUT}\n{install}{}", collect_if_empty()),
        tools: strings(["make", "cc"]),
    }
}

/// Whether `DESTDIR` goes before every path that is installed to, and is not the makefile's own name for one of them.
fn stages_by_destdir(makefile: &str) -> bool {
    let assigned = makefile.lines().filter_map(|line| {
        let (name, value) = line.trim_start().split_once('=')?;
        (name.trim_end_matches([':', '?', '+', '!', ' ', '\t']) == "DESTDIR").then(|| value.trim())
    });
    let is_a_place = |value: &str| !value.is_empty() && !value.starts_with('#');
    makefile.contains("DESTDIR") && !assigned.into_iter().any(is_a_place)
}

fn collect_if_empty() -> String {
    format!("if [ -z \"$(find {OUT} -type f | head -n 1)\" ]; then\n{COLLECT_EXECUTABLES}fi\n{}", refuse_empty(NOTHING))
}
