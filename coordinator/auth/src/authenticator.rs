//! Authenticates callers by their credentials.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use kiln_proto::local::Published;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::http;

use super::authority::{self, Authority};
use super::joined::Joined;
use super::jwt::{Jwt, Rules};
use super::ledger::{self, Common, Ledger};
use super::relay::{self, Message, Reception, Relayed};
use super::shown::Authorities;
use super::tls::Served;
use super::tokens::{self, Tokens};
use super::{Config, Error, Identity, Role, issued, revoked, shown};
use crate::accepted::Caller;
use kiln_state::{Look, Watched};

/// Number of certificates whose identity is cached.
const REMEMBERED: usize = 4_096;

/// The current content of the files.
#[derive(Debug, Default)]
pub struct Known {
    /// The static tokens.
    pub tokens: Tokens,
    /// Revoked names and certificates.
    pub revoked: revoked::File,
    /// Rules that map the claims of JSON web tokens, if the tokens name neither tenant nor role.
    pub rules: Option<Rules>,
}

/// Authenticates callers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Authenticator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asks: bool,
    /// The token that the user's own programs must send; it allows everything.
    local: Option<Local>,
    known: watch::Receiver<Arc<Known>>,
    /// Triggers a check of the files.
    look: Option<Look>,
    jwt: Option<Jwt>,
    certificates: Mutex<HashMap<[u8; 32], (Authorities, Identity)>>,
    tls: Option<watch::Receiver<Served>>,
    authority: Option<Authority>,
    worker_life: std::time::Duration,
    revoked: Option<PathBuf>,
    issued: Option<PathBuf>,
    /// Names that have called since the start, with any credentials.
    seen: Mutex<HashSet<String>>,
    /// Ensures that only one revocation at a time reads and writes the file.
    revoking: tokio::sync::Mutex<()>,
    joined: Arc<Mutex<Joined>>,
    others: Option<Others>,
}

/// The other coordinators of a farm.
#[derive(Debug, Clone)]
pub struct Others {
    /// Receives the calls that they pass on.
    pub reception: Reception,
    /// What they know together.
    pub ledger: Arc<dyn Ledger>,
}

/// Somebody who was authenticated before, such as the owner of a browser's session: an extension of a call that this process makes on
/// their behalf. Nothing that comes over the network can have it.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Identity);

/// How long to wait for a revocation to take effect in this coordinator.
const UNTIL_KNOWN: std::time::Duration = std::time::Duration::from_secs(10);

