//! `kiln farm` on a farm's directory: creates the credentials of coordinators and clients, and revokes access.
//!
//! Invariant: a secret is printed once, or written once and readable only by its owner; the coordinator only reads
//! hashes of tokens. A file that a coordinator may be reading is replaced atomically.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_auth::authority::{Authority, Subject};
use kiln_auth::{Error as AuthError, Files, Identity, check_name, check_scope, farm_key, issued, revoked, tokens};
use kiln_coordinator::services::membership::members as members_of;
use kiln_proto::join::Token;
use kiln_proto::v1;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::members;
use crate::args::{self, Membership, Who};
use crate::{Code, Error, local};
use kiln_terminal as terminal;

/// How long the farm's authority is valid: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long the coordinator's certificate is valid: one year.
const COORDINATOR_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Default lifetime of a join token.
const JOIN_LIFE: Duration = Duration::from_secs(60 * 60);
/// Default lifetime of other tokens.
const TOKEN_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Does what works on a farm's directory; what is asked of a running farm comes back.
pub(super) fn perform(farm: &args::Farm, args: Membership) -> Result<ControlFlow<Code, Membership>, Error> {
    let done = match args {
        Membership::Init { dir, host, join } => init(&dir, &host, &join),
        Membership::Token { who, is_join, join, scope } => token(&who, is_join, &join, scope),
        Membership::RotateKey { file } => {
            farm_key::rotate(&file).map_err(usage)?;
            terminal::say("the farm's key was rotated; a running coordinator reloads it within a second");
            Ok(Code::Success)
        }
        Membership::RotateSigningKey { file, overlap } => {
            kiln_signing::rotate(&file, overlap).map_err(usage)?;
            terminal::say("the farm's signing key was rotated; a running coordinator reloads it within a second");
            Ok(Code::Success)
        }
        Membership::Certificate { who, life, output } => certificate(&who, life, &output),
        Membership::Renew { dir, host } => {
            issue_coordinator(&Files::of(&dir.farm_dir), &host)?;
            terminal::say(
                "the coordinator's certificate was renewed; a running coordinator reloads it within a second",
            );
            Ok(Code::Success)
        }
        Membership::Revoke { name, serial, unknown, farm_dir: Some(dir) } => {
            revoke(&Files::of(&dir), name, serial, unknown)
        }
        Membership::Unrevoke { name, serial, farm_dir: Some(dir) } => {
            unrevoke(&Files::of(&dir), &name.unwrap_or_default(), &serial.unwrap_or_default())
        }
        Membership::Revoke { .. } | Membership::Unrevoke { .. } if farm.farm.is_none() => {
            let words = "no farm given; name its directory with `--farm-dir`, or its URL with `--farm` (`KILN_FARM`)";
            Err(Error::Usage(words.to_owned()))
        }
        // If both are given, the running farm has more information.
        Membership::List { json, farm_dir: Some(dir) } if farm.farm.is_none() => {
            members::print(&from_files(&Files::of(&dir))?, &v1::FarmStatus::default(), json)
        }
        asked => return Ok(ControlFlow::Continue(asked)),
    };
    done.map(ControlFlow::Break)
}
fn usage(error: impl std::fmt::Display) -> Error {
    Error::Usage(error.to_string())
}

/// Writes a file atomically; a file with a secret is readable only by its owner from the start.
fn write(path: &Path, text: &str, is_secret: bool) -> Result<(), Error> {
    let written = (|| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut builder = tempfile::Builder::new();
        if !is_secret {
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        }
        let mut file = builder.tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    })();
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn init(dir: &Path, hosts: &[String], join: &args::Join) -> Result<Code, Error> {
    let files = Files::of(dir);
    if files.ca_key().exists() || files.ca().exists() {
        let words = "a farm was already created there; use `kiln farm renew`, `token` and `certificate` with it";
        return Err(Error::Usage(format!("`{}`: {words}", dir.display())));
    }
    // Distinguishes the authorities of different farms by name.
    let name = format!("kiln farm {:08x}", rand::random::<u32>());
    let made = Authority::create(&name, AUTHORITY_LIFE).map_err(usage)?;
    write(&files.ca_key(), &made.key, true)?;
    write(&files.ca(), &made.chain, false)?;
    issue_coordinator(&files, hosts)?;
    write(&files.revoked(), &toml_text(&revoked::File::default())?, false)?;
    farm_key::rotate(&files.farm_key()).map_err(usage)?;
    kiln_signing::rotate(&files.signing_key(), Duration::ZERO).map_err(usage)?;
    let entry = join_entry("workers", "", join)?;
    let good_for = good_for(&entry, join);
    let secret = add_token(&files, entry)?;
    let host = hosts.first().map_or("HOST", String::as_str);
    let dir = dir.display();
    terminal::say(&format!(
        "created a farm in `{dir}`; keep `ca.key` safe\n\n\
         kiln-coordinator --farm-dir {dir} --listen 0.0.0.0:8980 --data-dir DIR\n\
         kiln-worker --coordinator https://{host}:8980 --state-dir DIR --join-file FILE   # with the token below: {good_for}\n\
         kiln farm token more --join --uses 10 --farm-dir {dir}                           # for ten more workers\n\
         kiln farm certificate ann --role builder --farm-dir {dir}                        # for people: ann.pem, ann.key\n\
         kiln build --farm https://{host}:8980 --ca {dir}/ca.pem --cert ann.pem --key ann.key\n"
    ));
    print_line(&join_token(&files, secret)?)
}

