//! What Dockerfiles do on a Debian: install packages, add users, change owners and capabilities.

use kiln_proto::root::NETWORK_DEFAULT;
use kiln_trees::root::{Attributes, Content, Node};

use crate::base::{attributes, debian};
use crate::place::{Ran, ask, place};

fn file(ran: &Ran, path: &str) -> Attributes {
    match ran.node(path) {
        Some(Node::Leaf(leaf)) => leaf.attributes,
        other => panic!("expected a file at `{path}`, found {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_installed_as_in_a_container_and_the_next_step_runs_them() {
    let Some((root, times)) = debian(&place().cas) else { return };
    let mut install = ask(
        root,
        "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends iputils-ping openssh-client \
         && rm -rf /var/lib/apt/lists/* && cat /etc/resolv.conf > /dev/null",
    );
    install.times = Some(times);
    install.network = NETWORK_DEFAULT;
    let ran = place().run(install).await;
    ran.ok();
    // The agent belongs to a group that the package made, and keeps its bit.
    let agent = file(&ran, "usr/bin/ssh-agent");
    assert_eq!((agent.mode, agent.uid), (0o2755, 0));
    assert!(agent.gid >= 100, "{agent:?}");
    let ping = file(&ran, "usr/bin/ping");
    let ping_with_capability = ping.xattrs.get("security.capability").map(|value| (value.len(), value[3]));
    assert!(ping.mode & 0o4000 != 0 || ping_with_capability == Some((20, 2)), "{ping:?}");
    for untouched in ["etc/resolv.conf", "etc/hosts", "dev", "proc", "sys", "usr/bin/bash", "usr/bin/apt-get"] {
        assert_eq!(ran.node(untouched), None, "{untouched}");
    }
    let seen = place()
        .run(ask(ran.after, "ping -V | cut -d' ' -f1 | head -1; ssh -V 2>&1 | cut -c1-8; dpkg --verify openssh-client"))
        .await;
    assert_eq!(seen.ok(), "ping\nOpenSSH_\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_owners_modes_and_capabilities_are_what_the_root_says() {
    let Some((root, _)) = debian(&place().cas) else { return };
    let script = r#"
        groupadd -g 2000 crew; useradd -m -u 1234 -G crew app; chown app:crew /srv; install -o app -g crew -m 2750 -d /srv/data
        cp /bin/sleep /srv/mine; chown www-data /srv/mine; chmod 4711 /srv/mine
        su app -c 'id -un; id -G; touch /srv/data/by-app; test ! -w /etc/passwd'
        python=$(command -v perl); cp /usr/bin/id /usr/local/bin/id-as-root; chmod 4755 /usr/local/bin/id-as-root
        su app -c '/usr/local/bin/id-as-root -u'
        mkdir -p /jail/bin /jail/lib /jail/lib64; cp /bin/echo /jail/bin; cp -a /lib/x86_64-linux-gnu /jail/lib/ 2>/dev/null || cp -a /lib/aarch64-linux-gnu /jail/lib/; cp -a /lib64/. /jail/lib64/
        chroot /jail /bin/echo jailed; rm -r /jail
    "#;
    let ran = place().run(ask(root, script)).await;
    assert_eq!(ran.ok(), "app\n1234 2000\n0\njailed\n");
    let Some(Node::Directory(srv)) = ran.node("srv") else { panic!("a directory") };
    assert_eq!(ran.forest.get(&srv).unwrap().attributes, Some(attributes(0o755, 1234, 2000)));
    let Some(Node::Directory(data)) = ran.node("srv/data") else { panic!("a directory") };
    assert_eq!(ran.forest.get(&data).unwrap().attributes, Some(attributes(0o2750, 1234, 2000)));
    // What is made in a directory with this bit has its group.
    assert_eq!(file(&ran, "srv/data/by-app"), attributes(0o644, 1234, 2000));
    assert_eq!(file(&ran, "srv/mine"), attributes(0o4711, 33, 0));
    let mut as_app = ask(
        ran.after,
        "id -un; pwd; echo $HOME; stat -c '%U %G %a' . /srv/mine; cat /proc/self/status | grep -E 'CapEff|NoNewPrivs'",
    );
    as_app.user = "app".into();
    as_app.directory = "root/srv/work/deep".into();
    let as_app = place().run(as_app).await;
    let expected =
        "app\n/srv/work/deep\n/home/app\napp app 755\nwww-data root 4711\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\n";
    assert_eq!(as_app.ok(), expected);
    assert_eq!(as_app.paths(), ["srv/work/deep/"]);
    let mut as_ghost = ask(root, "true");
    as_ghost.user = "ghost".into();
    let ghost = place().run(as_ghost).await;
    assert!(
        ghost.status.contains("no user `ghost` in the root's `/etc/passwd`") && ghost.layer.is_none(),
        "{}",
        ghost.status
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_that_was_set_is_in_the_layer_as_images_have_it_and_works() {
    let Some((root, _)) = debian(&place().cas) else { return };
    // What `setcap cap_net_bind_service=ep` does, without the package.
    let script = r#"cp /usr/bin/perl /usr/local/bin/served
        perl -e 'my ($f, $n, $v) = ("/usr/local/bin/served", "security.capability", pack("V5", 0x02000001, 1 << 10, 0, 0, 0));
            my $r = syscall(188, $f, $n, $v, length $v, 0); die "$!" if $r != 0;'"#;
    let script = if cfg!(target_arch = "aarch64") { script.replace("188", "5") } else { script.to_owned() };
    let ran = place().run(ask(root, &script)).await;
    ran.ok();
    let expected = [1_u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        file(&ran, "usr/local/bin/served").xattrs.get("security.capability").map(Vec::as_slice),
        Some(&expected[..])
    );
    let listen = "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0); print bind($s, sockaddr_in(80, INADDR_LOOPBACK)) ? \"bound\\n\" : \"$!\\n\"";
    for (program, said) in [("served", "bound\n"), ("perl", "Permission denied\n")] {
        let mut by = ask(ran.after, &format!("{program} -e '{listen}'"));
        by.user = "www-data".into();
        assert_eq!(place().run(by).await.ok(), said, "{program}");
    }
    assert!(matches!(ran.left("usr/bin/perl"), Some(Node::Leaf(leaf)) if matches!(leaf.content, Content::File(_))));
}
