//! Which language a project is built as, and the messages for one that Kiln cannot build.

use super::{options, planned, refused, tree};
use crate::plan::{Artifact, ArtifactKind, Dockerfile, Options, Origin, Plan, plan, to_kiln_toml};
use kiln_detect::Language;

/// The language with the strongest evidence.
fn language(files: &[(&str, &str)]) -> String {
    planned(files).origin.parts()[0].language.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_package_json_for_tooling_does_not_make_a_project_node() {
    let tooling =
        ("package.json", r#"{"private":true,"devDependencies":{"prettier":"3"},"scripts":{"lint":"prettier ."}}"#);
    let rails = [("Gemfile", ""), ("Gemfile.lock", ""), ("config.ru", ""), tooling];
    assert_eq!(language(&rails), "ruby");
    let assets = ("package.json", r#"{"dependencies":{"esbuild":"1"},"scripts":{"build":"esbuild"}}"#);
    assert_eq!(language(&[("Gemfile", ""), ("Gemfile.lock", ""), ("config/application.rb", ""), assets]), "ruby");
    let python = (
        "pyproject.toml",
        "[project]\nname = \"weather\"\nversion = \"1\"\n[build-system]\nrequires = [\"setuptools\"]\n",
    );
    assert_eq!(language(&[python, ("weather/__init__.py", ""), tooling]), "python");
    assert_eq!(language(&[("manage.py", ""), ("requirements.txt", "django==5.0\n"), tooling]), "python");
    assert_eq!(language(&[("Makefile", "all:\n\tcc a.c\n"), ("a.c", ""), ("package.json", "{}")]), "node");
}

#[test]
fn an_application_with_a_linter_of_another_language_stays_what_it_is() {
    let node = ("package.json", r#"{"name":"a","scripts":{"start":"node a.js"}}"#);
    let tools = ("pyproject.toml", "[tool.ruff]\nline-length = 100\n");
    assert_eq!(language(&[node, tools]), "node");
    let gemfile = ("Gemfile", "gem \"danger\"\n");
    assert_eq!(language(&[node, gemfile]), "node");
}

#[test]
fn a_build_backend_that_drives_another_compiler_decides() {
    let maturin = "[project]\nname = \"a\"\nversion = \"1\"\n[build-system]\nrequires = [\"maturin\"]\nbuild-backend = \"maturin\"\n";
    let cargo = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n";
    assert_eq!(language(&[("pyproject.toml", maturin), ("Cargo.toml", cargo), ("src/lib.rs", "")]), "python");
}

#[test]
fn a_procfile_speaks_for_what_it_starts() {
    let node = ("package.json", r#"{"name":"a","scripts":{"start":"vite"},"main":"a.js"}"#);
    let python = [("requirements.txt", "flask==3.0\n"), ("app.py", "")];
    assert_eq!(language(&[node, ("a.js", ""), python[0], python[1]]), "node");
    assert_eq!(
        language(&[node, ("a.js", ""), python[0], python[1], ("Procfile", "web: gunicorn app:app\n")]),
        "python"
    );
}

#[test]
fn what_was_considered_is_told_with_its_reason() {
    let files = [
        ("Gemfile", ""),
        ("Gemfile.lock", ""),
        ("config.ru", ""),
        ("package.json", "{\"devDependencies\":{\"a\":\"1\"}}"),
    ];
    let Origin::Detected { considered, .. } = planned(&files).origin else { panic!("expected a detected plan") };
    assert_eq!(considered, ["node (`package.json` has only development tools)"]);
}

#[test]
fn the_user_chooses_the_language_on_the_command_line_or_in_kiln_toml() {
    let files = [("Gemfile", ""), ("Gemfile.lock", ""), ("config.ru", ""), ("package.json", "{\"name\":\"a\"}")];
    let as_ = |language| plan(&tree(&files), &Options { language: Some(language), ..options() });
    let language = as_(Language::Node).unwrap().origin.parts()[0].language.clone();
    assert!(language.starts_with("node"), "{language}");
    let words = as_(Language::Go).unwrap_err().to_string();
    assert_eq!(words, "the project cannot be built as go: expected `go.mod` or `go.work` in its root");
    let chosen = [&files[..], &[("kiln.toml", "language = \"node\"\n")]].concat();
    assert_eq!(language_of(&chosen), "node");
    let words = refused(&[&files[..], &[("kiln.toml", "language = \"cobol\"\n")]].concat());
    assert!(words.contains("line 1") && words.contains("`cobol`"), "{words}");
}

fn language_of(files: &[(&str, &str)]) -> String {
    language(files)
}

#[test]
fn a_file_of_a_tool_that_is_not_supported_is_named() {
    for (files, part) in [
        (&["Containerfile", "a.txt"][..], "`kiln build --file Containerfile`"),
        (&["src/App.csproj", "src/a.cs"], "`src/App.csproj` is for .NET, which Kiln does not build by itself"),
        (&["Shop.sln", "README.md"], "`Shop.sln` is for .NET"),
        (&["mix.exs", "lib/a.ex"], "`mix.exs` is for Elixir (Mix)"),
        (&["build.sbt"], "`build.sbt` is for Scala (sbt)"),
        (&["environment.yml", "a.ipynb"], "`environment.yml` is for Conda"),
        (&["pixi.toml", "pixi.lock"], "`pixi.toml` is for Pixi"),
        (&["MODULE.bazel"], "bazel build --remote_executor"),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|file| (*file, "")).collect();
        let words = refused(&files);
        assert!(words.contains(part), "expected {part} in: {words}");
    }
}

#[test]
fn the_lines_shown_for_a_tool_that_is_not_supported_are_a_plan() {
    for file in ["App.csproj", "mix.exs", "build.sbt", "environment.yml", "pixi.toml"] {
        let words = refused(&[(file, "")]);
        let (_, lines) = words.split_once("such as\n\n").unwrap_or_else(|| panic!("no lines in: {words}"));
        let plan = planned(&[(file, ""), ("kiln.toml", lines)]);
        let networks: Vec<bool> = plan.steps.iter().map(|step| step.network).collect();
        assert_eq!((networks, plan.artifacts.len()), (vec![true, false], 1), "{file}: the build has no network");
    }
}

#[test]
fn a_tool_that_is_not_supported_is_named_beside_what_is_built() {
    let plan = planned(&[("Makefile", "all:\n\ttrue\n"), ("mix.exs", "")]);
    let Origin::Detected { considered, .. } = plan.origin else { panic!("expected a detected plan") };
    assert_eq!(considered, ["Elixir (Mix) (`mix.exs`), which needs a `kiln.toml`"]);
}

#[test]
fn a_dockerfile_is_built_before_a_language_unless_that_is_wanted() {
    let image = |plan: &Plan| match &plan.artifacts[..] {
        [Artifact { kind: ArtifactKind::Dockerfile(dockerfile), .. }] => dockerfile.clone(),
        other => panic!("expected one image of a Dockerfile, found {other:?}"),
    };
    let alone = planned(&[("Dockerfile", ""), ("a.txt", "")]);
    assert_eq!((image(&alone).file.as_str(), alone.steps.len()), ("Dockerfile", 0));
    let both = tree(&[("Dockerfile", ""), ("Makefile", "all:\n\ttrue\n")]);
    let first = plan(&both, &options()).unwrap();
    assert_eq!((image(&first).file.as_str(), first.steps.len()), ("Dockerfile", 0));
    let Origin::Detected { considered, .. } = first.origin else { panic!("expected a detected plan") };
    assert_eq!(considered, ["c (`--language c` builds that instead)"]);
    let language = plan(&both, &Options { language: Some(Language::C), ..options() }).unwrap();
    assert!(!language.steps.is_empty(), "expected the language that was asked for");
    let wanted = Dockerfile { file: "docker/Dockerfile".into(), stage: Some("run".into()), ..Dockerfile::default() };
    let with = |wanted: &Dockerfile| Options { dockerfile: Some(wanted.clone()), ..options() };
    let files = [("docker/Dockerfile", ""), ("Makefile", "all:\n\ttrue\n")];
    assert_eq!(image(&plan(&tree(&files), &with(&wanted)).unwrap()).stage.as_deref(), Some("run"));
    let absent = plan(&tree(&files), &with(&Dockerfile { file: "Dockerfile".into(), ..wanted.clone() }));
    assert!(absent.unwrap_err().to_string().contains("no file `Dockerfile`"));
    let none = plan(&tree(&files), &with(&Dockerfile { file: String::new(), ..wanted.clone() }));
    assert!(none.unwrap_err().to_string().contains("`--stage`"));
    // What `kiln init` writes is the same plan, and options change what it says.
    let text =
        "[artifacts.app]\ndockerfile = \"Dockerfile\"\ntarget = \"one\"\nargs = { A = \"1\" }\nsecrets = [\"T\"]\n";
    let files = [("kiln.toml", text), ("Dockerfile", "")];
    let written = planned(&[("kiln.toml", &to_kiln_toml(&planned(&files))), ("Dockerfile", "")]);
    assert_eq!(image(&written), image(&planned(&files)));
    let options = with(&Dockerfile { file: String::new(), stage: Some("two".into()), ..Dockerfile::default() });
    let changed = image(&plan(&tree(&files), &options).unwrap());
    assert_eq!((changed.stage.as_deref(), changed.args["A"].as_str()), (Some("two"), "1"));
}

#[test]
fn a_root_without_a_project_lists_those_below() {
    let words = refused(&[
        ("README.md", ""),
        ("backend/go.mod", ""),
        ("backend/Makefile", ""),
        ("backend/tools/go.mod", ""),
        ("web site/package.json", ""),
        ("web site/node_modules/x/package.json", ""),
    ]);
    assert_eq!(
        words,
        "the root of the tree is not a project, but directories below it are: `kiln build backend` (go), \
         `kiln build 'web site'` (node)"
    );
}

#[test]
fn a_lock_file_that_is_ignored_is_not_called_absent() {
    let files = [("package.json", r#"{"name":"a","dependencies":{"b":"1"}}"#)];
    let ignored = Options { ignored: vec!["package-lock.json".into()], ..options() };
    let words = plan(&tree(&files), &ignored).unwrap_err().to_string();
    assert!(words.starts_with("`package-lock.json` exists but is left out of the build"), "{words}");
}

#[test]
fn an_image_of_a_detected_project_has_base_packages_command_and_layers_of_its_own() {
    let image = |files: &[(&str, &str)], base: &str| {
        let made = plan(&tree(files), &Options { image: Some(base.to_owned()), ..options() }).unwrap();
        let written = to_kiln_toml(&made);
        // What `kiln init` writes is the same plan.
        let whole: Vec<(&str, &str)> = files.iter().copied().chain([("kiln.toml", written.as_str())]).collect();
        assert_eq!(planned(&whole).artifacts, made.artifacts, "{written}");
        match made.artifacts.into_iter().next().unwrap().kind {
            ArtifactKind::Image(image) => *image,
            other => panic!("expected an image, found {other:?}"),
        }
    };
    let rust = image(
        &[
            ("Cargo.toml", "[package]\nname = \"a\"\nversion = \"1.0.0\"\n"),
            ("Cargo.lock", "version = 3\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n"),
            ("src/main.rs", ""),
        ],
        "",
    );
    assert_eq!(
        (rust.base.show().as_str(), rust.start, rust.packages.join(" ")),
        ("debian:12", true, "ca-certificates".to_owned())
    );
    assert_eq!((rust.user.as_deref(), rust.workdir.as_deref()), (Some("1000:1000"), Some("/app")));
    let lock = r#"{"name":"a","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"a"}}}"#;
    let node = |manifest: &str, more: &[(&str, &str)]| {
        let files = [("package.json", manifest), ("package-lock.json", lock), ("server.js", "")];
        image(&[&files[..], more].concat(), "alpine:3.20")
    };
    let started = node(r#"{"name":"a","version":"1.0.0","scripts":{"start":"node ./server.js"}}"#, &[]);
    assert_eq!(started.entrypoint.unwrap(), ["node", "server.js"]);
    assert_eq!(
        (started.packages, started.layers[0].as_str()),
        (vec!["ca-certificates".to_owned(), "nodejs".to_owned()], "node_modules")
    );
    let tool = node(r#"{"name":"a","version":"1.0.0","scripts":{"start":"next start -p $PORT"}}"#, &[]);
    assert_eq!(tool.entrypoint.unwrap()[2], "PATH=/app/node_modules/.bin:$PATH exec next start -p $PORT");
    let procfile =
        node(r#"{"name":"a","version":"1.0.0"}"#, &[("Procfile", "release: true\nweb: node server.js --all\n")]);
    assert!(procfile.entrypoint.unwrap()[2].ends_with("exec node server.js --all"));
    let own = image(&[("requirements.txt", ""), ("main.py", "")], "registry.example/team/python:3.12");
    assert!(own.packages.is_empty(), "an image of one's own brings its interpreter: {:?}", own.packages);
    let whole = [
        ("kiln.toml", "[steps.a]\nrun = \"true\"\noutputs = [\"a\"]\n[artifacts.a]\nfrom = \"a\"\nfiles = [\"a\"]\n"),
        ("b", ""),
    ];
    let refused = plan(&tree(&whole), &Options { image: Some(String::new()), ..options() }).unwrap_err();
    assert!(refused.to_string().contains("`kiln.toml`"), "{refused}");
}
