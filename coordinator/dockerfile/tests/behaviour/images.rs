//! The image of a build: configuration and history.

use std::collections::BTreeMap;

use kiln_dockerfile::config::{Config, Image};
use kiln_dockerfile::{Options, Platform};

use crate::support::{build, build_with, history, lowered, options};

#[test]
fn instructions_are_in_the_history_as_docker_writes_them() {
    let built = build(concat!(
        "FROM a\nARG A=1 B\nENV X=\"a b\" Y=$A\nRUN make  all\nRUN [\"/bin/x\", \"y z\"]\nCOPY --from=b --link --chown=1:2 a c /d/\n",
        "COPY --parents --chmod=755 --exclude=x a /d/\nCOPY <<one <<two /d/\none\ntwo\nADD a.tar /\nWORKDIR /w\nWORKDIR /\n",
        "CMD [\"a\", \"b\\\"c\"]\nCMD run it\nENTRYPOINT [\"e\"]\nEXPOSE 80 53/UDP 8000-8002\nLABEL a=b \"c d\"='e f'\nUSER me\n",
        "VOLUME /a /b\nVOLUME [\"/c d\"]\nSTOPSIGNAL sigterm\nSHELL [\"bash\", \"-c\"]\nRUN x\nMAINTAINER me <a@b>\n",
        "HEALTHCHECK --interval=90s CMD curl x\nHEALTHCHECK NONE\nONBUILD RUN y\nADD https://example.com/x /y\n",
    ));
    insta::assert_snapshot!(history(&built).join("\n"), @r#"
    ARG A=1 B
    ENV X=a b Y=1
    * RUN |2 A=1 B= /bin/sh -c make  all # buildkit
    * RUN |2 A=1 B= /bin/x y z # buildkit
    * COPY --chown=1:2 a c /d/ # buildkit
    * COPY --parents --chmod=755 a /d/ # buildkit
    * COPY <<one <<two /d/ # buildkit
    * ADD a.tar / # buildkit
    * WORKDIR /w
    WORKDIR /
    CMD ["a" "b\"c"]
    CMD ["/bin/sh" "-c" "run it"]
    ENTRYPOINT ["e"]
    EXPOSE [53/udp 80/tcp 8000/tcp 8001/tcp 8002/tcp]
    LABEL a=b c d=e f
    USER me
    VOLUME [/a /b]
    VOLUME [/c d]
    STOPSIGNAL sigterm
    SHELL [bash -c]
    * RUN |2 A=1 B= bash -c x # buildkit
    MAINTAINER me <a@b>
    HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
    HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
    * ADD https://example.com/x /y # buildkit
    "#);
    assert!(built.image.history.iter().skip(1).all(|entry| entry.comment == "buildkit.dockerfile.v0"));
}

#[test]
fn the_configuration_is_written_as_docker_writes_it() {
    let built = build(concat!(
        "FROM scratch\nENV A=1\nCMD [\"a\"]\nENTRYPOINT [\"e\"]\nCMD [\"b\"]\nEXPOSE 80\nLABEL l=m\nUSER me\nVOLUME /v\nSTOPSIGNAL 9\n",
        "SHELL [\"s\"]\nHEALTHCHECK --timeout=1s --retries=2 CMD x\nONBUILD RUN y\nMAINTAINER m\nWORKDIR /w\n",
    ));
    let mut json = serde_json::to_value(&built.image).unwrap();
    json.as_object_mut().unwrap().remove("history");
    insta::assert_snapshot!(serde_json::to_string(&json["config"]).unwrap(), @r#"{"ArgsEscaped":true,"Cmd":["b"],"Entrypoint":["e"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=1"],"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Retries":2,"Test":["CMD-SHELL","x"],"Timeout":1000000000},"Labels":{"l":"m"},"OnBuild":["RUN y"],"Shell":["s"],"StopSignal":"9","User":"me","Volumes":{"/v":{}},"WorkingDir":"/w"}"#);
    json.as_object_mut().unwrap().remove("config");
    insta::assert_snapshot!(serde_json::to_string(&json).unwrap(), @r#"{"architecture":"amd64","author":"m","os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#);
}

#[test]
fn an_entrypoint_drops_the_bases_command_but_not_the_stages() {
    let base = Config { cmd: vec!["base".to_owned()], ..Config::default() };
    let cmd = |text: &str| lowered(text, &options(), &[("a", base.clone())]).unwrap().image.config.cmd;
    assert!(cmd("FROM a\nENTRYPOINT [\"e\"]\n").is_empty());
    assert_eq!(cmd("FROM a\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n"), ["own"]);
    assert!(cmd("FROM a AS x\nCMD [\"own\"]\nFROM x\nENTRYPOINT [\"e\"]\n").is_empty(), "it was another stage's");
    assert_eq!(cmd("FROM a\nENV X=1\n"), ["base"]);
}

#[test]
fn what_the_base_has_counts() {
    let base = Config {
        env: vec!["PATH=/own".to_owned(), "E=1".to_owned()],
        user: "www".to_owned(),
        working_dir: "srv".to_owned(),
        shell: vec!["ash".to_owned(), "-c".to_owned()],
        labels: BTreeMap::from([("x".to_owned(), "y".to_owned())]),
        ..Config::default()
    };
    let built = lowered("FROM a\nENV E=2 F=$E\nRUN z\nWORKDIR d\n", &options(), &[("a", base)]).unwrap();
    let run = crate::support::runs(&built)[0];
    assert_eq!((run.user.as_str(), run.cwd.as_str(), run.argv[0].as_str()), ("www", "/srv", "ash"));
    assert_eq!(built.image.config.env, ["PATH=/own", "E=2", "F=1"]);
    assert_eq!(built.image.config.working_dir, "/srv/d");
    assert_eq!(built.inherited_history, 1);
}

#[test]
fn labels_of_the_command_line_are_not_expanded_and_not_in_the_history() {
    let labels = BTreeMap::from([("v".to_owned(), "$X".to_owned())]);
    let built = build_with("FROM a\nLABEL v=1\n", &Options { labels, ..options() });
    assert_eq!(built.image.config.labels["v"], "$X");
    assert_eq!(history(&built), ["LABEL v=1"]);
}

#[test]
fn a_base_without_layers_counts_as_none() {
    let text = "FROM a\nCOPY x y\n";
    let file = crate::support::file(text);
    let mut known = kiln_dockerfile::Bases::new();
    let wanted = kiln_dockerfile::bases(&file, &options(), &known).unwrap();
    let resolved = kiln_dockerfile::Resolved { image: Image::scratch(&Platform::linux("amd64")), digest: None };
    known.add(wanted[0].clone(), resolved);
    let built = kiln_dockerfile::lower(&file, &options(), &known).unwrap();
    assert_eq!(built.operations[0].kind, kiln_dockerfile::Operator::Scratch);
}

#[test]
fn a_digest_is_in_the_name_of_what_is_based_on() {
    let file = crate::support::file("FROM a:1\nRUN x\n");
    let mut known = kiln_dockerfile::Bases::new();
    let wanted = kiln_dockerfile::bases(&file, &options(), &known).unwrap();
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = crate::support::image(Config::default());
    known.add(wanted[0].clone(), kiln_dockerfile::Resolved { image, digest: Some(digest.clone()) });
    let built = kiln_dockerfile::lower(&file, &options(), &known).unwrap();
    assert_eq!(built.operations[0].name, format!("[1/2] FROM docker.io/library/a:1@{digest}"));
}

#[test]
fn a_configuration_with_null_is_read() {
    let json = br#"{"architecture":"arm64","os":"linux","config":{"Env":null,"Labels":null,"OnBuild":null,"Cmd":["x"],"Unknown":1},
        "history":null,"rootfs":{"type":"layers","diff_ids":null},"created":"2020-01-01T00:00:00Z"}"#;
    let image = Image::read(json).unwrap();
    assert_eq!((image.architecture.as_str(), image.config.cmd.join("")), ("arm64", "x".to_owned()));
    assert!(Image::read(b"[]x").is_err());
}
