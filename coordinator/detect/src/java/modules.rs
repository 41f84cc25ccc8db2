//! The modules that Maven's and Gradle's files list.
//!
//! Invariant: a module is identified by its directory, relative to the root of the tree; modules outside it are
//! omitted.

use super::super::tree::{self, join, parent};
use kiln_plan::{Source, matches, xml};

/// The directories of the modules that the `pom.xml` in the root lists, including nested lists.
pub fn maven_modules(source: &dyn Source) -> Vec<String> {
    modules_below(source, "")
}

/// The same, for the `pom.xml` in a directory.
pub(super) fn modules_below(source: &dyn Source, directory: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut poms = vec![join(directory, "pom.xml").unwrap_or_default()];
    while let Some(pom) = poms.pop() {
        let text = tree::text(source, &pom).unwrap_or_default();
        for leaf in xml::leaves(&text) {
            let is_module =
                matches!(leaf.path.as_slice(), [.., "modules", "module"] | [.., "subprojects", "subproject"]);
            if !is_module {
                continue;
            }
            // A module is a directory, or a file with another name than `pom.xml`.
            let Some(place) = join(parent(&pom), leaf.value.trim()) else { continue };
            let file = if place.ends_with(".xml") { place } else { format!("{place}/pom.xml") };
            let module = parent(&file).to_owned();
            if !module.is_empty() && module != directory && !found.contains(&module) {
                found.push(module);
                poms.push(file);
            }
        }
    }
    found.sort();
    found
}

/// Gradle's path for the project in a directory, such as `:services:api`, if its settings include it. A name computed
/// at run time counts if the directory has a build file, which `has` checks.
pub fn gradle_project(source: &dyn Source, directory: &str, has: &dyn Fn(&str) -> bool) -> Option<String> {
    let settings = ["settings.gradle", "settings.gradle.kts"].iter().find_map(|path| tree::text(source, path))?;
    let settings = without_comments(&settings);
    let places = project_directories(&settings);
    let included = included(&settings);
    if let Some(path) = included.iter().find(|path| directory_of(path, &places).as_deref() == Some(directory)) {
        return Some(path.clone());
    }
    let own = format!("{}.gradle", tree::base(directory));
    if !["build.gradle", "build.gradle.kts", &own, &format!("{own}.kts")].iter().any(|name| has(name)) {
        return None;
    }
    let made_up = included.iter().filter(|path| path.contains('*'));
    let globs: Vec<String> = made_up.map(|path| path.trim_start_matches(':').replace(':', "/")).collect();
    matches_exactly(&globs, directory).then(|| format!(":{}", directory.replace('/', ":")))
}

fn matches_exactly(globs: &[String], directory: &str) -> bool {
    let same_depth = |glob: &&String| *glob == "**" || glob.split('/').count() == directory.split('/').count();
    globs.iter().filter(same_depth).any(|glob| matches(std::slice::from_ref(glob), directory))
}

/// The paths of included projects, with `*` for parts that are only known at run time.
fn included(settings: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in settings.match_indices("include") {
        let (before, rest) = settings.split_at(at);
        let (before, rest) = (before.chars().next_back(), rest.strip_prefix(word).unwrap_or_default());
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '\'')) {
            continue;
        }
        let Some(rest) = rest.strip_prefix([' ', '\t', '(']) else { continue };
        let call = call(rest);
        // Anything but texts has to run before it names a project.
        if call.split(['"', '\'']).step_by(2).any(|between| between.contains(char::is_alphabetic)) {
            found.push(":**".to_owned());
            continue;
        }
        found.extend(quoted(call).map(|name| format!(":{}", generalised(name.trim_start_matches(':')))));
    }
    found
}

/// The arguments of a call, up to the closing parenthesis or the first line that does not end with a comma.
fn call(rest: &str) -> &str {
    let rest = rest.trim_start_matches([' ', '\t', '(']);
    let mut end = 0_usize;
    for line in rest.split_inclusive('\n') {
        let before = line.find([')', '}', ';']).map(|close| line.split_at(close).0);
        if let Some(before) = before.filter(|before| !before.contains("${")) {
            return rest.get(..end.saturating_add(before.len())).unwrap_or(rest);
        }
        end = end.saturating_add(line.len());
        let line = line.trim_end();
        if !line.ends_with([',', '(']) && !line.trim().is_empty() {
            break;
        }
    }
    rest.get(..end).unwrap_or(rest)
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split(['"', '\'']).skip(1).step_by(2)
}

/// A string with interpolations replaced by `*`: `services:$name`, `services:${it.name}`.
fn generalised(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        out.push('*');
        rest = match after.strip_prefix('{') {
            Some(inside) => inside.split_once('}').map_or("", |(_, rest)| rest),
            None => after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        };
    }
    out + rest
}

