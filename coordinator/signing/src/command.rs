//! Signatures by a command.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_attest::PublicKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process;

use crate::Error;

/// Maximum size of what a command prints: signatures have less than a hundred bytes.
const MAX_PRINTED: u64 = 64 << 10;
/// How much of what it says about a failure is told.
const TOLD: usize = 500;

/// A command that signs.
#[derive(Debug)]
pub(crate) struct Command {
    line: String,
    timeout: Duration,
}

impl Command {
    pub(crate) fn new(line: String, timeout: Duration) -> Self {
        Self { line, timeout }
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Command { command: self.line.clone(), reason: reason.into() }
    }

    /// The signature of a message by this key.
    pub(crate) async fn sign(&self, message: &[u8], key: &PublicKey) -> Result<Vec<u8>, Error> {
        let printed = tokio::time::timeout(self.timeout, self.run(message, key.id())).await.map_err(|_| {
            self.failed(format!("did not end within {:?}; give it more time with `--signing-timeout`", self.timeout))
        })??;
        let text: String = String::from_utf8_lossy(&printed).split_whitespace().collect();
        let decoded = STANDARD.decode(text).unwrap_or_default();
        [decoded, printed].into_iter().find(|bytes| key.verifies(message, bytes)).ok_or_else(|| {
            self.failed(format!(
                "printed no signature of the key `{}`; expected one over its standard input, raw or in base64, with the private half of the \
                 first key in `--signing-public-key`",
                key.id()
            ))
        })
    }

    async fn run(&self, message: &[u8], key: &str) -> Result<Vec<u8>, Error> {
        let unusable = |error: std::io::Error| self.failed(format!("cannot be run: {error}"));
        let mut child = process::Command::new("/bin/sh")
            .args(["-c", &self.line])
            .env("KILN_SIGNING_KEY_ID", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(unusable)?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut input) = input {
                // A command that does not read it all fails, or has what it needs.
                let _ = input.write_all(message).await;
            }
        };
        let ((), printed, said, status) = tokio::join!(write, read(output), read(errors), child.wait());
        let status = status.map_err(unusable)?;
        if !status.success() {
            let said = String::from_utf8_lossy(&said).trim().chars().take(TOLD).collect::<String>();
            return Err(self.failed(format!("failed ({status}): {said}")));
        }
        Ok(printed)
    }
}

async fn read(from: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut data = Vec::new();
    if let Some(from) = from {
        let _ = from.take(MAX_PRINTED).read_to_end(&mut data).await;
    }
    data
}
