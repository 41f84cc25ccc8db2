//! Stages: what they are based on, what they take files from, which are built; arguments, platforms, named contexts, ONBUILD.

use kiln_dockerfile::config::Config;
use kiln_dockerfile::{BaseImage, Bases, NamedContext, NoCache, Operator, Options, Platform, Reference, bases};

use crate::support::{build, build_with, error, error_with, file, lowered, options, runs, variable};

fn with_args(args: &[(&str, &str)]) -> Options {
    let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { build_args, ..options() }
}

fn wanted(text: &str, options: &Options) -> Vec<String> {
    bases(&file(text), options, &Bases::new()).unwrap().iter().map(|base| base.reference.show(None)).collect()
}

#[test]
fn only_what_the_target_needs_is_built() {
    let text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM c\nCOPY --from=one x y\nRUN 3\n";
    let built = build(text);
    assert_eq!(runs(&built).iter().map(|run| run.argv[2].as_str()).collect::<Vec<_>>(), ["1", "3"]);
    assert_eq!(wanted(text, &options()), ["docker.io/library/a:latest", "docker.io/library/c:latest"]);
    let target = |name: &str| Options { target: Some(name.to_owned()), ..options() };
    assert_eq!(wanted(text, &target("TWO")), ["docker.io/library/b:latest"]);
    assert_eq!(wanted(text, &target("0")), ["docker.io/library/a:latest"]);
    assert_eq!(runs(&build_with(text, &Options { all_stages: true, ..options() })).len(), 3);
}

#[test]
fn stages_are_named_in_any_case_but_in_from() {
    build("FROM a AS Build\nFROM build\nCOPY --from=BUILD x y\nRUN --mount=from=Build,target=/x z\n");
    assert!(error("FROM a AS build\nFROM Build\n").contains("`Build` is not the name of an image"));
    let found = build("FROM a AS x\nRUN 1\nFROM b AS x\nRUN 2\nFROM x\nCOPY --from=0 a b\n");
    assert_eq!(runs(&found).len(), 2);
    let own = wanted("FROM alpine AS alpine\nRUN x\n", &options());
    assert_eq!(own, ["docker.io/library/alpine:latest"]);
}

#[test]
fn later_stages_and_cycles_are_refused() {
    let later = "FROM a\nCOPY --from=b x y\nFROM a AS b\n";
    assert_eq!(
        error_with(later, &Options { all_stages: true, ..options() }),
        "2: the stage `b` comes later in the file; move it before the stage that takes files from it"
    );
    assert_eq!(
        error("FROM a AS one\nCOPY --from=two x y\nFROM a AS two\nCOPY --from=one x y\n"),
        "4: stages need each other: `one` → `two` → `one`; move what both need to a stage of its own"
    );
    assert_eq!(
        error("FROM a AS x\nCOPY --from=x a b"),
        "2: the stage `x` takes files from itself; name another stage, or an image"
    );
    assert_eq!(error("FROM a\nCOPY --from=3 a b"), "2: there is no stage 3; stages are counted from 0 to 0");
    let variable = "FROM a\nARG X\nCOPY --from=$X a b";
    assert_eq!(
        error(variable),
        "3: variables are not expanded in `--from`; add a stage `FROM $NAME AS …` and name that"
    );
}

#[test]
fn arguments_before_the_first_stage_are_for_from() {
    let text = "ARG TAG=1\nARG BASE=alpine:$TAG\nFROM ${BASE}\nARG TAG\nRUN x\nARG BASE=own\nRUN y\nARG NONE\nRUN z\n";
    assert_eq!(wanted(text, &options()), ["docker.io/library/alpine:1"]);
    assert_eq!(wanted(text, &with_args(&[("TAG", "2")])), ["docker.io/library/alpine:2"]);
    let built = build(text);
    let runs = runs(&built);
    assert_eq!((variable(runs[0], "TAG"), variable(runs[0], "BASE")), (Some("1"), None));
    assert_eq!(variable(runs[1], "BASE"), Some("own"));
    assert_eq!(variable(runs[2], "NONE"), None);
}

