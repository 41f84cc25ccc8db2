//! Maven: `pom.xml`.
//!
//! `dependency:go-offline` misses what plugins resolve at run time and fetches what no build needs. So the layer is
//! filled by the build itself, run on the `pom.xml` files without any source. Invariant: it fails if something could
//! not be fetched, so that an incomplete repository is never cached.

use std::collections::BTreeSet;

use super::{
    super::{
        Detected, Identity,
        found::{COMPILER_MEMORY_BYTES, artifact, compile_step, fetch_step, strings},
        staging::OUT,
        tree::{self, literal},
    },
    gather, modules, stale,
};
use kiln_plan::{ArtifactKind, Source, View, xml};

const REPOSITORY: &str = "-Dmaven.repo.local=/build/.kiln/m2";
const FIXED_TIME: &str = "-Dproject.build.outputTimestamp=2000-01-01T00:00:00Z";
/// Packages each module, and writes its run-time class path to a file.
const PACKAGE: &str = "-DskipTests package org.apache.maven.plugins:maven-dependency-plugin:build-classpath \
                       -Dmdep.includeScope=runtime -Dmdep.outputFile=target/kiln-classpath";
/// Disables checks of sources, which are meaningless for stubs.
const NO_CHECKS: &str = "-Dcheckstyle.skip -Dspotless.check.skip -Dlicense.skip -Drat.skip -Dpmd.skip -Dcpd.skip \
                         -Dspotbugs.skip -Djacoco.skip -Dmaven.javadoc.skip";
/// Directories of `src/main` that code generators read.
const GENERATORS: [&str; 16] = [
    "antlr", "antlr3", "antlr4", "assembly", "avro", "cup", "filters", "graphql", "javacc", "jflex", "jjtree",
    "openapi", "proto", "protobuf", "wsdl", "xsd",
];

pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Option<Detected> {
    let root = tree::text(source, "pom.xml")?;
    let several = root.contains("<module>");
    let member = source.member().filter(|member| modules::maven_modules(source).iter().any(|module| module == member));
    // A module that only lists others stands for those.
    let wanted: Vec<String> = member
        .map(|member| std::iter::once(member.to_owned()).chain(modules::modules_below(source, member)).collect())
        .unwrap_or_default();
    let wrapper = tree::has(source, "mvnw");
    let maven = if wrapper { "sh ./mvnw -B" } else { "mvn -B" };
    let poms = tree::named(source, |name| name == "pom.xml");
    let mut key = poms.clone();
    key.extend(tree::has_directory(source, ".mvn").then(|| ".mvn".to_owned()));
    key.extend(wrapper.then(|| "mvnw".to_owned()));
    let local = local(source, &poms);
    key.extend(local.inputs);

    let why = "fills the local repository; keyed by the `pom.xml` files";
    let mut deps = fetch_step("deps", why, fill(maven, &stand_ins(source, &poms)));
    (deps.inputs, deps.unversioned, deps.outputs) = (key, poms.clone(), strings([".kiln/m2"]));
    deps.memory_bytes = COMPILER_MEMORY_BYTES;
    let mut build = compile_step(
        "compile",
        "compiles and packages the project without its tests",
        format!("{maven} -o {REPOSITORY} {FIXED_TIME}{} {PACKAGE}\n", projects(&wanted)),
    );
    for (module, jar) in local.jars {
        let list = tree::join(&module, "target/kiln-classpath").unwrap_or_default();
        let list = tree::shell_word(&list);
        let if_built = if wanted.is_empty() { String::new() } else { format!("[ ! -e {list} ] || ") };
        build.run.push_str(&format!("{if_built}echo \":$PWD/{jar}\" >> {list}\n"));
    }
    gather(&mut build, ".", &wanted);
    let directories: Vec<&str> = poms.iter().map(|pom| tree::parent(pom)).collect();
    build.inputs = stale(source, &directories, "target", |name| name == "pom.xml");
    build.inputs.extend(unneeded(source, &poms, &wanted));
    (build.needs, build.outputs) = (strings(["deps"]), strings([OUT]));
    for step in [&mut deps, &mut build] {
        step.tools = if wrapper { strings(["java", "javac"]) } else { strings(["mvn", "java", "javac"]) };
        if wrapper {
            step.env.insert("MAVEN_USER_HOME".into(), "/build/.kiln/maven-home".into());
        }
    }
    if wrapper {
        deps.outputs.push(".kiln/maven-home".into());
    }
    let mut because = vec![format!("`pom.xml` is a Maven project{}", if several { " of several modules" } else { "" })];
    let identity = match member {
        Some(member) => {
            because.push(format!("of its modules `{member}` is built, after those that it needs"));
            inherited(identity(&View::new(source, member)), &tree::text(source, &format!("{member}/pom.xml")))
        }
        None => identity(source),
    };
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Some(Detected {
        language: "java (maven)".into(),
        because,
        identity,
        steps: vec![deps, build],
        artifacts: vec![artifact(&name, ArtifactKind::Binary, "compile", &[(OUT, ".")])],
        notes: Vec::new(),
    })
}

