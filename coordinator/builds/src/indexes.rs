//! Where an index is from: the list of a build's images of one name for several platforms.
//!
//! An index is made where images are pushed, so no build states anything about it. Invariant: nothing of a statement is what a caller says;
//! the index is made here again, from images of the build.

use kiln_artifacts::Subject;
use kiln_images::layout;
use kiln_images::manifest::{Descriptor, Index};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1;
use kiln_trees::tree::Entry;
use serde_json::{Value, json};
use tonic::Status;

use super::{Builds, internal, unread};

/// The type of the statement.
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// What its parameters mean: `coordinator/artifacts/BUILDTYPE.md`.
const BUILD_TYPE: &str = "urn:kiln:index:v1";
/// The most platforms of an image.
const MOST: usize = 64;

impl Builds {
    /// Signs where the index of a build's images is from.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown build; INVALID_ARGUMENT if it has no images of that name for several platforms; FAILED_PRECONDITION if the
    /// farm signs nothing.
    pub async fn sign_index(&self, build: &str, name: &str) -> Result<v1::SignIndexResponse, Status> {
        let Some(signer) = &self.shared.settings.signer else {
            return Err(Status::failed_precondition("the farm signs nothing; see `--signing-key` of the coordinator"));
        };
        let found = self.shared.records.build(build).await.map_err(unread)?;
        let build = found.ok_or_else(|| Status::not_found(format!("no build `{build}`")))?;
        let images: Vec<&v1::Artifact> =
            build.artifacts.iter().filter(|one| one.kind == "image" && one.name == name).collect();
        if !(2..=MOST).contains(&images.len()) {
            let words = format!(
                "build `{}` has {} images `{name}`; expected one for each of 2 to {MOST} platforms",
                build.id,
                images.len()
            );
            return Err(Status::invalid_argument(words));
        }
        let mut manifests = Vec::new();
        for image in &images {
            manifests.extend(self.manifests(image).await?);
        }
        let index = layout::joined(manifests.clone());
        let hash = index.descriptor.digest;
        let digest = Digest { function: DigestFunction::Sha256, hash: hash.bytes(), size: index.descriptor.size };
        let subject = Subject { name: name.to_owned(), digest };
        let predicate = self.predicate(&build, &images, &manifests).await?;
        let statement = kiln_artifacts::about(&[subject], PROVENANCE, predicate);
        let signed = signer.sign(serde_json::to_vec(&statement).map_err(internal)?).await.map_err(internal)?;
        Ok(v1::SignIndexResponse { index: hash.hex(), bundle: signed.bundle, predicate_type: PROVENANCE.to_owned() })
    }

    /// The manifests in an image's layout, as they are pushed.
    async fn manifests(&self, image: &v1::Artifact) -> Result<Vec<Descriptor>, Status> {
        let store = &*self.shared.stores.artifacts;
        let function = DigestFunction::from_wire(image.digest_function).map_err(internal)?;
        let root = Digest::required(function, image.root.as_ref()).map_err(internal)?;
        let tree = kiln_store::trees::directory(store, &root).await.map_err(internal)?;
        let Some(Entry::File { digest, .. }) = tree.entries.get(layout::INDEX) else {
            return Err(Status::internal(format!("`{}` is no image layout", image.id)));
        };
        let index: Index = serde_json::from_slice(&store.get(digest).await.map_err(internal)?).map_err(internal)?;
        let plain = |one: Descriptor| Descriptor { annotations: Default::default(), ..one };
        Ok(index.manifests.into_iter().map(plain).collect())
    }

    /// What the provenance of the first image says of sources and builder, with the images themselves.
    async fn predicate(
        &self,
        build: &v1::Build,
        images: &[&v1::Artifact],
        manifests: &[Descriptor],
    ) -> Result<Value, Status> {
        let of = images.first().and_then(|image| Some((image, image.provenance.as_ref()?)));
        let (first, wire) = of.ok_or_else(|| Status::internal("an image has no provenance"))?;
        let function = DigestFunction::from_wire(first.digest_function).map_err(internal)?;
        let digest = Digest::from_wire(function, wire).map_err(internal)?;
        let stated = self.shared.stores.artifacts.get(&digest).await.map_err(internal)?;
        let stated: Value = serde_json::from_slice(&stated).map_err(internal)?;
        let at = |pointer: &str| stated.pointer(pointer).cloned().unwrap_or_default();
        let is_source = |one: &Value| one.pointer("/digest/gitCommit").is_some();
        let sources = at("/predicate/buildDefinition/resolvedDependencies");
        let sources = sources.as_array().into_iter().flatten().filter(|one| is_source(one)).cloned();
        let platform = |one: &Descriptor| one.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        let image = |one: &Descriptor| json!({ "name": platform(one), "digest": { "sha256": one.digest.hex() } });
        let dependencies: Vec<Value> = sources.chain(manifests.iter().map(image)).collect();
        Ok(json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "project": build.project,
                    "version": build.version,
                    "artifact": first.name,
                    "platforms": manifests.iter().map(platform).collect::<Vec<_>>(),
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": at("/predicate/runDetails/builder"),
                "metadata": at("/predicate/runDetails/metadata"),
            },
        }))
    }
}
