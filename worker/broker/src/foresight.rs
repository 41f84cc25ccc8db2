//! Which files of the step's own making a call may need, before it runs.
//!
//! Too many cost time, and too few a call that ran in vain: what it saw is compared afterwards. A step that has made few files gives all
//! that compilers read; otherwise the scanner finds what a C or C++ source may include.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_calls::manifest::Variant;
use kiln_calls::{Call, Details, SystemSearch};
use kiln_executor::calls::Begun;
use tokio_util::sync::CancellationToken;

use super::area::Area;
use super::cell::Needs;
use super::step::{Step, driver};
use super::view::View;

/// Largest file of the step's own making that calls get without having asked for it.
const MAX_OWN_BYTES: u64 = 4 << 20;
/// Maximum number of such files.
const MAX_OWN_FILES: usize = 4000;
/// Where a step has made more entries than this, they are not listed for each call if there is another way.
const FEW: usize = 400;
/// Extensions of what steps make in numbers and compilers do not read.
const MADE: [&str; 14] = ["o", "lo", "a", "la", "so", "d", "Po", "Plo", "Tpo", "dwo", "gcno", "gcda", "rlib", "rmeta"];
/// The variable with which cargo names the directory of a package.
const PACKAGE: &str = "CARGO_MANIFEST_DIR";
/// Variables that add to where headers are looked for.
const SEARCHED: [&str; 5] =
    ["CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH"];

impl Step {
    /// What a call may need; `nearest` is what a call like it read before. A driver that has not been asked yet is asked once where it looks.
    pub(super) async fn needs(
        self: &Arc<Self>,
        begun: &Begun,
        view: &Arc<View>,
        call: &Call,
        nearest: Option<&Variant>,
        cancel: &CancellationToken,
    ) -> Needs {
        let (written, area) = (begun.written.clone(), view.area());
        let listed = tokio::task::spawn_blocking(move || {
            let mut found = Listed { files: Vec::new(), left: FEW, area };
            found.add(&written, area.path()).then_some(found.files)
        });
        let few = listed.await.ok().flatten();
        let found = match few {
            Some(few) => few,
            None => match self.scanned(begun, view, call, cancel).await {
                Some(scanned) => scanned,
                None => {
                    let mut all = Listed { files: Vec::new(), left: usize::MAX, area };
                    all.add(&begun.written, area.path());
                    all.files
                }
            },
        };
        let is_own = |path: &PathBuf| {
            let below = area.below(path);
            below.is_some_and(|below| begun.written.join(below).symlink_metadata().is_ok())
        };
        let mut needs: BTreeSet<PathBuf> = found.into_iter().filter(is_own).collect();
        let read = nearest.into_iter().flat_map(|variant| variant.read.keys());
        let named = call.inputs.iter().map(|input| &input.path).chain([&call.source]);
        needs.extend(read.chain(named).filter(|path| is_own(path)).cloned());
        needs.extend(of_rust(begun, area, call));
        needs.extend(self.learned().into_iter().filter(is_own));
        needs.retain(|path| !call.outputs.iter().any(|output| output.absolute == *path));
        unlinked(needs, view, &begun.written)
    }

    /// All that the source may include; none if that cannot be told.
    async fn scanned(
        self: &Arc<Self>,
        begun: &Begun,
        view: &Arc<View>,
        call: &Call,
        cancel: &CancellationToken,
    ) -> Option<Vec<PathBuf>> {
        if !matches!(call.details, Details::C(_)) {
            return None;
        }
        let system = self.searched_by_driver(begun, view, call, cancel).await?;
        let (step, view, call) = (self.clone(), view.clone(), call.clone());
        let scan = move || {
            let scanned = step.shared.scanner.scan(&call, &system, &*view);
            let scanned = scanned.inspect_err(|why| tracing::debug!(%why, "cannot tell what a call includes"));
            scanned.map(|variant| variant.read.into_keys().collect()).ok()
        };
        tokio::task::spawn_blocking(scan).await.ok()?
    }

