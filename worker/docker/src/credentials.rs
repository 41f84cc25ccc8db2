//! Credentials for registries, in the engine's form: the farm's credentials for a tenant, or else the worker's own.

use bollard::auth::DockerCredentials;
use kiln_images::registry::{Credentials, Login, server_name};

use super::Own;
use kiln_executor::Secrets;

/// The credentials for a registry. Files, and the helpers that they name, are read each time, because tokens expire.
///
/// # Errors
/// Why the file or a helper failed.
pub(super) async fn of(given: &Secrets, own: &Own, registry: &str) -> Result<Option<DockerCredentials>, String> {
    if let Some(login) = given.login(registry) {
        let from = "the farm".to_owned();
        let (user, secret) = (login.user.clone(), login.secret.to_string());
        return Ok(Some(engines(Login { user, secret, is_token: login.is_token, from }, server_name(registry))));
    }
    let read = match own {
        Own::None => return Ok(None),
        Own::User => Credentials::of_user(),
        Own::File(path) => Credentials::read(path),
    };
    let login = read.map_err(|error| error.to_string())?.login(registry).await.map_err(|error| error.to_string())?;
    Ok(login.map(|login| engines(login, server_name(registry))))
}

fn engines(login: Login, server: String) -> DockerCredentials {
    let serveraddress = Some(server);
    if login.is_token {
        return DockerCredentials { identitytoken: Some(login.secret), serveraddress, ..Default::default() };
    }
    let (username, password) = (Some(login.user), Some(login.secret));
    DockerCredentials { username, password, serveraddress, ..Default::default() }
}
