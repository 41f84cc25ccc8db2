//! Gradle: a wrapper, or settings and build files.
//!
//! An init script resolves every resolvable configuration of every project and of the build itself. Another one is used
//! for the build.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Detected, Identity,
        found::{artifact, compile_step, fetch_step, strings},
        staging::OUT,
        tree,
    },
    gather, modules, stale,
};
use kiln_plan::{ArtifactKind, Cache, Sharing, Source, View};

/// Resolves every configuration.
const RESOLVE: &str = include_str!("resolve.gradle");
/// Makes archives reproducible, installs applications, and writes each module's run-time class path.
const STAGE: &str = include_str!("stage.gradle");
/// Both scripts access projects while tasks run, which these features do not allow.
const SETTINGS: &str = "-Dorg.gradle.configuration-cache=false -Dorg.gradle.unsafe.configuration-cache=false \
                        -Dorg.gradle.unsafe.isolated-projects=false";

/// Where the build cache is that outlives the step.
const BUILD_CACHE: &str = ".kiln/gradle-build-cache";
/// Puts the build cache there.
const CACHE: &str = "settingsEvaluated { it.buildCache { local { directory = '/build/.kiln/gradle-build-cache' } } }\n";

/// Files that declare dependencies, in addition to every `.gradle` and `.gradle.kts`.
const BUILD_FILES: [&str; 5] = [
    "gradle.properties",
    "gradle.lockfile",
    "buildscript-gradle.lockfile",
    "libs.versions.toml",
    "verification-metadata.xml",
];
/// Files of repositories in the tree, and jars used directly as dependencies.
const PACKAGES: [&str; 5] = [".jar", ".aar", ".pom", ".module", "maven-metadata.xml"];

fn is_build_file(name: &str) -> bool {
    BUILD_FILES.contains(&name) || name.ends_with(".gradle") || name.ends_with(".gradle.kts")
}

pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Option<Detected> {
    let found =
        tree::first_of(source, &["settings.gradle", "settings.gradle.kts", "build.gradle", "build.gradle.kts"])?;
    let wrapper = tree::has(source, "gradlew") && tree::has(source, "gradle/wrapper/gradle-wrapper.jar");
    let gradle = if wrapper { "sh ./gradlew --no-daemon" } else { "gradle --no-daemon" };
    let member = source.member().and_then(|directory| {
        let has = |name: &str| tree::has(source, &format!("{directory}/{name}"));
        Some((directory, modules::gradle_project(source, directory, &has)?))
    });
    let mut key = tree::named(source, is_build_file);
    let directories: BTreeSet<String> = key.iter().map(|path| tree::parent(path).to_owned()).collect();
    let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
    let mut stale = stale(source, &directories, "build", is_build_file);
    stale.extend(super::stale(source, &[""], ".gradle", |_| false));
    let left = |path: &str| {
        stale.iter().filter_map(|out| path.strip_prefix(out.strip_prefix('!')?)).any(|rest| rest.starts_with('/'))
    };
    let unversioned =
        ["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.properties"];
    let unversioned = key.iter().filter(|path| unversioned.contains(&tree::base(path))).cloned().collect();
    let mut whole = strings(["gradle/wrapper", "buildSrc"]);
    whole.extend(included(source));
    whole.retain(|directory| tree::has_directory(source, directory));
    let inside = |path: &str| whole.iter().any(|directory| path.starts_with(&format!("{directory}/")));
    let packages = tree::named(source, |name| PACKAGES.iter().any(|end| name.ends_with(end)));
    key.extend(packages.into_iter().filter(|path| !inside(path) && !left(path)));
    key.extend(whole);
    key.extend(wrapper.then(|| "gradlew".to_owned()));
    let env = BTreeMap::from([("GRADLE_USER_HOME".to_owned(), "/build/.kiln/gradle-home".to_owned())]);
    let tools = if wrapper { strings(["java", "javac"]) } else { strings(["gradle", "java", "javac"]) };

    let run = format!(
        "{gradle} {SETTINGS} --init-script .kiln/resolve.gradle kilnResolve\n\
         find .kiln/gradle-home -name '*.lock' -delete\nrm -rf .kiln/gradle-home/daemon"
    );
    let mut deps = fetch_step("deps", "resolves every configuration; keyed by the build files", run);
    (deps.inputs, deps.unversioned) = (key, unversioned);
    (deps.outputs, deps.env, deps.tools) = (strings([".kiln/gradle-home"]), env.clone(), tools.clone());
    deps.files.insert(".kiln/resolve.gradle".into(), RESOLVE.into());
    let tasks = match &member {
        Some((_, project)) => ["build", "kilnStage"].map(|task| tree::shell_word(&format!("{project}:{task}"))),
        None => ["build", "kilnStage"].map(str::to_owned),
    };
    let mut build = compile_step(
        "compile",
        "compiles and packages the project without its tests",
        format!("{gradle} {SETTINGS} --offline --init-script .kiln/stage.gradle {} -x test {}\n", tasks[0], tasks[1]),
    );
    build.files.insert(".kiln/stage.gradle".into(), STAGE.into());
    if has_build_cache(source) {
        build.run = build.run.replacen("--init-script", "--init-script .kiln/cache.gradle --init-script", 1);
        build.files.insert(".kiln/cache.gradle".into(), CACHE.into());
        let cache = Cache { key: "gradle-build-cache".into(), sharing: Sharing::Shared };
        build.caches.insert(BUILD_CACHE.into(), cache);
    }
    let wanted: Vec<String> = member.iter().map(|(directory, _)| (*directory).to_owned()).collect();
    gather(&mut build, ".", &wanted);
    build.inputs = stale;
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
    let mut because =
        vec![format!("`{found}` is a Gradle project{}", if wrapper { " with its own wrapper" } else { "" })];
    let mut identity = identity(source);
    if let Some((directory, project)) = &member {
        because.push(format!("of its projects `{project}` is built, after those that it needs"));
        let own = self::identity(&View::new(source, directory));
        let name = project.rsplit(':').next().map(str::to_owned);
        identity = Identity { name, version: own.version.or(identity.version).or_else(|| shared_version(source)) };
    }
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Some(Detected {
        language: "java (gradle)".into(),
        because,
        identity,
        steps: vec![deps, build],
        artifacts: vec![artifact(&name, ArtifactKind::Binary, "compile", &[(OUT, ".")])],
        notes,
    })
}

/// Whether the project has switched on Gradle's build cache.
fn has_build_cache(source: &dyn Source) -> bool {
    let properties = tree::text(source, "gradle.properties").unwrap_or_default();
    let mut pairs = properties.lines().filter_map(|line| line.split_once('='));
    pairs.any(|(name, value)| name.trim() == "org.gradle.caching" && value.trim() == "true")
}

/// Builds in the tree that the settings include: their plugins' sources are part of the project's build.
fn included(source: &dyn Source) -> Vec<String> {
    let settings = ["settings.gradle", "settings.gradle.kts"].iter().find_map(|path| tree::text(source, path));
    let settings = settings.unwrap_or_default();
    let named = settings.split("includeBuild").skip(1);
    let named = named.filter_map(|rest| rest.trim_start_matches([' ', '(']).split(['\'', '"']).nth(1));
    named.filter_map(|path| tree::join("", path)).filter(|path| !path.is_empty()).collect()
}

/// The version that the root's build file sets for all projects, in an `allprojects` or `subprojects` block.
fn shared_version(source: &dyn Source) -> Option<String> {
    let text = ["build.gradle", "build.gradle.kts"].iter().find_map(|path| tree::text(source, path))?;
    let blocks = text.split("\n}").filter(|block| block.contains("allprojects") || block.contains("subprojects"));
    let mut lines = blocks.flat_map(|block| block.lines().skip_while(|line| !line.contains("projects")).skip(1));
    lines.find_map(|line| {
        let value = line.trim_start().strip_prefix("version")?.trim_start_matches([' ', '=']);
        let value = value.strip_prefix(['"', '\''])?.split(['"', '\'']).next()?;
        Some(value.to_owned()).filter(|value| !value.is_empty() && !value.contains('$'))
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
