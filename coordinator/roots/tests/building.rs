//! Dockerfiles without commands, from their text to an image. What runs commands is played by the test.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use async_trait::async_trait;
use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{
    BaseImage, Bases, Build, Context, Fetch, GitSource, Operation, Operator, Options, Platform, Resolved, Run,
};
use kiln_images::layer::Compression;
use kiln_images::manifest::Descriptor;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_roots::{Assembled, Done, Error, Files, Host, Packing, Roots};
use kiln_store::{Config, Stores};
use kiln_trees::root::Times;
use kiln_trees::tree::{Entry, Tree};
use parking_lot::Mutex;
use serde_json::{Value, json};

const F: DigestFunction = DigestFunction::Sha256;

struct World {
    roots: Roots,
    stores: Stores,
    sources: Digest,
    ignore: Option<Ignore>,
    /// The only base image.
    layer: (Descriptor, Digest),
    diff_id: String,
    /// What ran, and in which order it began.
    ran: Mutex<Vec<String>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new(context: &[(&str, &str)], ignore: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), 1 << 30)).await.unwrap();
        let put = async |data: Vec<u8>| {
            let digest = F.digest(&data);
            stores.blobs.put(&digest, data.into()).await.unwrap();
            digest
        };
        let mut tree = Tree::default();
        for (path, text) in context {
            tree.insert(path, Entry::file(put(text.as_bytes().to_vec()).await, false)).unwrap();
        }
        let sources = kiln_store::trees::store_tree(&*stores.blobs, F, &tree).await.unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(5);
        archive.append_data(&mut header, "etc/issue", &b"base\n"[..]).unwrap();
        let (archive, mut packed) = (archive.into_inner().unwrap(), Vec::new());
        let layer = kiln_images::layer::compress(&mut archive.as_slice(), &mut packed, Compression::Gzip).unwrap();
        let blob = put(packed).await;
        let roots = Roots::new(stores.clone(), "", F);
        let ignore = ignore.map(|text| Ignore::read(".dockerignore", text).unwrap());
        let (layer, diff_id) = ((layer.descriptor, blob), layer.diff_id.to_string());
        Self { roots, stores, sources, ignore, layer, diff_id, ran: Mutex::default(), _dir: dir }
    }

    fn lower(&self, text: &str, target: Option<&str>) -> Build {
        let file = kiln_dockerfile::parse("Dockerfile", text).unwrap();
        let options = Options {
            target: target.map(str::to_owned),
            build_platform: Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() },
            ignore: self.ignore.clone(),
            ..Options::default()
        };
        let mut known = Bases::new();
        loop {
            let wanted = kiln_dockerfile::bases(&file, &options, &known).unwrap();
            if wanted.is_empty() {
                return kiln_dockerfile::lower(&file, &options, &known).unwrap();
            }
            for image in wanted {
                let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin", "FROM=base"] },
                    "rootfs": { "type": "layers", "diff_ids": [self.diff_id] },
                    "history": [{ "created_by": "made", "created": "2020-01-01T00:00:00Z" }] });
                let image_config = serde_json::from_value(config).unwrap();
                known.add(image, Resolved { image: image_config, digest: None });
            }
        }
    }

    async fn build(&self, text: &str, target: Option<&str>) -> (Done, Assembled) {
        let build = self.lower(text, target);
        let done = self.roots.carry_out(&build, self).await.unwrap_or_else(|(at, error)| {
            panic!("{}: {error}", build.operations[at].name);
        });
        let is_on_base = matches!(build.operations[build.first()].kind, Operator::Base { .. });
        let base = if is_on_base { vec![self.layer.0.clone()] } else { Vec::new() };
        let packing = Packing { epoch: 86_400, clamp: true, ..Packing::default() };
        let assembled = self.roots.image(&build, &done, &base, packing).await.unwrap();
        (done, assembled)
    }

    async fn paths(&self, assembled: &Assembled) -> Vec<Vec<String>> {
        let mut layers = Vec::new();
        for (_, layer) in &assembled.added {
            let data = self.stores.blobs.get(&layer.blob).await.unwrap();
            let plain = kiln_images::layer::unpacked(&layer.layer.descriptor.media_type, &*data).unwrap();
            let mut archive = tar::Archive::new(plain);
            let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
            layers.push(paths.filter(|path| path != "./").collect());
        }
        layers
    }
}

