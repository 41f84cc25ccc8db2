//! The steps of a Python project: its layer, and the bundle of the project with its packages.
//!
//! Invariant: an archive runs wherever it is unpacked, with the system's Python and without setting a variable.

use super::{
    super::{
        found::{fetch_step, strings},
        staging::{OUT, move_tree},
        tree,
    },
    BACKEND, PACKAGES, crates,
    layers::{self, Layer, PIP_INSTALL},
    local::Local,
    stamp,
};
use kiln_plan::{Source, Step};

/// The requirements that build backends report for their packages.
pub(super) const REQUIRED: &str = ".kiln/required.txt";
/// Packages built from the tree.
const OWN: &str = ".kiln/own";

const ARRANGE: (&str, &str) = (".kiln/arrange.py", include_str!("scripts/arrange.py"));
const REQUIRES: (&str, &str) = (".kiln/requires.py", include_str!("scripts/requires.py"));

/// Packages built with the same tools.
struct Group<'a> {
    directory: String,
    requires: &'a [String],
    locals: Vec<&'a Local>,
}

fn groups(locals: &[Local]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for local in locals {
        match groups.iter_mut().find(|g| g.requires == local.backend.as_slice()) {
            Some(group) => group.locals.push(local),
            None => groups.push(Group { directory: String::new(), requires: &local.backend, locals: vec![local] }),
        }
    }
    let several = groups.len() > 1;
    for (number, group) in (1_usize..).zip(groups.iter_mut()) {
        group.directory = if several { format!("{BACKEND}/{number}") } else { BACKEND.to_owned() };
    }
    groups
}

/// The steps for a layer and its bundle, in order.
pub(super) fn steps(source: &dyn Source, layer: &Layer) -> Vec<Step> {
    let groups = groups(&layer.locals);
    let install: String = groups
        .iter()
        .filter(|group| !group.requires.is_empty())
        .map(|group| {
            let words: Vec<String> = group.requires.iter().map(|r| tree::shell_word(r)).collect();
            format!("{PIP_INSTALL} --target {} {}\n", group.directory, words.join(" "))
        })
        .collect();
    let mut steps: Vec<Step> = Vec::new();
    let why = format!("installs what {} names, into a directory of its own", layer.named);
    if layer.asks_backends {
        steps.push(backend(&install));
        steps.push(requires(source, &groups));
        let mut deps = deps(source, layer, &why, &format!("mkdir -p {PACKAGES}\n{}", layer.run));
        (deps.needs, deps.outputs) = (strings(["requires"]), strings([PACKAGES]));
        steps.push(deps);
    } else if !layer.run.is_empty() || !install.is_empty() {
        let run = format!("mkdir -p {PACKAGES} {BACKEND}\n{}{install}", layer.run);
        let mut deps = deps(source, layer, &why, &run);
        deps.outputs = strings([PACKAGES, BACKEND]);
        steps.push(deps);
    }
    let mut bundle = bundle(source, layer, &groups, steps.iter().map(|s| s.name.clone()).collect());
    if let Some(crates) = crates::step(source, &layer.locals) {
        steps.push(crates);
        steps.iter_mut().filter(|step| step.name == "requires").for_each(crates::give);
        crates::give(&mut bundle);
    }
    steps.push(bundle);
    steps
}

fn backend(install: &str) -> Step {
    let why = "installs the tools that build the project";
    let mut step = fetch_step("backend", why, format!("mkdir -p {BACKEND}\n{install}"));
    // Empty inputs would mean the whole tree.
    (step.inputs, step.env, step.outputs) = (strings(["!**"]), layers::variables(), strings([BACKEND]));
    step.tools = strings(["python3"]);
    step
}

