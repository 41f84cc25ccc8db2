//! Mounts of a command: what they show, what of them is kept, and that they leave no trace in the layer.

use kiln_proto::root::Mount;
use kiln_trees::root::{Directory, Forest};
use kiln_trees::tree::Entry;

use crate::base::{Builder, attributes, busybox};
use crate::place::{ask, place};
use crate::support::F;

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
    let mut agent = ask(
        root,
        "stat -c '%F %a %u:%g' /run/agent; (echo > /run/agent) 2>/dev/null || echo no-file; rm /run/agent 2>/dev/null || echo kept",
    );
    agent.mounts = vec![Mount::Ssh {
        target: "/run/agent".into(),
        id: "default".into(),
        required: false,
        mode: Some(0o640),
        uid: 7,
        gid: 8,
    }];
    let ran = place().run(agent).await;
    assert_eq!(ran.ok(), "socket 640 7:8\nno-file\nkept\n");
    assert_eq!(ran.after, root, "expected no trace: {:?}", ran.paths());
}
