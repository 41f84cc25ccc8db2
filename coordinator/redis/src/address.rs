//! The address of Redis, as configured, and a form of it that hides the password.

use std::path::PathBuf;

use redis::{ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use url::Url;

use crate::error::Error;
use crate::sentinel::{self, Sentinels};

/// Certificates for `rediss`, as PEM files.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authority of Redis's certificate; defaults to the system's.
    pub ca: Option<PathBuf>,
    /// This coordinator's certificate, if Redis requires one.
    pub certificate: Option<PathBuf>,
    /// The certificate's key.
    pub key: Option<PathBuf>,
}

/// Who is connected to.
#[derive(Clone)]
pub(crate) enum Place {
    /// One Redis, or nodes of one cluster.
    Nodes(Vec<ConnectionInfo>),
    /// The master that these name.
    Sentinels(Sentinels),
}

/// One Redis, the nodes of one cluster, or a master that Sentinel names.
#[derive(Clone)]
pub struct Address {
    pub(crate) place: Place,
    pub(crate) tls: bool,
    pub(crate) certificates: TlsCertificates,
    shown: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Address {
    /// Parses an address: URLs separated by commas, all `redis` or all `rediss`; or one URL with `redis+sentinel` or `rediss+sentinel`,
    /// which lists Sentinels and names their master.
    ///
    /// # Errors
    /// The reason, with the password hidden.
    pub fn parse(text: &str, tls: &Tls) -> Result<Self, Error> {
        if let Some((tls_used, rest)) = sentinel::scheme(text.trim()) {
            let shown = sentinel::hidden(text.trim());
            let wrong = |why: String| Error::Address { shown: shown.clone(), why };
            let found = Sentinels::parse(rest).map_err(&wrong)?;
            check_use(tls, tls_used).map_err(wrong)?;
            return Ok(Self { place: Place::Sentinels(found), tls: tls_used, certificates: certificates(tls)?, shown });
        }
        let shown = text.split(',').map(|url| hidden(url.trim())).collect::<Vec<_>>().join(",");
        let wrong = |why: String| Error::Address { shown: shown.clone(), why };
        let mut nodes = Vec::new();
        let mut secure = None;
        for part in text.split(',').map(str::trim) {
            let url = Url::parse(part).map_err(|error| wrong(error.to_string()))?;
            let this = match url.scheme() {
                "redis" => false,
                "rediss" => true,
                other => return Err(wrong(format!("unsupported scheme `{other}`"))),
            };
            if url.host_str().is_none_or(str::is_empty) {
                return Err(wrong("it has no host".to_owned()));
            }
            if *secure.get_or_insert(this) != this {
                return Err(wrong("some nodes use TLS and some do not".to_owned()));
            }
            nodes.push(url.into_connection_info().map_err(|error| wrong(error.to_string()))?);
        }
        let tls_used = secure.unwrap_or(false);
        check_use(tls, tls_used).map_err(wrong)?;
        Ok(Self { place: Place::Nodes(nodes), tls: tls_used, certificates: certificates(tls)?, shown })
    }

    /// The address without its password.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

/// Certificates without TLS are a mistake.
fn check_use(tls: &Tls, tls_used: bool) -> Result<(), String> {
    let named = tls.ca.is_some() || tls.certificate.is_some() || tls.key.is_some();
    if named && !tls_used {
        return Err("certificates are given, but `redis` does not use them: use `rediss`".to_owned());
    }
    Ok(())
}

fn certificates(tls: &Tls) -> Result<TlsCertificates, Error> {
    let read = |path: &PathBuf| {
        let failed = |why: String| Error::File { path: path.display().to_string(), why };
        let data = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        if data.windows(5).any(|window| window == b"-----") {
            Ok(data)
        } else {
            Err(failed("it is not PEM; expected `-----BEGIN …`".to_owned()))
        }
    };
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
        (None, None) => None,
        (Some(lone), None) | (None, Some(lone)) => {
            let why = "a certificate requires its key, and a key its certificate: give both".to_owned();
            return Err(Error::File { path: lone.display().to_string(), why });
        }
    };
    Ok(TlsCertificates { client_tls, root_cert: tls.ca.as_ref().map(read).transpose()? })
}

/// A URL, or what was meant to be one, with `***` for its password.
fn hidden(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.host_str().is_some_and(|host| !host.is_empty()) => {
            if url.password().is_some() {
                let _ = url.set_password(Some("***"));
            }
            url.to_string()
        }
        // Whatever the rest is, the part before the last `@` may contain a password.
        _ => match (text.split_once("://"), text.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
            (None, Some((_, host))) => format!("***@{host}"),
            _ => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = Address::parse(text, &Tls::default()).expect_err("expected the address to be refused");
        error.to_string()
    }

    #[test]
    fn a_password_is_never_shown() {
        let good = Address::parse("redis://farm:s3cret@cache:6379/2", &Tls::default()).expect("expected an address");
        assert_eq!(good.shown(), "redis://farm:***@cache:6379/2");
        assert!(!format!("{good:?}").contains("s3cret"));
        let text = "redis+sentinel://farm:s3cret@a:1,b/main/2?sentinel-user=x&sentinel-password=s3cret";
        let good = Address::parse(text, &Tls::default()).expect("expected an address");
        assert_eq!(good.shown(), "redis+sentinel://farm:***@a:1,b/main/2?sentinel-user=x&sentinel-password=***");
        for bad in [
            "http://u:s3cret@h:1",
            "redis:/u:s3cret@h",
            "redis://u:s3cret@h:notaport",
            "u:s3cret@h",
            "redis://:s3cret@",
            "redis+sentinel://u:s3cret@h",
            "redis+sentinel://h/?sentinel-password=s3cret",
        ] {
            let words = refused(bad);
            assert!(!words.contains("s3cret"), "expected no password in: {words}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(refused("http://h:1").contains("`http`"));
        assert!(refused("redis://a:1,rediss://b:2").contains("some do not"));
        assert!(refused("redis+sentinel://a:1,b:2").contains("name of the master"));
        assert!(refused("redis+sentinel://a:x/main").contains("port `x`"));
        assert!(refused("redis+sentinel://,/main").contains("no host"));
        assert!(refused("redis+sentinel://a/main/two").contains("database `two`"));
        assert!(refused("redis+sentinel://a/main?password=x").contains("`password`"));
        let tls = Tls { ca: Some("/dev/null".into()), ..Tls::default() };
        let words = Address::parse("redis://a:1", &tls).expect_err("expected certificates without TLS to be refused");
        assert!(words.to_string().contains("`rediss`"), "{words}");
        let words = Address::parse("rediss://a:1", &tls).expect_err("expected an empty file to be refused");
        assert!(words.to_string().contains("not PEM"), "{words}");
        let tls = Tls { key: Some("/dev/null".into()), ..Tls::default() };
        let words = Address::parse("rediss://a:1", &tls).expect_err("expected a lone key to be refused");
        assert!(words.to_string().contains("give both"), "{words}");
    }
}
