//! A proxy in front of a real registry that injects a test's faults: it reads each request's first line and forwards
//! bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is forwarded.
    None,
    /// It is answered with this status, and the registry does not see it.
    Status(u16, &'static str),
    /// The connection breaks after this many bytes of its body reached the registry.
    BreakAfter(usize),
    /// The transfer stalls after this many bytes of its body reached the registry.
    StallAfter(usize),
}

/// Decides from a request's method and path.
type Decide = dyn Fn(&str, &str) -> Fault + Send + Sync;

/// A proxy on its own port.
pub struct Proxy {
    pub name: String,
    /// Each request's first line, in order.
    pub seen: Arc<Mutex<Vec<String>>>,
    /// Bytes of bodies that were forwarded.
    pub passed: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy in front of `registry`.
    pub fn before(registry: &str, decide: impl Fn(&str, &str) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let (seen, passed) = (Arc::default(), Arc::default());
        let connection = Connection {
            registry: registry.to_owned(),
            decide: Arc::new(decide),
            seen: Arc::clone(&seen),
            passed: Arc::clone(&passed),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = connection.clone();
                std::thread::spawn(move || connection.serve(stream));
            }
        });
        Self { name, seen, passed }
    }

    /// How many requests began with this.
    pub fn count(&self, start: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.starts_with(start)).count()
    }
}

#[derive(Clone)]
struct Connection {
    registry: String,
    decide: Arc<Decide>,
    seen: Arc<Mutex<Vec<String>>>,
    passed: Arc<AtomicU64>,
}

impl Connection {
    /// One request per connection: the response closes it.
    fn serve(&self, client: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(client.try_clone().ok()?);
        let mut head = String::new();
        let (mut length, mut first) = (0_usize, String::new());
        loop {
            let mut line = String::new();
            // A TLS greeting is not text: it gets no response, as from any HTTP server.
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if first.is_empty() {
                first = line.trim_end().to_owned();
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if lower.starts_with("connection:") {
                continue;
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        self.seen.lock().unwrap().push(first.clone());
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let fault = (self.decide)(&method, &path);
        let mut client = client;
        if let Fault::Status(status, body) = fault {
            let mut sink = vec![0; length];
            let _ = reader.read_exact(&mut sink);
            let answer =
                format!("HTTP/1.1 {status} Fault\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            return client.write_all(answer.as_bytes()).ok();
        }
        let mut registry = TcpStream::connect(&self.registry).ok()?;
        registry.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).ok()?;
        let bytes = match fault {
            Fault::BreakAfter(bytes) | Fault::StallAfter(bytes) => bytes.min(length),
            _ => length,
        };
        let passed = std::io::copy(&mut reader.by_ref().take(bytes as u64), &mut registry).ok()?;
        self.passed.fetch_add(passed, Ordering::Relaxed);
        match fault {
            Fault::BreakAfter(_) => return None,
            Fault::StallAfter(_) => {
                // Holds both ends until the client gives up.
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                return None;
            }
            _ => {}
        }
        std::io::copy(&mut registry, &mut client).ok()?;
        Some(())
    }
}
