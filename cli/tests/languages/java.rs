//! Java programs that need jars, built and run. The registry consists of Debian's packages.

use std::path::Path;

use kiln_harness::project::MAVEN_OF_DEBIAN;
use kiln_harness::{Farm, find, output, project};

const LIBRARY: &str = "package words;\npublic final class Words {\n    public static String of(String text) {\n        \
                       return org.apache.commons.lang3.StringUtils.capitalize(text);\n    }\n}\n";
const PROGRAM: &str = "package app;\npublic final class App {\n    public static void main(String[] arguments) {\n        \
                       System.out.println(words.Words.of(\"hello\"));\n    }\n}\n";

fn pom(inner: &str) -> String {
    format!("<project><modelVersion>4.0.0</modelVersion>{inner}</project>")
}

/// Builds twice without a cache; both results must have the same bytes.
fn built(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = project(files);
    let farm = Farm::shared();
    let id = |built: kiln_harness::Built| built.of_type("artifact")[0]["id"].clone();
    let first = id(farm.build(dir.path(), &[]).well());
    assert_eq!(id(farm.build(dir.path(), &["--no-cache"]).well()), first);
    dir
}

#[test]
fn a_program_of_maven_modules_starts_where_it_is_unpacked() {
    let properties = "<properties><maven.compiler.source>11</maven.compiler.source>\
                      <maven.compiler.target>11</maven.compiler.target></properties>";
    let root = pom(&format!(
        "<groupId>k</groupId><artifactId>shop</artifactId><version>1.0</version><packaging>pom</packaging>{properties}\
         <modules><module>app</module><module>words</module></modules>"
    ));
    let parent = "<parent><groupId>k</groupId><artifactId>shop</artifactId><version>1.0</version></parent>";
    let needs = |group: &str, name: &str, version: &str| {
        format!(
            "<dependencies><dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>\
             <version>{version}</version></dependency></dependencies>"
        )
    };
    let app = pom(&format!("{parent}<artifactId>app</artifactId>{}", needs("k", "words", "1.0")));
    let words = pom(&format!(
        "{parent}<artifactId>words</artifactId>{}",
        needs("org.apache.commons", "commons-lang3", "debian")
    ));
    let dir = built(&[
        MAVEN_OF_DEBIAN[0],
        MAVEN_OF_DEBIAN[1],
        ("app/pom.xml", &app),
        ("app/src/main/java/app/App.java", PROGRAM),
        ("app/target/app-0.9.jar", "of an earlier build"),
        ("pom.xml", &root),
        ("words/pom.xml", &words),
        ("words/src/main/java/words/Words.java", LIBRARY),
    ]);
    let out = dir.path().join("kiln-out");
    let jar = find(&out, "app-1.0.jar").expect("the program's jar");
    assert_eq!(output("java", &["-jar", jar.to_str().unwrap()], Path::new("/")), "Hello\n");
    let script = find(&out, "bin/app").expect("a script that starts it");
    assert_eq!(output(script, &[], Path::new("/")), "Hello\n");
    assert!(find(&out, "app-0.9.jar").is_none(), "no jar of an earlier build");
}

#[test]
fn an_application_of_gradle_and_a_jar_beside_it_keep_apart() {
    let dir = built(&[
        (
            "app/build.gradle",
            "apply plugin: 'application'\nmainClassName = 'app.App'\ndependencies { compile project(':words') }\n",
        ),
        ("app/src/main/java/app/App.java", PROGRAM),
        (
            "build.gradle",
            "subprojects {\n    apply plugin: 'java'\n    version = '1.0'\n    \
             repositories { maven { url 'file:///usr/share/maven-repo' } }\n}\n",
        ),
        ("settings.gradle", "rootProject.name = 'shop'\ninclude 'app', 'tools:app', 'words'\n"),
        ("tools/app/build.gradle", "dependencies { compile project(':words') }\n"),
        ("tools/app/src/main/java/app/App.java", &PROGRAM.replace("hello", "tool")),
        ("words/build.gradle", "dependencies { compile 'org.apache.commons:commons-lang3:debian' }\n"),
        ("words/src/main/java/words/Words.java", LIBRARY),
    ]);
    let out = dir.path().join("kiln-out");
    let scripts = [find(&out, "shop/app/bin/app"), find(&out, "tools/app/bin/app")];
    let scripts = scripts.map(|script| script.expect("expected a directory for each module"));
    assert_eq!(scripts.map(|script| output(script, &[], Path::new("/"))), ["Hello\n", "Tool\n"]);
}

