//! Operations: what an executor is given for `RUN`, `COPY`, `ADD` and `WORKDIR`.

use kiln_dockerfile::instruction::Network;
use kiln_dockerfile::{
    Build, Chmod, Context, Copy, CopySource, GitSource, Operator, Options, Paths, Platform, WithParents,
};

use crate::support::{build, build_with, options, runs, variable};

fn copies(build: &Build) -> Vec<&Copy> {
    let copies = build.operations.iter().map(|operation| match &operation.kind {
        Operator::Copy(copy) => Some(copy),
        _ => None,
    });
    copies.flatten().collect()
}

fn files(copy: &Copy) -> Vec<(&str, bool)> {
    let files = copy.sources.iter().map(|source| match source {
        CopySource::Files { path, unpack, .. } => (path.as_str(), *unpack),
        other => panic!("{other:?}"),
    });
    files.collect()
}

#[test]
fn a_run_has_the_stages_user_directory_environment_and_shell() {
    let built = build(
        "FROM a\nRUN one\nUSER me:group\nWORKDIR /w\nWORKDIR x/../y\nENV B=2 A=1\nSHELL [\"bash\", \"-euc\"]\nRUN two  words\n\
         RUN [\"three\", \"$B\"]\n",
    );
    let runs = runs(&built);
    assert_eq!(
        (runs[0].argv.join("|"), runs[0].cwd.as_str(), runs[0].user.as_str()),
        ("/bin/sh|-c|one".into(), "/", "")
    );
    assert_eq!(runs[1].argv, ["bash", "-euc", "two  words"]);
    assert_eq!((runs[1].cwd.as_str(), runs[1].user.as_str()), ("/w/y", "me:group"));
    let names: Vec<&str> = runs[1].env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["A", "B", "PATH"]);
    assert_eq!(runs[2].argv, ["three", "$B"]);
    assert_eq!(runs[0].network, Network::Default);
    let none = Options { network: Network::None, ..options() };
    let built = build_with("FROM a\nRUN x\nRUN --network=host y", &none);
    assert_eq!(
        crate::support::runs(&built).iter().map(|run| run.network).collect::<Vec<_>>(),
        [Network::None, Network::Host]
    );
}

#[test]
fn one_instruction_sees_the_variables_before_it() {
    let built = build("FROM a\nENV A=1\nENV A=2 B=$A\nENV C=\"$B $A\"\nRUN x\n");
    let run = runs(&built)[0];
    assert_eq!((variable(run, "B"), variable(run, "C")), (Some("1"), Some("1 2")));
}

#[test]
fn proxies_are_given_to_a_run_but_are_not_in_its_environment_unless_declared() {
    let mut own = options();
    own.build_args.insert("https_proxy".to_owned(), "http://p".to_owned());
    let built = build_with("FROM a\nRUN one\nARG https_proxy\nRUN two\n", &own);
    let runs = runs(&built);
    let proxy = |name: &str| (name.to_owned(), "http://p".to_owned());
    assert_eq!(runs[0].proxies, [proxy("HTTPS_PROXY"), proxy("https_proxy")]);
    assert_eq!((variable(runs[0], "https_proxy"), variable(runs[1], "https_proxy")), (None, Some("http://p")));
    assert_eq!(runs[1].proxies, [proxy("HTTPS_PROXY")]);
}

#[test]
fn a_heredoc_is_the_command_a_script_or_the_shells() {
    let argv = |text: &str| {
        let built = build(&format!("FROM a\n{text}\n"));
        let run = runs(&built)[0].clone();
        (run.argv[2].clone(), run.script)
    };
    assert_eq!(argv("RUN <<EOF\necho $X\nls\nEOF"), ("echo $X\nls\n".to_owned(), None));
    assert_eq!(argv("RUN <<-EOF\n\tls\n\tEOF").0, "ls\n");
    let script = "#!/usr/bin/python3\nprint(1)\n".to_owned();
    assert_eq!(
        argv("RUN <<'PY'\n#!/usr/bin/python3\nprint(1)\nPY"),
        ("/dev/pipes/PY".to_owned(), Some(("/dev/pipes/PY".to_owned(), script)))
    );
    assert_eq!(argv("RUN python3 <<A - <<-B\na\nA\n\tb\nB").0, "python3 <<A - <<-B\na\nA\n\tb\nB");
}

