//! What is wrong with the files of authentication, found without starting anything.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use kiln_state::FarmKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;
use crate::jwt::{Rules, Source};
use crate::{Config, Error, issued, jwt, revoked, tls, tokens};

impl Config {
    /// What is wrong with the options, and with the files that they name. Nothing is created or fetched.
    pub fn problems(&self, listen: SocketAddr, data_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let mut look = |result: Result<(), Error>| problems.extend(result.err().map(|error| error.to_string()));
        look(self.check(listen));
        // If the options do not go together, `check` has said so.
        if let Ok(Some(files)) = self.tls() {
            look(files.check().and_then(|()| unexpired(&files)));
        }
        look(self.tokens_file().map_or(Ok(()), |path| tokens::File::read(&path).map(drop)));
        look(self.revoked_file().map_or(Ok(()), |path| revoked::File::read(&path).map(drop)));
        look(self.certificates_file().map_or(Ok(()), |path| issued::File::read(&path).map(drop)));
        look(self.jwt_rules.as_deref().map_or(Ok(()), |path| Rules::read(path).map(drop)));
        look(self.jwt(data_dir).map(drop));
        if let Some(Source::File(path)) = &self.jwks {
            look(jwt::check_keys(path));
        }
        if let Some((certificate, key)) = self.authority() {
            look(authority(&certificate, &key));
        }
        let farm_key = self.farm_key_file(data_dir);
        if farm_key.exists() {
            look(FarmKey::check(&farm_key).map_err(Error::from));
        }
        problems
    }
}

fn authority(certificate: &Path, key: &Path) -> Result<(), Error> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
    };
    Authority::open(&read(certificate)?, &read(key)?)?;
    Ok(())
}

/// Refuses a certificate that clients would refuse for its age.
fn unexpired(files: &tls::Files) -> Result<(), Error> {
    let wrong = |reason: String| Error::File { path: files.certificate.clone(), reason };
    let chain = tls::certificates(&files.certificate)?;
    let Some((_, parsed)) = chain.first().and_then(|own| X509Certificate::from_der(own).ok()) else {
        return Err(wrong("it contains no certificate that can be read".to_owned()));
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let end = parsed.validity().not_after;
    if u64::try_from(end.timestamp()).unwrap_or_default() < now {
        return Err(wrong(format!(
            "it has expired ({end}); `kiln farm renew` makes another one of a farm's directory"
        )));
    }
    Ok(())
}
