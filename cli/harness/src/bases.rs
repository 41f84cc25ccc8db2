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

fn make_debian(to: &Path) -> Option<()> {
    if !nix::unistd::geteuid().is_root() {
        cannot_run("`mmdebstrap` needs root here");
        return None;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=apt", "--format=tar", "--include", PACKAGES, "bookworm"]).arg(to);
    match command.env("SOURCE_DATE_EPOCH", "946684800").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => cannot_run(&format!("`mmdebstrap`: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => cannot_run(&format!("`mmdebstrap`: {error}")),
    }
    None
}

/// The same as an OCI layout with the tag `12`.
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
    std::fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    let mut added = Vec::new();
    for tar in tars {
        let packed = to.join("packed");
        let mut file = std::fs::File::create(&packed).unwrap();
        let layer = compress(&mut std::fs::File::open(tar).unwrap(), &mut file, Compression::Gzip).unwrap();
        std::fs::rename(packed, to.join(layout::blob_path(&layer.descriptor.digest))).unwrap();
        added.push(Added { layer, by: "mmdebstrap".into() });
    }
    let path = ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let settings = Settings { env: [path].into(), ..Settings::default() };
    let platform = Platform::linux(architecture);
    let image = assemble(None, &platform, &settings, &added, &Origin::default());
    for (path, document) in layout::files(&[image], "12") {
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
    let program = std::fs::read(busybox).unwrap();
    let mut file = |path: &str, mode, data: &[u8]| {
        archive.append_data(&mut header(tar::EntryType::Regular, mode, data.len() as u64), path, data).unwrap();
    };
    file("bin/busybox", 0o755, &program);
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\n");
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap();
    Some(beside)
}