impl Authenticator {
    /// Reads the files now, and again whenever they change.
    ///
    /// # Errors
    /// If a file cannot be used at the start.
    ///
    /// `data_dir` holds the record of the workers that joined. With a `local` token, only calls of the coordinator's
    /// own user are accepted, whose programs find the token. `others`: the farm's other coordinators, which may pass calls on.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        tls: Option<watch::Receiver<Served>>,
        local: Option<Published>,
        others: Option<Others>,
    ) -> Result<Self, Error> {
        let authority = match config.authority() {
            Some((certificate, key)) => {
                let read = |path: std::path::PathBuf| {
                    std::fs::read_to_string(&path).map_err(|error| Error::File { path, reason: error.to_string() })
                };
                Some(Authority::open(&read(certificate)?, &read(key)?)?)
            }
            None => None,
        };
        let jwt = match config.jwt(data_dir)? {
            Some(jwt) => Some(Jwt::open(jwt).await?),
            None => None,
        };
        let ledger = others.as_ref().map(|others| others.ledger.clone());
        let (known, look) = follow(config.clone(), ledger.clone()).await?;
        let joined = match &ledger {
            Some(ledger) => Joined::common(ledger.clone()),
            None => Joined::open(data_dir.join(ledger::JOINED_FILE))?,
        };
        Ok(Self(Arc::new(Inner {
            asks: config.asks() || local.is_some(),
            local: local.map(Local),
            known,
            look,
            jwt,
            certificates: Mutex::default(),
            tls,
            authority,
            worker_life: config.worker_certificate_life,
            revoked: config.revoked_file(),
            issued: config.certificates_file(),
            seen: Mutex::default(),
            revoking: tokio::sync::Mutex::new(()),
            joined: Arc::new(Mutex::new(joined)),
            others,
        })))
    }

    /// Whether authentication is required.
    pub fn asks(&self) -> bool {
        self.0.asks
    }

    /// What calls must be sealed with that another coordinator passes on to this one; none if this is the farm's only one.
    pub fn challenge(&self) -> Option<Vec<u8>> {
        self.0.others.as_ref().map(|others| others.reception.challenge())
    }

    /// The content of the files, now and after each change.
    pub fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.0.known.clone()
    }

    /// The content of the files, re-read first if this token is not in it yet.
    pub async fn known_with(&self, token: &str) -> Arc<Known> {
        let known = self.0.known.borrow().clone();
        match &self.0.look {
            Some(look) if !known.tokens.has(token) => {
                look.now().await;
                self.0.known.borrow().clone()
            }
            _ => known,
        }
    }

    /// Revokes an identity; in effect when this returns. It is recorded for later runs and for other coordinators.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if there is no revocation file, `INTERNAL` if it cannot be written.
    pub async fn revoke(&self, identity: &Identity) -> Result<(), Status> {
        let mut add = identity.clone();
        // The certificates that this one was renewed to are revoked, too.
        let joined = self.joined();
        let serial = identity.serial.clone();
        let family = tokio::task::spawn_blocking(move || serial.and_then(|serial| joined.lock().family(&serial)));
        add.family = family.await.map_err(|error| Status::internal(error.to_string()))?;
        self.change_revoked(
            move |file| {
                file.names.extend(Some(add.name).filter(|name| !name.is_empty()));
                add.serial.iter().chain(&add.family).for_each(|serial| file.add_serial(serial));
                Ok(())
            },
            |file| file.has(identity),
        )
        .await
    }

    /// Withdraws a revocation; in effect when this returns.
    ///
    /// # Errors
    /// As for [`revoke`](Self::revoke); `NOT_FOUND` if the identity was not revoked, `FAILED_PRECONDITION` if a file says so that calls to a
    /// farm with several coordinators do not change.
    pub async fn unrevoke(&self, identity: &Identity) -> Result<(), Status> {
        let gone = identity.clone();
        if self.0.others.is_some()
            && let Some(path) = self.0.revoked.clone()
        {
            let shown = path.display().to_string();
            let read = tokio::task::spawn_blocking(move || revoked::File::read(&path)).await;
            if read.is_ok_and(|read| read.is_ok_and(|file| file.has(identity))) {
                let what =
                    identity.serial.as_ref().map_or(identity.name.clone(), |serial| format!("--serial {serial}"));
                return Err(Status::failed_precondition(format!(
                    "it is revoked by `{shown}` on the machine of the coordinator that leads; run `kiln farm unrevoke {what} --farm-dir DIR` there, and \
                     on the machine of each other coordinator that has it in its file, and then this again"
                )));
            }
        }
        self.change_revoked(
            move |file| {
                let serial = gone.serial.clone().unwrap_or_default();
                let what = if serial.is_empty() { &gone.name } else { &serial };
                if file.reinstate(&gone.name, &serial) {
                    return Ok(());
                }
                Err(Status::not_found(format!("`{what}` is not revoked; `kiln farm list` shows revocations")))
            },
            |file| !file.has(identity),
        )
        .await
    }

    /// Changes the revocation file, and waits until this coordinator applies it.
    async fn change_revoked(
        &self,
        change: impl FnOnce(&mut revoked::File) -> Result<(), Status> + Send + 'static,
        acts: impl Fn(&revoked::File) -> bool,
    ) -> Result<(), Status> {
        let _alone = self.0.revoking.lock().await;
        let mut known = self.0.known.clone();
        if let Some(others) = &self.0.others {
            let unavailable = |error: String| Status::unavailable(format!("{error}; try again"));
            let mut file = ledger::read(&*others.ledger).await.map_err(unavailable)?;
            change(&mut file)?;
            ledger::write(&*others.ledger, &file).await.map_err(unavailable)?;
            return until_it_acts(known.wait_for(|known| acts(&known.revoked))).await;
        }
        let Some(path) = self.0.revoked.clone() else {
            return Err(Status::failed_precondition(
                "this coordinator has no revocation list: it was started without `--farm-dir` or `--revoked`",
            ));
        };
        let written = tokio::task::spawn_blocking(move || {
            let internal = |error: Error| Status::internal(error.to_string());
            let mut file = revoked::File::read(&path).map_err(internal)?;
            change(&mut file)?;
            file.write(&path).map_err(internal)
        });
        written.await.map_err(|error| Status::internal(error.to_string()))??;
        until_it_acts(known.wait_for(|known| acts(&known.revoked))).await
    }

    pub(super) fn joined(&self) -> Arc<Mutex<Joined>> {
        self.0.joined.clone()
    }

    /// Certificates that the farm's authority issued.
    pub async fn issued(&self) -> Vec<issued::Entry> {
        let Some(path) = self.0.issued.clone() else { return Vec::new() };
        let read = tokio::task::spawn_blocking(move || issued::File::read(&path)).await;
        match read {
            Ok(Ok(file)) => file.certificates,
            other => {
                tracing::warn!(?other, "cannot read the list of issued certificates");
                Vec::new()
            }
        }
    }

    /// Records that a certificate was issued. A failure is only logged, because the certificate is valid anyway.
    pub fn note_issued(&self, chain: &str) {
        let Some(path) = self.0.issued.clone() else { return };
        let chain = chain.to_owned();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = issued::File::add(&path, &chain) {
                tracing::warn!(%error, "cannot record an issued certificate");
            }
        });
    }

    /// Whether there is a token or certificate with this name, or a call with it since the start.
    pub async fn knows(&self, name: &str) -> bool {
        let known = self.0.known.borrow().clone();
        known.tokens.entries().any(|entry| entry.name == name)
            || known.revoked.has_name(name)
            || self.0.seen.lock().contains(name)
            || self.issued().await.iter().any(|entry| entry.name == name)
    }

    /// The authority for workers' certificates, and their lifetime.
    pub fn authority(&self) -> Option<(&Authority, std::time::Duration)> {
        self.0.authority.as_ref().map(|authority| (authority, self.0.worker_life))
    }

    /// Authenticates a call, by its token if it has one, otherwise by its connection's certificate.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with the reason.
    pub async fn identify(&self, call: &http::request::Parts) -> Result<Identity, Status> {
        if let Some(Authenticated(identity)) = call.extensions.get() {
            return self.still(identity);
        }
        if !self.0.asks {
            return Ok(Identity::anonymous());
        }
        if let Some(local) = &self.0.local {
            return local.identify(token(call)?);
        }
        let identity = match token(call)? {
            Some(token) => self.by_token(token).await?,
            None => self.by_certificate(call)?,
        };
        self.unexpired(&identity)?;
        if self.0.known.borrow().revoked.has(&identity) {
            return Err(revoked_status(&identity));
        }
        let mut seen = self.0.seen.lock();
        if !seen.contains(&identity.name) && seen.len() < REMEMBERED {
            seen.insert(identity.name.clone());
        }
        drop(seen);
        Ok(identity)
    }

    /// Looks for a token, by its hash, that another coordinator has found in its file and this one has not yet.
    ///
    /// # Errors
    /// `UNAVAILABLE` if it is not here either.
    async fn look_for(&self, token: Option<&str>) -> Result<(), Status> {
        let has = || token.is_none_or(|hash| self.0.known.borrow().tokens.has_hash(hash));
        if has() {
            return Ok(());
        }
        if let Some(look) = &self.0.look {
            look.now().await;
        }
        if has() {
            return Ok(());
        }
        Err(Status::unavailable(
            "the coordinator that leads the farm does not know this token yet: its file of tokens differs from another coordinator's; copy the \
             farm's directory to all of them",
        ))
    }

    /// The identity of somebody whom another coordinator of this farm has authenticated, if their credentials are still good.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` with the reason, `UNAVAILABLE` if this coordinator does not know their token yet.
    pub(crate) async fn admit(&self, relayed: &Relayed) -> Result<Identity, Status> {
        self.look_for(relayed.identity.token.as_deref()).await?;
        self.still(&relayed.identity)
    }

    /// Whom a coordinator of this farm has authenticated, if the call comes from one, and what its message must be. Such a call is
    /// received once.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with the reason.
    pub(crate) fn relayed(&self, call: &http::request::Parts) -> Result<Option<(Relayed, Option<Message>)>, Status> {
        let Some(Others { reception, .. }) = &self.0.others else { return Ok(None) };
        let Some(sealed) = reception.open(call)? else { return Ok(None) };
        let is_coordinators = || self.by_certificate(call).is_ok_and(|shown| shown.roles.contains(&Role::Coordinator));
        if self.0.tls.is_some() && !is_coordinators() {
            return Err(Status::unauthenticated(format!(
                "the header `{}` came over a connection that is not a coordinator's",
                relay::HEADER
            )));
        }
        reception.receive(&sealed)?;
        Ok(Some((sealed.caller, sealed.message.map(Message))))
    }

    /// The identity of somebody who was authenticated before, if their credentials are still good.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with the reason.
    pub fn still(&self, identity: &Identity) -> Result<Identity, Status> {
        if !self.0.asks {
            return Ok(Identity::anonymous());
        }
        let known = self.0.known.borrow();
        let is_withdrawn = identity.token.as_ref().is_some_and(|hash| !known.tokens.has_hash(hash));
        if is_withdrawn || known.revoked.has(identity) {
            return Err(revoked_status(identity));
        }
        self.unexpired(identity)?;
        Ok(identity.clone())
    }

    fn unexpired(&self, identity: &Identity) -> Result<(), Status> {
        if identity.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Status::unauthenticated(format!(
                "the certificate or token of `{}` has expired; get a new one",
                identity.name
            )));
        }
        Ok(())
    }

    async fn by_token(&self, token: &str) -> Result<Identity, Status> {
        let found = match &self.0.jwt {
            Some(jwt) if !Tokens::is_ours(token) => {
                let known = self.0.known.borrow().clone();
                jwt.identify(token, known.rules.as_ref()).await
            }
            _ => self.known_with(token).await.tokens.identify(token, SystemTime::now()),
        };
        found.map_err(Status::unauthenticated)
    }

    fn by_certificate(&self, call: &http::request::Parts) -> Result<Identity, Status> {
        let shown = call.extensions.get::<Caller>().map(|caller| caller.certificates.clone());
        let Some(chain) = shown.filter(|chain| !chain.is_empty()) else {
            return Err(Status::unauthenticated(
                "authentication required; use a certificate (`--cert`, `--key`) or a token (`KILN_TOKEN`, `--token-file`)",
            ));
        };
        self.of_certificate(&chain).map_err(Status::unauthenticated)
    }

    /// A cached identity is only valid if it was checked against the current authorities.
    fn of_certificate(&self, chain: &[CertificateDer<'_>]) -> Result<Identity, String> {
        let authorities = self.0.tls.as_ref().and_then(|tls| tls.borrow().authorities.clone());
        let (Some(authorities), Some(certificate)) = (authorities, chain.first()) else {
            return Err("client certificates are not accepted here".to_owned());
        };
        let hash: [u8; 32] = Sha256::digest(certificate).into();
        if let Some((by, known)) = self.0.certificates.lock().get(&hash)
            && Arc::ptr_eq(by, &authorities)
        {
            return Ok(known.clone());
        }
        shown::verify(&authorities, chain)?;
        let identity = authority::identify(certificate)?;
        let mut certificates = self.0.certificates.lock();
        if certificates.len() >= REMEMBERED {
            certificates.clear();
        }
        certificates.insert(hash, (authorities, identity.clone()));
        Ok(identity)
    }
}

