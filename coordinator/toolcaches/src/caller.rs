//! Who calls, and what they may do.
//!
//! The roles are those of the gRPC services: who may read results there reads entries here; who may store results writes
//! the base, which everyone reads. A builder, whose results the farm does not take on trust, writes only in a scope. A
//! caller who is confined to a scope never writes anywhere else.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_auth::{Authenticator, Identity, Role};
use kiln_dialects::Refusal;
use kiln_store::Stores;

const READ: [Role; 4] = [Role::CacheReader, Role::CacheWriter, Role::Builder, Role::Admin];
const UPLOAD: [Role; 3] = [Role::CacheWriter, Role::Builder, Role::Admin];
const WRITE: [Role; 2] = [Role::CacheWriter, Role::Admin];

/// A caller, with its tenant's stores.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    pub(crate) stores: Stores,
    /// Where it writes, and what it reads before the base.
    pub(crate) scope: Option<String>,
}

/// The token of a `Basic` header (RFC 7617): the password, or the user's name if there is no password.
fn of_basic(value: &HeaderValue) -> Option<String> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(if password.is_empty() { user } else { password }.to_owned())
}

/// Authenticates a request by its token, whichever way the tool sends it, or its connection's certificate.
pub(crate) async fn identify(authenticator: &Authenticator, parts: &mut request::Parts) -> Result<Identity, Refusal> {
    if let Some(token) = parts.headers.get(AUTHORIZATION).and_then(of_basic) {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Refusal::Unauthenticated("the password is no token".to_owned()))?;
        bearer.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, bearer);
    }
    let identified = authenticator.identify(parts).await;
    identified.map_err(|status| Refusal::Unauthenticated(status.message().to_owned()))
}

/// The scope that a caller works in, of the one that it is confined to and the one that it names.
pub(crate) fn scope(identity: &Identity, named: Option<String>) -> Result<Option<String>, Refusal> {
    match (&identity.scope, named) {
        (Some(own), Some(named)) if *own != named => {
            Err(Refusal::Forbidden(format!("`{}` is confined to the scope `{own}`", identity.name)))
        }
        (Some(own), _) => Ok(Some(own.clone())),
        (None, named) => Ok(named),
    }
}

/// Whether somebody may write entries, in a scope or else in the base.
pub fn writes(identity: &Identity, in_scope: bool) -> bool {
    identity.has_any(if in_scope || identity.scope.is_some() { &UPLOAD } else { &WRITE })
}

impl Caller {
    fn lacks(&self, wanted: &[Role]) -> String {
        let wanted: Vec<String> = wanted.iter().map(|role| format!("`{role}`")).collect();
        format!("`{}` has no permission: this requires the role {}", self.identity.name, wanted.join(" or "))
    }

    /// Checks that the caller may read.
    pub(crate) fn may_read(&self) -> Result<(), Refusal> {
        if self.identity.has_any(&READ) { Ok(()) } else { Err(Refusal::Forbidden(self.lacks(&READ))) }
    }

    /// Checks that the caller may store blobs by their digest, which changes nothing that others see.
    pub(crate) fn may_upload(&self) -> Result<(), Refusal> {
        self.may_read()?;
        if self.identity.has_any(&UPLOAD) { Ok(()) } else { Err(Refusal::ReadOnly(self.lacks(&UPLOAD))) }
    }

    /// Checks that the caller may write entries where it works.
    pub(crate) fn may_write(&self) -> Result<(), Refusal> {
        self.may_upload()?;
        if writes(&self.identity, self.scope.is_some()) {
            return Ok(());
        }
        let words = "; a builder writes only in a scope (`kiln cache env TOOL --scope NAME`)";
        Err(Refusal::ReadOnly(format!("{}{words}", self.lacks(&WRITE))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(scope: Option<&str>) -> Identity {
        Identity { name: "ci".into(), scope: scope.map(str::to_owned), ..Identity::anonymous() }
    }

    #[test]
    fn a_token_is_the_password_or_stands_in_its_place() {
        let basic = |text: &str| of_basic(&HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap());
        assert_eq!(basic("ci:kiln_x").as_deref(), Some("kiln_x"));
        assert_eq!(basic("kiln_x:").as_deref(), Some("kiln_x"));
        assert_eq!((basic("kiln_x"), of_basic(&HeaderValue::from_static("Basic ?"))), (None, None));
        assert_eq!(of_basic(&HeaderValue::from_static("Bearer kiln_x")), None);
    }

    #[test]
    fn who_is_confined_works_in_no_other_scope() {
        assert_eq!(scope(&someone(None), None), Ok(None));
        assert_eq!(scope(&someone(None), Some("a".into())), Ok(Some("a".into())));
        assert_eq!(scope(&someone(Some("a")), None), Ok(Some("a".into())));
        assert_eq!(scope(&someone(Some("a")), Some("a".into())), Ok(Some("a".into())));
        assert!(matches!(scope(&someone(Some("a")), Some("b".into())), Err(Refusal::Forbidden(_))));
    }
}
