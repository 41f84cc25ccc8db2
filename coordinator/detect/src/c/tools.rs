//! The tool that builds the project, and its commands.
//!
//! Invariant: everything that a tool installs is below the staging directory; if a project supports two tools, the
//! second is used if the first cannot configure it.

use super::super::{found::strings, staging::OUT, tree};
use super::{BESIDE, downloads::Downloads, makefile};
use kiln_plan::Source;

const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];

/// A tool, and how it builds this project.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) because: Vec<String>,
    pub(super) run: String,
    pub(super) tools: Vec<String>,
}

/// How one tool builds: its commands up to the first that compiles, and the rest.
struct Way {
    name: &'static str,
    because: String,
    configure: String,
    build: String,
    tools: Vec<String>,
}

/// Chooses the tool for the project in the root of the tree.
pub(super) fn choose(source: &dyn Source, conan: bool, found: &Downloads) -> Option<Tool> {
    let mut ways: Vec<Way> = Vec::new();
    // A `configure` in the tree is what its authors release; generating one requires more tools.
    if tree::has(source, "configure") {
        ways.push(configure("configure"));
    }
    if tree::has(source, "CMakeLists.txt") {
        ways.push(cmake(source, conan, found));
    }
    if tree::has(source, "meson.build") {
        ways.push(meson(source, conan));
    }
    if let Some(path) = tree::first_of(source, &["configure.ac", "configure.in"]).filter(|_| ways.is_empty()) {
        ways.push(configure(path));
    }
    if let Some(path) = tree::first_of(source, &MAKEFILES).filter(|_| ways.is_empty()) {
        return Some(make(source, path));
    }
    if conan {
        ways.retain(|way| way.name != "configure" || !tree::has(source, "CMakeLists.txt"));
    }
    let mut ways = ways.into_iter();
    let first = ways.next()?;
    let mut because = vec![first.because];
    let run = match ways.next() {
        None => format!("{}\n{}", first.configure, first.build),
        Some(second) => {
            because.push(format!("{}, and is used if {} cannot configure the project", second.because, first.name));
            let missing = second.tools.iter().map(|tool| format!("command -v {tool} > /dev/null && "));
            format!(
                "if {}; then\n{}elif {}rm -rf .kiln/build && {}; then\n    \
                 note '{} could not configure the project, so that {} built it'\n{}else\n    exit 1\nfi\n",
                joined(&first.configure),
                indented(&first.build),
                missing.collect::<String>(),
                joined(&second.configure),
                first.name,
                second.name,
                indented(&second.build),
            )
        }
    };
    Some(Tool { name: first.name, because, run, tools: first.tools })
}

fn joined(commands: &str) -> String {
    commands.lines().collect::<Vec<_>>().join(" && ")
}

fn indented(commands: &str) -> String {
    commands.lines().map(|line| format!("    {line}\n")).collect()
}

/// Whether Meson's wraps name subprojects.
pub(super) fn has_wraps(source: &dyn Source) -> bool {
    source.paths().iter().any(|p| p.starts_with("subprojects/") && p.ends_with(".wrap"))
}

/// CMake's arguments for configuring, in every step that does.
pub(super) fn cmake_arguments(conan: bool) -> String {
    let toolchain = if conan { " -DCMAKE_TOOLCHAIN_FILE=/build/.kiln/conan/conan_toolchain.cmake" } else { "" };
    format!(
        "-DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local -DCMAKE_INSTALL_RPATH='{BESIDE};{BESIDE}64'{toolchain}"
    )
}

/// The options of a CMake project that enable its tests: these are not part of the artifact, and often need more than
/// the project itself.
fn test_options(source: &dyn Source) -> Vec<String> {
    let text = tree::text(source, "CMakeLists.txt").unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let lower = line.to_ascii_lowercase();
        if !lower.starts_with("option(")
            && !lower.starts_with("option (")
            && !lower.starts_with("cmake_dependent_option(")
        {
            continue;
        }
        let name = line.split('(').nth(1).unwrap_or_default().split_whitespace().next().unwrap_or_default();
        let last = name.rsplit('_').next().unwrap_or_default();
        if matches!(last, "TEST" | "TESTS" | "TESTING" | "UNITTESTS") && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let by_ctest = text.lines().any(|line| line.trim_start().to_ascii_lowercase().starts_with("include(ctest)"));
    if (by_ctest || text.contains("BUILD_TESTING")) && !names.iter().any(|name| name == "BUILD_TESTING") {
        names.push("BUILD_TESTING".to_owned());
    }
    names
}