#[test]
fn sources_are_from_the_contexts_root_and_destinations_from_the_directory() {
    let built = build(
        "FROM a\nWORKDIR /w\nCOPY ../x ./y/ /z/../q* d\nCOPY . .\nADD a.tar /t/\nADD --unpack=false b.tar /t/.\n",
    );
    let found = copies(&built);
    assert_eq!(files(found[0]), [("/x", false), ("/y", false), ("/q*", false)]);
    assert_eq!(found.iter().map(|copy| copy.destination.as_str()).collect::<Vec<_>>(), ["/w/d", "/w/", "/t/", "/t/"]);
    assert_eq!((files(found[2]), files(found[3])), (vec![("/a.tar", true)], vec![("/b.tar", false)]));
    let root = build("FROM a\nCOPY a /\nCOPY b .\n");
    assert_eq!(copies(&root).iter().map(|copy| &*copy.destination).collect::<Vec<_>>(), ["/", "/"]);
}

#[test]
fn owners_modes_and_exclusions_are_handed_on() {
    let built = build(
        "FROM a\nARG U=me\nCOPY --chown=$U:0 --chmod=u=rwX,go=rX --exclude=$U --link a b\nCOPY --link --chmod=0644 a b\nCOPY --link a b\n",
    );
    let copies = copies(&built);
    assert_eq!(copies[0].owner.as_deref(), Some("me:0"));
    assert_eq!(copies[0].mode, Some(Chmod::Symbolic("u=rwX,go=rX".to_owned())));
    assert_eq!(copies[0].excludes, ["$U"], "patterns are not expanded");
    assert_eq!(copies[1].mode, Some(Chmod::Octal(0o644)));
    assert_eq!(copies.iter().map(|copy| copy.link).collect::<Vec<_>>(), [false, false, true], "a mode needs the root");
}