/// Directories that settings assign to projects: `project(':api').projectDir = file('services/api')`.
fn project_directories(settings: &str) -> Vec<(String, String)> {
    let statements = settings.lines().filter(|line| line.contains(".projectDir"));
    statements
        .filter_map(|line| {
            let (left, right) = line.split_once(".projectDir")?;
            let path = quoted(left).last()?;
            let (_, value) = right.split_once('=')?;
            let place = quoted(value).last()?;
            let place =
                ["$rootDir/", "${rootDir}/", "$rootProject.projectDir/", "${rootProject.projectDir}/", "$settingsDir/"]
                    .iter()
                    .find_map(|root| place.strip_prefix(root))
                    .unwrap_or(place);
            Some((format!(":{}", path.trim_start_matches(':')), join("", place)?))
        })
        .collect()
}

/// A project's directory: the one assigned to it, or below that of its parent project.
fn directory_of(path: &str, places: &[(String, String)]) -> Option<String> {
    if let Some((_, place)) = places.iter().find(|(project, _)| project == path) {
        return Some(place.clone());
    }
    let (outer, name) = path.rsplit_once(':')?;
    if outer.is_empty() { Some(name.to_owned()) } else { join(&directory_of(outer, places)?, name) }
}

/// The text without comments. Text in quotes that looks like one, as in `https://` or `**/*.gradle`, is kept.
fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        let Some(next) = chars.next() else { return out };
        if quote.is_none() && rest.starts_with("//") {
            chars = rest.find('\n').map_or("", |end| rest.split_at(end).1).chars();
            continue;
        }
        if quote.is_none() && rest.starts_with("/*") {
            chars = rest.split_once("*/").map_or("", |(_, after)| after).chars();
            continue;
        }
        quote = match quote {
            Some(open) if next == open || next == '\n' => None,
            None if matches!(next, '"' | '\'') => Some(next),
            unchanged => unchanged,
        };
        out.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plan::MemorySource;

    fn project(settings: &str, directory: &str) -> Option<String> {
        let source: MemorySource = [("settings.gradle.kts", settings)].into_iter().collect();
        gradle_project(&source, directory, &|name| name == "build.gradle.kts")
    }

    #[test]
    fn settings_of_gradle_are_read_as_people_write_them() {
        let settings = r#"
            pluginManagement { repositories { maven("https://example.com/include") } }
            rootProject.name = "shop"
            includeBuild("build-logic")
            include("services:api", "libs:core")
            include(
                ":web",
                ":tools:lint", // the linter
            )
            // include("old")
            /* include("older") */
            include ':cli', 'docs'
            project(":cli").projectDir = file("tools/command-line")
            project(":docs").projectDir = new File(settingsDir, 'site/docs')
        "#;
        let of = |directory: &str| project(settings, directory);
        assert_eq!(of("services/api").as_deref(), Some(":services:api"));
        assert_eq!(of("libs/core").as_deref(), Some(":libs:core"));
        assert_eq!(of("web").as_deref(), Some(":web"));
        assert_eq!(of("tools/lint").as_deref(), Some(":tools:lint"));
        assert_eq!(of("tools/command-line").as_deref(), Some(":cli"));
        assert_eq!(of("site/docs").as_deref(), Some(":docs"));
        for stranger in ["api", "services", "old", "older", "build-logic", "cli", "services/api/sub", "x/services/api"]
        {
            assert_eq!(of(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn projects_that_settings_look_for_are_found_by_their_build_files() {
        let settings = "listOf(\"api\", \"web\").forEach { include(\"services:$it\") }\n";
        assert_eq!(project(settings, "services/api").as_deref(), Some(":services:api"));
        assert_eq!(project(settings, "libs/core"), None);
        let settings = "file('libs').eachDir { dir ->\n    include \"libs:${dir.name}\"\n}\n";
        assert_eq!(project(settings, "libs/core").as_deref(), Some(":libs:core"));
        let settings = "fileTree(\".\") { include \"**/*.kts\" }\nrootDir.listFiles().filter { it.isDirectory }.forEach { include(it.name) }\n";
        assert_eq!(project(settings, "api").as_deref(), Some(":api"));
    }

    #[test]
    fn modules_of_maven_list_modules_of_their_own() {
        let source: MemorySource = [
            (
                "pom.xml",
                "<project><modules><module> services </module><!-- <module>old</module> --></modules>\
                 <profiles><profile><modules><module>it/pom-it.xml</module></modules></profile></profiles></project>",
            ),
            (
                "services/pom.xml",
                "<project><modules><module>api</module><module>../libs/core/</module></modules></project>",
            ),
            ("services/api/pom.xml", "<project/>"),
        ]
        .into_iter()
        .collect();
        assert_eq!(maven_modules(&source), ["it", "libs/core", "services", "services/api"]);
        assert_eq!(modules_below(&source, "services"), ["libs/core", "services/api"]);
    }
}
