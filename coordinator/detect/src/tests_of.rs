//! The project's own tests, as steps that only `kiln test` runs.
//!
//! A test step is derived from the build's steps: it needs the same dependencies, and runs the tool's own test command
//! on the whole tree. Dependencies that only tests need are a separate dependency layer. Invariant: the build's own
//! steps are not changed, so that tests cannot affect what is built.

use super::{
    Detected,
    found::{fetch_step, strings},
    go,
    python::PACKAGE,
    tree,
};
use kiln_plan::{PRINTED, Source, Step};

/// Name of the step that runs the tests.
const TEST: &str = "test";
/// Name of the layer with dependencies that only tests need.
const LAYER: &str = "test-deps";

/// Adds the steps that run the project's tests, if it has any.
pub(super) fn append(source: &dyn Source, found: &mut Detected) {
    let language = found.language.split(' ').next().unwrap_or_default();
    let tests = match language {
        "rust" => rust(found),
        "go" => golang(source, found),
        "c" => c(source, found),
        "node" => node(source, found),
        "python" => python(source, found),
        "deno" => deno(source, found),
        "php" => php(source, found),
        "zig" => zig(source, found),
        _ => Vec::new(),
    };
    let is_taken = |test: &Step| found.steps.iter().any(|step| step.name == test.name);
    if !tests.iter().any(is_taken) {
        found.steps.extend(tests.into_iter().map(|step| Step { test: true, ..step }));
    }
}

fn step<'a>(found: &'a Detected, name: &str) -> Option<&'a Step> {
    found.steps.iter().find(|step| step.name == name)
}

/// A step like `of`, on the whole tree and without outputs.
fn test_like(of: &Step, why: &str, run: String) -> Step {
    Step {
        name: TEST.to_owned(),
        why: why.to_owned(),
        run,
        inputs: Vec::new(),
        unversioned: Vec::new(),
        reports: Vec::new(),
        retries: 0,
        files: Default::default(),
        outputs: Vec::new(),
        shards: 1,
        shards_auto: false,
        // A new commit with the same sources is no reason to run passed tests again.
        stamp: false,
        ..of.clone()
    }
}

/// A step whose tests are read from what it prints.
fn printing(step: Step) -> Step {
    Step { reports: strings([PRINTED]), ..step }
}

/// A step whose tests are in a file of this name, which it writes.
fn reporting(step: Step, file: &str) -> Step {
    Step { outputs: strings([file]), reports: strings([file]), ..step }
}

/// `cargo test`, with the dependencies compiled for its profile.
fn rust(found: &Detected) -> Vec<Step> {
    const TARGET: &str = ".kiln/test-target";
    let Some(compile) = step(found, "compile") else { return Vec::new() };
    let Some(command) = compile.run.lines().find(|line| line.contains("cargo build --release")) else {
        return Vec::new();
    };
    let for_tests = |text: &str| text.replace("cargo build --release", "cargo test");
    let mut test = printing(test_like(compile, "runs `cargo test`", for_tests(command)));
    test.env.insert("CARGO_TARGET_DIR".into(), format!("/build/{TARGET}"));
    let Some(deps) = step(found, "deps") else { return vec![test] };
    let run = deps.run.replace("cargo build --release", "cargo test --no-run");
    let mut layer = Step {
        name: LAYER.into(),
        why: "compiles the dependencies as `cargo test` does, including those that only tests need".into(),
        run: run.replace("cargo clean --release", "cargo clean"),
        outputs: strings([TARGET]),
        ..deps.clone()
    };
    layer.env.insert("CARGO_TARGET_DIR".into(), format!("/build/{TARGET}"));
    test.needs.retain(|need| *need != deps.name);
    test.needs.push(layer.name.clone());
    vec![layer, test]
}

