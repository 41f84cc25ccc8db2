//! The audit log: one JSON object per line, with the caller, for every call that changes something and every refused
//! call.
//!
//! Invariant: a call's line is written before its answer is sent, or when its caller leaves earlier. If the file was
//! moved away, as by `logrotate`, a new one is created.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::json;
use tonic::Code;

use super::Identity;

/// Maximum length of text chosen by a client, in characters.
const MAX_TEXT: usize = 1024;

/// What a call is about, such as `build 0190…` or `worker vm-7`. The gate puts one into each request's extensions, and
/// the call's service fills it in as soon as it knows, so that failed calls have a subject too. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Subject(Arc<Mutex<Option<String>>>);

impl Subject {
    /// The subject of this request; an unused one if there is no audit log.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Sets the subject, replacing an earlier one.
    pub fn is(&self, text: String) {
        *self.0.lock() = Some(text);
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// A call, as logged.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) path: &'a str,
    pub(super) identity: Option<&'a Identity>,
    /// The address it came from.
    pub(super) address: Option<String>,
    pub(super) code: Code,
    pub(super) message: &'a str,
    pub(super) subject: Option<&'a str>,
}

/// A request of a protocol other than gRPC.
#[derive(Debug)]
pub struct Requested<'a> {
    /// Such as `PUT ccache`.
    pub call: &'a str,
    /// The caller, if known.
    pub identity: Option<&'a Identity>,
    /// The address it came from.
    pub address: Option<SocketAddr>,
    /// The outcome, as gRPC would name it.
    pub code: Code,
    /// Why it was refused; empty otherwise.
    pub message: &'a str,
    /// What it is about.
    pub subject: &'a str,
    /// Whether it may change what others see.
    pub is_change: bool,
}

/// Calls that change what others see. Uploads of blobs are not among them: they cannot change existing blobs.
const CHANGES: [&str; 18] = [
    "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult",
    "/build.bazel.remote.execution.v2.Execution/Execute",
    "/google.longrunning.Operations/CancelOperation",
    "/google.longrunning.Operations/DeleteOperation",
    "/kiln.v1.Builds/Submit",
    "/kiln.v1.Builds/Cancel",
    "/kiln.v1.Builds/CancelAll",
    "/kiln.v1.Cache/Prune",
    "/kiln.v1.Deliveries/Take",
    "/kiln.v1.Farm/DrainWorker",
    "/kiln.v1.Membership/Join",
    "/kiln.v1.Membership/Renew",
    "/kiln.v1.Membership/Revoke",
    "/kiln.v1.Membership/Unrevoke",
    "/kiln.v1.Membership/Distrust",
    "/kiln.v1.Membership/Trust",
    "/kiln.v1.Shells/Open",
    "/kiln.v1.Workers/Link",
];

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    inode: u64,
}

impl Audit {
    /// Opens a file for appending; a new file is readable only by its owner.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Open::at(path)?))))
    }

    /// Logs a request of a protocol other than gRPC, if it was refused or changes something.
    pub fn request(&self, request: &Requested<'_>) {
        let refused = matches!(request.code, Code::PermissionDenied | Code::Unauthenticated);
        if !refused && !request.is_change {
            return;
        }
        self.write(&Call {
            path: request.call,
            identity: request.identity,
            address: request.address.map(|address| address.to_string()),
            code: request.code,
            message: request.message,
            subject: Some(request.subject),
        });
    }

    /// Whether a call may change what others see.
    pub(super) fn changes(path: &str) -> bool {
        CHANGES.contains(&path)
    }

    /// Whether a call with this outcome is logged.
    pub(super) fn wants(path: &str, code: Code) -> bool {
        Self::changes(path) || matches!(code, Code::PermissionDenied | Code::Unauthenticated)
    }

    /// Logs a call.
    pub(super) fn write(&self, call: &Call<'_>) {
        let short = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let identity = call.identity;
        let mut line = json!({
            "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "identity": identity.map(|identity| identity.name.as_str()).filter(|name| !name.is_empty()),
            "tenant": identity.map(|identity| identity.tenant.as_str()),
            "roles": identity.map(|identity| identity.roles.iter().map(|role| role.name()).collect::<Vec<_>>()),
            "serial": identity.and_then(|identity| identity.serial.as_deref()),
            "address": call.address,
            "call": short(call.path),
            "subject": call.subject.map(short),
            "outcome": if call.code == Code::Ok { "OK".to_owned() } else { format!("{:?}", call.code) },
            "message": Some(short(call.message)).filter(|message| !message.is_empty()),
        });
        if let Some(members) = line.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        if let Err(error) = self.0.lock().append(&line.to_string()) {
            tracing::error!(%error, %line, "cannot write to the audit log");
        }
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { path: path.to_owned(), file, inode })
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if std::fs::metadata(&self.path).map_or(true, |found| found.ino() != self.inode) {
            *self = Self::at(&self.path)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_appended_also_after_the_file_was_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        let call = |message| Call {
            path: "/kiln.v1.Builds/Submit",
            identity: None,
            address: Some("10.0.0.1:1".into()),
            code: Code::PermissionDenied,
            message,
            subject: Some("build 1"),
        };
        audit.write(&call("one\nline"));
        std::fs::rename(&path, directory.path().join("audit.jsonl.1")).unwrap();
        audit.write(&call(&"x".repeat(5000)));
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("audit.jsonl.1").lines().count(), read("audit.jsonl").lines().count()), (1, 1));
        let line: serde_json::Value = serde_json::from_str(&read("audit.jsonl.1")).unwrap();
        assert_eq!((line["message"].as_str(), line["subject"].as_str()), (Some("one\nline"), Some("build 1")));
        assert!(read("audit.jsonl").len() < 2000, "expected long texts to be cut");
        assert!(
            Audit::wants("/kiln.v1.Farm/Status", Code::Unauthenticated)
                && !Audit::wants("/kiln.v1.Farm/Status", Code::Ok)
        );
    }

    #[test]
    fn every_call_that_changes_something_is_one_of_the_farms() {
        for path in CHANGES {
            let known = super::super::needs(path).is_some();
            assert!(known, "unknown call `{path}`");
        }
    }
}
