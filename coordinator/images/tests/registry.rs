//! Against a real registry: pushed content is complete, interrupted transfers resume, refusals are reported.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::has;
use kiln_harness::http_proxy::{Fault, Proxy};
use kiln_harness::registry::{Registry, Setup, output};
use kiln_images::base;
use kiln_images::blobs::{self, InMemory};
use kiln_images::image::{Added, Image, Origin, Settings, assemble};
use kiln_images::layer::{LayerWriter, Options as LayerOptions};
use kiln_images::manifest::Document;
use kiln_images::platform::Platform;
use kiln_images::push::Push;
use kiln_images::reference::Reference;
use kiln_images::referrer::{Referrer, kind};
use kiln_images::registry::{Credentials, Error, Options, Registries, Repository};

/// An image of one file of random bytes, and its blobs.
fn image(seed: u8, bytes: usize, architecture: &str) -> (Image, InMemory) {
    let mut noise = u64::from(seed) + 1;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .collect();
    let mut writer = LayerWriter::new(Vec::new(), LayerOptions::default()).unwrap();
    writer.file("srv/data", 0o644, content.len() as u64, content.as_slice()).unwrap();
    let (data, layer) = writer.finish().unwrap();
    let added = [Added { layer: layer.clone(), by: "test".into() }];
    let settings = Settings { cmd: Some(vec!["/srv/data".into()]), ..Settings::default() };
    let image = assemble(None, &Platform::linux(architecture), &settings, &added, &Origin::default());
    let mut source = InMemory::default();
    source.add(&image.config);
    source.add(&Document { descriptor: layer.descriptor, data: data.into() });
    (image, source)
}

fn options() -> Options {
    Options { stall: Duration::from_millis(1500), attempts: 3, chunk_bytes: 256 << 10, ..Options::default() }
}

fn anyone() -> Registries {
    Registries::new(options(), Credentials::none())
}

fn reference(registry: &str, rest: &str) -> Reference {
    format!("{registry}/{rest}").parse().unwrap()
}

fn push(to: &Reference, image: &Image) -> Push {
    Push::of_images(to.clone(), vec![(image.clone(), Vec::new())])
}

/// Reads an image back and checks each blob.
async fn read_back(registries: &Registries, from: &Reference) -> Result<usize, blobs::Error> {
    let repository = Repository { registries: registries.clone(), reference: from.clone() };
    let top = registries.manifest(from).await.map_err(|error| blobs::Error::Elsewhere(Box::new(error)))?;
    let base = base::resolve(&repository, &top, &Platform::linux("amd64")).await?;
    let mut bytes = 0;
    for layer in &base.layers {
        use futures::TryStreamExt;
        let pieces = blobs::checked(blobs::Blobs::open(&repository, layer).await?, layer);
        bytes += pieces.try_fold(0, |sum, piece: Bytes| std::future::ready(Ok(sum + piece.len()))).await?;
    }
    Ok(bytes)
}

#[tokio::test]
async fn what_is_pushed_reads_back_and_is_sent_only_once() {
    let Some(registry) = Registry::start() else { return };
    let to = reference(&registry.name, "team/shop:1");
    let (image, source) = image(1, 600_000, "amd64");
    let first = push(&to, &image).run(&anyone(), &source).await.unwrap();
    assert_eq!((first.sent.0, first.present.0), (2, 0));
    assert!(read_back(&anyone(), &to).await.unwrap() > 600_000);
    let again = push(&to, &image).run(&anyone(), &source).await.unwrap();
    assert!(again.was_there, "{again:?}");
    let other = push(&to.at_tag("2").unwrap(), &image).run(&anyone(), &source).await.unwrap();
    assert_eq!((other.sent.0, other.present.0), (0, 2), "its blobs are there");
    let beside = Push { beside: Some(to.clone()), ..push(&reference(&registry.name, "team/other:1"), &image) };
    let beside = beside.run(&anyone(), &source).await.unwrap();
    assert_eq!((beside.sent.0, beside.mounted.0), (0, 2), "another repository of the registry has them");
    if has("skopeo") {
        let mut skopeo = std::process::Command::new("skopeo");
        let inspected = output(skopeo.args(["inspect", "--tls-verify=false", &format!("docker://{to}")]));
        assert!(inspected.contains(&image.manifest.descriptor.digest.to_string()), "{inspected}");
    }
}