/// `go test -v ./...` in each module: without `-v`, it tells of packages only. It compiles with other flags than the build, so it has its own layer.
fn golang(source: &dyn Source, found: &Detected) -> Vec<Step> {
    use go::TEST_CACHE as CACHE;
    let Some(compile) = step(found, "compile") else { return Vec::new() };
    if tree::named(source, |name| name.ends_with("_test.go")).iter().all(|path| path.starts_with("vendor/")) {
        return Vec::new();
    }
    let mut directories = tree::text(source, "go.work").as_deref().map_or(vec![String::new()], go::used);
    let is_wanted = |directory: &String| source.member() == Some(directory);
    if directories.iter().any(is_wanted) {
        directories.retain(is_wanted);
    }
    let run: Vec<String> = directories
        .iter()
        .map(|directory| match directory.as_str() {
            "" => "go test -v ./...".to_owned(),
            directory => format!("(cd {} && go test -v ./...)", tree::shell_word(directory)),
        })
        .collect();
    let mut test = printing(test_like(compile, "runs `go test`", run.join("\n")));
    test.env.insert("GOCACHE".into(), format!("/build/{CACHE}"));
    let is_layer = |step: &&Step| step.name != compile.name && step.run.contains(go::FLAGS);
    let renamed = |name: &String| match step(found, name).filter(is_layer) {
        Some(layer) => format!("test-{}", layer.name),
        None => name.clone(),
    };
    test.needs = test.needs.iter().map(renamed).collect();
    let layers = found.steps.iter().filter(is_layer).map(|layer| {
        let mut clone = Step {
            name: renamed(&layer.name),
            why: format!("{}, as `go test` needs it", layer.why),
            needs: layer.needs.iter().map(renamed).collect(),
            run: layer.run.replace(go::FLAGS, "-buildvcs=false").replace(go::CACHE, CACHE),
            outputs: layer.outputs.iter().map(|path| path.replace(go::CACHE, CACHE)).collect(),
            ..layer.clone()
        };
        clone.env.insert("GOCACHE".into(), format!("/build/{CACHE}"));
        clone
    });
    layers.chain([test]).collect()
}

/// `ctest`, `meson test`, or Make's own target.
fn c(source: &dyn Source, found: &Detected) -> Vec<Step> {
    let Some(compile) = step(found, "compile") else { return Vec::new() };
    // The build's own configure command, so that tests are configured like the build.
    let configured = |begin: &str| -> String {
        let command = compile.run.find(begin).map_or(begin, |at| compile.run.split_at(at).1);
        let line = command.lines().next().unwrap_or_default();
        ["; then", " && "].iter().fold(line, |line, end| line.split(end).next().unwrap_or_default()).to_owned()
    };
    let text = |path: &str| tree::text(source, path).unwrap_or_default();
    let (why, run) = if found.language.contains("cmake") {
        let listed = text("CMakeLists.txt").to_ascii_lowercase();
        let calls: String = listed.chars().filter(|c| !c.is_whitespace()).collect();
        if !calls.contains("enable_testing(") && !calls.contains("include(ctest)") {
            return Vec::new();
        }
        // The build disables tests and changes nothing else.
        let configure = configured("cmake -S . -B .kiln/build").replace("=OFF", "=ON");
        let build = format!("{configure}\ncmake --build .kiln/build -j \"${{KILN_JOBS:-$(nproc)}}\"\n");
        ("runs `ctest`", format!("{build}cd .kiln/build\nctest --output-on-failure"))
    } else if found.language.contains("meson") {
        let below = tree::named(source, |name| name == "meson.build");
        let is_below = below.iter().any(|path| path.starts_with("test/") || path.starts_with("tests/"));
        if !is_below && !text("meson.build").lines().any(|line| line.trim_start().starts_with("test(")) {
            return Vec::new();
        }
        let build = format!("{}\nmeson compile -C .kiln/build\n", configured("meson setup .kiln/build"));
        ("runs `meson test`", format!("{build}meson test -C .kiln/build --no-rebuild --print-errorlogs"))
    } else if found.language.contains("configure") {
        // Automake's makefiles always have a `check` target.
        if !tree::has(source, "Makefile.am") {
            return Vec::new();
        }
        let generate = if tree::has(source, "configure") { "" } else { "autoreconf -fi\n" };
        let build = format!(
            "{generate}{}\nmake -j \"${{KILN_JOBS:-$(nproc)}}\"\n",
            configured("./configure --prefix=/usr/local")
        );
        ("runs `make check`", format!("{build}make check"))
    } else {
        let Some(path) = tree::first_of(source, &["GNUmakefile", "makefile", "Makefile"]) else { return Vec::new() };
        let makefile = text(path);
        let has = |target: &str| {
            makefile.lines().filter_map(|line| line.strip_prefix(target)).any(|rest| {
                let rest = rest.trim_start();
                rest.starts_with(':') && !rest.starts_with(":=") && !rest.starts_with("::=")
            })
        };
        match ["check", "test"].into_iter().find(|target| has(target)) {
            Some("check") => ("runs `make check`", "make\nmake check".to_owned()),
            Some(_) => ("runs `make test`", "make\nmake test".to_owned()),
            None => return Vec::new(),
        }
    };
    let test = test_like(compile, why, run);
    vec![match why {
        "runs `ctest`" => printing(test),
        "runs `meson test`" => reporting(test, ".kiln/build/meson-logs/testlog.junit.xml"),
        _ => test,
    }]
}

