//! Mounts of a command: what they show, what of them is kept, and that they leave no trace in the layer.

use kiln_proto::root::{Mount, Sharing};
use kiln_trees::root::{Directory, Forest};
use kiln_trees::tree::Entry;

use crate::base::{Builder, attributes, busybox};
use crate::place::{Place, ask, place};
use crate::support::F;

fn cache(target: &str, id: &str, sharing: Sharing) -> Mount {
    Mount::Cache { target: target.into(), id: id.into(), sharing, source: None, rw: true, mode: None, uid: 0, gid: 0 }
}

fn secret(id: &str, target: Option<&str>, env: Option<&str>, required: bool) -> Mount {
    let (target, env) = (target.map(str::to_owned), env.map(str::to_owned));
    Mount::Secret { target, id: id.into(), env, required, mode: None, uid: 0, gid: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_and_files_are_bound_and_writes_to_them_are_thrown_away() {
    let cas = &place().cas;
    let root = busybox(cas);
    let mut forest = Forest::new(F);
    let empty = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    let tree = Builder::default()
        .file(cas, "src/main.c", 0o640, "int main;\n")
        .leaf("src/owned", kiln_trees::root::Content::File(cas.put("x")), attributes(0o600, 1000, 1001))
        .over(cas, &mut forest, empty);
    let mut first = ask(
        root,
        "cat /src/src/main.c /etc/one/file /new/deep/file; stat -c '%u %a' /src/src/owned; (echo > /src/x) 2>/dev/null || echo read-only; \
         echo over > /rw/src/main.c; rm /rw/src/owned; ls /rw/src; (echo > /new/deep/file) 2>/dev/null || echo read-only; df /tmp/room | grep -c tmpfs; echo > /tmp/room/x",
    );
    first.sources = vec![Entry::Sealed { digest: tree }, cas.file("a file\n", false)];
    first.mounts = vec![
        Mount::Bind { target: "/etc/one/file".into(), source: 1, rw: false },
        Mount::Bind { target: "/src".into(), source: 0, rw: false },
        Mount::Bind { target: "/new/deep/file".into(), source: 1, rw: false },
        Mount::Bind { target: "/rw".into(), source: 0, rw: true },
        Mount::Tmpfs { target: "/tmp/room".into(), size: Some(1 << 20) },
    ];
    let ran = place().run(first).await;
    assert_eq!(ran.ok(), "int main;\na file\na file\n1000 600\nread-only\nmain.c\nread-only\n1\n");
    assert_eq!(ran.paths(), Vec::<String>::new());
    assert_eq!(ran.after, root);
    let mut again = ask(root, "cat /src/src/main.c");
    again.sources = vec![Entry::Sealed { digest: tree }];
    again.mounts = vec![Mount::Bind { target: "/src".into(), source: 0, rw: false }];
    assert_eq!(place().run(again).await.ok(), "int main;\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_files_and_variables_for_one_command_masked_and_in_no_layer() {
    let root = busybox(&place().cas);
    let mut first = ask(
        root,
        "cat /run/secrets/token; echo; cat $HOME/.netrc; stat -c %a /run/secrets/token; echo ${TOKEN} ${UNNAMED:-none}; mount | grep -c ' /run/secrets/token '; \
         (echo > /run/secrets/token) 2>/dev/null || echo read-only; [ -e /run/secrets/absent ] || echo absent; env | grep -c hunter",
    );
    first.secrets = vec![("token".into(), "hunter2hunter2".into()), ("ID_aws_2dcreds".into(), "key-of-aws".into())];
    first.mounts = vec![
        secret("token", Some("/run/secrets/token"), Some("TOKEN"), true),
        secret("aws-creds", Some("/root/.netrc"), None, false),
        secret("absent", Some("/run/secrets/absent"), Some("UNNAMED"), false),
    ];
    let ran = place().run(first.clone()).await;
    let text = ran.ok();
    assert!(!text.contains("hunter2") && !text.contains("key-of-aws"), "{text}");
    assert!(text.contains("400\n") && text.contains(" none\n1\nread-only\nabsent\n1\n"), "{text}");
    assert_eq!(ran.after, root, "expected no trace: {:?}", ran.paths());
    first.mounts = vec![secret("missing", None, Some("X"), true)];
    let refused = place().run(first).await;
    assert!(refused.status.contains("requires the secret `missing`"), "{}", refused.status);
    let mut agent = ask(root, "true");
    agent.mounts = vec![Mount::Ssh {
        target: "/run/agent".into(),
        id: "default".into(),
        required: false,
        mode: None,
        uid: 0,
        gid: 0,
    }];
    let refused = place().run(agent).await;
    assert!(refused.status.contains("SSH agent"), "{}", refused.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_kept_by_commands_that_succeed_and_begins_where_the_last_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    let own = Place::open(dir.path(), None);
    let root = busybox(&own.cas);
    let with = |script: &str, mount: Mount| {
        let mut ask = ask(root, script);
        ask.mounts = vec![mount];
        own.run(ask)
    };
    let shared = || cache("/root/.cache", "one", Sharing::Shared);
    let first =
        with("ls /root/.cache; echo 1 > /root/.cache/a; mkdir /root/.cache/d; echo 2 > /root/.cache/d/b", shared())
            .await;
    assert_eq!((first.ok().as_str(), first.after), ("", root));
    let failed = with("rm -r /root/.cache/d; echo x > /root/.cache/x; exit 3", shared()).await;
    assert_eq!(failed.code, 3);
    assert_eq!(with("cd /root/.cache; ls; cat d/b; rm a", shared()).await.ok(), "a\nd\n2\n");
    assert_eq!(with("ls /root/.cache", cache("/root/.cache", "two", Sharing::Shared)).await.ok(), "");
    assert_eq!(
        with("ls /root/.cache; echo > /root/.cache/p", cache("/root/.cache", "one", Sharing::Private)).await.ok(),
        ""
    );
    // More than an overlay of a cache has layers.
    for round in 0..12 {
        with(
            &format!(
                "echo {round} > /root/.cache/round; echo > /root/.cache/n{round}; rm -f /root/.cache/n{}",
                round - 2
            ),
            shared(),
        )
        .await
        .ok();
    }
    assert_eq!(with("cd /root/.cache; ls; cat round d/b", shared()).await.ok(), "d\nn10\nn11\nround\n11\n2\n");
    assert!(own.roots.caches().keys().any(|key| key.ends_with(":one")), "{:?}", own.roots.caches());
    // A command that has it to itself does not see another one halfway.
    let locked = || cache("/c", "locked", Sharing::Locked);
    let script = "[ -e /c/busy ] && exit 9; touch /c/busy; n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.2; echo $((n+1)) > /c/n; rm /c/busy";
    let (one, two, three) = tokio::join!(with(script, locked()), with(script, locked()), with(script, locked()));
    assert_eq!([one.code, two.code, three.code], [0, 0, 0]);
    assert_eq!(with("cat /c/n", locked()).await.ok(), "3\n");
}
