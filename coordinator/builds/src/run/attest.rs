//! What the farm states about an artifact: in-toto statements, signed, and stored where nothing is evicted.

use kiln_artifacts::Subject;
use kiln_proto::digest::{Digest, DigestFunction};
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

/// States what a verification found of a recorded artifact. What an earlier one found in the same way is replaced.
///
/// # Errors
///
/// If what the artifact consists of is not stated, or it cannot be signed or recorded.
pub(super) async fn found(
    work: &Work,
    artifact: v1::Artifact,
    found: &v1::Reproducibility,
) -> Result<v1::Artifact, Unsuccessful> {
    let function = DigestFunction::from_wire(artifact.digest_function).map_err(Unsuccessful::farms)?;
    let provenance = Digest::required(function, artifact.provenance.as_ref()).map_err(Unsuccessful::farms)?;
    let provenance = work.stores.artifacts.get(&provenance).await.map_err(Unsuccessful::farms)?;
    let mut statement: Value = serde_json::from_slice(&provenance).map_err(Unsuccessful::farms)?;
    statement["predicateType"] = kiln_reproduce::PREDICATE_TYPE.into();
    statement["predicate"] = kiln_reproduce::predicate(found);
    let stated = put_statement(work, kiln_reproduce::way(found), &statement).await?;
    work.records.add_statements(&artifact.id, Vec::new(), vec![stated]).await.map_err(Unsuccessful::farms)
}

impl Work {
    /// Records and states what a sample found of an artifact.
    pub(crate) async fn sampled(&self, artifact: &str, sample: &v1::Reproducibility) -> Result<(), String> {
        self.records.add_reproducibility(artifact, sample).await.map_err(|error| error.to_string())?;
        let known = self.records.artifact(artifact).await.map_err(|error| error.to_string())?;
        let known = known.ok_or_else(|| format!("artifact `{artifact}` is not recorded any more"))?;
        found(self, known, sample).await.map_err(|error| error.message)?;
        Ok(())
    }
}

/// Signs an in-toto statement about an artifact, and stores it where nothing is evicted.
///
/// `name` is what its file's name begins with.
///
/// # Errors
///
/// If it has no predicate type, it cannot be signed, or the store fails.
pub(super) async fn put_statement(work: &Work, name: &str, statement: &Value) -> Result<v1::Attestation, Unsuccessful> {
    let predicate_type = statement.get("predicateType").and_then(Value::as_str);
    let predicate_type = predicate_type.ok_or_else(|| {
        Unsuccessful::farms(format!("the statement `{name}` about an artifact has no `predicateType`"))
    })?;
    let data = serde_json::to_vec(statement).map_err(Unsuccessful::farms)?;
    let signed = match &work.settings.signer {
        Some(signer) => Some(
            signer
                .sign(data.clone())
                .await
                .map_err(|error| Unsuccessful::farms(format!("`{name}` of an artifact cannot be signed: {error}")))?,
        ),
        None => None,
    };
    let mut attestation = v1::Attestation {
        name: name.to_owned(),
        predicate_type: predicate_type.to_owned(),
        statement: Some(put(work, data).await?),
        ..v1::Attestation::default()
    };
    if let Some(signed) = signed {
        attestation.bundle = Some(put(work, signed.bundle).await?);
        attestation.key_id = signed.key;
    }
    Ok(attestation)
}

async fn put(work: &Work, data: Vec<u8>) -> Result<kiln_proto::reapi::Digest, Unsuccessful> {
    let digest = work.function.digest(&data);
    work.stores.artifacts.put(&digest, data.into()).await.map_err(Unsuccessful::farms)?;
    Ok(digest.to_wire())
}
