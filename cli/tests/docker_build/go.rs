//! The Dockerfile that every team has: a program is compiled with caches, for several platforms at once, and copied into a small image.

use std::path::Path;

use kiln_harness::bases::{arm64_tar, busybox_tar, layout_of_several};
use kiln_harness::engine::Engine;
use kiln_harness::registry::Registry;
use kiln_harness::{Farm, Ran, arm64, cannot_run, output, project, write};
use serde_json::Value;

use crate::well;

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

/// Uses its caches as Go does: modules by their names, what is compiled by its content and the architecture.
const STAND_IN: &str = r#"#!/bin/sh
set -eu
case "$1 $2" in
"mod download")
    for module in $(cat go.mod); do
        test -e "$GOMODCACHE/$module" || { echo "downloading $module" >&2; cp "/proxy/$module" "$GOMODCACHE/"; }
    done ;;
"build -o")
    mkdir -p "${3%/*}"
    for source in *.go "$GOMODCACHE"/*; do
        key=$GOARCH-$(md5sum < "$source" | cut -c 1-32)
        test -e "$GOCACHE/$key" || {
            echo "compiling ${source##*/} for $GOARCH" >&2
            sed "s/ARCH/$GOARCH/" "$source" > "$GOCACHE/$key"
        }
        cat "$GOCACHE/$key"
    done > "$3"
    chmod 755 "$3" ;;
esac
"#;

const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM base AS build
COPY --from=toolchain --chmod=755 go /usr/local/bin/go
ENV GOMODCACHE=/go/pkg/mod GOCACHE=/root/.cache/go-build
WORKDIR /src
COPY go.mod ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=from=proxy,target=/proxy go mod download
COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOARCH=$TARGETARCH go build -o /out/shop .

FROM base
RUN echo shop:x:10001:10001::/:/bin/sh >> /etc/passwd
COPY --from=build /out/shop /usr/local/bin/
USER shop
EXPOSE 8080
CMD ["shop"]
"#;

/// A farm with native workers, and one that emulates arm64; none if this machine cannot.
fn farm() -> Option<(Farm, &'static Path)> {
    let root = match arm64::root() {
        Ok(root) => root,
        Err(missing) => {
            cannot_run(&missing);
            return None;
        }
    };
    let farm = Farm::with(&["--allow-registry", "127.0.0.0/8"], &["one", "two"]);
    farm.start_worker_with("emulated", &["--root", root.to_str().unwrap()]);
    farm.wait_for_worker("emulated");
    Some((farm, root))
}

fn build(farm: &Farm, dir: &Path, line: &[&str]) -> Ran {
    let mut command = farm.command(&[&["docker", "build", "--progress", "plain"], &BOTH[..], line].concat());
    command.current_dir(dir);
    well(command.into())
}

/// The platforms of an image's index.
fn platforms(name: &str) -> Vec<String> {
    let at = format!("docker://{name}");
    let raw = output("skopeo", &["inspect", "--tls-verify=false", "--raw", &at], Path::new("/"));
    let index: Value = serde_json::from_str(&raw).unwrap();
    let all = index["manifests"].as_array().unwrap().iter();
    let mut names: Vec<String> = all
        .map(|one| format!("{}/{}", one["platform"]["os"], one["platform"]["architecture"]).replace('"', ""))
        .filter(|name| name != "unknown/unknown")
        .collect();
    names.sort();
    names
}

/// What Docker's container of an image prints, for a platform.
fn runs(docker: &Engine, name: &str, platform: &str, arguments: &[&str]) -> String {
    docker.ok(&["pull", "--quiet", "--platform", platform, name]);
    docker.ok(&[&["run", "--rm", "--network", "none", "--platform", platform, name], arguments].concat())
}

#[test]
fn a_program_is_compiled_natively_for_each_platform_and_its_caches_stay_warm() {
    let Some((farm, root)) = farm() else { return };
    let Some(amd64) = busybox_tar() else { return };
    let Some(registry) = Registry::start() else { return cannot_run("docker-registry") };
    let Some(docker) = Engine::bare() else { return };
    let arm64 = arm64_tar(root);
    let dir = project(&[
        ("app/Dockerfile", DOCKERFILE),
        ("app/a.go", "#!/bin/sh\n"),
        ("app/main.go", "echo shop for ARCH\n"),
        ("app/go.mod", "greet\n"),
        ("proxy/greet", "echo hello\n"),
        ("toolchain/go", STAND_IN),
    ]);
    layout_of_several(&[("amd64", &[amd64.path()]), ("arm64", &[arm64.path()])], &dir.path().join("base"));
    let name = format!("{}/team/shop:1", registry.name);
    let line = [
        "--build-context=base=oci-layout://base",
        "--build-context=proxy=proxy",
        "--build-context=toolchain=toolchain",
        "-t",
        &name,
        "--push",
        "app",
    ];
    let first = build(&farm, dir.path(), &line);
    let count = |ran: &Ran, words: &str| ran.err.lines().filter(|line| line.contains(words)).count();
    // Both platforms need the same, and both follow the step that fetches it.
    assert!((1..=2).contains(&count(&first, "downloading greet")), "{}", first.err);
    for what in ["a.go for amd64", "main.go for amd64", "greet for amd64", "a.go for arm64", "main.go for arm64"] {
        assert_eq!(count(&first, &format!("compiling {what}")), 1, "{what}: {}", first.err);
    }
    assert_eq!(platforms(&name), ["linux/amd64", "linux/arm64"]);
    for (platform, said) in [("linux/amd64", "shop for amd64\nhello"), ("linux/arm64", "shop for arm64\nhello")] {
        assert_eq!(runs(&docker, &name, platform, &[]), said);
    }
    write(dir.path(), "app/main.go", "echo store for ARCH\n");
    let edited = build(&farm, dir.path(), &line);
    assert_eq!(count(&edited, "downloading"), 0, "{}", edited.err);
    assert_eq!((count(&edited, "compiling"), count(&edited, "compiling main.go")), (2, 2), "{}", edited.err);
    assert_eq!(runs(&docker, &name, "linux/arm64", &[]), "store for arm64\nhello");
}