    /// Where the compiler itself looks for headers.
    async fn searched_by_driver(
        self: &Arc<Self>,
        begun: &Begun,
        view: &Arc<View>,
        call: &Call,
        cancel: &CancellationToken,
    ) -> Option<SystemSearch> {
        let (driver, question) = (driver(call, view).ok()?, kiln_calls::search_query(call));
        let answer = match self.shared.drivers.known(driver, &question) {
            Some(answer) => answer,
            None => {
                let mut asking = call.clone();
                SEARCHED.iter().for_each(|name| drop(asking.environment.remove(OsStr::new(name))));
                let answer = self.cell(begun, view.clone()).ask(&asking, &question, cancel.clone()).await.ok()?;
                self.shared.drivers.remember(driver, question, answer.clone());
                answer
            }
        };
        Some(kiln_calls::search_directories(&answer))
    }
}

/// The same needs as links, and files at places on which no link lies.
fn unlinked(paths: BTreeSet<PathBuf>, view: &View, written: &Path) -> Needs {
    let mut needs = Needs::default();
    let is_own = |link: &Path| view.area().below(link).is_some_and(|below| written.join(below).is_symlink());
    for path in paths {
        let (place, links) = view.followed(&path);
        needs.files.extend(place);
        needs.links.extend(links.into_iter().filter(|(link, _)| is_own(link)));
    }
    needs
}

/// The files and symbolic links below the directory to which a step writes, as the step calls them, but those that compilers do not read.
struct Listed {
    files: Vec<PathBuf>,
    /// How many more entries may be looked at.
    left: usize,
    area: Area,
}

impl Listed {
    /// Whether all could be listed.
    fn add(&mut self, directory: &Path, at: &Path) -> bool {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if self.left == 0 || self.files.len() >= MAX_OWN_FILES {
                return false;
            }
            self.left -= 1;
            let (at, name) = (at.join(entry.file_name()), entry.file_name());
            if !self.area.has(&at) {
                continue;
            }
            let is_small = || entry.metadata().is_ok_and(|data| data.len() <= MAX_OWN_BYTES);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !self.add(&entry.path(), &at) => return false,
                Ok(kind) if kind.is_file() && !is_made(&name) && is_small() => self.files.push(at),
                Ok(kind) if kind.is_symlink() => self.files.push(at),
                _ => {}
            }
        }
        true
    }
}

/// What a call of rustc may need of the step's own making: crates, and what build scripts left.
fn of_rust(begun: &Begun, area: Area, call: &Call) -> Vec<PathBuf> {
    let Details::Rust(details) = &call.details else { return Vec::new() };
    let mut found = Vec::new();
    let mut all_of = |directory: &PathBuf, wanted: &dyn Fn(&OsStr) -> bool, is_deep: bool| {
        if let Some(below) = area.below(directory) {
            all_below(&begun.written.join(below), directory, is_deep, wanted, &mut found);
        }
    };
    let is_crate = |name: &OsStr| match Path::new(name).extension().and_then(OsStr::to_str) {
        Some("rmeta" | "so") => true,
        Some("rlib") => details.needs_code(),
        _ => false,
    };
    details.dependency_directories.iter().for_each(|directory| all_of(directory, &is_crate, false));
    details.native_directories.iter().for_each(|directory| all_of(directory, &|_| true, true));
    details.out_dir.iter().for_each(|directory| all_of(directory, &|_| true, true));
    // Sources that the step has fetched itself.
    let package = call.environment.get(OsStr::new(PACKAGE)).map(PathBuf::from);
    // Not the project's own, in which the step makes everything else.
    let is_apart = |package: &&PathBuf| !call.outputs.iter().any(|output| output.absolute.starts_with(package));
    package.iter().filter(is_apart).for_each(|directory| all_of(directory, &|_| true, true));
    found
}

fn all_below(directory: &Path, at: &Path, is_deep: bool, wanted: &dyn Fn(&OsStr) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (at, name) = (at.join(entry.file_name()), entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && is_deep => all_below(&entry.path(), &at, is_deep, wanted, found),
            Ok(kind) if kind.is_file() && wanted(&name) => found.push(at),
            _ => {}
        }
    }
}

fn is_made(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| MADE.contains(&extension))
}
