//! A project in a directory of the tree.

use super::{options, planned, tree};
use crate::plan::{Options, Plan, plan};

fn within(directory: &str, files: &[(&str, &str)]) -> Plan {
    plan(&tree(files), &Options { directory: directory.into(), ..options() }).unwrap()
}

const LOCK: &str = "version = 4\n[[package]]\nname = \"api\"\nversion = \"1.0.0\"\ndependencies = [\"itoa\"]\n\
    [[package]]\nname = \"itoa\"\nversion = \"1.0.0\"\nsource = \"registry+https://example.com\"\nchecksum = \"0\"\n";

#[test]
fn a_member_of_a_workspace_is_built_in_it_and_handed_over_alone() {
    let package = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    let (api, web) = (package("api"), package("web"));
    let files = [
        ("Cargo.toml", "[workspace]\nmembers = [\"services/*\"]\n"),
        ("services/api/Cargo.toml", api.as_str()),
        ("services/api/src/main.rs", ""),
        ("services/web/Cargo.toml", web.as_str()),
        ("services/web/src/main.rs", ""),
        (
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"api\"\nversion = \"1.0.0\"\n[[package]]\nname = \"web\"\nversion = \"1.0.0\"\n",
        ),
    ];
    let plan = within("services/api", &files);
    assert_eq!(plan.name, "api");
    assert_eq!(plan.artifacts.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), ["api"]);
    let compile = plan.steps.last().unwrap();
    assert!(compile.run.contains(" -p api"), "{}", compile.run);
    assert_eq!(compile.working_directory, None);
    let works =
        [("go.work", "go 1.22\nuse ./a\nuse ./b\n"), ("a/go.mod", "module x/a\n"), ("b/go.mod", "module x/b\n")];
    let plan = within("b", &works);
    let compile = plan.steps.last().unwrap();
    assert!(compile.run.contains("./b/...") && !compile.run.contains("./a/..."), "{}", compile.run);
}

#[test]
fn a_project_with_local_dependencies_is_built_in_its_directory_beside_them() {
    let manifest = "[package]\nname = \"api\"\nversion = \"1.0.0\"\n[dependencies]\nitoa = \"1\"\n";
    let files = [
        ("libs/core/src/lib.rs", ""),
        ("services/api/Cargo.lock", LOCK),
        ("services/api/Cargo.toml", manifest),
        ("services/api/src/main.rs", ""),
        ("services/common/x.rs", ""),
    ];
    let alone: Vec<(&str, &str)> =
        files[1..4].iter().map(|(path, text)| (&path["services/api/".len()..], *text)).collect();
    let (alone, moved) = (planned(&alone), within("services/api", &files));
    assert_eq!(alone.steps.len(), moved.steps.len());
    for (alone, moved) in alone.steps.iter().zip(&moved.steps) {
        assert_eq!(moved.working_directory.as_deref(), Some("services/api"));
        assert_eq!(alone.run, moved.run);
        let outputs: Vec<String> = alone.outputs.iter().map(|output| format!("services/api/{output}")).collect();
        assert_eq!(outputs, moved.outputs);
        assert!(moved.env["CARGO_HOME"].starts_with("/build/services/api/"), "{:?}", moved.env);
    }
    let fetch = &moved.steps[0];
    for input in ["services/api/Cargo.toml", "services/api/Cargo.lock", "libs", "services/common"] {
        assert!(fetch.inputs.iter().any(|one| one == input), "expected `{input}` in {:?}", fetch.inputs);
    }
    assert_eq!(moved.artifacts[0].files[0].path, "services/api/target/release/api");
    assert_eq!(moved.artifacts[0].files[0].dest.as_deref(), Some("api"));
}

#[test]
fn a_kiln_toml_in_the_directory_speaks_of_its_own_paths() {
    let text = "[steps.a]\nrun = \"make\"\ninputs = [\"src\", \"!src/x\"]\noutputs = [\"out\"]\nworking_directory = \"src\"\n\
        [artifacts.a]\nfrom = \"a\"\nfiles = \"out/a\"\n";
    let plan = within("app", &[("app/kiln.toml", text), ("app/src/a.c", ""), ("app/src/x", ""), ("shared/b.h", "")]);
    let step = &plan.steps[0];
    assert_eq!(step.inputs, ["app/src", "!app/src/x", "shared", "!app/kiln.toml"]);
    assert_eq!((step.outputs[0].as_str(), step.working_directory.as_deref()), ("app/out", Some("app/src")));
    assert_eq!(
        (plan.artifacts[0].files[0].path.as_str(), plan.artifacts[0].files[0].dest.as_deref()),
        ("app/out/a", Some("a"))
    );
}
