//! Workers that are not root.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use kiln_harness::terminal::Terminal;
use kiln_harness::{Farm, cannot_run, project, until};

/// The worker's user, which every Linux has.
const NOBODY: u32 = 65_534;
/// The first of its subordinate ids in these tests.
const BASE: u32 = 0x6000_0000;

/// Switches to that user, on a machine that has a range of ids for it (or none), network interface devices for
/// everybody, and no `pasta`.
const BECOME: &str = r#"
mount --bind "$DIR/ids" /etc/subuid
mount --bind "$DIR/ids" /etc/subgid
mount --bind "$DIR/tun" /dev/net/tun
if [ -e /usr/bin/pasta ]; then mount --bind /dev/null /usr/bin/pasta; fi
mount --bind "$1" "$DIR/kiln"
shift
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups "$DIR/kiln" "$@"
"#;

/// Whether this machine can simulate one with such a worker.
fn can_run() -> bool {
    let has = |program: &str| Command::new(program).arg("--help").output().is_ok();
    let fits = nix::unistd::geteuid().is_root()
        && ["newuidmap", "slirp4netns"].into_iter().all(has)
        && Path::new("/dev/net/tun").exists();
    if !fits {
        cannot_run("root, /dev/net/tun, and the packages `uidmap` and `slirp4netns`");
    }
    fits
}