fn issue_coordinator(files: &Files, hosts: &[String]) -> Result<(), Error> {
    let made = open(files)?.issue(&Subject::Server(hosts), COORDINATOR_LIFE).map_err(usage)?;
    // A coordinator that reads between the two writes finds a mismatched pair, keeps the old one, and reads again.
    write(&files.key(), &made.key, true)?;
    write(&files.certificate(), &made.chain, false)
}

fn open(files: &Files) -> Result<Authority, Error> {
    let read = |path: std::path::PathBuf| {
        let words = "it is in the directory that `kiln farm init` created";
        std::fs::read_to_string(&path)
            .map_err(|error| Error::Usage(format!("cannot read `{}` ({error}); {words}", path.display())))
    };
    Authority::open(&read(files.ca())?, &read(files.ca_key())?).map_err(usage)
}

fn identity(who: &Who) -> Result<Identity, Error> {
    check_name("person or worker", &who.name).map_err(Error::Usage)?;
    if !who.tenant.is_empty() {
        check_name("tenant", &who.tenant).map_err(Error::Usage)?;
    }
    if who.role.is_empty() {
        return Err(Error::Usage(format!("`{}` has no role; give `--role builder`, or another role", who.name)));
    }
    let roles = who.role.iter().copied().collect();
    Ok(Identity { name: who.name.clone(), tenant: who.tenant.clone(), roles, ..Identity::anonymous() })
}

fn token(who: &Who, is_join: bool, join: &args::Join, scope: Option<String>) -> Result<Code, Error> {
    let files = Files::of(&who.dir.farm_dir);
    if is_join {
        let secret = add_token(&files, join_entry(&who.name, &who.tenant, join)?)?;
        return print_line(&join_token(&files, secret)?);
    }
    if join.uses.is_some() || join.workers.is_some() || join.pool.is_some() {
        return Err(Error::Usage("`--uses`, `--workers` and `--pool` are for join tokens; add `--join`".to_owned()));
    }
    let Identity { name, tenant, roles, .. } = identity(who)?;
    let expires = Some(SystemTime::now() + join.life.unwrap_or(TOKEN_LIFE));
    scope.as_deref().map(check_scope).transpose().map_err(Error::Usage)?;
    print_line(&add_token(&files, tokens::Entry { name, tenant, roles, scope, expires, ..tokens::Entry::default() })?)
}

/// Creates an entry for a join token.
fn join_entry(name: &str, tenant: &str, join: &args::Join) -> Result<tokens::Entry, Error> {
    check_name("token", name).map_err(Error::Usage)?;
    let entry = tokens::Entry {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        join: true,
        uses: match join.uses.unwrap_or(args::Uses::AtMost(1)) {
            args::Uses::AtMost(number) => Some(number),
            args::Uses::Unlimited => None,
        },
        workers: join.workers.clone(),
        pool: join.pool.clone(),
        expires: Some(SystemTime::now() + join.life.unwrap_or(JOIN_LIFE)),
        ..tokens::Entry::default()
    };
    let checked = tokens::Entry { sha256: "0".repeat(64), ..entry.clone() };
    checked.check().map_err(Error::Usage)?;
    Ok(entry)
}

