//! A client's credentials and trusted authorities: files that are read for each connection.

use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, Identity};

use super::Bearer;

/// The variable with a token. It is not an argument, because others can see those.
const TOKEN: &str = "KILN_TOKEN";

/// Trusted authority and credentials. A farm on this machine needs none.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Access {
    /// Certificate authority of the coordinator, in PEM; default: those that the system trusts.
    #[arg(long, env = "KILN_CA", global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate for the farm, in PEM.
    #[arg(long, env = "KILN_CERT", global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Key of that certificate, in PEM.
    #[arg(long, env = "KILN_KEY", global = true, value_name = "FILE", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// File with a token for the farm; `KILN_TOKEN` can hold the token itself.
    #[arg(long, env = "KILN_TOKEN_FILE", global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read `{}`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{given}` requires `{missing}`: a certificate is used with its key")]
    Pair { given: &'static str, missing: &'static str },
    #[error("cannot use the certificate, its key or the authority ({reason}); expected PEM")]
    Certificate { reason: String },
    #[error("`{}` has no certificate or no key; expected PEM", .path.display())]
    Content { path: PathBuf },
    #[error("{from} contains no token: expected one word of visible characters")]
    Token { from: String },
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

impl Access {
    pub(super) fn authority(&self) -> Result<Option<Certificate>, Error> {
        self.ca.as_deref().map(|path| Ok(Certificate::from_pem(read(path)?))).transpose()
    }

    pub(super) fn identity(&self) -> Result<Option<Identity>, Error> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some(Identity::from_pem(read(cert)?, read(key)?))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::Pair { given: "--cert", missing: "--key" }),
            (None, Some(_)) => Err(Error::Pair { given: "--key", missing: "--cert" }),
        }
    }

    /// Whether all files can be read and are what they should be. Nothing is sent.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn check(&self) -> Result<(), Error> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let wrong = |path: &Path| Error::Content { path: path.to_owned() };
        self.identity()?;
        for path in [&self.ca, &self.cert].into_iter().flatten() {
            let data = read(path)?;
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&data).collect();
            all.ok().filter(|all| !all.is_empty()).ok_or_else(|| wrong(path))?;
        }
        if let Some(path) = &self.key {
            PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| wrong(path))?;
        }
        self.bearer().map(drop)
    }

    /// Whether there are any credentials.
    pub(super) fn is_given(&self) -> bool {
        self.cert.is_some() || self.has_token()
    }

    pub(super) fn has_token(&self) -> bool {
        self.token_file.is_some() || variable().is_some()
    }

    /// The token for each call: from the file, or else from the variable.
    pub(super) fn bearer(&self) -> Result<Bearer, Error> {
        match (&self.token_file, variable()) {
            (Some(path), _) => Bearer::from_file(path),
            (None, Some(token)) => Bearer::from_text(&token, &format!("`{TOKEN}`")),
            (None, None) => Ok(Bearer::default()),
        }
    }
}

/// Where the token of a farm's callers is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// In this environment variable.
    Variable(&'static str),
    /// In this file, which may be replaced.
    File(PathBuf),
}

impl TokenPlace {
    /// The token that is there now.
    ///
    /// # Errors
    /// If the file cannot be read, or there is no token.
    pub fn read(&self) -> Result<String, Error> {
        let (text, from) = match self {
            Self::Variable(name) => (variable().unwrap_or_default(), format!("`{name}`")),
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|source| Error::Read { path: path.clone(), source })?;
                (text, format!("`{}`", path.display()))
            }
        };
        let token = text.trim();
        let is_token = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
        if is_token { Ok(token.to_owned()) } else { Err(Error::Token { from }) }
    }
}

impl Access {
    /// Where the token for the farm at this URL is, if one is used: given, or published by a coordinator on this
    /// machine.
    pub fn token_place(&self, url: &str) -> Option<TokenPlace> {
        if let Some(file) = &self.token_file {
            return Some(TokenPlace::File(file.clone()));
        }
        if variable().is_some() {
            return Some(TokenPlace::Variable(TOKEN));
        }
        let url = url.strip_prefix("grpc://").map_or_else(|| url.to_owned(), |rest| format!("http://{rest}"));
        let uri = if url.contains("://") { url } else { format!("http://{url}") }.parse().ok()?;
        let file = crate::local::place(&uri).filter(|file| self.cert.is_none() && file.exists())?;
        Some(TokenPlace::File(file))
    }
}

fn variable() -> Option<String> {
    std::env::var(TOKEN).ok().filter(|token| !token.trim().is_empty())
}
