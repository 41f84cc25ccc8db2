//! Receivers of webhooks on this machine: one that answers as it is told, and hostile ones.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use kiln_harness::until;

/// What a receiver does with a call that it has read.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This status, with these further header lines.
    Status(u16, String),
    /// Headers that never end, a byte at a time.
    Drip,
    /// Success, and then a body that never ends.
    Endless,
    /// Nothing, while the connection stays open.
    Silence,
    /// A header of this many bytes.
    Large(usize),
}

/// A call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is signed by this secret as the Standard Webhooks specification says.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.trim().strip_prefix("whsec_").unwrap()).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let before = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = [before.as_bytes(), &self.body].concat();
        let expected = format!("v1,{}", STANDARD.encode(ring::hmac::sign(&key, &signed)));
        self.header("webhook-signature").split(' ').any(|one| one == expected)
    }
}

pub struct Receiver {
    pub port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Receiver {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            calls: Arc::default(),
            answer: Arc::new(Mutex::new(answer)),
        };
        let (calls, answer) = (receiver.calls.clone(), receiver.answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (calls, answer) = (calls.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &calls, &answer));
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook/secret-path?x=1", self.port)
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits until there are so many calls.
    pub fn wait_for(&self, count: usize) -> Vec<Call> {
        until(&format!("{count} calls"), || Some(self.calls()).filter(|calls| calls.len() >= count))
    }
}

fn serve(mut stream: TcpStream, calls: &Mutex<Vec<Call>>, answer: &Mutex<Answer>) -> Option<()> {
    let (head, mut body) = head(&mut stream)?;
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut call = Call { path, headers, body: Vec::new() };
    let length: usize = call.header("content-length").parse().ok()?;
    while body.len() < length {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        body.extend_from_slice(piece.get(..read)?);
    }
    call.body = body;
    calls.lock().unwrap().push(call);
    let answer = answer.lock().unwrap().clone();
    match answer {
        Answer::Status(code, more) => {
            write!(stream, "HTTP/1.1 {code} Told\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n").ok()
        }
        Answer::Drip => {
            write!(stream, "HTTP/1.1 200 OK\r\nx-drip: ").ok()?;
            loop {
                stream.write_all(b"a").ok()?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok()?;
            loop {
                stream.write_all(&[b'a'; 64 << 10]).ok()?;
            }
        }
        Answer::Silence => {
            // Until the caller has enough.
            let _ = stream.read(&mut [0; 1]);
            Some(())
        }
        Answer::Large(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\nx-large: ").ok()?;
            (0..bytes / 1024).try_for_each(|_| stream.write_all(&[b'a'; 1024]).ok())?;
            write!(stream, "\r\ncontent-length: 0\r\n\r\n").ok()
        }
    }
}

/// A request up to its body, and the body's beginning.
fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut data = Vec::new();
    loop {
        if let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = data.split_off(end + 4);
            return Some((String::from_utf8(data).ok()?, rest));
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        data.extend_from_slice(piece.get(..read)?);
    }
}

/// Somebody inside the network who must not be called.
pub struct Trap(TcpListener);

impl Trap {
    pub fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Whether anybody has connected so far.
    pub fn has_sprung(&self) -> bool {
        self.0.accept().is_ok()
    }
}