#[test]
fn parents_keep_directories_from_a_point_on() {
    let built = build("FROM a\nCOPY --parents a/b ./c/./d/*.o /x/\n");
    let parents = |at: usize| match &copies(&built)[0].sources[at] {
        CopySource::Files { path, parents: Some(parents), .. } => (path.clone(), parents.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        parents(0),
        ("/".to_owned(), WithParents { pattern: "a/b".to_owned(), required: Some("/a/b".to_owned()) })
    );
    assert_eq!(parents(1), ("/c".to_owned(), WithParents { pattern: "d/*.o".to_owned(), required: None }));
}

#[test]
fn files_in_the_file_are_expanded_but_keep_their_quotes() {
    let built = build("FROM a\nENV X=1\nCOPY <<one <<'two' /d/\n\"$X\" it's \\$X\none\n$X\ntwo\n");
    assert_eq!(
        copies(&built)[0].sources,
        [
            CopySource::Inline { name: "one".to_owned(), data: "\"1\" it's $X\n".to_owned() },
            CopySource::Inline { name: "two".to_owned(), data: "$X\n".to_owned() }
        ]
    );
}

#[test]
fn what_is_elsewhere_is_an_operation_of_its_own() {
    let checksum = format!("sha256:{}", "0".repeat(64));
    let built = build(&format!(
        "FROM a\nARG V=1\nADD --checksum={checksum} https://example.com/$V/x.tgz?q /x/\nADD --keep-git-dir \
         https://example.com/y.git#v$V:sub /y\nADD --unpack https://example.com/z.tar /z\n"
    ));
    let copies = copies(&built);
    let CopySource::Fetched { from, file, unpack: false } = &copies[0].sources[0] else { panic!() };
    let Operator::Fetch(fetch) = &built.operations[*from].kind else { panic!() };
    assert_eq!((fetch.url.as_str(), file.as_str()), ("https://example.com/1/x.tgz?q", "x.tgz"));
    assert_eq!(fetch.checksum.as_ref(), Some(&checksum));
    let CopySource::Repository(from) = &copies[1].sources[0] else { panic!() };
    let expected = GitSource {
        remote: "https://example.com/y.git".to_owned(),
        reference: "v1".to_owned(),
        directory: "sub".to_owned(),
        keep_git_dir: Some(true),
        ..GitSource::default()
    };
    assert_eq!(built.operations[*from].kind, Operator::Git(expected));
    assert!(matches!(copies[2].sources[0], CopySource::Fetched { unpack: true, .. }));
}

#[test]
fn only_paths_that_are_read_are_needed_of_a_context() {
    let paths = |text: &str| build(text).context_paths.get(&Context::Main).cloned();
    assert_eq!(paths("FROM a\nRUN x\n"), None);
    let some = |paths: &[&str]| Some(Paths::Some(paths.iter().map(|path| (*path).to_owned()).collect()));
    assert_eq!(paths("FROM a\nCOPY b a/*.c /x/\nCOPY a/*.c ../b /\nCOPY --from=a /etc /\n"), some(&["a/*.c", "b"]));
    assert_eq!(paths("FROM a\nCOPY --parents x/./y/*.c /x/\n"), some(&["x/y/*.c"]));
    assert_eq!(paths("FROM a\nRUN --mount=target=/x,source=s y\n"), some(&["s"]));
    assert_eq!(paths("FROM a\nCOPY a b\nCOPY . .\n"), Some(Paths::All));
    assert_eq!(paths("FROM a\nADD https://example.com/x /\n"), None);
}

#[test]
fn a_directory_is_made_by_the_stages_user_unless_it_is_the_root() {
    let built = build("FROM a\nWORKDIR /\nUSER 5\nWORKDIR d\n");
    let made: Vec<_> = built.operations.iter().filter(|op| matches!(op.kind, Operator::Workdir { .. })).collect();
    assert_eq!(made.len(), 1);
    assert!(matches!(&made[0].kind, Operator::Workdir { path, user, .. } if path == "/d" && user == "5"));
}

#[test]
fn names_count_the_operations_of_a_stage() {
    let names = |text: &str, options: &Options| {
        build_with(text, options).operations.into_iter().map(|operation| operation.name).collect::<Vec<_>>()
    };
    assert_eq!(
        names("FROM a\nENV X=1\nWORKDIR /w\ncopy \"$X\" b\nRUN echo \"$X\" $Y\n", &options()),
        [
            "[1/4] FROM docker.io/library/a:latest",
            "[2/4] WORKDIR /w",
            "load build context",
            "[3/4] COPY 1 b",
            "[4/4] RUN echo \"1\" $Y"
        ]
    );
    assert_eq!(
        names("FROM a AS build\nRUN <<EOF\n  one\n two\nEOF\nFROM scratch\nCOPY --from=build /x /\n", &options()),
        [
            "[build 1/2] FROM docker.io/library/a:latest",
            "[build 2/2] RUN <<EOF (one...)",
            "FROM scratch",
            "[stage-1 1/1] COPY --from=build /x /"
        ]
    );
    let several = Options { multi_platform: true, platform: Some(Platform::linux("arm64")), ..options() };
    assert_eq!(
        names("FROM --platform=$BUILDPLATFORM a\nARG TARGETARCH\nRUN --mount=type=secret,id=s,env=S x $S\n", &several),
        [
            "[linux/amd64 1/2] FROM docker.io/library/a:latest",
            "[linux/amd64->arm64 2/2] RUN --mount=type=secret,id=s,env=S x ****"
        ]
    );
}

#[test]
fn each_operation_knows_its_lines_and_comes_after_its_inputs() {
    let built = build("FROM a AS x\nRUN one \\\n  two\nFROM b\nCOPY --from=x . .\n");
    let lines: Vec<_> = built.operations.iter().map(|operation| (operation.stage.as_str(), operation.lines)).collect();
    assert_eq!(lines, [("x", (1, 1)), ("x", (2, 3)), ("1", (4, 4)), ("1", (5, 5))]);
    assert_eq!(built.operations[3].inputs(), [2, 1]);
    assert_eq!(built.result, 3);
}
