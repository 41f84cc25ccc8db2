//! `RUN --mount`.

use kiln_dockerfile::instruction::Sharing;
use kiln_dockerfile::{Operator, RunMount};

use crate::support::{build, build_with, error, options, runs};

fn mounts(flags: &str) -> Vec<RunMount> {
    let build = build(&format!("FROM scratch AS files\nFROM a\nWORKDIR /w\nARG D=/data\nRUN {flags} x\n"));
    runs(&build)[0].mounts.clone()
}

#[test]
fn bind_mounts_show_files_of_a_stage_or_the_context() {
    let build =
        build("FROM scratch AS files\nFROM a\nRUN --mount=from=files,src=a/../b,dst=x,rw --mount=target=/y z\n");
    let run = runs(&build)[0];
    let RunMount::Bind { from, source, target, read_only } = &run.mounts[0] else { panic!() };
    assert_eq!(build.operations[*from].kind, Operator::Scratch);
    assert_eq!((source.as_str(), target.as_str(), *read_only), ("/b", "/x", false));
    let RunMount::Bind { from, source, read_only: true, .. } = &run.mounts[1] else { panic!() };
    assert!(matches!(build.operations[*from].kind, Operator::Context(_)));
    assert_eq!(source, "/");
}

#[test]
fn cache_mounts_are_named_by_their_target() {
    let cache = |flags: &str| match mounts(flags).remove(0) {
        RunMount::Cache { id, sharing, target, owner, read_only, seed } => {
            (id, sharing, target, owner, read_only, seed.is_some())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        cache("--mount=type=cache,target=$D/"),
        ("//data".to_owned(), Sharing::Shared, "/data".to_owned(), None, false, false)
    );
    let found = cache("--mount=type=CACHE,id=x,target=c,sharing=locked,ro,uid=5,mode=0700");
    assert_eq!(found, ("/x".to_owned(), Sharing::Locked, "/w/c".to_owned(), Some((0o700, 5, 0)), true, false));
    let found = cache("--mount=type=cache,target=/c,from=files,source=/s,uid=5");
    assert_eq!((found.3, found.5), (None, true), "an owner is for an empty cache only");
    let mut own = options();
    own.build_args.insert("BUILDKIT_CACHE_MOUNT_NS".to_owned(), "ns".to_owned());
    let build = build_with("FROM a\nRUN --mount=type=cache,target=/c x", &own);
    assert!(matches!(&runs(&build)[0].mounts[0], RunMount::Cache { id, .. } if id == "ns//c"));
}

#[test]
fn secrets_are_files_or_variables() {
    let secret = |flags: &str| match mounts(flags).remove(0) {
        RunMount::Secret { id, target, env, required, key, owner } => (id, target, env, required, key, owner),
        other => panic!("{other:?}"),
    };
    let file = |path: &str| Some(path.to_owned());
    assert_eq!(
        secret("--mount=type=secret,id=token"),
        ("token".to_owned(), file("/run/secrets/token"), None, false, false, (0o400, 0, 0))
    );
    let found = secret("--mount=type=secret,id=token,env=TOKEN,required,key");
    assert_eq!(found, ("token".to_owned(), None, file("TOKEN"), true, true, (0o400, 0, 0)));
    let found = secret("--mount=type=secret,target=/root/.npmrc,env=N,mode=0440,gid=7,required=false");
    assert_eq!(found, (".npmrc".to_owned(), file("/root/.npmrc"), file("N"), false, false, (0o440, 0, 7)));
}

#[test]
fn agents_have_a_socket_each() {
    let found = mounts("--mount=type=ssh --mount=type=ssh,id=x,target=/s,uid=1 --mount=type=ssh,required");
    let found: Vec<_> = found
        .iter()
        .map(|mount| match mount {
            RunMount::Ssh { id, target, required, owner } => (id.as_str(), target.as_str(), *required, *owner),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        found,
        [
            ("default", "/run/buildkit/ssh_agent.0", false, (0o600, 0, 0)),
            ("x", "/s", false, (0o600, 1, 0)),
            ("default", "/run/buildkit/ssh_agent.2", true, (0o600, 0, 0))
        ]
    );
}

#[test]
fn memory_has_a_size() {
    assert_eq!(
        mounts("--mount=type=tmpfs,target=/t,size=64m"),
        [RunMount::Tmpfs { target: "/t".to_owned(), size: Some(64 << 20) }]
    );
}

#[test]
fn fields_may_be_quoted() {
    let found = mounts("--mount='type=tmpfs,\"target=/a,b\"'");
    assert!(matches!(&found[0], RunMount::Tmpfs { target, .. } if target == "/a,b"));
}

#[test]
fn fields_that_make_no_sense_are_errors() {
    for (fields, message) in [
        ("type=bnid,target=/x", "unknown type of mount `bnid`; did you mean `bind`?"),
        ("tagret=/x", "unknown field `tagret` of a mount; did you mean `target`?"),
        ("type=cache,target=/x,sharing=lock", "unknown sharing `lock`; did you mean `locked`?"),
        ("type=cache,target=/x,sharing=mine", "unknown sharing `mine`; expected `shared`, `private`, `locked`"),
        ("target=/x,uid=0", "a mount of type `bind` has no `uid`; remove it"),
        ("type=tmpfs,target=/x,mode=9", "`mode` is not an octal number: `9`"),
        ("type=secret", "the secret is not named; write `id=NAME`"),
        ("type=secret,id=a,source=b", "the secret has both `source` and `id`; keep `id`"),
        ("type=secret,id=a,from=b", "a secret has no `from`; remove it"),
        ("type=ssh,source=b", "a mount of type `ssh` has no `source`; remove it"),
        ("target=/x,required", "a mount of type `bind` has no `required`; remove it, or write `type=` before it"),
        ("target=/x,sharing=locked", "a mount of type `bind` has no `sharing`; remove it, or write `type=cache`"),
        ("target=/", "a mount cannot have the target `/`; write `target=` and a directory below `/`"),
        ("target=/x,ro=maybe", "`ro` takes `true` or `false`, found `maybe`"),
        ("type=tmpfs,target=/x,size=big", "`size` is not a size: `big`; write for example `size=64m`"),
        ("target", "the mount's field `target` has no value; write `KEY=VALUE`"),
        (
            "from=$X,target=/x",
            "variables are not expanded in `from` of a mount; add a stage `FROM $NAME AS …` and name that",
        ),
        ("a\"b", "a quote in the middle of a field in a mount's fields; put the whole field into quotes"),
    ] {
        let fields = fields.replace('"', "\\\"");
        assert_eq!(error(&format!("FROM a\nRUN --mount={fields} x")), format!("2: {message}"), "{fields}");
    }
}