#[test]
fn another_platform_needs_a_worker_of_it_only_for_commands() {
    let text = "FROM --platform=$BUILDPLATFORM base AS build\nARG BUILDARCH TARGETARCH\n\
                RUN test \"$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')\" = $BUILDARCH && echo \"for $TARGETARCH\" > /made\n\
                FROM scratch AS files\nCOPY --from=build /made /\n\
                FROM --platform=$TARGETPLATFORM base\nRUN true\n";
    let Some(project) = crate::Project::new(text, &[]) else { return };
    let farm = Farm::shared();
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let platform = format!("linux/{other}");
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display().to_string();
    project.well(farm, &["--platform", &platform, "--target", "files", "-o", &to, "."]);
    assert_eq!(std::fs::read_to_string(out.path().join("made")).unwrap(), format!("for {other}\n"));
    let refused = project.build(farm, &["--platform", &platform, "."]);
    assert!(refused.code != 0 && refused.err.contains(&platform), "the base is for one platform: {refused:?}");
}

mod long {
    use std::time::Instant;

    use kiln_harness::bases::{debian_of_both, go};
    use kiln_harness::{find, unpack, until};

    use super::*;

    /// What teams call `golang`, made by Kiln for both platforms.
    const GOLANG: &str = r#"FROM debian:12
COPY --from=toolchain / /usr/local/go/
ENV GOTOOLCHAIN=local GOPATH=/go PATH=/go/bin:/usr/local/go/bin:$PATH
RUN mkdir -p /go/src /go/bin && chmod -R 1777 /go && go version | grep "linux/$(dpkg --print-architecture)"
WORKDIR /go
"#;

    const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.27 AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOPROXY=file:///proxy GOSUMDB=off
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=from=proxy,target=/proxy go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags=-s -o /out/shop .

FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --no-create-home shop
COPY --from=build /out/shop /usr/local/bin/shop
USER shop
EXPOSE 8080
ENTRYPOINT ["tini", "--"]
CMD ["shop"]
"#;

    const MAIN: &str = r#"package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"

	"example.org/greet"
)

func main() {
	said := fmt.Sprintf("%s from %s as %d", greet.To("shop"), runtime.GOARCH, os.Getuid())
	if len(os.Args) > 1 {
		fmt.Println(said)
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, said) })
	if err := http.ListenAndServe(os.Getenv("ADDRESS"), nil); err != nil {
		panic(err)
	}
}
"#;

    /// Writes a module into a proxy of files, as Go's module proxies have it.
    const PROXY: &str = r#"
import os, sys, zipfile
module, version = "example.org/greet", "v1.2.0"
place = os.path.join(sys.argv[1], module, "@v")
os.makedirs(place)
files = {
    "go.mod": "module example.org/greet\n\ngo 1.19\n",
    "greet.go": "package greet\n\n// To greets.\nfunc To(name string) string { return \"hello \" + name }\n",
}
with zipfile.ZipFile(os.path.join(place, version + ".zip"), "w") as archive:
    for name, text in files.items():
        archive.writestr(f"{module}@{version}/{name}", text)
for name, text in {".info": '{"Version":"v1.2.0"}', ".mod": files["go.mod"]}.items():
    open(os.path.join(place, version + name), "w").write(text)