/// Arguments that make Maven build only these modules and those that they need.
fn projects(modules: &[String]) -> String {
    if modules.is_empty() {
        return String::new();
    }
    format!(" -pl {} -am", tree::shell_word(&modules.join(",")))
}

/// Patterns that exclude the sources of modules that none of `wanted` needs. A module is needed if a `pom.xml` names it
/// for any purpose.
fn unneeded(source: &dyn Source, poms: &[String], wanted: &[String]) -> Vec<String> {
    let named: Vec<(String, Vec<String>)> = poms
        .iter()
        .map(|pom| {
            let text = tree::text(source, pom).unwrap_or_default();
            let own = xml::value(&text, &["project", "artifactId"]).unwrap_or_default().to_owned();
            let leaves = xml::leaves(&text);
            // A managed dependency is not a dependency yet.
            let names = leaves.iter().filter(|leaf| {
                let is_name = leaf.path.last() == Some(&"artifactId") && leaf.path.len() > 2;
                is_name && !leaf.path.contains(&"dependencyManagement")
            });
            (own, names.map(|leaf| leaf.value.trim().to_owned()).collect())
        })
        .collect();
    // A name with a property may be any.
    let is_open = |(own, names): &(String, Vec<String>)| [own].into_iter().chain(names).any(|name| name.contains('$'));
    if wanted.is_empty() || named.iter().any(is_open) {
        return Vec::new();
    }
    let is_wanted = |pom: &str| wanted.iter().any(|module| module == tree::parent(pom));
    let mut open: Vec<usize> = poms.iter().enumerate().filter(|(_, pom)| is_wanted(pom)).map(|(at, _)| at).collect();
    let mut needed: BTreeSet<usize> = open.iter().copied().collect();
    while let Some((_, names)) = open.pop().and_then(|at| named.get(at)) {
        let more = named.iter().enumerate().filter(|(_, (own, _))| names.contains(own)).map(|(at, _)| at);
        open.extend(more.filter(|other| needed.insert(*other)));
    }
    let others = poms.iter().enumerate().filter(|(at, _)| !needed.contains(at));
    let sources = others.filter_map(|(_, pom)| tree::join(tree::parent(pom), "src"));
    sources.filter(|path| tree::has_directory(source, path)).map(|path| format!("!{}", literal(&path))).collect()
}

/// The commands of the layer. A build without sources may stop because a plugin needs a class; it is then retried with
/// stubs for the sources, and finally Maven is asked to fetch what it can.
fn fill(maven: &str, stand_ins: &[String]) -> String {
    let stand_ins: Vec<String> = stand_ins.iter().map(|directory| tree::shell_word(directory)).collect();
    format!(
        "mkdir -p .kiln\n\
         attempt() {{\n    \
             rm -f .kiln/filled\n    \
             {{ {maven} {REPOSITORY} \"$@\" && touch .kiln/filled; }} 2>&1 | tee .kiln/attempt\n    \
             [ -e .kiln/filled ]\n\
         }}\n\
         # what cannot be fetched is the layer's failure, and no other\n\
         fetched() {{\n    \
             ! grep -qE 'Could not (resolve|transfer|find artifact)|could not be resolved|Unknown host' .kiln/attempt\n\
         }}\n\
         stand_in() {{\n    \
             for directory in {stand_ins}; do\n        \
                 mkdir -p \"$directory/kiln\"\n        \
                 echo 'package kiln; public final class Main {{ public static void main(String[] words) {{}} }}' \\\n            \
                     > \"$directory/kiln/Main.java\"\n    \
             done\n\
         }}\n\
         attempt -fae {PACKAGE} || {{ fetched && stand_in && attempt -fae {NO_CHECKS} {PACKAGE}; }} ||\n    \
             {{ fetched && attempt dependency:go-offline; }} || {{\n    \
             echo 'kiln: Maven cannot fetch everything from the pom.xml files alone: see above, or give the step that \
             compiles network = true in a kiln.toml' >&2\n    \
             exit 1\n\
         }}\n\
         # what differs from one run to the next\n\
         find .kiln/m2 \\( -name '*.lastUpdated' -o -name resolver-status.properties -o -name _remote.repositories \\) \\\n    \
         -delete\n",
        stand_ins = stand_ins.join(" "),
    )
}

