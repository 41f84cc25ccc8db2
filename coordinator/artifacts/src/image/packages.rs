//! Packages that a root gets by its own package manager, as a layer.

use std::sync::Arc;

use kiln_dockerfile::Run;
use kiln_dockerfile::instruction::Network;
use kiln_images::image::Base;
use kiln_images::layer::Compression;
use kiln_planner::plan::{self, Image as Description};
use kiln_proto::digest::Digest;
use kiln_roots::{Files, Packing, Roots};
use kiln_trees::root::{Time, Times};
use serde_json::{Value, json};

use super::base::{BaseError, Stored, look_through};
use super::dockerfile::Command;
use crate::assemble::{Error, Ingredients};

/// The command that installs packages into a root of a platform.
pub fn install(name: &str, platform: plan::Platform, root: &Digest, times: Digest, packages: &[String]) -> Command {
    let mut argv: Vec<String> = ["/bin/sh", "-e", "-c", include_str!("install.sh"), "kiln"].map(str::to_owned).into();
    argv.extend(packages.iter().cloned());
    Command {
        name: name.to_owned(),
        platform,
        run: Run {
            root: 0,
            argv,
            env: Vec::new(),
            proxies: Vec::new(),
            user: String::new(),
            cwd: "/".to_owned(),
            hostname: None,
            network: Network::Default,
            mounts: Vec::new(),
            script: None,
        },
        root: *root,
        times,
        memory_bytes: None,
        mounts: Vec::new(),
        mounted: None,
        secrets: Vec::new(),
        keyed: Vec::new(),
        caches: Vec::new(),
        hosts: Vec::new(),
        no_cache: false,
        service: None,
    }
}

/// The base with the packages that an image gets at run time, as one more layer.
pub(super) async fn with_packages(
    given: &Ingredients<'_>,
    description: &Description,
    base: Arc<Stored>,
) -> Result<Arc<Stored>, Error> {
    if description.packages.is_empty() {
        return Ok(base);
    }
    let roots = Roots::new(given.stores.clone(), given.instance, given.function);
    let before = files(&roots, &base, &description.base.show()).await?;
    let times = before.times.encode();
    let digest = given.function.digest(&times);
    given.stores.blobs.put(&digest, times.into()).await?;
    let name = format!("packages of {}", given.artifact.name);
    let command = install(&name, given.target.platform, &before.root, digest, &description.packages);
    let ran = given.commands.run(&command).await?;
    let times = Times::decode(&given.stores.blobs.get(&ran.times).await?)
        .map_err(|error| Error::Layout { artifact: given.artifact.name.clone(), reason: error.to_string() })?;
    let after = roots.apply(&before, &ran.layer, &times).await?;
    let compression = match description.compression {
        plan::Compression::Gzip => Compression::Gzip,
        plan::Compression::Zstd => Compression::Zstd,
    };
    let packing = Packing { compression, epoch: given.origin.created, undated: Time::UNDATED.seconds, clamp: false };
    let made = roots.layer(&before, &after, packing).await?;
    let layer = made.layer.descriptor.clone();
    let failed = |source: BaseError| Error::Base {
        artifact: given.artifact.name.clone(),
        base: description.base.show(),
        source: Box::new(source),
    };
    let looked = look_through(&*given.stores.blobs, &made.blob, &layer, base.contents.clone()).await;
    let (contents, _) = looked.map_err(failed)?;
    let mut config = base.base.config.clone();
    push(&mut config, &["rootfs", "diff_ids"], json!(made.layer.diff_id.to_string()));
    let by = format!("kiln: install {}", description.packages.join(" "));
    push(&mut config, &["history"], json!({ "created_by": by }));
    let mut layers = base.base.layers.clone();
    layers.push(layer.clone());
    let mut blobs = base.blobs.clone();
    blobs.insert(layer.digest, made.blob);
    let base = Stored {
        base: Base { digest: base.base.digest, config, layers },
        blobs,
        contents,
        name: base.name.clone(),
        uri: base.uri.clone(),
    };
    Ok(Arc::new(base))
}

/// The files of a base.
pub(super) async fn files(roots: &Roots, base: &Stored, name: &str) -> Result<Files, kiln_roots::Error> {
    let layers = base.base.layers.iter();
    let layers: Vec<_> = layers.filter_map(|layer| Some((layer.clone(), *base.blobs.get(&layer.digest)?))).collect();
    roots.base(name, &layers).await
}

/// Appends to a list in an image's configuration.
fn push(config: &mut serde_json::Map<String, Value>, path: &[&str], value: Value) {
    let [above @ .., last] = path else { return };
    let mut at = config;
    for name in above {
        let below = at.entry((*name).to_owned()).or_insert_with(|| json!({}));
        let Some(below) = below.as_object_mut() else { return };
        at = below;
    }
    if let Some(list) = at.entry((*last).to_owned()).or_insert_with(|| json!([])).as_array_mut() {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_gets_a_layer_whether_or_not_it_has_lists() {
        let mut config = serde_json::Map::new();
        push(&mut config, &["rootfs", "diff_ids"], json!("a"));
        push(&mut config, &["rootfs", "diff_ids"], json!("b"));
        push(&mut config, &["history"], json!({ "created_by": "x" }));
        let expected = json!({ "rootfs": { "diff_ids": ["a", "b"] }, "history": [{ "created_by": "x" }] });
        assert_eq!(Value::Object(config), expected);
    }
}