#[tokio::test]
async fn several_platforms_are_one_index() {
    let Some(registry) = Registry::start() else { return };
    let to = reference(&registry.name, "multi:1");
    let ((amd, mut source), (arm, _)) = (image(1, 1000, "amd64"), image(1, 1000, "arm64"));
    source.add(&arm.config);
    let push = Push::of_images(to.clone(), vec![(amd, Vec::new()), (arm.clone(), Vec::new())]);
    push.run(&anyone(), &source).await.unwrap();
    let repository = Repository { registries: anyone(), reference: to.clone() };
    let top = anyone().manifest(&to).await.unwrap();
    base::resolve(&repository, &top, &Platform::linux("arm64")).await.unwrap();
    let error = base::resolve(&repository, &top, &Platform::linux("riscv64")).await.unwrap_err().to_string();
    assert!(error.ends_with("has no image for `linux/riscv64`; it has `linux/amd64`, `linux/arm64`"), "{error}");
}

#[tokio::test]
async fn a_tag_that_names_another_image_is_left_alone_unless_it_may_move() {
    let Some(registry) = Registry::start() else { return };
    let to = reference(&registry.name, "shop:1");
    let ((one, source), (two, other)) = (image(1, 100, "amd64"), image(2, 100, "amd64"));
    push(&to, &one).run(&anyone(), &source).await.unwrap();
    let error = push(&to, &two).run(&anyone(), &other).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }) && error.is_users(), "{error}");
    assert_eq!(anyone().find(&to).await.unwrap(), Some(one.manifest.descriptor.digest));
    let over = Push { over: true, ..push(&to, &two) };
    over.run(&anyone(), &other).await.unwrap();
    assert_eq!(anyone().find(&to).await.unwrap(), Some(two.manifest.descriptor.digest));
}

#[tokio::test]
async fn what_goes_along_is_found_from_the_image() {
    let Some(registry) = Registry::start() else { return };
    let to = reference(&registry.name, "shop:1");
    let (image, source) = image(1, 100, "amd64");
    let sbom =
        Referrer::new(kind::SBOM, kind::SBOM, "shop.cdx.json", Bytes::from_static(b"{\"bomFormat\":\"CycloneDX\"}"));
    let push = Push::of_images(to.clone(), vec![(image.clone(), vec![sbom.clone()])]);
    push.run(&anyone(), &source).await.unwrap();
    let list = to.at_tag(&kiln_images::referrer::tag(&image.manifest.descriptor.digest)).unwrap();
    let list = anyone().manifest(&list).await.unwrap();
    let index = oci_spec::image::ImageIndex::from_reader(&list.data[..]).unwrap();
    let listed = &index.manifests()[0];
    assert_eq!(listed.artifact_type().as_ref().unwrap().to_string(), kind::SBOM);
    let at = to.at_digest(listed.digest().to_string().parse().unwrap());
    let manifest = anyone().manifest(&at).await.unwrap();
    assert!(String::from_utf8_lossy(&manifest.data).contains(&sbom.content.descriptor.digest.to_string()));
}

fn login_file(registry: &str, user: &str, password: &str) -> (tempfile::TempDir, Credentials) {
    use base64::Engine;
    let dir = tempfile::tempdir().unwrap();
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let path = dir.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#)).unwrap();
    let credentials = Credentials::read(&path).unwrap();
    (dir, credentials)
}

#[tokio::test]
async fn only_who_logged_in_may_push_and_wrong_credentials_are_said_with_where_they_are_from() {
    let Some(registry) = Registry::with(&Setup { login: Some(("ann", "secret")), ..Setup::default() }) else { return };
    let to = reference(&registry.name, "shop:1");
    let (image, source) = image(1, 100, "amd64");
    let nobody = push(&to, &image).run(&anyone(), &source).await.unwrap_err();
    assert!(matches!(nobody, Error::NoCredentials { .. }), "{nobody}");
    let (dir, wrong) = login_file(&registry.name, "ann", "other");
    let wrong = push(&to, &image).run(&Registries::new(options(), wrong), &source).await.unwrap_err();
    let words = wrong.to_string();
    assert!(words.contains("`ann`") && words.contains("config.json") && words.contains("docker login"), "{words}");
    assert!(!words.contains("other"), "no secret is shown: {words}");
    drop(dir);
    let (_dir, right) = login_file(&registry.name, "ann", "secret");
    push(&to, &image).run(&Registries::new(options(), right), &source).await.unwrap();
}

