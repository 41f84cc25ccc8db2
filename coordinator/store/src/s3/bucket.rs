//! The bucket itself: object names, calls and the meaning of failures.

use std::error::Error as _;
use std::ops::Deref;
use std::sync::Arc;

use futures::TryStreamExt;
use kiln_proto::digest::{Digest, DigestFunction};
use object_store::aws::AmazonS3;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{Error as Failure, ObjectStore};

use super::Address;
use crate::Error;
use crate::breaker::Breaker;

/// Version of the names. Objects of other versions are left alone.
const LAYOUT: &str = "1";

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blobs.
    Blobs,
    /// Records of a blob's last use.
    Uses,
}

/// One bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bucket(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: AmazonS3,
    prefix: String,
    pub(super) shown: String,
    pub(super) breaker: Breaker,
}

impl Deref for Bucket {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Bucket {
    /// Sends one list request, so that a wrong name or key is detected now. A bucket that is only unavailable is not an
    /// error.
    pub(super) async fn open(address: &Address) -> Result<Self, Error> {
        let (client, prefix) = address.client()?;
        let inner = Inner { client, prefix, shown: address.shown().to_owned(), breaker: Breaker::default() };
        let bucket = Self(Arc::new(inner));
        match bucket.probe().await {
            Ok(()) => {}
            Err(error) => match why(&error) {
                Why::Away(why) => bucket.is_away(&why),
                Why::Refused(why) => return Err(Error::S3Refused { shown: bucket.shown.clone(), why }),
            },
        }
        Ok(bucket)
    }

    pub(super) fn of(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    pub(super) fn inner(&self) -> Arc<Inner> {
        self.0.clone()
    }

    /// The smallest request that shows that the bucket exists and grants access.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        self.client.list(Some(&self.folder(Kind::Blobs))).try_next().await.map(|_| ())
    }

    /// The common prefix of all objects of a kind.
    pub(super) fn folder(&self, kind: Kind) -> Path {
        let kind = match kind {
            Kind::Blobs => "blobs",
            Kind::Uses => "uses",
        };
        Path::from(format!("{}{kind}/{LAYOUT}", self.prefix))
    }

    pub(super) fn path(&self, kind: Kind, digest: &Digest) -> Path {
        let (hex, function) = (digest.hex(), digest.function.name());
        let folder = self.folder(kind);
        Path::from(format!("{folder}/{function}/{}/{hex}-{}", hex.get(..2).unwrap_or_default(), digest.size))
    }

    /// The digest in an object's name; `None` if it is not an object of that kind.
    pub(super) fn digest(&self, kind: Kind, path: &Path) -> Option<Digest> {
        let name = path.as_ref().strip_prefix(self.folder(kind).as_ref())?.strip_prefix('/')?;
        let (function, name) = name.split_once('/')?;
        let (_, name) = name.split_once('/')?;
        let (hash, size) = name.split_once('-')?;
        let functions = [DigestFunction::Sha256, DigestFunction::Blake3];
        let function = functions.into_iter().find(|known| known.name() == function)?;
        Digest::new(function, hash, size.parse().ok()?).ok()
    }

    /// Fails immediately while the bucket is unavailable.
    pub(super) fn ready(&self) -> Result<(), Error> {
        self.breaker.away().map_or(Ok(()), |why| Err(Error::S3 { shown: self.shown.clone(), why }))
    }

    /// Makes a call for a blob, if the bucket is available.
    pub(super) async fn call<T>(
        &self,
        digest: &Digest,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        self.ready()?;
        call.await.map_err(|error| self.failed(digest, error))
    }

    /// Interprets a failed call for a blob.
    pub(super) fn failed(&self, digest: &Digest, error: Failure) -> Error {
        // One that has no bytes where the blob has some is not that blob.
        if matches!(error, Failure::NotFound { .. }) || message(&error).starts_with("416") {
            return Error::NotFound { digest: *digest };
        }
        let (Why::Away(why) | Why::Refused(why)) = why(&error);
        self.is_away(&why);
        Error::S3 { shown: self.shown.clone(), why }
    }
}

/// The meaning of a failure.
#[derive(Debug)]
pub(super) enum Why {
    /// The bucket may recover.
    Away(String),
    /// Waiting does not help.
    Refused(String),
}

fn why(error: &Failure) -> Why {
    let message = message(error);
    // A refused list request is reported as a generic failure.
    match message.get(..3) {
        Some("404") => Why::Refused(format!("no such bucket ({message}); create it, or correct its name")),
        Some("401" | "403") => Why::Refused(format!(
            "access denied ({message}); expected `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of a user who \
             may list, read, write and delete objects"
        )),
        _ if message.contains("dns error") || message.contains("failed to lookup") => Why::Refused(format!(
            "cannot resolve the endpoint's host ({message}); correct `AWS_ENDPOINT_URL` or `AWS_REGION`"
        )),
        _ => match http(error) {
            Some(
                HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Timeout | HttpErrorKind::Interrupted,
            ) => Why::Away(message),
            _ if message.starts_with('5') => Why::Away(message),
            _ => Why::Refused(message),
        },
    }
}

fn http(error: &Failure) -> Option<HttpErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// S3's own message: the status with its code and message if the answer is XML, or else the innermost cause.
fn message(error: &Failure) -> String {
    let text = error.to_string();
    if let Some((_, answer)) = text.split_once("status code: ") {
        let status = answer.split(['\n', '<']).next().unwrap_or_default().trim().trim_end_matches(':');
        let within = |tag: &str| answer.split_once(&format!("<{tag}>"))?.1.split_once('<').map(|(inner, _)| inner);
        let words: Vec<&str> = [Some(status), within("Code"), within("Message")].into_iter().flatten().collect();
        return words.join(": ");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match http(error) {
        Some(HttpErrorKind::Timeout) => "no response in time".to_owned(),
        Some(_) => text.rsplit_once("error: ").map_or(innermost.to_string(), |_| innermost.to_string()),
        None => innermost.to_string(),
    }
}
