//! What a step with the network can reach, and what it cannot.

use std::os::linux::net::SocketAddrExt;

use super::escape::{answers, refused};
use super::place::confined;

#[tokio::test(flavor = "multi_thread")]
async fn abstract_sockets_of_the_machine_are_out_of_reach_with_the_network_too() {
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("kiln-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let connect = format!("attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}'))");
    let attempts = [("connect", connect)];
    refused(false, &["ECONNREFUSED"], &attempts).await;
    refused(true, &["EPERM", "EACCES", "ECONNREFUSED"], &attempts).await;
    // Communication between a build's own processes still works.
    let own = "(lambda s: (s.bind('\\0own'), s.listen(), attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0own')))[-1])(socket.socket(socket.AF_UNIX))";
    let pair = "attempt(lambda: socket.socketpair())";
    let said = answers(&confined(), false, &[("own", own.to_owned()), ("pair", pair.to_owned())]).await;
    assert!(said.iter().all(|(_, said)| said == "open"), "{said:?}");
    let said = answers(&confined(), true, &[("pair", pair.to_owned())]).await;
    assert_eq!(said[0].1, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_of_a_virtual_machine_is_out_of_reach() {
    let attempts = [("vsock", "attempt(lambda: socket.socket(40, socket.SOCK_STREAM))".to_owned())];
    for network in [false, true] {
        refused(network, &["EPERM"], &attempts).await;
    }
}

/// Tries to connect, and prints the name of the error.
fn connect(family: &str, address: &str, port: u16) -> String {
    format!(
        "(lambda s: (s.settimeout(2), attempt(lambda: s.connect(({address:?}, {port}))))[-1])(socket.socket(socket.{family}))"
    )
}

fn send(family: &str, address: &str, port: u16) -> String {
    format!("attempt(lambda: socket.socket(socket.{family}, socket.SOCK_DGRAM).sendto(b'x', ({address:?}, {port})))")
}

const UNREACHABLE: [&str; 4] = ["EPERM", "EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED"];

#[tokio::test(flavor = "multi_thread")]
async fn metadata_addresses_of_clouds_are_closed_in_every_spelling() {
    let place = confined();
    if !place.sandbox.has_own_networks() {
        return super::cannot_run("a machine with `pasta` (package `passt`) and a default route");
    }
    let mut attempts = Vec::new();
    for address in ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16"] {
        attempts.push((address, connect("AF_INET", address, 80)));
        attempts.push((address, send("AF_INET", address, 80)));
        attempts.push((address, send("AF_INET", address, 53)));
    }
    for address in [
        "fd00:ec2::254",
        "fd00:c1::a9fe:a9fe",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::100.100.100.200",
        "64:ff9b:1::168.63.129.16",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
    ] {
        attempts.push((address, connect("AF_INET6", address, 80)));
        attempts.push((address, send("AF_INET6", address, 80)));
    }
    let link_local = "max([attempt(lambda: (lambda s: (s.settimeout(1), s.connect(('fe80::a9fe:a9fe', 80, 0, index))))(socket.socket(socket.AF_INET6))) \
        for index, _ in socket.if_nameindex()], key=lambda said: (said == 'open', said == 'None'))";
    attempts.push(("link-local", link_local.to_owned()));
    refused(true, &UNREACHABLE, &attempts).await;
}

/// A host next to this machine, in a private network: a namespace with a web server in it.
struct Neighbour {
    name: String,
    network: u8,
    server: std::process::Child,
}

fn ip(arguments: &str) -> bool {
    let status = std::process::Command::new("ip").args(arguments.split_whitespace()).status();
    status.is_ok_and(|status| status.success())
}

impl Neighbour {
    fn start() -> Self {
        let (name, network) = (format!("kt{}", std::process::id()), (std::process::id() % 250) as u8);
        let made = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add 10.217.{network}.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add 10.217.{network}.2/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ];
        assert!(made.iter().all(|arguments| ip(arguments)), "expected root to make a network: {made:?}");
        let server = std::process::Command::new("ip")
            .args(["netns", "exec", &name, "/usr/bin/python3", "-u", "-c"])
            .arg("import socket; s = socket.create_server(('0.0.0.0', 80)); print('up', flush=True)\nwhile True: c, _ = s.accept(); c.sendall(b'registry\\n'); c.close()")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut neighbour = Self { name, network, server };
        let mut up = [0; 3];
        std::io::Read::read_exact(neighbour.server.stdout.as_mut().unwrap(), &mut up).unwrap();
        neighbour
    }

    fn address(&self, host: u8) -> String {
        format!("10.217.{}.{host}", self.network)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        ip(&format!("link del {}", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_reaches_a_private_network_and_nothing_of_its_machine_or_of_another_step() {
    let place = confined();
    if !place.sandbox.has_own_networks() || !rustix::process::geteuid().is_root() {
        return super::cannot_run("root, on a machine with `pasta` (package `passt`) and a default route");
    }
    let neighbour = Neighbour::start();
    let everywhere = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    let (there, here) = (neighbour.address(2), neighbour.address(1));
    let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    own.connect("198.51.100.1:9").unwrap();
    let main = own.local_addr().unwrap().ip().to_string();
    let attempts = [
        ("registry", connect("AF_INET", &there, 80)),
        ("loopback", connect("AF_INET", "127.0.0.1", port)),
        ("loopback-6", connect("AF_INET6", "::1", port)),
        ("mapped", connect("AF_INET6", "::ffff:127.0.0.1", port)),
        ("everything", connect("AF_INET", "0.0.0.0", port)),
        ("address", connect("AF_INET", &here, port)),
        ("main-address", connect("AF_INET", &main, port)),
        ("by-names", "attempt(lambda: open('/etc/resolv.conf').read())".to_owned()),
    ];
    let said = answers(&place, true, &attempts).await;
    for (name, said) in said {
        match name.as_str() {
            "registry" | "by-names" => assert_eq!(said, "open", "{name}"),
            _ => assert!(UNREACHABLE.contains(&said.as_str()), "expected `{name}` to be closed, found `{said}`"),
        }
    }
    // A step that listens can be reached by itself, but not by a concurrent one.
    let mut job = place.job("");
    let listen = "import socket, time; s = socket.create_server(('0.0.0.0', 8123)); socket.create_connection(('127.0.0.1', 8123)); print('own', flush=True); time.sleep(1000)";
    job.arguments = ["/usr/bin/python3", "-c", listen].map(str::to_owned).into();
    job.network = true;
    let cancel = tokio_util::sync::CancellationToken::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let first = place.sandbox.run(job, sender, cancel.clone());
    let second = async {
        let said = receiver.recv().await.expect("expected the first to listen");
        assert_eq!(&said.data[..], b"own\n");
        let attempts =
            [("loopback", connect("AF_INET", "127.0.0.1", 8123)), ("address", connect("AF_INET", &main, 8123))];
        let said = answers(&place, true, &attempts).await;
        let outside = std::net::TcpStream::connect(("127.0.0.1", 8123)).is_err();
        cancel.cancel();
        while receiver.recv().await.is_some() {}
        (said, outside)
    };
    let (finished, (said, outside)) = tokio::join!(first, second);
    finished.unwrap();
    assert!(outside, "expected nobody on the machine to reach a step");
    assert!(said.iter().all(|(_, said)| UNREACHABLE.contains(&said.as_str())), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_on_the_machines_loopback_is_there_for_steps_and_no_other_port_is() {
    if !confined().sandbox.has_own_networks() {
        return super::cannot_run("a machine with `pasta` (package `passt`) and a default route");
    }
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port().to_string();
    // Depends on the worker's own environment variables, so it runs in its own process.
    let ran = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "network::with_a_proxy", "--ignored", "--nocapture"])
        .env("HTTPS_PROXY", format!("http://user:word@127.0.0.1:{}/", port(&proxy)))
        .env("KILN_TEST_PORTS", format!("{} {}", port(&proxy), port(&other)))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(
        text.contains("proxy open\n") && text.contains("other ECONNREFUSED\n"),
        "{text}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the inner part of `a_proxy_on_the_machines_loopback_is_there_for_steps_and_no_other_port_is`"]
async fn with_a_proxy() {
    let ports = std::env::var("KILN_TEST_PORTS").unwrap();
    let (proxy, other) = ports.split_once(' ').unwrap();
    let attempts = [
        ("proxy", connect("AF_INET", "127.0.0.1", proxy.parse().unwrap())),
        ("other", connect("AF_INET", "127.0.0.1", other.parse().unwrap())),
    ];
    for (name, said) in answers(&confined(), true, &attempts).await {
        println!("{name} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_without_the_network_has_the_loopback_alone() {
    let place = confined();
    assert_eq!(place.script("grep -c : /proc/net/dev").await.text(), "1\n");
    let attempts =
        [("name server", send("AF_INET", "192.0.0.8", 53)), ("anywhere", connect("AF_INET", "198.51.100.1", 80))];
    refused(false, &["ENETUNREACH"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_networks_are_shared_metadata_addresses_are_closed_to_plain_sockets() {
    let place = super::place::sharing_the_network();
    if !place.sandbox.closes_metadata() {
        return super::cannot_run("a worker that is root on a machine with control groups of version 2 (cgroup2)");
    }
    let attempts = [
        ("v4", connect("AF_INET", "169.254.169.254", 80)),
        ("datagram", send("AF_INET", "169.254.169.254", 80)),
        ("v6", connect("AF_INET6", "fd00:ec2::254", 80)),
        ("mapped", connect("AF_INET6", "::ffff:169.254.169.254", 80)),
    ];
    for (name, said) in answers(&place, true, &attempts).await {
        assert_eq!(said, "EPERM", "{name}");
    }
    let name_server =
        [("name server", send("AF_INET", "169.254.169.254", 53)), ("other", connect("AF_INET", "127.0.0.1", 9))];
    for (name, said) in answers(&place, true, &name_server).await {
        assert_ne!(said, "EPERM", "expected `{name}` not to be blocked: some clouds have their name server there");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test -p kiln-worker --test sandbox network_takes -- --ignored --nocapture"]
async fn network_takes() {
    let place = confined();
    for network in [false, true] {
        let mut took = Vec::new();
        for _ in 0..50 {
            let mut job = place.job("");
            (job.arguments, job.network) = (vec!["/bin/true".into()], network);
            let began = std::time::Instant::now();
            place.run(job).await;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        eprintln!("/bin/true, network {network}: median {:?}, 90 % {:?}", took[25], took[45]);
    }
}

/// Prints the identity of its network, leaves a connection on port 8123 that waits for late packets, and tries to change the network.
const LEAVE: &str = "
import fcntl, os, socket, struct
print(os.readlink('/proc/self/ns/net'))
server = socket.create_server(('127.0.0.1', 8123))
client = socket.create_connection(('127.0.0.1', 8123))
accepted, _ = server.accept()
accepted.close()
client.recv(1)
client.close()
def refused(what, change):
    try:
        change()
        print('changed', what)
    except OSError:
        pass
lo = struct.pack('16sh', b'lo', 0)
refused('the interface', lambda: fcntl.ioctl(client if client.fileno() >= 0 else server, 0x8914, lo))
refused('the name', lambda: fcntl.ioctl(server, 0x8923, struct.pack('16s16s', b'lo', b'gone')))
refused('the ports', lambda: open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write('9000 9001'))
";
/// Prints the identity of its network, and whether port 8123 is free.
const BIND: &str = "
import os, socket
print(os.readlink('/proc/self/ns/net'))
s = socket.socket()
s.bind(('127.0.0.1', 8123))
";

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_a_job_without_access_is_used_again_only_as_new() {
    let place = confined();
    let run = async |script: &str| {
        let mut job = place.job("");
        job.arguments = vec!["python3".into(), "-c".into(), script.into()];
        let ran = place.run(job).await;
        assert_eq!(ran.exit(), &kiln_worker::executor::Exit::Code(0), "{}", ran.err);
        ran.text().trim().to_owned()
    };
    if rustix::process::geteuid().is_root() {
        // It comes back when the last process of its job has gone, which nobody waits for.
        let first = run(BIND).await;
        let mut again = 0;
        while run(BIND).await != first {
            again += 1;
            assert!(again < 200, "expected the network to be used again");
        }
    }
    let left = run(LEAVE).await;
    assert_eq!(left.lines().count(), 1, "expected the job to change nothing of its network: {left}");
    // It fails in a network in which a connection waits. (The numbers of networks are used again at once.)
    for _ in 0..10 {
        run(BIND).await;
    }
}
