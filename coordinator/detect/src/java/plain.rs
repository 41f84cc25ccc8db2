//! Java sources without a build tool: `javac` and `jar`.
//!
//! Sources below a directory `test` are excluded; jars in `lib` are on the class path and in the artifact; other files
//! of a source directory go into the jar with the classes.

use super::{
    super::{
        Detected, Identity,
        found::{artifact, artifact_name, compile_step, strings},
        staging::OUT,
        tree,
    },
    gather,
};
use kiln_plan::{ArtifactKind, Source};

pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Option<Detected> {
    let count = source.paths().iter().filter(|p| p.ends_with(".java")).count();
    if count == 0 {
        return None;
    }
    let roots = ["src/main/java", "src"].into_iter().find(|d| tree::has_directory(source, d)).unwrap_or(".");
    let resources = if roots == "src/main/java" { "src/main/resources" } else { roots };
    let copy = match tree::has_directory(source, resources) {
        true => format!(
            "(cd {resources} && find . -type f ! -name '*.java' -exec cp --parents {{}} /build/.kiln/classes/ \\;)\n"
        ),
        false => String::new(),
    };
    let name = artifact_name(directory_name);
    let run = format!(
        "mkdir -p .kiln/classes .kiln/build\n\
         find {roots} -path ./.kiln -prune -o -name '*.java' ! -path '*/test/*' -print | LC_ALL=C sort > .kiln/sources\n\
         javac -encoding UTF-8 -d .kiln/classes -cp 'lib/*' @.kiln/sources\n\
         {copy}\
         (cd .kiln/classes && find . -type f | LC_ALL=C sort | sed 's,^\\./,,' > ../entries &&\n    \
         jar --create --file=../build/{name}.jar @../entries)\n\
         find lib -name '*.jar' 2>/dev/null | LC_ALL=C sort > .kiln/build/kiln-classpath\n"
    );
    let mut compile = compile_step("compile", "compiles every source and packs the classes into a jar", run);
    gather(&mut compile, ".kiln/build", &[]);
    (compile.outputs, compile.tools) = (strings([OUT]), strings(["javac", "jar"]));
    Some(Detected {
        language: "java".into(),
        because: vec![format!("there are {count} Java sources and no build tool's file")],
        identity: Identity::default(),
        steps: vec![compile],
        artifacts: vec![artifact(&name, ArtifactKind::Binary, "compile", &[(OUT, ".")])],
        notes: Vec::new(),
    })
}
