//! Options for authentication and authorisation.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, jwt, tls};

/// Certificates, tokens, and trusted authorities.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Directory that `kiln farm init` created, with the coordinator's certificate, the farm's authority, tokens and revocations. Replaces
    /// the five options below. With `--tls-cert` as well, the farm's own certificate is shown to clients that ask for a name which only it has,
    /// such as the workers.
    #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
    pub farm_dir: Option<PathBuf>,
    /// The coordinator's certificate chain, in PEM; reloaded when it changes.
    #[arg(long, env = "KILN_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate, in PEM.
    #[arg(long, env = "KILN_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities whose client certificates are accepted, in PEM.
    #[arg(long, env = "KILN_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Static tokens, as written by `kiln farm token`; reloaded when they change.
    #[arg(long, env = "KILN_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Revocations, as written by `kiln farm revoke`; reloaded when they change.
    #[arg(long, env = "KILN_REVOKED", value_name = "FILE")]
    pub revoked: Option<PathBuf>,
    /// Keys of an identity provider whose JSON web tokens are accepted: URL or file of a JWK set.
    #[arg(long, env = "KILN_JWKS", value_name = "URL|FILE")]
    pub jwks: Option<jwt::Source>,
    /// Expected issuer (`iss`) of the provider's tokens.
    #[arg(long, env = "KILN_JWT_ISSUER", value_name = "NAME", requires = "jwks")]
    pub jwt_issuer: Option<String>,
    /// Expected audience (`aud`) of the provider's tokens.
    #[arg(long, env = "KILN_JWT_AUDIENCE", value_name = "NAME", requires = "jwks")]
    pub jwt_audience: Option<String>,
    /// The claim that names the tenant.
    #[arg(long, env = "KILN_JWT_TENANT_CLAIM", value_name = "CLAIM", default_value = "tenant")]
    pub jwt_tenant_claim: String,
    /// The claim that lists roles, with or without the prefix `kiln:`.
    #[arg(long, env = "KILN_JWT_ROLES_CLAIM", value_name = "CLAIM", default_value = "roles")]
    pub jwt_roles_claim: String,
    /// The claim that names the branch scope which the holder is confined to in the caches of build tools.
    #[arg(long, env = "KILN_JWT_SCOPE_CLAIM", value_name = "CLAIM", default_value = "kiln_scope")]
    pub jwt_scope_claim: String,
    /// Maximum lifetime of a provider's token; tokens that are valid for longer are refused.
    #[arg(long, env = "KILN_JWT_MAX_LIFE", value_name = "TIME", default_value = "24h", value_parser = kiln_units::duration)]
    pub jwt_max_life: Duration,
    /// Rules that map claims to tenant and roles, for tokens that name neither, such as those of CI systems: a TOML file with one
    /// `[[rule]]` per kind of caller; reloaded when it changes.
    #[arg(long, env = "KILN_JWT_RULES", value_name = "FILE", requires = "jwks", conflicts_with_all = ["jwt_tenant_claim", "jwt_roles_claim", "jwt_scope_claim"])]
    pub jwt_rules: Option<PathBuf>,
    /// The farm's own key, which seals leases and cached results; created if missing. Default: `farm.key` in the farm's directory if it is
    /// there, otherwise in the data directory. Coordinators that share a Redis or a bucket must share it. Reloaded when it changes (`kiln
    /// farm rotate-key`).
    #[arg(long, env = "KILN_FARM_KEY", value_name = "FILE")]
    pub farm_key: Option<PathBuf>,
    /// How long a worker's certificate is valid; workers renew theirs after half of that time.
    #[arg(long, env = "KILN_WORKER_CERTIFICATE_LIFE", value_name = "TIME", default_value = "7d", value_parser = kiln_units::duration)]
    pub worker_certificate_life: Duration,
    /// Append one JSON object per line for every call that changes something or is refused: who did what.
    #[arg(long, env = "KILN_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Let everyone who reaches the coordinator do everything: run commands as the workers' user, read and replace cached data. Without it,
    /// a coordinator that has none of the options above listens on loopback and accepts only its own user.
    #[arg(long, env = "KILN_INSECURE")]
    pub insecure: bool,
}

/// The files in a farm's directory.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

impl Files {
    /// The files in `directory`.
    pub fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The authority's key.
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// The coordinator's certificate chain.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("coordinator.pem")
    }

    /// The coordinator's key.
    pub fn key(&self) -> PathBuf {
        self.0.join("coordinator.key")
    }

    /// The static tokens.
    pub fn tokens(&self) -> PathBuf {
        self.0.join("tokens.toml")
    }

    /// The list of issued certificates.
    pub fn certificates(&self) -> PathBuf {
        self.0.join("certificates.toml")
    }

    /// The farm's own key.
    pub fn farm_key(&self) -> PathBuf {
        self.0.join("farm.key")
    }

    /// The keys that the farm signs with.
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("signing.key")
    }

    /// The revocations.
    pub fn revoked(&self) -> PathBuf {
        self.0.join("revoked.toml")
    }
}