/// The token of a coordinator on loopback.
#[derive(Debug)]
struct Local(Published);

impl Local {
    fn identify(&self, token: Option<&str>) -> Result<Identity, Status> {
        let hash = |token: &str| Sha256::digest(token.as_bytes());
        match token {
            // Compares hashes, so that the position of the first difference reveals nothing.
            Some(token) if hash(token) == hash(self.0.token()) => Ok(Identity::anonymous()),
            _ => Err(Status::unauthenticated(format!(
                "this coordinator accepts only the user who started it, with the token in `{}`; send it (`--token-file`, or the header \
                 `authorization: Bearer TOKEN`), or start the coordinator with `--insecure` to accept everyone on this machine",
                self.0.path().display()
            ))),
        }
    }
}

/// The refusal for a revoked caller.
pub(super) fn revoked_status(identity: &Identity) -> Status {
    Status::unauthenticated(format!("`{}` has been revoked", identity.name))
}

/// The token of a call, if it has one.
fn token(call: &http::request::Parts) -> Result<Option<&str>, Status> {
    let Some(value) = call.headers.get(http::header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        return Ok(Some(token.trim()));
    }
    Err(Status::unauthenticated("unsupported `authorization` header; expected `Bearer TOKEN`"))
}

/// Waits until a change of the revocations has taken effect here.
async fn until_it_acts<T, E>(acts: impl Future<Output = Result<T, E>>) -> Result<(), Status> {
    match tokio::time::timeout(UNTIL_KNOWN, acts).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Status::internal(
            "it was recorded, but this coordinator does not apply it yet; see its log, and the file of its `--revoked`",
        )),
    }
}