#[test]
fn the_later_of_arg_and_env_counts() {
    let of = |text: &str| {
        let built = build_with(&format!("FROM a\n{text}\nRUN x\n"), &with_args(&[("A", "given")]));
        variable(runs(&built)[0], "A").map(str::to_owned)
    };
    assert_eq!(of("ARG A=default").as_deref(), Some("given"));
    assert_eq!(of("ENV A=env\nARG A=default").as_deref(), Some("given"));
    assert_eq!(of("ARG A=default\nENV A=env").as_deref(), Some("env"));
    assert_eq!(of("ARG A\nENV A=${A:-x}-y").as_deref(), Some("given-y"));
    assert_eq!(of("ENV B=x").as_deref(), None);
}

#[test]
fn arguments_belong_to_their_stage_and_those_built_on_it() {
    let built =
        build("FROM a AS base\nARG A=1\nENV E=$A\nFROM base\nRUN x\nFROM a\nARG B=2\nCOPY --from=1 x y\nRUN y\n");
    let runs = runs(&built);
    assert_eq!((variable(runs[0], "A"), variable(runs[0], "E")), (Some("1"), Some("1")));
    assert_eq!((variable(runs[1], "A"), variable(runs[1], "B")), (None, Some("2")));
    // The configuration of the base counts again, so an argument does not outlive a stage over a variable.
    let built = build("FROM a AS base\nENV X=env\nARG X=arg\nFROM base\nRUN x\n");
    assert_eq!(variable(crate::support::runs(&built)[0], "X"), Some("env"));
}

#[test]
fn every_build_has_platform_arguments() {
    let own =
        Options { platform: Some(Platform::read("linux/arm/v7", &Platform::linux("amd64")).unwrap()), ..options() };
    let text = "FROM --platform=$BUILDPLATFORM a AS build\nARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDARCH TARGETSTAGE\nRUN x\n";
    let built = build_with(text, &own);
    let run = runs(&built)[0];
    let of = |name: &str| variable(run, name).unwrap().to_owned();
    assert_eq!(
        (of("TARGETPLATFORM"), of("TARGETARCH"), of("TARGETVARIANT")),
        ("linux/arm/v7".into(), "arm".into(), "v7".into())
    );
    assert_eq!((of("BUILDARCH"), of("TARGETSTAGE")), ("amd64".into(), "build".into()));
    assert_eq!(built.operations[0].platform, Platform::linux("amd64"));
    assert_eq!(built.image.platform().to_string(), "linux/arm/v7", "the image is for the platform that was asked for");
    let mut overridden = options();
    overridden.build_args.insert("TARGETARCH".to_owned(), "mine".to_owned());
    assert_eq!(
        variable(runs(&build_with("FROM a\nARG TARGETARCH\nRUN x", &overridden))[0], "TARGETARCH"),
        Some("mine")
    );
}

#[test]
fn named_contexts_take_the_place_of_stages_and_images() {
    let context = |name: &str, value: &str| {
        let mut own = options();
        own.contexts.add(name, NamedContext::read(value).unwrap());
        own
    };
    let text = "FROM alpine AS build\nRUN x\nFROM scratch\nCOPY --from=build a b\nCOPY --from=busybox c d\n";
    let stage = build_with(text, &context("build", "./dir"));
    assert!(runs(&stage).is_empty());
    assert!(
        stage
            .operations
            .iter()
            .any(|op| matches!(&op.kind, Operator::Context(kiln_dockerfile::Context::Named(name)) if name == "build"))
    );
    assert_eq!(
        wanted(text, &context("alpine", "docker-image://debian:12")),
        ["docker.io/library/debian:12", "docker.io/library/busybox:latest"]
    );
    assert_eq!(wanted(text, &context("docker.io/library/busybox:latest", "dir")), ["docker.io/library/alpine:latest"]);
    assert_eq!(wanted(text, &context("alpine::linux/arm64", "dir")).len(), 2, "it is for another platform");
    assert_eq!(wanted(text, &context("alpine::linux/amd64", "dir")).len(), 1);
    assert_eq!(wanted(text, &context("build", "docker-image://scratch")), ["docker.io/library/busybox:latest"]);
    let layout = context("alpine", "oci-layout://dir:1");
    assert_eq!(
        bases(&file(text), &layout, &Bases::new()).unwrap()[0],
        BaseImage { reference: Reference::Layout("dir:1".to_owned()), platform: Platform::linux("amd64") }
    );
    // A local directory can be a base.
    let based = build_with("FROM alpine\nRUN x\n", &context("alpine", "dir"));
    assert_eq!(runs(&based)[0].cwd, "/");
}

