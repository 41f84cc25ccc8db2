//! What command lines mean, and what is wrong with others.

#![allow(clippy::unwrap_used)]

use kiln_buildx::{Asked, Error, Files, Level, Method, Mode, Network, Origin, Output, Place, Progress, Request, parse};

fn with(line: &[&str], variables: &[(&str, &str)]) -> Result<Asked, Error> {
    let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    parse(&line, &variable)
}

fn built(line: &[&str], variables: &[(&str, &str)]) -> Request {
    match with(&[&["build"], line].concat(), variables).unwrap() {
        Asked::Build(request) => *request,
        other => panic!("expected a build of {line:?}, found {other:?}"),
    }
}

fn wrong(line: &[&str]) -> (String, u8) {
    let error = with(&[&["build"], line].concat(), &[]).unwrap_err();
    (error.to_string(), error.exit_code())
}

fn local(path: &str) -> Output {
    Output::Local(Files { to: Place::Path(path.into()), split: None, prefix: String::new() })
}

#[test]
fn flags_are_written_in_every_way_and_mixed_with_the_context() {
    for line in [
        &["-t", "app:1", "-q", "."][..],
        &["-tapp:1", "-q", "."],
        &["-t=app:1", ".", "-q"],
        &["--tag", "app:1", "--quiet=true", "--", "."],
        &["-qt", "app:1", "."],
        &["--tag=app:1", ".", "--quiet"],
    ] {
        let request = built(line, &[]);
        assert_eq!(
            (request.tags.as_slice(), request.quiet, request.context.as_str()),
            (&["app:1".to_owned()][..], true, ".")
        );
    }
    assert!(!built(&["--no-cache=false", "."], &[]).no_cache);
    for line in [
        &["build", "."][..],
        &["buildx", "build", "."],
        &["buildx", "b", "."],
        &["image", "build", "."],
        &["-H", "unix:///x", "build", "."],
    ] {
        assert!(matches!(with(line, &[]).unwrap(), Asked::Build(_)), "{line:?}");
    }
    for line in [&["build", "--help"][..], &["buildx", "--help"], &[], &["build", "-h"]] {
        let Asked::Help(text) = with(line, &[]).unwrap() else { panic!("{line:?}") };
        assert!(text.contains("--annotation") && text.contains("--cpu-shares"), "{text}");
    }
}