/// A farm with a worker `plain` of an ordinary user with these subordinate ids. It finds the port for its proxy.
fn farm(ids: &str, proxy: u16) -> Farm {
    let farm = Farm::start(&[]);
    let dir = farm.dir.path();
    for open in [dir, dir.parent().unwrap()] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    std::fs::write(dir.join("ids"), ids).unwrap();
    std::fs::write(dir.join("kiln"), "").unwrap();
    std::fs::create_dir(dir.join("plain")).unwrap();
    std::os::unix::fs::chown(dir.join("plain"), Some(NOBODY), Some(NOBODY)).unwrap();
    let tun = dir.join("tun");
    let made = Command::new("mknod").arg("-m666").arg(&tun).args(["c", "10", "200"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let (dir, user, proxy) = (dir.to_str().unwrap(), NOBODY.to_string(), format!("http://127.0.0.1:{proxy}"));
    let variables = [("DIR", dir), ("USER_ID", &user), ("HTTP_PROXY", &proxy), ("HOME", "/nonexistent")];
    let before = ["unshare", "--mount", "sh", "-e", "-c", BECOME, "sh"];
    farm.start_worker_behind(&before, &farm.url, "plain", &["--sandbox", "required"], &variables);
    farm.wait_for_worker("plain");
    farm
}

fn sandbox(farm: &Farm) -> String {
    farm.workers()[0]["environment"]["sandbox"].as_str().unwrap().to_owned()
}

/// Users of the processes whose command line contains this.
fn users(marker: &str) -> Vec<u32> {
    let of = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = String::from_utf8_lossy(&line).starts_with(marker);
        is_it.then(|| entry.metadata().ok().map(|data| data.uid())).flatten()
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

/// Answers every connection with this text.
fn serve(address: impl Into<std::net::IpAddr>, words: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((address.into(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(words.as_bytes());
        }
    });
    address
}

/// This machine's address for others.
fn outward() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[test]
fn steps_are_a_user_that_is_not_the_workers_and_own_their_files() {
    if !can_run() {
        return;
    }
    let farm = farm(&format!("nobody:{BASE}:65536\n"), 9);
    assert!(
        sandbox(&farm).contains("all actions run as one user other than the worker's (not one for each: "),
        "{}",
        sandbox(&farm)
    );
    let dir = project(&[
        (
            "kiln.toml",
            r#"
name = "owned"
[steps.make]
run = """
test "$(stat -c %u input sub sub/file | sort -u)" = "$(id -u)"
echo more >> input; chmod 600 input; mkdir -m 700 out; cp input out/file; chmod 400 out/file
sleep 86415.5 & echo ready; wait
"""
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#,
        ),
        ("input", "one\n"),
        ("sub/file", "two\n"),
    ]);
    let mut build = kiln_harness::Running::start(farm.build_command(dir.path(), &[]));
    build.until("the step is ready", |event| event["text"].as_str().is_some_and(|text| text.contains("ready")));
    let seen = until("the step's process", || Some(users("sleep\086415.5")).filter(|users| !users.is_empty()));
    assert!(seen.iter().all(|user| *user > BASE && *user < BASE + 65_536), "{seen:?}");
    build.interrupt();
    build.end();

    // The worker, which is root over it, can read what it wrote only for itself.
    let quick = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap().replace("sleep 86415.5", "true");
    std::fs::write(dir.path().join("kiln.toml"), quick).unwrap();
    let out = dir.path().join("made");
    let built = farm.build(dir.path(), &["--output", out.to_str().unwrap()]).well();
    assert_eq!(built.caches()["make"], "miss");
    // Inputs belong to the steps' user on disk, so the step needs no rights over the worker's files.
    let files = farm.dir.path().join("plain/inputs/files");
    let cached = std::fs::read_dir(files).unwrap().flatten().flat_map(|shard| std::fs::read_dir(shard.path()).unwrap());
    let owners: Vec<u32> = cached.flatten().map(|file| file.metadata().unwrap().uid()).collect();
    assert!(!owners.is_empty() && owners.iter().all(|owner| *owner == seen[0]), "{owners:?}, the step was {seen:?}");
}

#[test]
fn a_worker_without_subordinate_ids_says_what_to_do() {
    if !can_run() {
        return;
    }
    let farm = farm("somebody:100000:65536\n", 9);
    let said = sandbox(&farm);
    assert!(said.contains("actions run as the worker's own user"), "{said}");
    assert!(said.contains("usermod --add-subuids"), "{said}");
}

#[test]
fn slirp4netns_leads_out_and_to_the_named_port_of_the_loopback_and_nowhere_else() {
    if !can_run() {
        return;
    }
    let named = serve(Ipv4Addr::LOCALHOST, "named");
    let other = serve(Ipv4Addr::LOCALHOST, "other");
    let machine = serve(outward(), "machine");
    let farm = farm(&format!("nobody:{BASE}:65536\n"), named.port());
    assert!(sandbox(&farm).contains("have their own network (slirp4netns)"), "{}", sandbox(&farm));
    let attempts = [
        ("named", "127.0.0.1".to_owned(), named.port()),
        ("named6", "::1".to_owned(), named.port()),
        ("other", "127.0.0.1".to_owned(), other.port()),
        ("gateway", "192.0.0.2".to_owned(), other.port()),
        ("machine", machine.ip().to_string(), machine.port()),
        ("metadata", "169.254.169.254".to_owned(), 80),
    ];
    let script = r#"
import socket, sys
for name, host, port in ATTEMPTS:
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(5)
    try:
        s.connect((host, port))
        s.sendall(b"hello")
        print(name, s.recv(100).decode())
    except OSError as error:
        print(name, "refused")
"#;
    let list: Vec<String> = attempts.iter().map(|(name, host, port)| format!("({name:?}, {host:?}, {port})")).collect();
    let script = script.replace("ATTEMPTS", &format!("[{}]", list.join(", ")));
    let dir = project(&[
        (
            "kiln.toml",
            "name = \"net\"\n[steps.try]\nrun = \"python3 try.py > out; cat out\"\nnetwork = true\noutputs = [\"out\"]\n\
             [artifacts.out]\nfrom = \"try\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        ),
        ("try.py", &script),
    ]);
    let said = farm.build(dir.path(), &[]).well().log();
    let expected = "named named\nnamed6 named\nother refused\ngateway refused\nmachine refused\nmetadata refused\n";
    assert_eq!(said, expected);
}

#[test]
fn shells_have_terminals_on_such_workers_too() {
    if !can_run() {
        return;
    }
    for ids in [format!("nobody:{BASE}:65536\n"), String::new()] {
        let farm = farm(&ids, 1);
        let dir = project(&[(
            "kiln.toml",
            "name = \"n\"\n[steps.work]\nrun = \"echo half > half; exit 1\"\noutputs = [\"out\"]\n[artifacts.n]\nfrom = \"work\"\nfiles = [\"out\"]\n",
        )]);
        let built = farm.build(dir.path(), &[]);
        assert_eq!(built.0.code, 1, "{:?}", built.0);
        let mut terminal = Terminal::start(&farm.command(&["shell", &built.id(), "work"]));
        terminal.until("ends it");
        terminal.types("cat half; id -u; tty; exit 9\r");
        let printed = terminal.until("/dev/pts/0");
        assert!(printed.contains("half\r\n1000\r\n"), "{printed}");
        assert_eq!(terminal.code(), 9, "{}", sandbox(&farm));
    }
}