#[test]
fn what_a_base_has_stored_runs_first_and_once() {
    let stored = Config { on_build: vec!["ARG V=1".to_owned(), "RUN echo $V".to_owned()], ..Config::default() };
    let built = lowered("FROM parent AS x\nRUN own\nFROM x\nRUN last\n", &options(), &[("parent", stored)]).unwrap();
    assert_eq!(runs(&built).iter().map(|run| run.argv[2].as_str()).collect::<Vec<_>>(), ["echo $V", "own", "last"]);
    assert_eq!(variable(runs(&built)[0], "V"), Some("1"));
    assert!(built.image.config.on_build.is_empty());
    assert!(built.operations[1].name.contains("ONBUILD RUN echo"), "{}", built.operations[1].name);
    assert_eq!(built.operations[1].lines, (1, 1), "it stands where its base is named");
}

#[test]
fn what_a_stage_stores_runs_in_those_built_on_it_only() {
    let built = build("FROM a AS base\nONBUILD RUN <<EOF\n1\nEOF\nRUN 2\nFROM base AS next\nRUN 3\nFROM next\nRUN 4\n");
    assert_eq!(runs(&built).iter().map(|run| run.argv[2].trim()).collect::<Vec<_>>(), ["2", "1", "3", "4"]);
    assert!(built.image.config.on_build.is_empty());
    assert_eq!(build("FROM a\nONBUILD COPY . /app\n").image.config.on_build, ["COPY . /app"]);
}

#[test]
fn stored_instructions_bring_their_own_needs() {
    let stored = Config { on_build: vec!["COPY --from=tools /bin/x /x".to_owned()], ..Config::default() };
    let built = lowered("FROM parent\n", &options(), &[("parent", stored.clone())]).unwrap();
    let names: Vec<&str> = built.operations.iter().map(|operation| operation.name.as_str()).collect();
    assert!(names.iter().any(|name| name.ends_with("FROM docker.io/library/tools:latest")), "{names:?}");
    // A stage of the file is meant by the name too.
    let built = lowered("FROM a AS tools\nRUN x\nFROM parent\n", &options(), &[("parent", stored)]).unwrap();
    assert_eq!(runs(&built).len(), 1);
    let bad = Config { on_build: vec!["RUNN x".to_owned()], ..Config::default() };
    let error = lowered("FROM parent\n", &options(), &[("parent", bad)]).unwrap_err().to_string();
    assert_eq!(
        error,
        "Dockerfile:1: the base's `ONBUILD` instruction `RUNN x` is invalid: unknown instruction `RUNN`; did you mean `RUN`?"
    );
}

#[test]
fn results_of_earlier_builds_are_left_out_by_stage() {
    let text = "FROM a AS one\nRUN 1\nFROM a AS two\nCOPY --from=one x y\nRUN 2\n";
    let flags = |no_cache| {
        let built = build_with(text, &Options { no_cache, ..options() });
        let runs = built.operations.iter().filter(|operation| matches!(operation.kind, Operator::Run(_)));
        runs.map(|operation| operation.no_cache).collect::<Vec<_>>()
    };
    assert_eq!(flags(NoCache::No), [false, false]);
    assert_eq!(flags(NoCache::All), [true, true]);
    assert_eq!(flags(NoCache::Stages(vec!["ONE".to_owned()])), [true, false]);
}
