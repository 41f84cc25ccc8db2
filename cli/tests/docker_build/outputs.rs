//! Where a result goes.

use std::path::Path;
use std::process::{Command, Stdio};

use kiln_harness::engine::Engine;
use kiln_harness::{Farm, output};

use crate::{Project, json, well};

const DOCKERFILE: &str = "FROM base AS files\nRUN mkdir /d && echo x > /d/x && chmod 600 /d/x && ln -s x /d/link\nFROM scratch\nCOPY --from=files /d /\n";

#[test]
fn files_go_into_a_directory_or_an_archive() {
    let Some(project) = Project::new(DOCKERFILE, &[]) else { return };
    let farm = Farm::shared();
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("mine"), "stays").unwrap();
    let to = out.path().display().to_string();
    let ran = project.well(farm, &["-o", &to, "--metadata-file", "meta.json", "."]);
    assert!(ran.out.is_empty() && ran.err.contains(&to), "{ran:?}");
    assert_eq!(
        output("sh", &["-c", "ls; stat -c %a x; readlink link; cat x mine"], out.path()),
        "link\nmine\nx\n600\nx\nx\nstays"
    );
    assert!(json(&project.path().join("meta.json")).get("containerimage.digest").is_none(), "there is no image");
    let mut command = project.command(farm, &["-o", "-", "--provenance=mode=max", "."]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let listed = Command::new("tar").args(["-tvf", "-"]).stdin(child.stdout.take().unwrap()).output().unwrap();
    assert!(child.wait().unwrap().success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("-rw------- 0/0") && listed.contains("link -> x") && listed.contains("provenance.json"),
        "{listed}"
    );
}

#[test]
fn images_go_into_archives_layouts_and_docker() {
    let Some(project) = Project::new("FROM base\nRUN echo one > /one\nCMD [\"cat\", \"/one\"]\n", &[]) else { return };
    let Some(docker) = Engine::bare() else { return };
    let farm = Farm::shared();
    let at = project.path();
    let line = [
        "-t",
        "app:1",
        "-t",
        "r.example/app:2",
        "-o",
        "type=oci,dest=oci.tar",
        "-o",
        "type=oci,dest=layout,tar=false",
        "-o",
        "type=docker,dest=docker.tar",
        "--load",
        "-q",
        ".",
    ];
    let mut command = project.command(farm, &line);
    command.env("DOCKER_HOST", &docker.host);
    let ran = well(command.into());
    assert!(ran.err.is_empty(), "quiet: {}", ran.err);
    let index = |place: &str| output("skopeo", &["inspect", "--raw", place], at);
    let raw = index(&format!("oci-archive:{}:1", at.join("oci.tar").display()));
    assert!(raw.contains("\"unknown\""), "{raw}");
    assert_eq!(index(&format!("oci:{}:2", at.join("layout").display())), raw);
    assert_eq!(format!("sha256:{}", sha256(raw.as_bytes())), ran.out.trim());
    let id = docker.ok(&["image", "inspect", "--format", "{{.Id}}", "app:1"]);
    assert_eq!(docker.ok(&["image", "inspect", "--format", "{{.Id}}", "r.example/app:2"]), id);
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "app:1"]), "one");
    docker.ok(&["rmi", "--force", "app:1", "r.example/app:2"]);
    docker.ok(&["load", "--quiet", "--input", &at.join("docker.tar").display().to_string()]);
    assert_eq!(docker.ok(&["image", "inspect", "--format", "{{.Id}}", "app:1"]), id);
    let mut command = project.command(farm, &["-t", "app:1", "--load", "-q", "."]);
    command.env("DOCKER_HOST", &docker.host);
    assert_eq!(well(command.into()).out.trim(), id, "the id is Docker's");
    // Without an output it stays on the farm.
    let ran = project.well(farm, &["-t", "app:1", "."]);
    assert!(ran.out.is_empty() && ran.err.contains("stays on the farm"), "{ran:?}");
    assert!(farm.kiln(&["artifacts", "app", "--json"]).out.contains("\"image\""));
}

fn sha256(data: &[u8]) -> String {
    kiln_proto::digest::DigestFunction::Sha256.digest(data).hex()
}

#[test]
fn times_are_those_of_the_epoch() {
    let Some(project) = Project::new("FROM base\nCOPY a /a\nRUN echo b > /b\n", &[("a", "a")]) else { return };
    let farm = Farm::shared();
    let built = |to: &str, more: &[&str]| {
        let to = format!("type=oci,dest={to},rewrite-timestamp=true,compression=zstd");
        let mut command =
            project.command(farm, &[&["--provenance=false", "--no-cache", "-o", &to], more, &["."]].concat());
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        well(command.into());
    };
    built("one.tar", &[]);
    built("two.tar", &[]);
    let read = |name: &str| std::fs::read(project.path().join(name)).unwrap();
    assert!(read("one.tar") == read("two.tar"), "two builds at different times are equal");
    let config = output("skopeo", &["inspect", "--config", "oci-archive:one.tar"], Path::new(project.path()));
    assert!(config.contains("\"created\": \"2023-11-14T22:13:20Z\""), "{config}");
    let manifest = output("skopeo", &["inspect", "--raw", "oci-archive:one.tar"], Path::new(project.path()));
    assert!(manifest.contains("tar+zstd"), "{manifest}");
}
