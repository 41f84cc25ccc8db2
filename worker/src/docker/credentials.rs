//! The worker's credentials for registries, in the engine's form.

use std::path::Path;

use bollard::auth::DockerCredentials;
use kiln_images::registry::{Credentials, Login, server_name};

/// What the file, or a helper that it names, has for a registry. It is read anew each time, for tokens expire.
///
/// # Errors
/// In words, where the file or a helper fails.
pub(super) async fn of(file: Option<&Path>, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let read = file.map_or_else(Credentials::of_user, Credentials::read);
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