fn cmake(source: &dyn Source, conan: bool, found: &Downloads) -> Way {
    let fetched = if found.contents {
        " -DFETCHCONTENT_BASE_DIR=\"$PWD/.kiln/fetched\" -DFETCHCONTENT_FULLY_DISCONNECTED=ON"
    } else {
        ""
    };
    let tests: String = test_options(source).iter().map(|name| format!(" -D{name}=OFF")).collect();
    Way {
        name: "cmake",
        because: "`CMakeLists.txt` is a CMake project".into(),
        configure: format!("with_plain_compilers cmake -S . -B .kiln/build {}{tests}{fetched}", cmake_arguments(conan)),
        build: format!(
            "in_parallel cmake --build .kiln/build\n\
             rootless env DESTDIR=\"$PWD/{OUT}\" cmake --install .kiln/build\nnote_installed_twice\n"
        ),
        tools: strings(["cmake", "make", "cc"]),
    }
}

fn meson(source: &dyn Source, conan: bool) -> Way {
    let options = tree::first_of(source, &["meson_options.txt", "meson.options"]);
    let native = if conan { " --native-file .kiln/conan/conan_meson_native.ini" } else { "" };
    Way {
        name: "meson",
        because: match options {
            Some(options) => format!("`meson.build` is a Meson project with `{options}`"),
            None => "`meson.build` is a Meson project".into(),
        },
        configure: format!(
            "meson setup .kiln/build --buildtype=release --prefix=/usr/local --libdir=lib --wrap-mode=nodownload -Db_colorout=always{native}"
        ),
        build: format!(
            "in_parallel meson compile -C .kiln/build\n\
             rootless env DESTDIR=\"$PWD/{OUT}\" meson install -C .kiln/build --no-rebuild\n"
        ),
        tools: strings(["meson", "ninja", "cc"]),
    }
}

fn configure(path: &str) -> Way {
    let is_there = path == "configure";
    let mut tools = strings(["make", "cc"]);
    if !is_there {
        tools.push("autoreconf".into());
    }
    let kind = if is_there { "is a configure script" } else { "is an Autoconf project" };
    Way {
        name: "configure",
        because: format!("`{path}` {kind}"),
        configure: format!("{}./configure --prefix=/usr/local", if is_there { "" } else { "autoreconf -fi\n" }),
        build: format!("in_parallel make\ninstall_configured make DESTDIR=\"$PWD/{OUT}\"\n"),
        tools,
    }
}

/// Installs, if the Makefile can. If it does not support `DESTDIR`, what it would write to the system is kept below the
/// staging directory too.
fn install_step(make: &str, stages: bool) -> String {
    match stages {
        true => format!("if has_install {make}; then rootless {make} install; fi\n"),
        false => format!("if has_install {make}; then install_below {make}; fi\n"),
    }
}

fn make(source: &dyn Source, path: &str) -> Tool {
    let text = tree::text(source, path).unwrap_or_default();
    let stages = makefile::stages(&text);
    let prefix = makefile::prefix(&text);
    let destdir = if makefile::names_a_place(&text) { String::new() } else { format!(" DESTDIR=\"$PWD/{OUT}\"") };
    let because = match stages {
        true => format!("`{path}` is built by Make, and knows `DESTDIR`"),
        false => format!("`{path}` is built by Make"),
    };
    Tool {
        name: "make",
        because: vec![because],
        run: format!("in_parallel make{prefix}\n{}", install_step(&format!("make{destdir}{prefix}"), stages)),
        tools: strings(["make", "cc"]),
    }
}