#[tokio::test]
async fn an_image_that_is_not_there_comes_with_the_nearest_that_is() {
    let Some(registry) = Registry::start() else { return };
    let (image, source) = image(1, 100, "amd64");
    push(&reference(&registry.name, "team/shop:12.1"), &image).run(&anyone(), &source).await.unwrap();
    let words = |rest: &str| {
        let asked = reference(&registry.name, rest);
        async move { anyone().manifest(&asked).await.unwrap_err().to_string() }
    };
    assert!(
        words("team/shop:12.2").await.ends_with("did you mean the tag `12.1`?"),
        "{}",
        words("team/shop:12.2").await
    );
    let near = words("team/shpo:12.1").await;
    assert!(near.ends_with(&format!("did you mean `{}/team/shop`?", registry.name)), "{near}");
}

#[tokio::test]
async fn a_registry_that_fails_for_a_moment_is_tried_again_and_one_that_goes_on_failing_is_named() {
    let Some(registry) = Registry::start() else { return };
    let count = AtomicUsize::new(0);
    let proxy = Proxy::before(&registry.name, move |method, _| match method {
        "PUT" | "POST" if count.fetch_add(1, Ordering::Relaxed) < 2 => Fault::Status(503, "busy"),
        _ => Fault::None,
    });
    let (image, source) = image(1, 100, "amd64");
    push(&reference(&proxy.name, "shop:1"), &image).run(&anyone(), &source).await.unwrap();
    read_back(&anyone(), &reference(&registry.name, "shop:1")).await.unwrap();

    let broken = Proxy::before(&registry.name, |method, _| match method {
        "POST" => Fault::Status(500, "{\"errors\":[{\"code\":\"UNKNOWN\",\"message\":\"out of order\"}]}"),
        _ => Fault::None,
    });
    let to = reference(&broken.name, "other:1");
    let error = push(&to, &image).run(&anyone(), &source).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("500") && words.contains("UNKNOWN: out of order") && !error.is_users(), "{words}");
    assert!((3..=6).contains(&broken.count("POST")), "expected three attempts: {:?}", broken.seen.lock().unwrap());
    assert_eq!(anyone().find(&reference(&registry.name, "other:1")).await.unwrap(), None, "no tag is left behind");
}

#[tokio::test]
async fn an_upload_that_breaks_or_stalls_between_parts_goes_on_and_sends_little_again() {
    let Some(registry) = Registry::start() else { return };
    for fault in [Fault::Status(502, "gone"), Fault::BreakAfter(0), Fault::StallAfter(0)] {
        let count = AtomicUsize::new(0);
        let proxy = Proxy::before(&registry.name, move |method, _| match method {
            "PATCH" if count.fetch_add(1, Ordering::Relaxed) == 4 => fault,
            _ => Fault::None,
        });
        let seed = match fault {
            Fault::Status(..) => 10,
            Fault::BreakAfter(_) => 11,
            _ => 12,
        };
        let (image, source) = image(seed, 3 << 20, "amd64");
        let to = reference(&proxy.name, "shop:1").at_tag(&seed.to_string()).unwrap();
        push(&to, &image).run(&anyone(), &source).await.unwrap();
        let passed = proxy.passed.load(Ordering::Relaxed);
        assert!(passed < (3 << 20) + (400 << 10), "{fault:?}: expected the upload to go on, {passed} bytes were sent");
        assert!(read_back(&anyone(), &to).await.unwrap() >= 3 << 20);
    }
}

#[tokio::test]
async fn an_upload_that_breaks_in_mid_part_begins_anew_where_the_registry_cannot_go_on_and_comes_whole() {
    let Some(registry) = Registry::start() else { return };
    for fault in [Fault::BreakAfter(100_000), Fault::StallAfter(100_000)] {
        let count = AtomicUsize::new(0);
        let proxy = Proxy::before(&registry.name, move |method, _| match method {
            "PATCH" if count.fetch_add(1, Ordering::Relaxed) == 4 => fault,
            _ => Fault::None,
        });
        let seed = if matches!(fault, Fault::BreakAfter(_)) { 20 } else { 21 };
        let (image, source) = image(seed, 3 << 20, "amd64");
        let to = reference(&proxy.name, "shop:1").at_tag(&seed.to_string()).unwrap();
        push(&to, &image).run(&anyone(), &source).await.unwrap();
        assert!(read_back(&anyone(), &to).await.unwrap() >= 3 << 20);
    }
}

#[tokio::test]
async fn a_push_that_broke_off_leaves_no_tag_and_the_next_sends_only_what_is_missing() {
    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::before(&registry.name, |method, path| match (method, path.contains("/manifests/")) {
        ("PUT", true) => Fault::Status(503, "down"),
        _ => Fault::None,
    });
    let (image, source) = image(1, 600_000, "amd64");
    let error = push(&reference(&proxy.name, "shop:1"), &image).run(&anyone(), &source).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    let to = reference(&registry.name, "shop:1");
    assert_eq!(anyone().find(&to).await.unwrap(), None);
    let again = push(&to, &image).run(&anyone(), &source).await.unwrap();
    assert_eq!((again.sent.0, again.present.0), (0, 2));
}

