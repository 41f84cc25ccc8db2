//! What the farm states about an artifact: in-toto statements, stored where nothing is evicted.

use kiln_artifacts::Subject;
use kiln_proto::v1;
use serde_json::Value;

use super::{Unsuccessful, Work};

/// The type of a statement whose predicate is a CycloneDX document.
const CYCLONEDX: &str = "https://cyclonedx.org/bom";

/// The type of a statement whose predicate is an SPDX document.
const SPDX: &str = "https://spdx.dev/Document";

/// Stores what is stated about every artifact: how it was made, and what it consists of.
pub(super) async fn about(
    work: &Work,
    subjects: &[Subject],
    provenance: Value,
    sbom: &Value,
    spdx: Option<&Value>,
) -> Result<Vec<v1::Attestation>, Unsuccessful> {
    let mut statements = vec![("provenance", provenance)];
    statements.push(("sbom", kiln_artifacts::about(subjects, CYCLONEDX, sbom.clone())));
    if let Some(spdx) = spdx {
        statements.push(("spdx", kiln_artifacts::about(subjects, SPDX, spdx.clone())));
    }
    futures::future::try_join_all(statements.iter().map(|(name, statement)| put_statement(work, name, statement))).await
}

/// Stores an in-toto statement about an artifact where nothing is evicted.
///
/// `name` is what its file's name begins with.
///
/// # Errors
///
/// If it has no predicate type, or the store fails.
pub(super) async fn put_statement(work: &Work, name: &str, statement: &Value) -> Result<v1::Attestation, Unsuccessful> {
    let predicate_type = statement.get("predicateType").and_then(Value::as_str);
    let predicate_type = predicate_type.ok_or_else(|| {
        Unsuccessful::farms(format!("the statement `{name}` about an artifact has no `predicateType`"))
    })?;
    let data = serde_json::to_vec(statement).map_err(Unsuccessful::farms)?;
    let digest = work.function.digest(&data);
    work.stores.artifacts.put(&digest, data.into()).await.map_err(Unsuccessful::farms)?;
    Ok(v1::Attestation {
        name: name.to_owned(),
        predicate_type: predicate_type.to_owned(),
        statement: Some(digest.to_wire()),
        bundle: None,
        key_id: String::new(),
    })
}
