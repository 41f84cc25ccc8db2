//! What a user is told about a file that is wrong.

use kiln_dockerfile::{decode, parse};

use crate::support::{error, error_with, options};

#[test]
fn an_error_shows_the_line_and_what_to_do() {
    let text = "FROM alpine\nRUN echo hello \\\n  world\nCOYP . /app\n";
    let error = parse("app/Dockerfile", text).unwrap_err();
    insta::assert_snapshot!(error.render(false), @r"
    error: unknown instruction `COYP`
     --> app/Dockerfile:4:1
      |
    4 | COYP . /app
      | ^^^^
      |
    help: did you mean `COPY`?
    ");
    assert_eq!(error.to_string(), "app/Dockerfile:4: unknown instruction `COYP`; did you mean `COPY`?");
    assert_eq!((error.line(), error.column()), (4, 1));
    assert!(error.render(true).contains('\u{1b}'));
}

#[test]
fn a_flag_within_a_continued_line_is_shown_where_it_is() {
    let error = parse("Dockerfile", "FROM a\nCOPY \\\n  --chwon=me \\\n  a b\n").unwrap_err();
    insta::assert_snapshot!(error.render(false), @r"
    error: unknown flag `--chwon` of COPY
     --> Dockerfile:3:3
      |
    3 |   --chwon=me \
      |   ^^^^^^^^^^
      |
    help: did you mean `--chown`?
    ");
}

/// Each file, and its error with the line.
#[test]
fn each_mistake_has_its_message() {
    for (text, message) in [
        ("", "1: the file has no instructions; begin with `FROM IMAGE`"),
        ("# only a comment\n\n", "1: the file has no instructions; begin with `FROM IMAGE`"),
        ("ARG A=1\n", "1: the file has no stage; add `FROM IMAGE`"),
        ("RUN x\nFROM a", "1: RUN is before the first FROM; begin with `FROM IMAGE`; only ARG can be before it"),
        (
            "FROM a\ngreetings",
            "2: unknown instruction `greetings`; if it belongs to the line before, end that line with the escape character",
        ),
        ("FROM a\nruun x", "2: unknown instruction `ruun`; did you mean `RUN`?"),
        ("FROM", "1: FROM takes one argument, or three; write `FROM IMAGE` or `FROM IMAGE AS NAME`"),
        ("FROM a b", "1: FROM takes one argument, or three; write `FROM IMAGE` or `FROM IMAGE AS NAME`"),
        (
            "FROM a AS 1x",
            "1: invalid name of a stage: `1x`; begin it with a letter, and use letters, digits, `-`, `_` and `.` only",
        ),
        ("FROM a\nRUN <<EOF\nx", "2: the heredoc `EOF` has no end; add a line that consists of `EOF` alone"),
        ("FROM a\nCOPY a", "2: COPY needs a source and a destination; write `COPY SOURCE… DESTINATION`"),
        (
            "FROM a\nADD <<EOF <<B\nx\nEOF\nB",
            "2: the destination of ADD cannot be a heredoc; write the destination last: `ADD <<B PATH`",
        ),
        (
            "FROM a\nCOPY --link=maybe a b",
            "2: the flag `--link` takes `true` or `false`, found `maybe`; write `--link`",
        ),
        ("FROM a\nCOPY --link= a b", "2: the flag `--link` takes `true` or `false`, found nothing; write `--link`"),
        ("FROM a\nCOPY --from a b", "2: the flag `--from` has no value; write `--from=VALUE`"),
        ("FROM a\nCOPY --chown=a --chown=b a b", "2: the flag `--chown` is repeated; keep one of them"),
        ("FROM a\nUSER --x=y me", "2: unknown flag `--x` of USER; USER has no flags"),
        ("FROM a\nENV", "2: ENV needs an argument"),
        ("FROM a\nENV =x", "2: a name of ENV is empty; write `ENV NAME=VALUE`"),
        ("FROM a\nARG =x", "2: a name of ARG is empty; write `ARG NAME=DEFAULT`"),
        (
            "FROM a\nSHELL bash",
            "2: SHELL takes a JSON array of strings; write for example `SHELL [\"/bin/bash\", \"-c\"]`",
        ),
        ("FROM a\nRUN []", "2: RUN has no command; write `RUN [\"PROGRAM\", \"ARGUMENT\"]`"),
        ("FROM a\nVOLUME [\"\"]", "2: a path of VOLUME is empty"),
        ("FROM a\nONBUILD ONBUILD RUN x", "2: ONBUILD cannot store ONBUILD"),
        ("FROM a\nONBUILD FROM x", "2: ONBUILD cannot store FROM"),
        ("FROM a\nONBUILD RUNN x", "2: unknown instruction `RUNN`; did you mean `RUN`?"),
        (
            "FROM a\nONBUILD",
            "2: ONBUILD needs an argument; write the instruction that images based on this one begin with",
        ),
        (
            "FROM a\nHEALTHCHECK",
            "2: HEALTHCHECK needs an argument; write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`",
        ),
        ("FROM a\nHEALTHCHECK NONE x", "2: HEALTHCHECK NONE takes no arguments; remove them"),
        ("FROM a\nHEALTHCHECK CMD", "2: HEALTHCHECK CMD has no command; write `HEALTHCHECK CMD COMMAND`"),
        ("FROM a\nHEALTHCHECK CDM x", "2: unknown kind of HEALTHCHECK: `CDM`; did you mean `CMD`?"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", "2: `--interval` is less than 1ms; write at least `1ms`"),
        (
            "FROM a\nHEALTHCHECK --timeout=5 CMD x",
            "2: `--timeout` is not a duration: `5`; write for example `30s`, `1m30s` or `500ms`",
        ),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "2: `--retries` is not a number from 0 on: `-1`"),
        ("FROM a\nRUN --network=hots x", "2: unknown network `hots`; did you mean `host`?"),
        (
            "FROM a\nRUN --security=insecure x",
            "2: `--security=insecure` is not supported; remove it; steps run in a sandbox, as root of their own file system",
        ),
        (
            "FROM a\nRUN --device=x y",
            "2: devices are not supported; remove `--device`; a step cannot use the devices of a worker",
        ),
        ("FROM a\nSTOPSIGNAL SIGTREM", "2: `SIGTREM` is not a signal; did you mean `SIGTERM`?"),
        (
            "FROM a\nEXPOSE 80/tpc",
            "2: invalid port `80/tpc`: the protocol `tpc` is none of `tcp`, `udp` and `sctp`; write for example `8080`, `53/udp` or `8000-8010`",
        ),
        (
            "FROM a\nEXPOSE 70000",
            "2: invalid port `70000`: `70000` is not a port from 0 to 65535; write for example `8080`, `53/udp` or `8000-8010`",
        ),
        (
            "FROM a\nEXPOSE 9-8",
            "2: invalid port `9-8`: the range `9-8` ends before it begins; write for example `8080`, `53/udp` or `8000-8010`",
        ),
        ("FROM a\nENV A=\"x", "2: a double quote has no end"),
        ("FROM a\nWORKDIR ${A:?must be given}", "2: A: must be given"),
        (
            "FROM a\nCOPY --chmod=999 a b",
            "2: `--chmod` is not a mode: `999`; write an octal number up to 07777, or for example `u=rwX,go=rX`",
        ),
        ("FROM a\nCOPY [ab /x", "2: invalid pattern `[ab`: `[` must be followed by characters and `]`"),
        ("FROM a\nCOPY --exclude=[ a /x", "2: invalid pattern `[`: `[` must be followed by characters and `]`"),
        ("FROM a\nCOPY https://example.com/x /x", "2: COPY cannot copy a URL: `https://example.com/x`; write ADD"),
        ("FROM a\nCOPY git@example.com:x /x", "2: COPY cannot copy a repository: `git@example.com:x`; write ADD"),
        (
            "FROM a\nADD --checksum=sha256:1 https://example.com/x /x",
            "2: invalid checksum `sha256:1`; write `sha256:` and 64 hexadecimal digits",
        ),
        (
            "FROM a\nADD --checksum=sha256:1 x /x",
            "2: `--checksum=sha256:1` is for URLs and repositories, not for `x`; remove it",
        ),
        (
            "FROM a\nCOPY <<a/b /x\ny\na/b",
            "2: the heredoc `a/b` is no file name; the file has the heredoc's name; write the path as the destination",
        ),
        (
            "# syntax=example.com/own/frontend:1\nFROM a",
            "1: the frontend `example.com/own/frontend:1` is not supported; only the Dockerfile syntax of `docker/dockerfile` is",
        ),
        ("# check=skip\nFROM a", "1: invalid options of `check`: the option `skip` has no `=`"),
        (
            "FROM A",
            "1: `A` is not the name of an image: it has upper-case letters; names of images and stages are lower case",
        ),
        ("FROM --platform=foo a", "1: unknown platform `foo`; expected for example `linux/amd64`, `linux/arm64`"),
        (
            "ARG VERSION\nFROM a:$VERSON",
            "2: `a:` is not the name of an image: its tag is invalid; expected up to 128 letters, digits, `_`, `.` and `-`",
        ),
        (
            "ARG BASE\nFROM $BASE",
            "2: the base `$BASE` is empty; give its argument a default before the first FROM, or a `--build-arg`",
        ),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn frontends_of_docker_are_accepted_in_any_version_and_from_any_mirror() {
    for frontend in [
        "docker/dockerfile",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile-upstream:master",
        "mirror.example:5000/hub/docker/dockerfile:1",
    ] {
        parse("Dockerfile", &format!("# syntax={frontend}\nFROM a")).unwrap();
    }
}

#[test]
fn a_file_that_is_not_utf8_says_where() {
    let error = decode("Dockerfile", b"FROM a\nRUN \xff".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile:2: the file is not UTF-8 here; save it as UTF-8");
    let error = decode("Dockerfile", b"\xff\xfeF\0".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile:1: the file is UTF-16; save it as UTF-8");
    assert_eq!(decode("Dockerfile", b"FROM a".to_vec()).unwrap(), "FROM a");
}

#[test]
fn an_unknown_target_names_the_nearest() {
    let target = |target: &str| kiln_dockerfile::Options { target: Some(target.to_owned()), ..options() };
    let text = "FROM a AS build\nFROM b AS test\n";
    assert_eq!(error_with(text, &target("biuld")), "2: there is no stage `biuld`; did you mean `build`?");
    assert_eq!(error_with(text, &target("deploy")), "2: there is no stage `deploy`; it has `build`, `test`");
    assert_eq!(error_with("FROM a", &target("x")), "1: there is no stage `x`; the file has no stages with names");
}