/// The package manager's `test`, after the scripts that a build runs.
fn node(source: &dyn Source, found: &Detected) -> Vec<Step> {
    let tool = found.language.split(['(', ')']).nth(1).unwrap_or("npm");
    let script = |directory: &str, name: &str| -> Option<String> {
        let path = tree::join(directory, "package.json")?;
        let manifest = tree::json(source, &path).ok()??;
        Some(manifest.get("scripts")?.get(name)?.as_str()?.to_owned())
    };
    let tests = |directory: &str| script(directory, "test").is_some_and(|test| !test.contains("no test specified"));
    // `bun test` is Bun's own runner, whatever the script says.
    let run_test = if tool == "bun" { "bun run test".to_owned() } else { format!("{tool} test") };
    let within = |directory: &str| format!("(cd {} && {run_test})", tree::shell_word(directory));
    let commands: Vec<String> = if let Some(member) = source.member() {
        tests(member).then(|| within(member)).into_iter().collect()
    } else if tests("") {
        vec![run_test.clone()]
    } else {
        super::node_manifests(source)
            .iter()
            .map(|path| tree::parent(path))
            .filter(|directory| !directory.is_empty() && tests(directory))
            .map(within)
            .collect()
    };
    let Some(last) = found.steps.last().filter(|_| !commands.is_empty()) else { return Vec::new() };
    // The scripts that a build runs, and the environment that they need.
    let begins = [format!("{tool} run "), "(cd ".to_owned(), "export PATH".to_owned(), "pnpm --".to_owned()];
    let is_script = |line: &&str| begins.iter().any(|begin| line.starts_with(begin)) || line.contains("chmod +x");
    let mut run: Vec<String> = match step(found, "build") {
        Some(_) => Vec::new(),
        None => last.run.lines().filter(is_script).map(str::to_owned).collect(),
    };
    run.extend(commands);
    let mut test = test_like(last, &format!("runs `{run_test}`"), run.join("\n"));
    test.needs = ["deps", "build"].into_iter().filter(|name| step(found, name).is_some()).map(String::from).collect();
    if source.member().is_some() {
        // Patterns that exclude packages which the member does not need.
        test.inputs = last.inputs.clone();
    }
    vec![test]
}

