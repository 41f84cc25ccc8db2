//! Unauthenticated clients against a real process: they cost little, and block nobody.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

const MIB: u64 = 1 << 20;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A coordinator's process, and the addresses of it and of its webhooks.
struct Coordinator {
    process: Child,
    address: SocketAddr,
    hooks: Option<SocketAddr>,
    _dir: tempfile::TempDir,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coordinator {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_kiln-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            |line: &str| line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        let mut hooks = None;
        let ready = loop {
            let line = lines.next().expect("expected the coordinator to say where it listens");
            if line.contains("accepting webhooks") {
                hooks = Some(address(&line));
            } else if line.contains("ready") && line.contains("address=") {
                break address(&line);
            }
        };
        // Reads what else it prints, so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: ready, hooks, _dir: dir }
    }

    /// Bytes of memory that it uses.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// TLS handshake of a client that speaks gRPC.
fn shake(address: SocketAddr, ca: &Path) -> std::io::Result<rustls::ClientConnection> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(client)
}

/// Whether the peer has closed a connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn silent_and_stammering_connections_hold_up_no_client() {
    let files = kiln_harness::certificates::certificates();
    let path = |name: &str| files.path().join(name).display().to_string();
    let coordinator = Coordinator::start(&[
        "--tls-cert",
        &path("server.pem"),
        "--tls-key",
        &path("server.key"),
        "--client-ca",
        &path("ca.pem"),
    ]);
    // Most send nothing, some begin a greeting: enough to take all the places of an hour's clients.
    let held: Vec<TcpStream> = (0..1100)
        .map(|number| {
            let mut stream = TcpStream::connect(coordinator.address).unwrap();
            if number % 4 == 0 {
                stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    shake(coordinator.address, &files.path().join("ca.pem")).expect("a client to be served");
    let left = held.iter().filter(|stream| !is_closed(stream)).count();
    assert!(left > 550, "expected the client to be served before the silent ones were given up: {left} are left");
}

/// A coordinator with one webhook, `shop`.
fn with_webhook() -> (tempfile::TempDir, Coordinator) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), SECRET).unwrap();
    let file = format!(
        "listen = \"127.0.0.1:0\"\n[hooks.shop]\nforge = \"github\"\nsecret_file = {:?}\nrepositories = [\"https://forge.example/team/*\"]\n",
        dir.path().join("secret")
    );
    std::fs::write(dir.path().join("webhooks.toml"), file).unwrap();
    let coordinator = Coordinator::start(&["--webhooks", dir.path().join("webhooks.toml").to_str().unwrap()]);
    (dir, coordinator)
}

/// The head of a delivery with this many bytes.
fn head(name: &str, headers: &str, bytes: usize) -> String {
    format!("POST /webhooks/{name} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {bytes}\r\n\r\n")
}

/// The first line of the response.
fn answer(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

#[test]
fn a_delivery_is_refused_by_its_head_before_its_body_comes() {
    let (_dir, coordinator) = with_webhook();
    let hooks = coordinator.hooks.unwrap();
    let signed = "x-github-event: push\r\nx-hub-signature-256: sha256=00\r\n";
    for (name, headers, bytes, code) in
        [("none", signed, 1000, "401"), ("shop", "", 1000, "401"), ("shop", signed, 26 << 20, "413")]
    {
        let mut stream = TcpStream::connect(hooks).unwrap();
        stream.write_all(head(name, headers, bytes).as_bytes()).unwrap();
        let line = answer(&stream);
        assert!(line.contains(code), "expected {code} for `{name}` without a byte of its body: {line}");
    }
    // A client that speaks HTTP/2 does not get an HTTP/2 response.
    let mut stream = TcpStream::connect(hooks).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").unwrap();
    let mut said = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.read_to_end(&mut said);
    assert!(said.get(3) != Some(&4), "expected no settings of HTTP/2: {said:?}");
}

#[test]
fn unsigned_bodies_share_a_bounded_memory() {
    let (_dir, coordinator) = with_webhook();
    let hooks = coordinator.hooks.unwrap();
    let before = coordinator.memory();
    let bytes = 24 << 20;
    let headers = "x-github-event: push\r\nx-hub-signature-256: sha256=00\r\n";
    let senders: Vec<_> = (0..60)
        .map(|_| {
            std::thread::spawn(move || {
                let Ok(mut stream) = TcpStream::connect(hooks) else { return None };
                stream.write_all(head("shop", headers, bytes).as_bytes()).ok()?;
                let zeroes = vec![0; MIB as usize];
                for _ in 0..(bytes / zeroes.len() - 1) {
                    stream.write_all(&zeroes).ok()?;
                }
                // All but its last byte.
                Some(stream)
            })
        })
        .collect();
    let held: Vec<TcpStream> = senders.into_iter().filter_map(|sender| sender.join().unwrap()).collect();
    let grown = coordinator.memory().saturating_sub(before);
    eprintln!("{} bodies are held, memory grew by {} MiB", held.len(), grown / MIB);
    assert!(grown < 250 * MIB, "expected bodies to share a budget, found {} MiB more", grown / MIB);
    drop(held);
    // A delivery is answered once they are gone.
    let began = Instant::now();
    loop {
        let mut stream = TcpStream::connect(hooks).unwrap();
        let _ = stream.write_all(head("shop", headers, 2).as_bytes()).and_then(|()| stream.write_all(b"{}"));
        let line = answer(&stream);
        if line.contains("401") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "expected an answer: {line}");
    }
}