/// The number of workers and the lifetime of a join token.
fn good_for(entry: &tokens::Entry, join: &args::Join) -> String {
    let workers = match entry.uses {
        Some(1) => "one worker".to_owned(),
        Some(number) => format!("{number} workers"),
        None => "any number of workers".to_owned(),
    };
    format!("{workers}, for {}", humantime::format_duration(join.life.unwrap_or(JOIN_LIFE)))
}

/// Adds a token to the file; returns its secret.
fn add_token(files: &Files, entry: tokens::Entry) -> Result<String, Error> {
    let path = files.tokens();
    let mut file = if path.exists() { tokens::File::read(&path).map_err(usage)? } else { tokens::File::default() };
    let (secret, sha256) = tokens::generate();
    file.tokens.push(tokens::Entry { sha256, ..entry });
    write(&path, &toml_text(&file)?, false)?;
    Ok(secret)
}

fn join_token(files: &Files, secret: String) -> Result<String, Error> {
    let authority = CertificateDer::from_pem_file(files.ca()).map_err(usage)?;
    Ok(Token::new(&authority, secret).to_string())
}

fn certificate(who: &Who, life: Duration, output: &Path) -> Result<Code, Error> {
    let identity = identity(who)?;
    let (chain, key) = (output.join(format!("{}.pem", who.name)), output.join(format!("{}.key", who.name)));
    if let Some(there) = [&key, &chain].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Error::Usage(format!(
            "`{}` already exists; move it, or choose another directory with `--output`",
            there.display()
        )));
    }
    let made = open(&Files::of(&who.dir.farm_dir))?.issue(&Subject::Client(&identity), life).map_err(usage)?;
    if let Err(error) = issued::File::add(&Files::of(&who.dir.farm_dir).certificates(), &made.chain) {
        terminal::say(&format!("warning: {error}; `kiln farm list` will not name this certificate"));
    }
    write(&key, &made.key, true)?;
    write(&chain, &made.chain, false)?;
    print_line(&format!("{}\n{}", chain.display(), key.display()))
}

fn revoke(files: &Files, name: Option<String>, serial: Option<String>, unknown: bool) -> Result<Code, Error> {
    if let Some(name) = name.as_ref().filter(|_| !unknown)
        && !knows(files, name)?
    {
        return Err(Error::Usage(format!(
            "nobody on this farm is named `{name}`: no token or certificate has that name (`kiln farm list`); `--unknown` revokes it \
             anyway, for example if an earlier version issued the certificate"
        )));
    }
    let mut file = revoked::File::read(&files.revoked()).map_err(|error: AuthError| usage(error))?;
    file.names.extend(name);
    if let Some(serial) = serial {
        file.add_serial(&serial);
    }
    file.write(&files.revoked()).map_err(usage)?;
    terminal::say("revoked; a running coordinator applies it within a second");
    Ok(Code::Success)
}

/// Restores revoked access, in the farm's directory.
fn unrevoke(files: &Files, name: &str, serial: &str) -> Result<Code, Error> {
    let mut file = revoked::File::read(&files.revoked()).map_err(usage)?;
    if !file.reinstate(name, serial) {
        let what = if serial.is_empty() { name } else { serial };
        return Err(Error::Usage(format!("`{what}` is not revoked; `kiln farm list` shows revocations")));
    }
    file.write(&files.revoked()).map_err(usage)?;
    terminal::say("access restored; a running coordinator applies it within a second");
    Ok(Code::Success)
}

/// Whether there is a member with this name in a farm's files.
fn knows(files: &Files, name: &str) -> Result<bool, Error> {
    let known = from_files(files)?;
    Ok(known.certificates.iter().any(|one| one.name == name)
        || known.tokens.iter().any(|one| one.name == name)
        || known.revoked_names.iter().any(|one| one == name))
}

fn from_files(files: &Files) -> Result<v1::Members, Error> {
    let issued = issued::File::read(&files.certificates()).map_err(usage)?.certificates;
    let tokens = match files.tokens().exists() {
        true => tokens::File::read(&files.tokens()).map_err(usage)?.tokens,
        false => Vec::new(),
    };
    Ok(members_of(issued, tokens, &revoked::File::read(&files.revoked()).map_err(usage)?))
}

fn toml_text(file: &impl serde::Serialize) -> Result<String, Error> {
    toml::to_string(file).map_err(usage)
}

fn print_line(text: &str) -> Result<Code, Error> {
    local::print(format!("{text}\n").as_bytes())
}