/// Deno's own runner, or the task `test`.
fn deno(source: &dyn Source, found: &Detected) -> Vec<Step> {
    const REPORT: &str = ".kiln/reports/deno.xml";
    let (Some(build), Some(run)) = (step(found, "build"), super::deno::test_command(source, REPORT)) else {
        return Vec::new();
    };
    let is_own = run.contains(REPORT);
    let why = if is_own { "runs `deno test`" } else { "runs the task `test`" };
    let run = if is_own { format!("mkdir -p .kiln/reports\n{run}") } else { run };
    let mut test = test_like(build, why, run);
    test.files = build.files.clone();
    vec![if is_own { reporting(test, REPORT) } else { test }]
}

/// The script `test`, or PHPUnit where it is configured.
fn php(source: &dyn Source, found: &Detected) -> Vec<Step> {
    let (Some(bundle), Some((layer, run))) = (step(found, "bundle"), super::php::tests(source, LAYER)) else {
        return Vec::new();
    };
    let mut test = test_like(bundle, "runs the project's tests", run);
    test.needs = layer.iter().map(|layer| layer.name.clone()).collect();
    layer.into_iter().chain([test]).collect()
}

/// The step `test` of `build.zig`.
fn zig(source: &dyn Source, found: &Detected) -> Vec<Step> {
    let (Some(compile), Some(run)) = (step(found, "compile"), super::zig::test_command(source)) else {
        return Vec::new();
    };
    vec![test_like(compile, "runs `zig build test`", run)]
}

/// `pytest` if a lock file or a list of requirements names it, otherwise the standard library's `unittest`.
fn python(source: &dyn Source, found: &Detected) -> Vec<Step> {
    const PACKAGES: &str = ".kiln/test-packages";
    const REPORT: &str = ".kiln/reports/pytest.xml";
    let Some(last) = found.steps.last() else { return Vec::new() };
    let is_test = |name: &str| name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"));
    let member = source.member().map(|member| format!("{member}/"));
    let is_own = |path: &String| member.as_ref().is_none_or(|member| path.starts_with(member.as_str()));
    if !tree::named(source, is_test).iter().any(is_own) {
        return Vec::new();
    }
    let layer = python_layer(source, found, PACKAGES);
    // An installed package is tested as installed, others from their sources.
    let bundle = step(found, "bundle").filter(|bundle| bundle.run.contains("--no-build-isolation"));
    let (mut needs, place) = match (bundle, step(found, "deps")) {
        (Some(bundle), _) => {
            (vec![bundle.name.clone()], "/build/.kiln/out:/build/.kiln/out/packages:/build/.kiln/out/site-packages")
        }
        (None, Some(deps)) => (vec![deps.name.clone()], "/build:/build/.kiln/packages"),
        (None, None) => (Vec::new(), "/build"),
    };
    let (why, run) = match &layer {
        Some(_) => ("runs `pytest`", format!("python3 -m pytest -p no:cacheprovider --junit-xml=/build/{REPORT}")),
        None => ("runs `python3 -m unittest`", "python3 -m unittest discover -v".to_owned()),
    };
    let run = match source.member() {
        Some(member) => format!("cd {}\n{run}", tree::shell_word(member)),
        None => run,
    };
    let mut test = test_like(last, why, run);
    test = if layer.is_some() { reporting(test, REPORT) } else { printing(test) };
    needs.extend(layer.iter().map(|layer| layer.name.clone()));
    test.needs = needs;
    test.env.insert("PYTHONPATH".into(), format!("{place}:/build/{PACKAGES}"));
    test.tools = strings(["python3"]);
    layer.into_iter().chain([test]).collect()
}