#[async_trait]
impl Host for World {
    type Error = Error;

    async fn base(&self, _: &BaseImage) -> Result<Files, Error> {
        self.roots.base("base", std::slice::from_ref(&self.layer)).await
    }

    async fn context(&self, _: &Context) -> Result<Files, Error> {
        self.roots.context(self.sources, self.ignore.as_ref(), &Times::default()).await
    }

    async fn fetch(&self, _: &Operation, _: &Fetch) -> Result<Files, Error> {
        panic!("nothing is fetched here")
    }

    async fn git(&self, _: &Operation, _: &GitSource) -> Result<Files, Error> {
        panic!("nothing is fetched here")
    }

    async fn run(&self, _: &Operation, run: &Run, root: &Files, _: &BTreeMap<usize, Files>) -> Result<Files, Error> {
        self.ran.lock().push(run.argv.join(" "));
        self.roots.workdir(root, &format!("/ran/{}", run.argv.last().unwrap().replace(' ', "-")), "").await
    }
}

#[tokio::test]
async fn stages_become_an_image_with_its_configuration_and_history() {
    let world = World::new(&[("src/main.c", "int main;"), ("notes.md", "n"), ("run.sh", "#!")], Some("*.md\n")).await;
    let text = "FROM base AS build\nWORKDIR /src\nCOPY . .\nRUN make all\n\
                FROM scratch\nCOPY --from=build /src/src /app/\nCOPY --chmod=755 run.sh /\n\
                ENV A=1\nEXPOSE 80\nENTRYPOINT [\"/run.sh\"]\n";
    let (_, assembled) = world.build(text, None).await;
    assert_eq!(world.paths(&assembled).await, [vec!["app/".to_owned(), "app/main.c".into()], vec!["run.sh".into()]]);
    assert_eq!(*world.ran.lock(), ["/bin/sh -c make all"]);
    let config: Value = serde_json::from_slice(&assembled.image.config.data).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/run.sh"]));
    assert_eq!(config["config"]["ExposedPorts"], json!({ "80/tcp": {} }));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    let history: Vec<&str> =
        config["history"].as_array().unwrap().iter().map(|entry| entry["created_by"].as_str().unwrap()).collect();
    assert_eq!(
        history,
        [
            "COPY /src/src /app/ # buildkit",
            "COPY --chmod=755 run.sh / # buildkit",
            "ENV A=1",
            "EXPOSE [80/tcp]",
            "ENTRYPOINT [\"/run.sh\"]"
        ]
    );
    assert!(config["history"].as_array().unwrap().iter().all(|entry| entry["created"] == "1970-01-02T00:00:00Z"));
    let layers = assembled.image.layers.len();
    let with_layer = config["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, with_layer, "each layer has its entry");
}

#[tokio::test]
async fn a_base_keeps_its_layers_and_stages_that_nobody_needs_are_not_built() {
    let world = World::new(&[("a", "1")], None).await;
    let text = "FROM base AS unused\nRUN never\nFROM base AS used\nRUN first\nFROM used\nCOPY a /a\nRUN second\n";
    let (done, assembled) = world.build(text, None).await;
    assert_eq!(*world.ran.lock(), ["/bin/sh -c first", "/bin/sh -c second"]);
    assert_eq!(assembled.image.layers[0], world.layer.0, "the base's layer is referred to");
    assert_eq!(assembled.added.len(), 3);
    let config: Value = serde_json::from_slice(&assembled.image.config.data).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], world.diff_id);
    assert_eq!(config["history"][0]["created"], "2020-01-01T00:00:00Z", "what is inherited stays");
    // The same text on the same files gives the same bytes.
    let (again, same) = world.build(text, None).await;
    assert_eq!(assembled.image.manifest.descriptor, same.image.manifest.descriptor);
    let build = world.lower(text, None);
    assert_eq!(done.of(build.result), again.of(build.result));
}

#[tokio::test]
async fn the_operation_that_failed_is_named() {
    let world = World::new(&[("a", "1"), ("b", "2")], None).await;
    let build = world.lower("FROM base\nCOPY a /a\nCOPY missing /x\n", None);
    let (at, error) = world.roots.carry_out(&build, &world).await.unwrap_err();
    assert_eq!(build.operations[at].lines, (3, 3));
    assert_eq!(error.to_string(), "`/missing` does not exist; `/` has `a`, `b`");
}