impl Config {
    fn files(&self) -> Option<Files> {
        self.farm_dir.as_deref().map(Files::of)
    }

    fn or_farms(&self, given: &Option<PathBuf>, of: fn(&Files) -> PathBuf) -> Option<PathBuf> {
        given.clone().or_else(|| self.files().as_ref().map(of))
    }

    /// The path of the farm's own key.
    pub fn farm_key_file(&self, data_dir: &Path) -> PathBuf {
        let farms = || self.files().map(|files| files.farm_key()).filter(|path| path.exists());
        self.farm_key.clone().or_else(farms).unwrap_or_else(|| data_dir.join("farm.key"))
    }

    /// The path of the static tokens.
    pub(super) fn tokens_file(&self) -> Option<PathBuf> {
        self.or_farms(&self.tokens, Files::tokens)
    }

    /// The path of the revocations.
    pub(super) fn revoked_file(&self) -> Option<PathBuf> {
        self.or_farms(&self.revoked, Files::revoked)
    }

    /// The path of the list of issued certificates.
    pub(super) fn certificates_file(&self) -> Option<PathBuf> {
        self.files().as_ref().map(Files::certificates)
    }

    /// The authority for workers' certificates, if this coordinator holds its key.
    pub(super) fn authority(&self) -> Option<(PathBuf, PathBuf)> {
        let files = self.files()?;
        files.ca_key().exists().then(|| (files.ca(), files.ca_key()))
    }

    /// The TLS files, if TLS is used.
    ///
    /// # Errors
    /// If a certificate is given without a key, or a key without a certificate.
    pub fn tls(&self) -> Result<Option<tls::Files>, Error> {
        let client_ca = self.or_farms(&self.client_ca, Files::ca);
        match (self.or_farms(&self.tls_cert, Files::certificate), self.or_farms(&self.tls_key, Files::key)) {
            (Some(certificate), Some(key)) => {
                let own = self.files().map(|files| (files.certificate(), files.key()));
                // A farm's directory need not have a certificate if another is named.
                let own = own.filter(|pair| pair.0 != certificate && pair.0.exists() && pair.1.exists());
                Ok(Some(tls::Files { certificate, key, own, client_ca, protocols: tls::HTTP_2 }))
            }
            (None, None) if client_ca.is_some() => Err(Error::Pair { given: "--client-ca", missing: "--tls-cert" }),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::Pair { given: "--tls-cert", missing: "--tls-key" }),
            (None, Some(_)) => Err(Error::Pair { given: "--tls-key", missing: "--tls-cert" }),
        }
    }

    /// Requirements for JSON web tokens, if they are accepted.
    ///
    /// # Errors
    /// If issuer or audience is missing.
    pub(super) fn jwt(&self, data_dir: &Path) -> Result<Option<jwt::Config>, Error> {
        let Some(source) = self.jwks.clone() else { return Ok(None) };
        let missing = |missing| Error::Pair { given: "--jwks", missing };
        Ok(Some(jwt::Config {
            source,
            issuer: self.jwt_issuer.clone().ok_or_else(|| missing("--jwt-issuer"))?,
            audience: self.jwt_audience.clone().ok_or_else(|| missing("--jwt-audience"))?,
            tenant_claim: self.jwt_tenant_claim.clone(),
            roles_claim: self.jwt_roles_claim.clone(),
            scope_claim: self.jwt_scope_claim.clone(),
            max_life: self.jwt_max_life,
            tenants_dir: data_dir.join("tenants"),
        }))
    }

    /// Whether authentication is required.
    pub fn asks(&self) -> bool {
        self.farm_dir.is_some() || self.client_ca.is_some() || self.tokens.is_some() || self.jwks.is_some()
    }

    /// Refuses an address that other machines can reach if callers could do everything or traffic were readable.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, address: SocketAddr) -> Result<(), Error> {
        let is_tls = self.tls()?.is_some();
        let what = match (is_tls, self.asks()) {
            _ if address.ip().is_loopback() => return Ok(()),
            (true, true) => return Ok(()),
            (false, _) => "traffic is not encrypted without `--tls-cert`",
            (true, false) => "no authentication is required",
        };
        if !self.insecure {
            return Err(Error::Open { address, what });
        }
        tracing::error!(%address, what, "INSECURE: everyone who reaches this coordinator can do everything, and read what others send");
        Ok(())
    }
}
