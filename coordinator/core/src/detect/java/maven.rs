//! Maven: `pom.xml`.
//!
//! `dependency:go-offline` is known to leave out what plugins resolve while they run, and cannot see the modules of a
//! reactor. So the layer is filled by it and by the build itself, run on the `pom.xml` files without any source.

use super::{
    super::{
        Detected, Identity,
        found::{artifact, compile_step, fetch_step, strings},
        staging::OUT,
        tree,
    },
    gather,
};
use crate::plan::{ArtifactKind, Source};

const REPOSITORY: &str = "-Dmaven.repo.local=/build/.kiln/m2";
const FIXED_TIME: &str = "-Dproject.build.outputTimestamp=2000-01-01T00:00:00Z";

pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Option<Detected> {
    let root = tree::text(source, "pom.xml")?;
    let modules = root.contains("<module>");
    let wrapper = tree::has(source, "mvnw");
    let maven = if wrapper { "sh ./mvnw -B" } else { "mvn -B" };
    let poms = tree::named(source, |name| name == "pom.xml");
    let mut key = poms.clone();
    key.extend(tree::has_directory(source, ".mvn").then(|| ".mvn".to_owned()));
    key.extend(wrapper.then(|| "mvnw".to_owned()));

    // A stubbed build may stop where a plugin wants a class; by then it has fetched. The strict part is before it.
    let strict = if modules { "dependency:resolve-plugins" } else { "dependency:go-offline" };
    let run = format!(
        "{maven} {REPOSITORY} {strict}\n{maven} {REPOSITORY} -fae -DskipTests package || true\n\
         # what differs from one run to the next\n\
         find .kiln/m2 \\( -name '*.lastUpdated' -o -name resolver-status.properties -o -name _remote.repositories \\) \\\n    \
         -delete"
    );
    let why = "fills the local repository; keyed by the `pom.xml` files";
    let mut deps = fetch_step("deps", why, run);
    (deps.inputs, deps.unversioned, deps.outputs) = (key, poms, strings([".kiln/m2"]));
    let mut build = compile_step(
        "compile",
        "compiles and packages the project; tests are left to a step of their own",
        format!(
            "{maven} -o {REPOSITORY} {FIXED_TIME} -DskipTests package\n{}",
            gather(&["*/target/*.jar", "*/target/*.war"])
        ),
    );
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
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Some(Detected {
        language: "java (maven)".into(),
        because: vec![format!("`pom.xml` is a Maven project{}", if modules { " of several modules" } else { "" })],
        identity,
        steps: vec![deps, build],
        artifacts: vec![artifact(&name, ArtifactKind::Binary, "compile", &[(OUT, ".")])],
        notes: Vec::new(),
    })
}

pub(super) fn identity(source: &dyn Source) -> Identity {
    let Some(text) = tree::text(source, "pom.xml") else { return Identity::default() };
    let field = |name: &str| {
        let value = crate::plan::xml::value(&text, &["project", name])?;
        Some(value.trim().to_owned()).filter(|v| !v.is_empty() && !v.contains('$'))
    };
    Identity { name: field("artifactId"), version: field("version") }
}
