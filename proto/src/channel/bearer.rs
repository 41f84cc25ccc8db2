//! The token that each call carries. Source: RFC 6750, "Bearer Token Usage".

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::access::Error;
use crate::local;
use crate::protocol::{HEADER, PROTOCOL};

/// How long a token from a file is used before the file is read again: short-lived tokens are replaced there.
const FRESH: Duration = Duration::from_secs(5);

/// Adds the protocol version to each call, and the token if there is one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Bearer(Option<Arc<Token>>);

enum Token {
    /// From a variable, or from a file that may change.
    Given { file: Option<PathBuf>, value: Mutex<(Instant, MetadataValue<Ascii>)> },
    /// In the file of a coordinator on this machine, which creates a new one whenever it starts.
    Local { file: PathBuf },
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(…)" } else { "Bearer(none)" })
    }
}

impl Bearer {
    pub(super) fn from_text(token: &str, from: &str) -> Result<Self, Error> {
        Ok(Self::new(value(token, from)?, None))
    }

    pub(super) fn from_file(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(read(path)?, Some(path.to_owned())))
    }

    fn new(value: MetadataValue<Ascii>, file: Option<PathBuf>) -> Self {
        Self(Some(Arc::new(Token::Given { file, value: Mutex::new((Instant::now(), value)) })))
    }

    /// Reads this file of a coordinator on this machine at each call, if it exists.
    pub(super) fn local(file: PathBuf) -> Self {
        Self(Some(Arc::new(Token::Local { file })))
    }
}

fn read(path: &Path) -> Result<MetadataValue<Ascii>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    value(&text, &format!("`{}`", path.display()))
}

fn value(token: &str, from: &str) -> Result<MetadataValue<Ascii>, Error> {
    let wrong = || Error::Token { from: from.to_owned() };
    let token = token.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

impl Token {
    fn now(&self) -> Option<MetadataValue<Ascii>> {
        let (file, held) = match self {
            Self::Local { file } => return local::read(file).and_then(|token| value(&token, "").ok()),
            Self::Given { file, value } => (file, value),
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file
            && held.0.elapsed() > FRESH
        {
            // A file that cannot be read at the moment is being replaced: the old token is used meanwhile.
            let value = read(file).unwrap_or_else(|_| held.1.clone());
            *held = (Instant::now(), value);
        }
        Some(held.1.clone())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(HEADER, PROTOCOL.into());
        if let Some(token) = self.0.as_ref().and_then(|token| token.now()) {
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }
}
