//! What an image is: compared with Docker's own builder, and as a registry has it.

use std::path::Path;

use kiln_harness::engine::Engine;
use kiln_harness::registry::Registry;
use kiln_harness::{Farm, cannot_run, output};
use serde_json::{Value, json};

use crate::{Project, json as read};

const DOCKERFILE: &str = "\
FROM base AS build
ARG GREETING=hello
WORKDIR /src
COPY main.txt ./
RUN tr a-z A-Z < main.txt > out && echo \"$GREETING\" >> out
FROM base
LABEL own=1
ENV MODE=prod
COPY --from=build --chown=app:app /src/out /app/out
COPY files /files
RUN mkdir /data && chown app /data && ln -s /app/out /data/link
EXPOSE 8080
USER app
WORKDIR /app
ENTRYPOINT [\"cat\"]
CMD [\"out\"]
";

const LIST: &str = "cd / && find app files data -exec stat -c '%n %F %a %u:%g %s' {} + | sort";

#[test]
fn an_image_is_the_one_that_docker_builds() {
    let files = [
        ("main.txt", "abc\n"),
        ("files/deep/x", "1\n"),
        ("files/.gitignore", "*\n"),
        (".dockerignore", "**/*.log\n"),
        ("files/y.log", ""),
    ];
    let Some(project) = Project::new(DOCKERFILE, &files) else { return };
    std::fs::create_dir(project.path().join("files/empty")).unwrap();
    let Some(docker) = Engine::bare() else { return };
    let at = project.path();
    let layout = format!("oci:{}", project.base.path().display());
    let beside = tempfile::tempdir().unwrap();
    let archive = beside.path().join("base.tar");
    output("skopeo", &["copy", "--quiet", &layout, &format!("docker-archive:{}:base:latest", archive.display())], at);
    docker.ok(&["load", "--quiet", "--input", &archive.display().to_string()]);
    let context = at.display().to_string();
    let classic =
        ["build", "--quiet", "--build-arg", "GREETING=hi", "--label", "team=shop", "--tag", "classic", &context];
    docker.ok(&classic);
    let farm = Farm::shared();
    let mut command =
        project.command(farm, &["--build-arg", "GREETING=hi", "--label", "team=shop", "-t", "kiln", "--load", "."]);
    command.env("DOCKER_HOST", &docker.host);
    crate::well(command.into());
    let inspect = |name: &str| -> Value { serde_json::from_str(&docker.ok(&["inspect", name])).unwrap() };
    let (kiln, classic) = (inspect("kiln"), inspect("classic"));
    for key in ["Env", "Cmd", "Entrypoint", "Labels", "WorkingDir", "User", "ExposedPorts"] {
        assert_eq!(kiln[0]["Config"][key], classic[0]["Config"][key], "{key}");
    }
    let listed = |name: &str| docker.ok(&["run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", LIST]);
    assert_eq!(listed("kiln"), listed("classic"));
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "kiln"]), "ABC\nhi");
}

#[test]
fn a_pushed_image_is_an_index_with_attestations_and_what_is_written_about_it_is_true() {
    let Some(project) = Project::new("FROM base\nRUN --mount=type=secret,id=T wc -c < /run/secrets/T > /length\n", &[])
    else {
        return;
    };
    let Some(registry) = Registry::start() else { return cannot_run("docker-registry") };
    let Some(docker) = Engine::bare() else { return };
    let at = project.path();
    std::fs::write(at.join("token"), "s3cr3t-value\n").unwrap();
    let farm = Farm::shared();
    let name = format!("{}/team/app:1", registry.name);
    let again = format!("{}/team/app:latest", registry.name);
    let line = [
        "-t",
        &name,
        "-t",
        &again,
        "--push",
        "--sbom=true",
        "--secret",
        "id=T,src=token",
        "--annotation",
        "plain=1",
        "--annotation",
        "index,manifest-descriptor:both=2",
        "--iidfile",
        "id",
        "--metadata-file",
        "meta.json",
        ".",
    ];
    let ran = project.well(farm, &line);
    assert!(ran.out.is_empty(), "only data goes to standard output: {}", ran.out);
    let (metadata, id) = (read(&at.join("meta.json")), std::fs::read_to_string(at.join("id")).unwrap());
    let raw = |reference: &str| -> Value {
        let at = format!("docker://{}/team/app{reference}", registry.name);
        serde_json::from_str(&output("skopeo", &["inspect", "--tls-verify=false", "--raw", &at], Path::new("/")))
            .unwrap()
    };
    let index = raw(":1");
    assert_eq!(metadata["containerimage.digest"], id.as_str(), "as with buildx, the id of an index is its digest");
    assert_eq!(metadata["image.name"], format!("{name},{again}"));
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], index["mediaType"]);
    assert!(metadata["buildx.build.provenance"]["buildDefinition"].is_object(), "{metadata}");
    let digest = output(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{again}")],
        at,
    );
    assert_eq!(digest.trim(), id, "both names are the same image");
    assert_eq!(index["annotations"], json!({ "both": "2" }));
    let (image, attestation) = (&index["manifests"][0], &index["manifests"][1]);
    assert_eq!(image["annotations"], json!({ "both": "2" }));
    assert_eq!(attestation["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let manifest = raw(&format!("@{}", image["digest"].as_str().unwrap()));
    assert_eq!(manifest["annotations"], json!({ "plain": "1" }));
    let attested = raw(&format!("@{}", attestation["digest"].as_str().unwrap()));
    let kinds: Vec<&str> = attested["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]);
    docker.ok(&["pull", "--quiet", &name]);
    assert_eq!(
        docker.ok(&["run", "--rm", "--network", "none", &name, "cat", "/length"]),
        "13",
        "a secret keeps its last newline"
    );
    let plain =
        project.well(farm, &["-t", &name, "--push", "--provenance=false", "--secret", "id=T,src=token", "-q", "."]);
    let manifest = raw(":1");
    assert_eq!(
        manifest["config"]["digest"].as_str().unwrap(),
        plain.out.trim(),
        "one image's id is its configuration's digest"
    );
    // A tag that has moved is moved, as `docker push` does it, and what is there already is not sent again.
    assert!(project.well(farm, &["-t", &name, "--push", "--secret", "id=T,src=token", "."]).err.contains("pushed"));
}