fn read(config: &Config, common: &Common) -> Result<Known, Error> {
    let tokens = config.tokens_file().map(|path| tokens::File::read(&path)).transpose()?.unwrap_or_default();
    let revoked = config.revoked_file().map(|path| revoked::File::read(&path)).transpose()?.unwrap_or_default();
    let rules = config.jwt_rules.as_deref().map(Rules::read).transpose()?;
    Ok(Known { tokens: tokens.into(), revoked: common.with(revoked), rules })
}

/// The content of the files as it changes, and the trigger for an immediate check.
type Followed = (watch::Receiver<Arc<Known>>, Option<Look>);

async fn follow(config: Config, ledger: Option<Arc<dyn Ledger>>) -> Result<Followed, Error> {
    let paths: Vec<_> =
        [config.tokens_file(), config.revoked_file(), config.jwt_rules.clone()].into_iter().flatten().collect();
    let is_fixed = paths.is_empty();
    let watched = Watched::begin(paths);
    let common = Common::default();
    if let Some(ledger) = &ledger {
        // Before anybody is admitted.
        common.set(ledger::read(&**ledger).await.map_err(|reason| Error::Ledger { reason })?);
    }
    let (sender, receiver) = watch::channel(Arc::new(read(&config, &common)?));
    let sender = Arc::new(sender);
    if let Some(ledger) = ledger {
        let (sender, config, all) = (sender.clone(), config.clone(), common.clone());
        let changed = move || {
            match read(&config, &all) {
                Ok(known) => drop(sender.send_replace(Arc::new(known))),
                Err(error) => tracing::error!(%error, "cannot apply other coordinators' revocations"),
            }
            !sender.is_closed()
        };
        tokio::spawn(common.clone().follow(ledger, changed));
    }
    if is_fixed {
        return Ok((receiver, None));
    }
    let look = watched.look();
    tokio::spawn(watched.follow(move || {
        sender.send_replace(Arc::new(read(&config, &common)?));
        tracing::info!("reloaded tokens, rules and revocations");
        Ok::<_, Error>(!sender.is_closed())
    }));
    Ok((receiver, Some(look)))
}