/// The source directory of each module with sources.
fn stand_ins(source: &dyn Source, poms: &[String]) -> Vec<String> {
    let modules = poms.iter().map(|pom| tree::parent(pom));
    let sources = modules.filter_map(|module| tree::join(module, "src/main"));
    let with = sources.filter(|main| tree::has_directory(source, main));
    with.map(|main| format!("{main}/java")).collect()
}

/// Files of the tree that `pom.xml` files refer to.
struct Local {
    /// Files and directories that a build without sources needs: plugin configuration, inputs of generators,
    /// repositories.
    inputs: Vec<String>,
    /// Jars of scope `system`, with the module that needs each.
    jars: Vec<(String, String)>,
}

fn local(source: &dyn Source, poms: &[String]) -> Local {
    let mut inputs: BTreeSet<String> = BTreeSet::new();
    let mut jars = Vec::new();
    for pom in poms {
        let module = tree::parent(pom);
        let text = tree::text(source, pom).unwrap_or_default();
        for leaf in xml::leaves(&text) {
            let value = leaf.value.trim();
            let (directory, path) = match value.split_once("}/") {
                Some(("${project.basedir" | "${basedir" | "${pom.basedir", path)) => (module, path),
                Some(("${maven.multiModuleProjectDirectory" | "${session.executionRootDirectory", path)) => ("", path),
                _ => (module, value),
            };
            let url = value.strip_prefix("file:").map(|url| url.trim_start_matches('/'));
            let url = url.map(|url| url.trim_start_matches("${project.basedir}/").trim_start_matches("${basedir}/"));
            if let Some(repository) = url.and_then(|url| tree::join(module, url))
                && !repository.is_empty()
                && tree::has_directory(source, &repository)
            {
                inputs.insert(repository);
            }
            let plain = !path.is_empty() && !path.contains(['$', '\n', '*', '{', '[']);
            let Some(file) = plain.then(|| tree::join(directory, path)).flatten() else { continue };
            if !tree::has(source, &file) || file.ends_with("pom.xml") || file.ends_with(".java") {
                continue;
            }
            if leaf.path.last() == Some(&"systemPath") {
                jars.push((module.to_owned(), file.clone()));
            }
            inputs.insert(file);
        }
        let main = tree::join(module, "src/main").unwrap_or_default();
        let generators = GENERATORS.iter().map(|name| format!("{main}/{name}"));
        inputs.extend(generators.filter(|directory| tree::has_directory(source, directory)));
        inputs.extend(Some(format!("{main}/webapp/WEB-INF/web.xml")).filter(|path| tree::has(source, path)));
    }
    Local { inputs: inputs.into_iter().collect(), jars }
}

pub(super) fn identity(source: &dyn Source) -> Identity {
    let Some(text) = tree::text(source, "pom.xml") else { return Identity::default() };
    Identity { name: stated(&text, &["project", "artifactId"]), version: stated(&text, &["project", "version"]) }
}

/// A module inherits its parent's version unless it sets one.
fn inherited(identity: Identity, pom: &Option<String>) -> Identity {
    let parents = || stated(pom.as_deref()?, &["project", "parent", "version"]);
    Identity { version: identity.version.or_else(parents), ..identity }
}

fn stated(pom: &str, path: &[&str]) -> Option<String> {
    let value = xml::value(pom, path)?.trim();
    Some(value.to_owned()).filter(|value| !value.is_empty() && !value.contains('$'))
}