#[tokio::test]
async fn a_download_that_stalls_is_taken_up_where_it_was() {
    let Some(registry) = Registry::start() else { return };
    let to = reference(&registry.name, "shop:1");
    let (image, source) = image(1, 600_000, "amd64");
    push(&to, &image).run(&anyone(), &source).await.unwrap();
    let count = AtomicUsize::new(0);
    let proxy = Proxy::before(&registry.name, move |method, path| {
        let is_blob = method == "GET" && path.contains("/blobs/");
        if is_blob && count.fetch_add(1, Ordering::Relaxed) == 1 { Fault::BreakAfter(0) } else { Fault::None }
    });
    assert!(read_back(&anyone(), &reference(&proxy.name, "shop:1")).await.unwrap() > 600_000);
}

#[tokio::test]
async fn a_registry_with_a_certificate_that_nobody_signed_is_not_spoken_to() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, secret) = (key.cert.pem(), key.signing_key.serialize_pem());
    let Some(registry) = Registry::with(&Setup { tls: Some((&certificate, &secret)), ..Setup::default() }) else {
        return;
    };
    let error = anyone().find(&reference(&registry.name, "shop:1")).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }) && error.to_string().contains("certs.d"), "{error}");
}

#[tokio::test]
async fn a_full_registry_is_said_to_be_full_and_not_tried_again_for_nothing() {
    if !std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        return kiln_harness::cannot_run("a file system of limited size needs root");
    }
    let Some(registry) = Registry::with(&Setup { room: Some(1 << 20), ..Setup::default() }) else { return };
    let proxy = Proxy::before(&registry.name, |_, _| Fault::None);
    let (image, source) = image(1, 3 << 20, "amd64");
    let error = push(&reference(&proxy.name, "shop:1"), &image).run(&anyone(), &source).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }) && error.to_string().contains("is full"), "{error}");
    assert!(proxy.count("POST") <= 2, "{:?}", proxy.seen.lock().unwrap());
}

#[tokio::test]
async fn nobody_there_is_said_after_a_few_attempts() {
    let error = anyone().find(&reference("127.0.0.1:1", "shop:1")).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach the registry `127.0.0.1:1`"), "{error}");
}

/// A server that answers each request with the result of `answer` for its head, and records the heads.
async fn serve(
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let heads = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let noted = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 8192];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let _ = stream.write_all(answer(&head).as_bytes()).await;
            noted.lock().unwrap().push(head);
        }
    });
    (name, heads)
}

fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn credentials_and_tokens_stay_with_their_registry_wherever_it_sends_its_clients() {
    let (thief, stolen) = serve(|_| answer("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n")).await;
    let to = thief.clone();
    let (registry, asked) = serve(move |head| {
        let line = head.lines().next().unwrap_or_default();
        match line.split(' ').collect::<Vec<_>>()[..] {
            [_, "/v2/", _] => answer("200 OK", ""),
            _ if !head.contains("authorization: Basic") => {
                answer("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n")
            }
            ["HEAD", ..] => answer("404 Not Found", ""),
            ["POST", ..] => answer("202 Accepted", &format!("location: http://{to}/upload\r\n")),
            _ => answer("307 Temporary Redirect", &format!("location: http://{to}/blob\r\n")),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let login = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "ann:secret");
    std::fs::write(&path, format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{login}\"}}}}}}")).unwrap();
    let registries = Registries::new(options(), Credentials::read(&path).unwrap());
    let (image, source) = image(1, 10, "amd64");
    let to = reference(&registry, "team/app:1");
    assert!(registries.manifest(&to).await.is_err(), "expected the other server not to have it");
    assert!(registries.upload(&to, &image.config.descriptor, &source, None).await.is_err(), "and not to take it");
    let heads = stolen.lock().unwrap().clone();
    assert!(heads.iter().any(|head| head.contains("/blob")), "expected the redirect to be followed: {heads:?}");
    assert!(heads.iter().any(|head| head.contains("/upload")), "expected the upload to go on there: {heads:?}");
    let shown: Vec<&String> = heads.iter().filter(|head| head.to_lowercase().contains("authorization")).collect();
    assert!(shown.is_empty(), "expected no credentials elsewhere: {shown:?}");
    assert!(asked.lock().unwrap().iter().any(|head| head.contains(&login)), "and the registry to have had them");
}