#[test]
fn values_are_read_as_buildx_reads_them() {
    let request = built(
        &[
            "--build-arg",
            "A=1=2",
            "--build-arg",
            "B",
            "--build-arg",
            "UNSET",
            "--label",
            "l=v",
            "--label",
            "empty",
            "--build-context",
            "base=docker-image://alpine",
            "--secret",
            "id=a,src=/x",
            "--secret",
            "id=b,env=B",
            "--secret",
            "id=c",
            "--secret",
            "type=env,id=D",
            "--ssh",
            "default",
            "--platform",
            "linux/amd64,linux/arm64/v8",
            "--platform",
            "linux/aarch64",
            "--add-host",
            "a:1.2.3.4",
            "--add-host",
            "b=[::1]",
            "--network",
            "none",
            "--no-cache-filter",
            "x,y",
            "--annotation",
            "index,manifest[linux/amd64]:k=v",
            "--annotation",
            "plain=1",
            "--attest",
            "type=provenance,mode=max",
            "--sbom=true",
            "--call",
            "check,format=json",
            "-",
        ],
        &[("B", "env"), ("SOURCE_DATE_EPOCH", "42")],
    );
    let args: Vec<(&str, &str)> =
        request.build_args.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(args, [("A", "1=2"), ("B", "env"), ("SOURCE_DATE_EPOCH", "42")]);
    assert_eq!(request.labels["empty"], "");
    let from: Vec<&Origin> = request.secrets.iter().map(|secret| &secret.from).collect();
    let expected = [
        Origin::File("/x".into()),
        Origin::Variable("B".into()),
        Origin::Either("c".into()),
        Origin::Variable("D".into()),
    ];
    assert_eq!(from, expected.iter().collect::<Vec<_>>());
    assert_eq!(request.platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(request.hosts, [("a".into(), "1.2.3.4".into()), ("b".into(), "::1".into())]);
    assert_eq!((request.network, request.call.method, request.call.json), (Network::None, Method::Check, true));
    assert_eq!((request.attestations.provenance, request.attestations.sbom), (Some(Mode::Max), true));
    let levels: Vec<_> =
        request.annotations.iter().map(|one| (one.level, one.platform.as_deref(), one.key.as_str())).collect();
    assert_eq!(
        levels,
        [(Level::Index, None, "k"), (Level::Manifest, Some("linux/amd64"), "k"), (Level::Manifest, None, "plain")]
    );
}

#[test]
fn outputs_are_places_and_types() {
    let outputs = |line: &[&str]| built(&[line, &["."]].concat(), &[]).outputs;
    assert_eq!(outputs(&["-o", "out"]), [local("out")]);
    assert_eq!(outputs(&["-o", "type=local,dest=out"]), [local("out")]);
    assert!(matches!(&outputs(&["-o", "-"])[..], [Output::Tar(files)] if files.to == Place::Stdout));
    let image = |push| Output::Image { push, by_digest: false, insecure: false };
    assert_eq!(outputs(&["--push"]), [image(true)]);
    assert_eq!(outputs(&["--push", "-o", "type=image"]), [image(true)]);
    assert_eq!(outputs(&["--push", "--load"]), [image(true), Output::Docker(None)]);
    assert_eq!(outputs(&["-o", "type=registry"]), [image(true)]);
    assert_eq!(outputs(&["-o", "type=docker,dest=a.tar"]), [Output::Docker(Some(Place::Path("a.tar".into())))]);
    assert_eq!(
        outputs(&["-o", "type=oci,dest=d,tar=false"]),
        [Output::Oci { to: Place::Path("d".into()), is_archive: false }]
    );
    assert_eq!(outputs(&["-o", "type=cacheonly"]), [Output::CacheOnly]);
    let request = built(
        &[
            "-o",
            "type=image,\"name=a:1,b:2\",push=true,compression=zstd,rewrite-timestamp=true,annotation-index.k=v",
            ".",
        ],
        &[],
    );
    assert_eq!(request.tags, ["a:1", "b:2"]);
    assert_eq!((request.format.compression.as_deref(), request.format.rewrite_timestamp), (Some("zstd"), true));
    assert_eq!(request.annotations[0].level, Level::Index);
}

#[test]
fn variables_are_defaults() {
    let variables = [
        ("DOCKER_DEFAULT_PLATFORM", "linux/arm64"),
        ("BUILDKIT_PROGRESS", "plain"),
        ("BUILDX_NO_DEFAULT_ATTESTATIONS", "1"),
    ];
    let request = built(&["."], &variables);
    assert_eq!((request.platforms.as_slice(), request.progress), (&["linux/arm64".to_owned()][..], Progress::Plain));
    assert_eq!(request.attestations.provenance, None);
    let request = built(&["--platform", "amd64", "--progress", "tty", "--provenance=mode=max", "."], &variables);
    assert_eq!((request.platforms.as_slice(), request.progress), (&["linux/amd64".to_owned()][..], Progress::Tty));
    assert_eq!(request.attestations.provenance, Some(Mode::Max));
    assert_eq!(built(&["."], &[]).attestations.provenance, Some(Mode::Min), "as buildx adds it");
    assert_eq!(built(&["--provenance=false", "."], &[]).attestations.provenance, None);
}

#[test]
fn memory_is_a_size_as_docker_writes_it_and_the_network_is_the_worker_s_to_allow() {
    let memory = |text: &str| built(&["-m", text, "."], &[]).memory_bytes;
    assert_eq!(
        (memory("4g"), memory("512M"), memory("1024"), memory("0")),
        (Some(4 << 30), Some(512 << 20), Some(1024), None)
    );
    assert_eq!(built(&["."], &[]).memory_bytes, None);
    assert_eq!(built(&["--network=host", "."], &[]).network, Network::Host);
}

#[test]
fn what_has_no_effect_is_said_once() {
    let request = built(
        &["--cache-from", "a", "--cache-from", "b", "--memory-swap", "1g", "-c", "2", "--rm", "--pull", "."],
        &[],
    );
    assert_eq!(request.notes.len(), 3, "{:?}", request.notes);
    assert!(request.notes[0].contains("`--cache-from`"));
}

#[test]
fn what_is_wrong_is_named_with_what_was_meant() {
    for (line, code, words) in [
        (&["--tga", "x", "."][..], 125, "unknown flag `--tga`; did you mean `--tag`?"),
        (&["-Z", "."], 125, "unknown flag `-Z`"),
        (&["--tag"], 125, "flag `--tag` needs a value"),
        (&["--push=perhaps", "."], 125, "invalid value `perhaps` of `--push`"),
        (&[], 1, "found 0"),
        (&[".", "other"], 1, "found 2"),
        (&["--squash", "."], 1, "`--squash` is not supported"),
        (&["-o", "type=lokal,dest=x", "."], 1, "did you mean `local`?"),
        (&["-o", "type=local", "."], 1, "needs `dest`"),
        (&["-o", "type=image,pusch=true", "."], 1, "did you mean `push`?"),
        (&["-o", "type=oci,compression=estargz", "."], 1, "compression=estargz"),
        (&["-o", "-", "-q", "."], 1, "`--quiet` prints"),
        (&["--platform", "windows/amd64", "."], 1, "linux/amd64"),
        (&["--platform", "linux/arm/v7", "."], 1, "linux/arm64"),
        (&["--platform", "a,b", "--load", "."], 1, "unknown platform"),
        (&["--platform", "amd64,arm64", "--load", "."], 1, "one platform"),
        (&["--memory", "much", "."], 1, "such as `512m` or `4g`"),
        (&["--allow", "security.insecure", "."], 1, "security.insecure"),
        (&["--add-host", "a:b", "."], 1, "`b` is not an address"),
        (&["--add-host", "a:host-gateway", "."], 1, "host-gateway"),
        (&["-f", "-", "-"], 1, "cannot both be standard input"),
        (&["--progress", "json", "."], 1, "unknown type `json`"),
        (&["--progress", "plain", "-q", "."], 1, "exclude each other"),
        (&["--attest", "type=provenence", "."], 1, "did you mean `provenance`?"),
        (&["--annotation", "manifets:k=v", "."], 1, "did you mean `manifest`?"),
        (&["--build-context", "a=target:b", "."], 1, "bake"),
        (&["--call", "chek", "."], 1, "did you mean `check`?"),
        (&["-o", "out", "--iidfile", "x", "."], 1, "--iidfile"),
    ] {
        let (found, exit) = wrong(line);
        assert!(found.contains(words), "{line:?}: expected `{words}` in: {found}");
        assert_eq!(exit, code, "{line:?}: {found}");
    }
    let error = with(&["run", "alpine"], &[]).unwrap_err().to_string();
    assert!(error.contains("`kiln docker run` does not exist"), "{error}");
    let error = with(&["buildx", "bake"], &[]).unwrap_err().to_string();
    assert!(error.contains("`kiln docker buildx bake`") && error.contains("script"), "{error}");
}

#[test]
fn a_secret_in_the_place_of_its_name_is_not_shown() {
    for text in ["hunter22", "id=a,hunter22isthepassword", "src"] {
        let (words, _) = wrong(&["--secret", text, "."]);
        assert!(!words.contains("hunter22"), "{words}");
    }
    let (words, _) = wrong(&["--secret", "hunter22isthepassword=x", "."]);
    assert!(!words.contains("hunter22isthepassword"), "{words}");
}

proptest::proptest! {
    #[test]
    fn no_line_panics(words in proptest::collection::vec("[-a-z=,:./\\[\\]\"]{0,12}", 0..6)) {
        let line: Vec<String> = std::iter::once("build".to_owned()).chain(words).collect();
        let _ = parse(&line, &|_| None);
    }
}

#[test]
fn a_file_is_checked_and_described_instead_of_built() {
    let text = "# VERSION of the compiler\nARG VERSION=1\nFROM scratch AS base\nMAINTAINER joe\nFROM base AS Final\nRUN --mount=type=secret,id=T,required=true x\n";
    let answered =
        |call: &str| kiln_buildx::answer(&built(&["--call", call, "."], &[]), "Dockerfile", text, None, "amd64");
    let check = answered("check");
    assert_eq!(check.code, 1);
    assert!(check.out.starts_with("Check complete, 2 warnings have been found!\n"), "{}", check.out);
    assert!(
        check.out.contains("WARNING: MaintainerDeprecated") && check.out.contains("   4 | >>> MAINTAINER joe"),
        "{}",
        check.out
    );
    assert_eq!(answered("check,ignorestatus=true").code, 0);
    assert!(answered("check,format=json").out.contains("\"ruleName\": \"StageNameCasing\""));
    let outline = answered("outline").out;
    assert!(
        outline.starts_with("TARGET: final\n") && outline.contains("VERSION     1       of the compiler"),
        "{outline}"
    );
    assert!(outline.contains("T        true"), "{outline}");
    assert_eq!(answered("targets").out, "TARGET            DESCRIPTION\nbase\nfinal (default)\n");
    let clean = kiln_buildx::answer(&built(&["--check", "."], &[]), "Dockerfile", "FROM scratch\n", None, "amd64");
    assert_eq!((clean.out.as_str(), clean.code), ("Check complete, no warnings found.\n", 0));
    let broken = kiln_buildx::answer(&built(&["--check", "."], &[]), "Dockerfile", "FORM scratch\n", None, "amd64");
    assert!(broken.code == 1 && broken.error.unwrap().contains("did you mean `FROM`?"));
}
