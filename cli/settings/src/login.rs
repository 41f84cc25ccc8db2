//! `kiln login`: adds a farm, once it has answered with the credentials.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use kiln_args as args;
use kiln_proto::channel;
use kiln_proto::v1::StatusRequest;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_terminal as terminal;
use url::Url;

use super::file::{Error, Farm, File, Flags, replace};

/// Adds the farm, makes it the one that is used, and answers its name.
///
/// # Errors
/// If the farm does not accept the credentials, or the configuration cannot be written.
pub async fn login(login: args::Login, given: &channel::Access) -> Result<String, Error> {
    let path = File::path().ok_or(Error::Nowhere)?;
    let at = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = match login.name {
        Some(name) => name,
        None => host(&login.url)?,
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) || name.starts_with('.')
    {
        let words = format!("`{name}` cannot be a farm's name; expected letters, digits, `-`, `_` and `.`");
        return Err(Error::Login(words));
    }
    let absolute = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::path::absolute(path).ok());
    let mut farm = Farm {
        url: login.url,
        ca: absolute(&given.ca),
        cert: absolute(&given.cert),
        key: absolute(&given.key),
        token_file: absolute(&given.token_file),
        token_command: login.token_command,
        flags: Flags::default(),
    };
    let mut access = channel::Access { ca: farm.ca.clone(), ..channel::Access::default() };
    (access.cert, access.key) = (farm.cert.clone(), farm.key.clone());
    // Until the farm has accepted it, a token is kept where nobody looks.
    let waiting = tempfile::tempdir().map_err(|source| Error::File { doing: "write", path: at.clone(), source })?;
    let mut token = None;
    if !farm.token_command.is_empty() {
        access.token_file = Some(super::choice::by_command(&name, &farm, waiting.path())?);
    } else if farm.token_file.is_some() {
        access.token_file.clone_from(&farm.token_file);
    } else if farm.cert.is_none() && !login.no_token {
        let text = ask(&farm.url)?;
        let file = waiting.path().join("token");
        replace(&file, text.as_bytes()).map_err(|source| Error::File { doing: "write", path: file.clone(), source })?;
        access.token_file = Some(file);
        token = Some(text);
    }
    let refused = |reason: String| Error::Login(format!("`{}` was not added: {reason}", farm.url));
    let channel = channel::connect(&farm.url, &access).await.map_err(|error| refused(terminal::chain(&error)))?;
    let status = FarmClient::new(channel).status(StatusRequest {}).await;
    status.map_err(|status| refused(status.message().to_owned()))?;
    if let Some(token) = token {
        let file = at.join(format!("{name}.token"));
        replace(&file, token.as_bytes()).map_err(|source| Error::File {
            doing: "write",
            path: file.clone(),
            source,
        })?;
        farm.token_file = Some(file);
    }
    let mut file = File::read(&path)?;
    file.farm = Some(name.clone());
    file.farms.insert(name.clone(), farm);
    file.write(&path)?;
    Ok(name)
}

/// The name of a farm that has none: its host's, the first if it has several.
fn host(urls: &str) -> Result<String, Error> {
    let all = channel::addresses(urls).map_err(|error| Error::Login(error.to_string()))?;
    let url = all.first().map_or("", String::as_str);
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let host = Url::parse(&full).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.ok_or_else(|| Error::Login(format!("`{url}` is no address of a farm; expected `https://HOST:PORT`")))
}

/// A token that the user types or pastes, which is not shown, or that a script writes.
fn ask(url: &str) -> Result<String, Error> {
    let none = || Error::Login(format!("no token was given for `{url}`; `--no-token` is for farms that need none"));
    let text = if std::io::stdin().is_terminal() {
        terminal::say(&format!("a token for `{url}`, which `kiln farm token` or your farm's operators create:"));
        console::Term::stderr().read_secure_line().map_err(|_| none())?
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(|_| none())?;
        line
    };
    let token = text.trim();
    if token.is_empty() { Err(none()) } else { Ok(token.to_owned()) }
}