/// Has no network access, because it sees the sources. Its output rarely changes, and the layer depends only on that.
fn requires(source: &dyn Source, groups: &[Group<'_>]) -> Step {
    let packages = groups.iter().flat_map(|group| {
        group.locals.iter().map(|local| {
            let extras = match local.extras.is_empty() {
                true => String::new(),
                false => format!("[{}]", local.extras.join(",")),
            };
            tree::shell_word(&format!("{}{extras}={}", local.path(), group.directory))
        })
    });
    let packages: Vec<String> = packages.collect();
    let run = format!("python3 {} {REQUIRED} {}\n", REQUIRES.0, packages.join(" "));
    let mut step = Step::new("requires", run);
    step.why = "asks the build backends what the packages of the tree need to run".into();
    step.needs = strings(["backend"]);
    step.files.insert(REQUIRES.0.into(), REQUIRES.1.into());
    (step.env, step.tools, step.outputs) = (layers::variables(), strings(["python3"]), strings([REQUIRED]));
    stamp::tell(&mut step, source, groups.iter().flat_map(|g| g.locals.iter().copied()));
    step
}

fn deps(source: &dyn Source, layer: &Layer, why: &str, run: &str) -> Step {
    let mut step = fetch_step("deps", why, run);
    (step.inputs, step.unversioned) = (layer.inputs.clone(), layer.unversioned.clone());
    step.files = layer.files.clone();
    step.inputs.extend(tree::all_of(source, &[".python-version"]));
    if step.inputs.is_empty() {
        step.inputs = strings(["!**"]);
    }
    (step.env, step.tools) = (layers::variables(), layer.tools.clone());
    step
}

/// With sources: these in the root, the packages in a subdirectory, and links to packages and commands where Python and
/// people look for them. Without: everything importable in the root, commands in `bin`.
fn bundle(source: &dyn Source, layer: &Layer, groups: &[Group<'_>], needs: Vec<String>) -> Step {
    let layered = !needs.is_empty();
    let mut run = String::new();
    if layer.sources {
        // What a build writes among its sources stays out of the archive.
        let (take, built) = match layer.directory.as_str() {
            "" => (move_tree(&[]), format!("cp -a {OUT} .kiln/tree\n{}", build(groups, ".kiln/tree"))),
            member => {
                let member = tree::shell_word(&format!("{member}/."));
                (format!("mkdir -p {OUT}\ncp -a {member} {OUT}/\n"), build(groups, "."))
            }
        };
        run.push_str(&take);
        if !groups.is_empty() {
            run.push_str(&built);
            run.push_str(&format!("ls -A {OWN} > {OWN}.txt\nmkdir -p {PACKAGES}\ncp -a {OWN}/. {PACKAGES}/\n"));
        }
        if layered || !groups.is_empty() {
            // The project may have a directory with that name.
            let packages = tree::join(&layer.directory, "packages").unwrap_or_default();
            let name = if tree::has_directory(source, &packages) { "site-packages" } else { "packages" };
            run.push_str(&format!("mv {PACKAGES} {OUT}/{name}\npython3 {} {OUT} {name} {OWN}.txt\n", ARRANGE.0));
        }
    } else {
        run.push_str(&format!("mkdir -p {PACKAGES} {OUT}\n{}", build(groups, ".")));
        run.push_str(&format!("cp -a {PACKAGES}/. {OUT}/\ncp -a {OWN}/. {OUT}/\npython3 {} {OUT}\n", ARRANGE.0));
    }
    // A package may contain files for other Python versions, which this one cannot compile.
    run.push_str(&format!(
        "find {OUT} -name __pycache__ -prune -exec rm -rf {{}} +\n\
         python3 -m compileall -q -s {OUT} --invalidation-mode unchecked-hash {OUT} || true\n"
    ));
    let mut step = Step::new("bundle", run);
    step.inputs = layer.without.clone();
    step.why = match layer.sources {
        true => "combines the sources with their packages, with reproducible byte code".into(),
        false => "installs the project with its packages, with reproducible byte code".into(),
    };
    step.needs = needs.into_iter().filter(|need| need != "requires").collect();
    (step.env, step.tools, step.outputs) = (layers::variables(), strings(["python3"]), strings([OUT]));
    if step.run.contains(ARRANGE.0) {
        step.files.insert(ARRANGE.0.into(), ARRANGE.1.into());
    }
    stamp::tell(&mut step, source, groups.iter().flat_map(|g| g.locals.iter().copied()));
    step
}

/// Commands that build and collect the packages of the tree. pip replaces existing directories, so each group is
/// installed separately first.
fn build(groups: &[Group<'_>], tree_root: &str) -> String {
    let mut run = format!("mkdir -p {OWN}\n");
    for group in groups {
        let places: Vec<String> = group
            .locals
            .iter()
            .map(|local| match (tree_root, local.directory.is_empty()) {
                (".", _) => local.path(),
                (root, true) => format!("./{root}"),
                (root, false) => format!("./{root}/{}", local.directory),
            })
            .map(|place| tree::shell_word(&place))
            .collect();
        run.push_str(&format!(
            "PATH=\"$PWD/{0}/bin:$PATH\" PYTHONPATH=\"$PWD/{0}\" {PIP_INSTALL} --no-index --no-deps --no-build-isolation --target .kiln/built {1}\n\
             rm -f .kiln/built/*.dist-info/direct_url.json\ncp -a .kiln/built/. {OWN}/\nrm -rf .kiln/built\n",
            group.directory,
            places.join(" ")
        ));
    }
    run
}
