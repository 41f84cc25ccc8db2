//! Addresses that a builder makes the coordinator request: nothing that only the coordinator's network can reach.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kiln_harness::guarded::{Guarded, access, certificate};
use kiln_harness::{Built, Ran, project};

/// A service's response to clients within its network.
const INNER: &str = "password-of-the-inner-service";

/// An HTTP service on loopback, and the requests that it received.
struct Service {
    port: u16,
    connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// One that responds to a request's head with status, headers and body.
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, noted) = (connections.clone(), asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = vec![0; 8192];
                let Ok(length) = stream.read(&mut head) else { continue };
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                // Responds to a TLS greeting as a plain server does.
                let _ = stream.write_all(answer(&head).as_bytes());
                noted.lock().unwrap().push(head);
            }
        });
        Self { port, connections, asked }
    }

    /// A service that builders must not be able to read.
    fn inner() -> Self {
        Self::start(|_| response("500 Internal Server Error", "", INNER))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// A build by a builder with a certificate, whose image has this base.
fn build(guarded: &Guarded, base: &str) -> Built {
    let config = format!(
        "name = \"spy\"\n[steps.s]\nrun = \"echo x > out\"\noutputs = [\"out\"]\n[artifacts.spy]\nkind = \"image\"\nfrom = \"s\"\n\
         files = [\"out\"]\nbase = \"{base}\"\n"
    );
    let dir = project(&[("kiln.toml", &config)]);
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let mut command = guarded.as_other(access(&guarded.dir(), Some(&ann)), &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    Built(Ran::from(command))
}

#[track_caller]
fn refused(built: &Built, words: &str) {
    let all = format!("{}{}", built.0.out, built.0.err);
    assert!(!all.contains(INNER), "expected nothing of the inner service to reach the builder: {all}");
    assert!(built.0.code == 1 && all.contains(words), "expected `{words}` and the project's fault: {:?}", built.0);
}

#[test]
fn a_base_on_the_coordinators_own_machine_or_network_is_not_asked_for() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let inner = Service::inner();
    let port = inner.port;
    let hosts = [
        "127.0.0.1",
        "localhost",
        "127.0.0.2",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "127.1",
        "0x7f000001",
    ];
    let own = local_address().map(|address| address.to_string());
    for host in hosts.into_iter().chain(own.as_deref()) {
        let built = build(&guarded, &format!("{host}:{port}/team/base:1"));
        let all = format!("{}{}", built.0.out, built.0.err);
        assert!(matches!(built.0.code, 1 | 2), "expected the project's fault for {host}: {all}");
        assert!(all.contains("--allow-registry") || all.contains("`base`"), "{host}: {all}");
    }
    refused(&build(&guarded, "169.254.169.254/latest/meta-data:1"), "`--allow-registry 169.254.169.254`");
    assert_eq!(inner.connections(), 0, "expected no connection: {:?}", inner.asked.lock().unwrap());
}

/// This machine's address in its network, if it has one.
fn local_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[test]
fn a_registry_leads_the_coordinator_nowhere_else() {
    let inner = Service::inner();
    let elsewhere = format!("127.0.0.1:{}", inner.port);
    let location = format!("location: http://{elsewhere}/latest/meta-data\r\n");
    let redirects = Service::start(move |head| {
        if head.starts_with("GET /v2/ ") {
            response("200 OK", "", "")
        } else {
            response("307 Temporary Redirect", &location, "")
        }
    });
    let challenge =
        format!("www-authenticate: Bearer realm=\"http://localhost:{}/token\",service=\"s\"\r\n", inner.port);
    let asks = Service::start(move |_| response("401 Unauthorized", &challenge, ""));
    let speaks = Service::inner();
    let names: Vec<String> =
        [&redirects, &asks, &speaks].iter().map(|service| format!("127.0.0.1:{}", service.port)).collect();
    let guarded = Guarded::start(&["--allow-registry", &names.join(",")]);
    guarded.worker("one");
    refused(&build(&guarded, &format!("{}/team/base:1", names[0])), &format!("`--allow-registry {elsewhere}`"));
    refused(&build(&guarded, &format!("{}/team/base:1", names[1])), "tokens are issued by another host, `localhost`");
    assert_eq!(inner.connections(), 0, "expected no connection: {:?}", inner.asked.lock().unwrap());
    // A response that is not a registry's error is not shown either.
    let built = build(&guarded, &format!("{}/team/base:1", names[2]));
    let all = format!("{}{}", built.0.out, built.0.err);
    assert!(built.0.code != 0 && all.contains("500") && !all.contains(INNER), "{all}");
    assert!(speaks.connections() > 0, "expected an allowed registry to be contacted");
}
