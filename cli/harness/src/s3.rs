//! A real S3 server (moto) on a port of this machine, stopped when dropped.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use kiln_store::Clock;
use kiln_store::s3::Address;
use object_store::ObjectStore;
use parking_lot::Mutex;

/// Where `.ci/test` installs moto.
const PYTHON: &str = "/opt/kiln-test-tools/bin/python";

/// One server with the bucket `kiln`.
pub struct S3 {
    child: Child,
    lines: Mutex<Lines<BufReader<ChildStdout>>>,
    port: u16,
    key: String,
    pub secret: String,
    ahead: Arc<AtomicU64>,
}

/// One server for all tests of a program that leave it unchanged; each has its own prefix. It ends with the program.
pub fn shared() -> Option<&'static S3> {
    static SHARED: std::sync::OnceLock<Option<S3>> = std::sync::OnceLock::new();
    SHARED.get_or_init(S3::start).as_ref()
}

impl S3 {
    /// Starts a server; `None` if moto is not installed.
    pub fn start() -> Option<Self> {
        let none = |why: String| {
            crate::cannot_run(&format!("moto[server] of /opt/kiln-test-tools does not start: {why}"));
            None
        };
        let mut command = Command::new(PYTHON);
        command.args(["-c", include_str!("s3_server.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else { return none(format!("no `{PYTHON}`")) };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("READY"));
        let Some(ready) = ready else { return none(format!("its program ended with {}", child.wait().unwrap())) };
        let words: Vec<&str> = ready.split(' ').collect();
        let (port, key, secret) = (words[1].parse().unwrap(), words[2].to_owned(), words[3].to_owned());
        Some(Self { child, lines: Mutex::new(lines), port, key, secret, ahead: Arc::default() })
    }

    fn order(&self, words: &str) {
        let mut input = self.child.stdin.as_ref().unwrap();
        writeln!(input, "{words}").unwrap();
        let answer = self.lines.lock().next().expect("expected the S3 server to live").unwrap();
        assert_eq!(answer, "DONE", "expected the S3 server to do `{words}`");
    }

    /// Stops the server: connections are refused.
    pub fn down(&self) {
        self.order("down");
    }

    /// Starts the server again with all its data.
    pub fn up(&self) {
        self.order("up");
    }

    /// Lets time pass, for the server and for [`clock`](Self::clock).
    pub fn pass(&self, time: Duration) {
        let ahead = self.ahead.fetch_add(time.as_secs(), Ordering::SeqCst) + time.as_secs();
        self.order(&format!("ahead {ahead}"));
    }

    /// From now on every object has the same ETag, whatever its content.
    pub fn forge_tags(&self) {
        self.order("tags");
    }

    /// The server's current time.
    pub fn clock(&self) -> Clock {
        let ahead = self.ahead.clone();
        Clock::of(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst)))
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The environment variables with a coordinator's credentials.
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint().as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", &self.key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The bucket, with a prefix for one test.
    pub fn address(&self, prefix: &str) -> Address {
        Address::new(&format!("s3://kiln/{prefix}"), self.variables())
    }

    /// The bucket as other programs see it.
    pub fn bucket(&self) -> impl ObjectStore {
        self.address("").client().unwrap().0
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