open(os.path.join(place, "list"), "w").write(version + "\n")
"#;

    /// The project, its proxy beside it, and `go.sum` as Go writes it.
    fn shop() -> tempfile::TempDir {
        let dir = project(&[
            ("app/Dockerfile", DOCKERFILE),
            ("app/main.go", MAIN),
            ("app/go.mod", "module example.org/shop\n\ngo 1.19\n\nrequire example.org/greet v1.2.0\n"),
            ("golang/Dockerfile", GOLANG),
        ]);
        let at = |path: &str| dir.path().join(path).display().to_string();
        output("python3", &["-c", PROXY, &at("proxy")], dir.path());
        let cache = tempfile::tempdir().unwrap();
        let tidied = std::process::Command::new("go")
            .args(["mod", "tidy"])
            .current_dir(dir.path().join("app"))
            .env("GOPROXY", format!("file://{}", at("proxy")))
            .envs([("GOSUMDB", "off"), ("GOFLAGS", "-modcacherw -mod=mod"), ("GO111MODULE", "on")])
            .env("GOPATH", cache.path())
            .env("GOCACHE", cache.path().join("build"))
            .output()
            .unwrap();
        assert!(tidied.status.success(), "{}", String::from_utf8_lossy(&tidied.stderr));
        dir
    }

    /// What the server in a container answers.
    fn served(docker: &Engine, name: &str, platform: &str) -> String {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        docker.ok(&["pull", "--quiet", "--platform", platform, name]);
        let variable = format!("ADDRESS={address}");
        let line = ["run", "--detach", "--network", "host", "--platform", platform, "--env", &variable, name];
        let container = docker.ok(&line);
        until("the server to listen", || {
            assert_eq!(docker.ok(&["inspect", "--format", "{{.State.Running}}", &container]), "true", "it has ended");
            std::net::TcpStream::connect(&address).ok()
        });
        let (status, body) = kiln_harness::http::get(&address, "/");
        docker.ok(&["rm", "--force", &container]);
        assert_eq!(status, 200, "{body}");
        body.trim().to_owned()
    }

    #[test]
    #[ignore = "makes two Debians, and compiles for two architectures"]
    fn the_image_of_a_go_program_runs_on_both_architectures() {
        let Some((farm, _)) = farm() else { return };
        let (Some(debian), Some(amd64), Some(arm64)) = (debian_of_both(), go("amd64"), go("arm64")) else { return };
        let Some(registry) = Registry::start() else { return cannot_run("docker-registry") };
        let Some(docker) = Engine::bare() else { return };
        let dir = shop();
        let debian = format!("--build-context=debian:12=oci-layout://{}", debian.display());
        let golang = format!("{}/library/golang:1.27", registry.name);
        let of = |architecture: &str, place: &Path| {
            format!("--build-context=toolchain::linux/{architecture}={}", place.display())
        };
        let (of_amd64, of_arm64) = (of("amd64", &amd64), of("arm64", &arm64));
        build(&farm, dir.path(), &[&debian, &of_amd64, &of_arm64, "-t", &golang, "--push", "golang"]);
        assert_eq!(platforms(&golang), ["linux/amd64", "linux/arm64"]);

        let name = format!("{}/team/shop:1", registry.name);
        let golang = format!("--build-context=golang:1.27=docker-image://{golang}");
        let line = [debian.as_str(), &golang, "--build-context=proxy=proxy", "-t", &name, "--push", "app"];
        let began = Instant::now();
        build(&farm, dir.path(), &line);
        let cold = began.elapsed();
        assert_eq!(platforms(&name), ["linux/amd64", "linux/arm64"]);
        for architecture in ["amd64", "arm64"] {
            let said = served(&docker, &name, &format!("linux/{architecture}"));
            assert_eq!(said, format!("hello shop from {architecture} as 10001"));
        }

        // The same image is the root of a step.
        let config = format!(
            "name = \"check\"\nversion = \"1\"\n[steps.check]\nimage = \"{name}\"\n\
             run = \"(shop --print; dpkg --print-architecture; tini --version) > said\"\noutputs = [\"said\"]\n\
             [artifacts.check]\nfrom = \"check\"\nfiles = [\"said\"]\nkind = \"archive\"\n"
        );
        let check = project(&[("kiln.toml", &config)]);
        farm.build(check.path(), &[&BOTH[..], &["--allow-emulation", "--executor", "sandbox"]].concat()).well();
        for architecture in ["amd64", "arm64"] {
            let unpacked = unpack(&check.path().join(format!("kiln-out/linux-{architecture}")));
            let said = std::fs::read_to_string(find(unpacked.path(), "said").unwrap()).unwrap();
            let wanted = format!("hello shop from {architecture} as 1000\n{architecture}\ntini version");
            assert!(said.starts_with(&wanted), "expected `{wanted}` in: {said}");
        }

        // An edit is compiled with what is in the caches, and nothing else runs again.
        write(dir.path(), "app/main.go", &MAIN.replace("%s from", "%s again from"));
        let began = Instant::now();
        let edited = build(&farm, dir.path(), &line);
        eprintln!("all anew: {cold:.1?}; after an edit, for both platforms: {:.1?}", began.elapsed());
        assert!(!edited.err.contains("| Get:") && !edited.err.contains("downloading example.org"), "{}", edited.err);
        assert_eq!(runs(&docker, &name, "linux/amd64", &["shop", "--print"]), "hello shop again from amd64 as 10001");
    }
}