/// The step that installs `pytest` and everything else the tests need; `None` if nothing names it.
fn python_layer(source: &dyn Source, found: &Detected, packages: &str) -> Option<Step> {
    let names_pytest = |path: &str| tree::text(source, path).is_some_and(|text| text.contains("pytest"));
    if found.language.contains("pipenv") {
        let (run, files) = super::python::pipenv::for_tests(source, packages)?;
        let mut step = fetch_step(LAYER, "installs what the tests need too", run);
        // Empty inputs would mean the whole tree.
        step.inputs = strings(["!**"]);
        step.env = found.steps.last().map(|step| step.env.clone()).unwrap_or_default();
        (step.files, step.outputs, step.tools) = (files, strings([packages]), strings(["python3"]));
        return Some(step);
    }
    let deps = step(found, "deps");
    let of_lock = |lock: &str, only: &str| {
        let deps = deps.filter(|deps| names_pytest(lock) && deps.run.contains(only))?;
        Some(deps.run.replace(only, "").replace(".kiln/packages", packages))
    };
    // Tests need what their own package lists for them, or what the workspace's root lists for all.
    let member = source.member().map(|member| format!("{member}/pyproject.toml"));
    let of_workspace = |run: String| match member.as_deref().is_some_and(|manifest| !names_pytest(manifest)) {
        true => run.lines().map(with_all_packages).collect(),
        false => run,
    };
    let locked = of_lock("uv.lock", " --no-dev").map(of_workspace).or_else(|| of_lock("poetry.lock", " --only main"));
    let why = "installs the tests' dependencies in addition to the project's";
    if let (Some(run), Some(deps)) = (locked, deps) {
        let step = Step { name: LAYER.into(), why: why.into(), run, outputs: strings([packages]), ..deps.clone() };
        return Some(step);
    }
    let of_tests = |name: &str| {
        let is_list = name.ends_with(".txt");
        is_list && ["dev", "test"].iter().any(|word| name.contains(word)) && name.contains("requirements")
    };
    let below = |path: &str| {
        path.starts_with("requirements/") && ["dev", "test"].iter().any(|word| tree::base(path).starts_with(word))
    };
    let listed = source.paths().iter().filter(|path| of_tests(tree::base(path)) || below(path)).cloned();
    let listed: Vec<String> = listed.chain(["requirements.txt".to_owned()]).filter(|path| names_pytest(path)).collect();
    let wanted = match listed.first() {
        Some(list) => format!("-r {}", tree::shell_word(list)),
        None => declared(source)?.iter().map(|want| tree::shell_word(want)).collect::<Vec<_>>().join(" "),
    };
    let install = "python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore";
    let mut step = fetch_step(LAYER, why, format!("{install} --target {packages} {wanted}"));
    step.inputs = source
        .paths()
        .iter()
        .filter(|path| tree::base(path).contains("requirements") || path.starts_with("requirements/"))
        .filter(|path| path.ends_with(".txt") || path.ends_with(".in"))
        .cloned()
        .collect();
    if step.inputs.is_empty() {
        // Empty inputs would mean the whole tree.
        step.inputs = strings(["!**"]);
    }
    step.env = deps.or(found.steps.last()).map(|step| step.env.clone()).unwrap_or_default();
    (step.outputs, step.tools) = (strings([packages]), strings(["python3"]));
    Some(step)
}

/// A line of a layer, with `uv sync` for one workspace member changed to all members.
fn with_all_packages(line: &str) -> String {
    let changed = line.split_once(PACKAGE).map(|(before, after)| {
        format!("{before} --all-packages{}", after.find(' ').map_or("", |end| after.split_at(end).1))
    });
    changed.unwrap_or_else(|| line.to_owned()) + "\n"
}

/// The group or extra in `pyproject.toml` that contains `pytest`.
fn declared(source: &dyn Source) -> Option<Vec<String>> {
    let root = tree::toml(source, "pyproject.toml").ok()??;
    let extras = root.get("project").and_then(|project| project.get("optional-dependencies"));
    let groups = [root.get("dependency-groups"), extras].into_iter().flatten().filter_map(toml::Value::as_table);
    let lists = groups.flat_map(|groups| groups.values()).filter_map(toml::Value::as_array);
    let mut lists = lists.map(|list| list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect::<Vec<_>>());
    lists.find(|list| list.iter().any(|want| want.starts_with("pytest")))
}
