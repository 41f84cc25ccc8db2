//! Realistic Java projects: several modules, jars in the tree, output of earlier builds.

use super::{options, planned, tree};
use crate::plan::{Source, input_files, plan, to_kiln_toml};

#[test]
fn a_maven_layer_that_could_not_fetch_fails() {
    let plan = planned(&[("pom.xml", "<project><artifactId>a</artifactId></project>")]);
    assert!(!plan.steps[0].run.contains("|| true"), "{}", plan.steps[0].run);
    assert!(plan.steps[0].run.contains("exit 1"), "{}", plan.steps[0].run);
}

#[test]
fn files_that_a_pom_names_are_inputs_of_the_layer() {
    let pom = "<project><build><plugins><plugin><configuration>\
        <configLocation>${project.basedir}/checks.xml</configLocation>\
        <inputSpec>${basedir}/src/main/resources/api.yaml</inputSpec></configuration></plugin></plugins></build>\
        <dependencies><dependency><systemPath>${project.basedir}/lib/old.jar</systemPath></dependency></dependencies>\
        <repositories><repository><url>file://${project.basedir}/repo</url></repository></repositories></project>";
    let plan = planned(&[
        ("core/checks.xml", ""),
        ("core/lib/old.jar", ""),
        ("core/pom.xml", pom),
        ("core/repo/a/a.pom", ""),
        ("core/src/main/java/A.java", ""),
        ("core/src/main/proto/a.proto", ""),
        ("core/src/main/resources/api.yaml", ""),
        ("core/src/main/resources/other.yaml", ""),
        ("pom.xml", "<project><modules><module>core</module></modules></project>"),
    ]);
    assert_eq!(
        plan.steps[0].inputs,
        [
            "core/pom.xml",
            "pom.xml",
            "core/checks.xml",
            "core/lib/old.jar",
            "core/repo",
            "core/src/main/proto",
            "core/src/main/resources/api.yaml"
        ]
    );
    assert!(plan.steps[1].run.contains("echo \":$PWD/core/lib/old.jar\" >> core/target/kiln-classpath"));
}

#[test]
fn jars_and_build_logic_of_the_tree_are_inputs_of_gradles_layer() {
    let plan = planned(&[
        ("app/build.gradle", "dependencies { implementation files('../libs/old.jar') }"),
        ("build-logic/build.gradle.kts", ""),
        ("build-logic/src/main/kotlin/conventions.gradle.kts", ""),
        ("build-logic/src/main/kotlin/Versions.kt", ""),
        ("gradle/publish.gradle", ""),
        ("libs/old.jar", ""),
        ("settings.gradle", "pluginManagement { includeBuild('build-logic') }\ninclude 'app'\n"),
    ]);
    let inputs = &plan.steps[0].inputs;
    for path in ["app/build.gradle", "build-logic", "gradle/publish.gradle", "libs/old.jar", "settings.gradle"] {
        assert!(inputs.contains(&path.to_owned()), "{path} is missing in {inputs:?}");
    }
}

#[test]
fn output_of_earlier_builds_enters_no_build() {
    let chosen = |files: &[(&str, &str)], name: &str| {
        let source = tree(files);
        let plan = plan(&source, &options()).unwrap();
        let step = plan.steps.into_iter().find(|step| step.name == name).unwrap();
        let paths = input_files(&step, source.paths()).into_iter();
        paths.map(|index| source.paths()[index].clone()).collect::<Vec<_>>()
    };
    let maven = [("a/pom.xml", ""), ("a/target/old.jar", ""), ("docs/target/x", ""), ("pom.xml", "<project/>")];
    assert_eq!(chosen(&maven, "compile"), ["a/pom.xml", "docs/target/x", "pom.xml"]);
    let gradle = [
        (".gradle/cache", ""),
        ("a/build.gradle", ""),
        ("a/build/libs/old.jar", ""),
        ("build.gradle", "apply from: 'build/own.gradle'"),
        ("build/own.gradle", ""),
    ];
    assert_eq!(chosen(&gradle, "compile"), ["a/build.gradle", "build.gradle", "build/own.gradle"]);
    assert!(!chosen(&gradle, "deps").contains(&"a/build/libs/old.jar".to_owned()));
}

#[test]
fn kilns_own_program_is_named_and_not_printed_in_a_kiln_toml() {
    let files = [("pom.xml", "<project><artifactId>a</artifactId></project>")];
    let text = to_kiln_toml(&planned(&files));
    assert!(text.contains("\".kiln/Gather.java\" = \"kiln:Gather.java\""), "{text}");
    let again = planned(&[files[0], ("kiln.toml", &text)]);
    assert_eq!(again.steps, planned(&files).steps);
}

#[test]
fn gradles_build_cache_outlives_the_step_of_a_project_that_uses_it() {
    let with = |properties: &str| {
        let files = [("settings.gradle", "rootProject.name = 'shop'"), ("gradle.properties", properties)];
        let plan = planned(
            &[&files[..], &[("build.gradle", "apply plugin: 'java'"), ("src/main/java/A.java", "class A {}")]].concat(),
        );
        plan.steps.into_iter().find(|step| step.name == "compile").unwrap()
    };
    let compile = with("org.gradle.caching = true\n");
    assert!(compile.caches.contains_key(".kiln/gradle-build-cache"), "{:?}", compile.caches);
    assert!(
        compile.run.contains("--init-script .kiln/cache.gradle") && compile.files.contains_key(".kiln/cache.gradle")
    );
    for without in ["", "org.gradle.caching=false\n", "# org.gradle.caching=true\n"] {
        assert!(with(without).caches.is_empty(), "{without}");
    }
}
