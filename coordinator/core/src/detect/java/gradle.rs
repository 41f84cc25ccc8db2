//! Gradle: a wrapper, or settings and build files.
//!
//! An init script resolves every configuration that can be resolved, of every project and of the build itself.

use std::collections::BTreeMap;

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

const RESOLVE: &str = "\
allprojects {
    task kilnResolve {
        doLast {
            def all = project.configurations.findAll { it } + project.buildscript.configurations.findAll { it }
            all.each { configuration ->
                def open = !configuration.hasProperty('canBeResolved') || configuration.canBeResolved
                if (open) { configuration.files }
            }
        }
    }
}
";

const BUILD_FILES: [&str; 9] = [
    "settings.gradle",
    "settings.gradle.kts",
    "build.gradle",
    "build.gradle.kts",
    "gradle.properties",
    "gradle.lockfile",
    "buildscript-gradle.lockfile",
    "libs.versions.toml",
    "verification-metadata.xml",
];

pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Option<Detected> {
    let found =
        tree::first_of(source, &["settings.gradle", "settings.gradle.kts", "build.gradle", "build.gradle.kts"])?;
    let wrapper = tree::has(source, "gradlew") && tree::has(source, "gradle/wrapper/gradle-wrapper.jar");
    let gradle = if wrapper { "sh ./gradlew --no-daemon" } else { "gradle --no-daemon" };
    let mut key = tree::named(source, |name| BUILD_FILES.contains(&name));
    let unversioned = key.iter().filter(|p| !p.ends_with(".lockfile") && !p.ends_with(".xml")).cloned().collect();
    for directory in ["gradle/wrapper", "buildSrc"] {
        key.extend(tree::has_directory(source, directory).then(|| directory.to_owned()));
    }
    key.extend(wrapper.then(|| "gradlew".to_owned()));
    let env = BTreeMap::from([("GRADLE_USER_HOME".to_owned(), "/build/.kiln/gradle-home".to_owned())]);
    let tools = if wrapper { strings(["java", "javac"]) } else { strings(["gradle", "java", "javac"]) };

    let run = format!(
        "{gradle} --init-script .kiln/resolve.gradle kilnResolve\n\
         find .kiln/gradle-home -name '*.lock' -delete\nrm -rf .kiln/gradle-home/daemon"
    );
    let mut deps = fetch_step("deps", "resolves every configuration; keyed by the build files", run);
    (deps.inputs, deps.unversioned) = (key, unversioned);
    (deps.outputs, deps.env, deps.tools) = (strings([".kiln/gradle-home"]), env.clone(), tools.clone());
    deps.files.insert(".kiln/resolve.gradle".into(), RESOLVE.into());
    let mut build = compile_step(
        "compile",
        "compiles and packages the project; tests are left to a step of their own",
        format!("{gradle} --offline build -x test\n{}", gather(&["*/build/libs/*.jar", "*/build/libs/*.war"])),
    );
    build.needs = strings(["deps"]);
    (build.outputs, build.env, build.tools) = (strings([OUT]), env, tools);

    let mut notes = Vec::new();
    let locked = tree::named(source, |n| matches!(n, "gradle.lockfile" | "verification-metadata.xml"));
    let needs_any = ["build.gradle", "build.gradle.kts"];
    if locked.is_empty() && needs_any.iter().filter_map(|p| tree::text(source, p)).any(|t| t.contains("dependencies")) {
        notes.push(
            "no `gradle.lockfile` locks the dependencies, so two builds of one commit could differ: enable \
             `dependencyLocking` and run `gradle dependencies --write-locks`"
                .to_owned(),
        );
    }
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Some(Detected {
        language: "java (gradle)".into(),
        because: vec![format!("`{found}` is a Gradle project{}", if wrapper { " with its own wrapper" } else { "" })],
        identity,
        steps: vec![deps, build],
        artifacts: vec![artifact(&name, ArtifactKind::Binary, "compile", &[(OUT, ".")])],
        notes,
    })
}

pub(super) fn identity(source: &dyn Source) -> Identity {
    let quoted = |text: &str| text.split(['\'', '"']).nth(1).map(str::to_owned).filter(|t| !t.contains('$'));
    let assigned = |paths: [&str; 2], key: &str| {
        let lines = paths.iter().find_map(|p| tree::text(source, p))?;
        lines.lines().find_map(|l| quoted(l.trim_end().strip_prefix(key)?))
    };
    let properties = tree::text(source, "gradle.properties").unwrap_or_default();
    let property = properties.lines().find_map(|l| {
        let (key, value) = l.split_once('=')?;
        (key.trim() == "version").then(|| value.trim().to_owned())
    });
    Identity {
        name: assigned(["settings.gradle", "settings.gradle.kts"], "rootProject.name"),
        version: property.or_else(|| assigned(["build.gradle", "build.gradle.kts"], "version")),
    }
}
