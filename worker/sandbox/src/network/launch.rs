//! The process that becomes a step's user and then the program that connects the step's network.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use kiln_kernel::userns;

/// The name (`argv[0]`) under which this program becomes the one that connects a network.
const LAUNCHER: &str = "kiln-sandbox-network";
/// Device number of `/dev/net/tun` (`Documentation/networking/tuntap.rst`).
const TUN: (u64, u64) = (10, 200);

/// A command that becomes this user and then executes the program.
pub(super) fn by(init: &Path, user: u32, program: &Path) -> Command {
    let mut command = Command::new(init);
    command.arg0(LAUNCHER).arg(user.to_string()).arg(program);
    command
}

pub(super) fn tun_is_public() -> bool {
    fs::metadata("/dev/net/tun").is_ok_and(|data| data.mode() & 0o006 == 0o006)
}

/// If this process was started to become `pasta`, does that and never returns.
pub(crate) fn become_launcher_if_asked() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != LAUNCHER) {
        return;
    }
    let user = arguments.next().and_then(|user| user.to_str()?.parse().ok());
    let (Some(user), Some(program)) = (user, arguments.next()) else { std::process::exit(2) };
    if let Err(error) = become_maker(user) {
        eprintln!("cannot prepare a network: {error}");
        std::process::exit(1);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("cannot start the network program: {error}");
    std::process::exit(1);
}

/// Becomes a user who can create interfaces in its own namespaces.
pub(super) fn become_maker(user: u32) -> nix::Result<()> {
    private_tun()?;
    userns::become_user(user)
}

/// If only root may create interfaces, gives this process a private device for it.
fn private_tun() -> nix::Result<()> {
    if tun_is_public() {
        return Ok(());
    }
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let directory = Path::new("/dev/net");
    if !directory.is_dir() {
        fs::create_dir(directory).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))?;
    }
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755"))?;
    let tun = directory.join("tun");
    mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(TUN.0, TUN.1))?;
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&tun, mode).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))
}
