//! Sites of Hugo.

use insta::assert_snapshot;

use crate::{assert_sound, planned, refused};

#[test]
fn a_site_is_built_without_the_network() {
    let files = [
        ("content/a.md", ""),
        ("hugo.toml", "title = \"x\"\n[module.hugoVersion]\nmin = \"0.110.0\"\n"),
        ("layouts/a.html", ""),
    ];
    let plan = planned(&files);
    assert_eq!(plan.steps.len(), 1);
    assert!(
        plan.steps[0].run.starts_with("hugo --destination \"$PWD/.kiln/out\" --noBuildLock\n"),
        "{}",
        plan.steps[0].run
    );
    assert_eq!(
        (plan.steps[0].network, plan.steps[0].tools.join(" ")),
        (false, "hugo >=0.110.0 (module.hugoVersion)".into())
    );
    assert_sound(&files, &["content/a.md"]);
    let old = planned(&[
        ("config.yaml", "title: x\nenableGitInfo: true\n"),
        ("content/a.md", ""),
        ("themes/t/theme.toml", ""),
    ]);
    assert!(old.notes.join("\n").contains("`enableGitInfo` asks git"), "{:?}", old.notes);
    assert_eq!(old.steps[0].env["HUGO_ENABLEGITINFO"], "false");
}

#[test]
fn modules_and_packages_of_a_site_are_layers() {
    let config = "[module]\n[[module.imports]]\npath = \"example.org/theme\"\n";
    let files = [("content/a.md", ""), ("go.mod", "module site\n\ngo 1.20\n"), ("hugo.toml", config)];
    assert_snapshot!(refused(&files), @"`hugo.toml` names dependencies but there is no `go.sum`, so two builds of one commit could differ: run `hugo mod get` and commit `go.sum`");
    let assets = ("package.json", r#"{"devDependencies":{"postcss":"8"}}"#);
    let lock = ("package-lock.json", r#"{"packages":{"node_modules/postcss":{}}}"#);
    let plan = planned(&[&files[..], &[("go.sum", ""), assets, lock]].concat());
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["modules", "deps", "build"]);
    assert_eq!(
        (plan.steps[0].inputs.join(" "), plan.steps[2].needs.join(" ")),
        ("go.mod go.sum hugo.toml".into(), "modules deps".into())
    );
    let missing = [
        ("hugo.toml", "theme = \"t\"\n"),
        (".gitmodules", "[submodule \"t\"]\npath = themes/t\n"),
        ("content/a.md", ""),
    ];
    assert!(refused(&missing).contains("the submodule `themes/t` is not checked out"), "{}", refused(&missing));
}