#[test]
fn sources_without_a_build_tool_bring_the_jars_of_lib() {
    let dir = project(&[("src/app/App.java", PROGRAM), ("src/words/Words.java", LIBRARY)]);
    std::fs::create_dir(dir.path().join("lib")).unwrap();
    std::fs::copy("/usr/share/java/commons-lang3.jar", dir.path().join("lib/commons-lang3.jar")).unwrap();
    Farm::shared().build(dir.path(), &[]).well();
    let library = find(&dir.path().join("kiln-out"), "/lib/commons-lang3.jar").expect("the jar that it needs");
    let scripts = library.parent().and_then(Path::parent).unwrap().join("bin");
    let script = std::fs::read_dir(scripts).unwrap().flatten().next().expect("a script that starts it").path();
    assert_eq!(output(script, &[], Path::new("/")), "Hello\n");
}

#[test]
fn jars_that_hold_what_they_need_and_web_archives_stay_as_they_are() {
    let carries = "jar {\n    manifest { attributes 'Main-Class': 'app.App' }\n    \
                   from { configurations.runtimeClasspath.collect { it.directory ? it : zipTree(it) } }\n}\n\
                   task sourcesJar(type: Jar) {\n    classifier = 'sources'\n    from sourceSets.main.allSource\n}\n\
                   assemble.dependsOn sourcesJar\ndependencies { compile project(':words') }\n";
    let boots = "jar {\n    manifest { attributes 'Main-Class': 'app.App', 'Start-Class': 'app.App' }\n    \
                 into('BOOT-INF/lib') { from { configurations.runtimeClasspath } }\n}\ndependencies { compile project(':words') }\n";
    let dir = built(&[
        ("boot/build.gradle", boots),
        ("boot/src/main/java/app/App.java", PROGRAM),
        (
            "build.gradle",
            "subprojects {\n    apply plugin: 'java'\n    version = '1.0'\n    \
             repositories { maven { url 'file:///usr/share/maven-repo' } }\n}\n",
        ),
        ("fat/build.gradle", carries),
        ("fat/src/main/java/app/App.java", PROGRAM),
        ("settings.gradle", "rootProject.name = 'shop'\ninclude 'boot', 'fat', 'web', 'words'\n"),
        ("web/build.gradle", "apply plugin: 'war'\ndependencies { compile project(':words') }\n"),
        ("web/src/main/java/web/Page.java", "package web;\npublic final class Page { }\n"),
        ("web/src/main/webapp/index.html", "<p>hello</p>\n"),
        ("words/build.gradle", "dependencies { compile 'org.apache.commons:commons-lang3:debian' }\n"),
        ("words/src/main/java/words/Words.java", LIBRARY),
    ]);
    let out = dir.path().join("kiln-out");
    let fat = find(&out, "fat-1.0.jar").expect("the jar with all that it needs");
    assert_eq!(output("java", &["-jar", fat.to_str().unwrap()], Path::new("/")), "Hello\n");
    let beside = |archive: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(archive.parent().unwrap()).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name == "lib" || name.contains("sources"))
            .collect()
    };
    let boot = find(&out, "boot-1.0.jar").expect("the jar that unpacks what it needs");
    let web = find(&out, "web-1.0.war").expect("the web archive");
    for archive in [&fat, &boot, &web] {
        assert_eq!(beside(archive), [""; 0], "beside {}", archive.display());
    }
}
