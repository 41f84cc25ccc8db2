//! Checks that an artifact's executables will run on the target.
//!
//! For each ELF file of the artifact: its machine must be the target's, the newest GLIBC symbol version it requires
//! must not be newer than the target's, and each shared library it needs must be in the artifact or on the target.
//! Sources: System V ABI (ELF header, dynamic section), the LSB's "Symbol Versioning".

use std::collections::BTreeSet;

use kiln_planner::plan::{Platform, Target};
use object::elf;
use object::read::elf::{Dyn, ElfFile32, ElfFile64, FileHeader, VerneedIterator};
use object::{Endianness, Object};
use serde::{Deserialize, Serialize};

/// What an ELF file requires of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wants {
    /// `e_machine`.
    pub machine: u16,
    /// Shared libraries by name.
    pub needed: Vec<String>,
    /// Required GLIBC symbol versions, each with a symbol that requires it if one is known.
    pub glibc: Vec<((u32, u32), Option<String>)>,
}

/// Whether a file starts like an ELF file.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(&elf::ELFMAG)
}

/// Reads the requirements of an ELF file; the error says why it is not one.
pub fn read(data: &[u8]) -> Result<Wants, String> {
    let bad = |error: object::Error| error.to_string();
    match data.get(4) {
        Some(class) if *class == elf::ELFCLASS64 => {
            wants(&ElfFile64::<Endianness>::parse(data).map_err(bad)?).map_err(bad)
        }
        Some(class) if *class == elf::ELFCLASS32 => {
            wants(&ElfFile32::<Endianness>::parse(data).map_err(bad)?).map_err(bad)
        }
        _ => Err("its class is neither 32 nor 64 bits".to_owned()),
    }
}

fn wants<'data, Elf: FileHeader<Endian = Endianness>>(
    file: &object::read::elf::ElfFile<'data, Elf>,
) -> Result<Wants, object::Error> {
    let endian = file.endian();
    let data = file.data();
    let mut wants = Wants { machine: file.raw_header().e_machine(endian), ..Wants::default() };
    let sections = file.raw_header().sections(endian, data)?;
    if let Some((dynamic, strings)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        for entry in dynamic {
            if entry.tag32(endian) == Some(elf::DT_NEEDED) {
                let name = entry.string(endian, strings)?;
                wants.needed.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    let Some((verneed, link)) = sections.gnu_verneed(endian, data)? else { return Ok(wants) };
    let strings = sections.strings(endian, data, link)?;
    let mut indices: Vec<(u16, (u32, u32))> = Vec::new();
    let mut needs: VerneedIterator<'_, Elf> = verneed;
    while let Some((_, mut auxiliaries)) = needs.next()? {
        while let Some(auxiliary) = auxiliaries.next()? {
            let name = auxiliary.name(endian, strings)?;
            if let Some(version) = glibc_version(&String::from_utf8_lossy(name)) {
                indices.push((auxiliary.vna_other.get(endian), version));
            }
        }
    }
    let versions = sections.gnu_versym(endian, data)?;
    for (index, version) in indices {
        let symbol = versions.and_then(|(versym, _)| {
            let at = versym.iter().position(|entry| entry.0.get(endian) & 0x7fff == index)?;
            use object::ObjectSymbol;
            file.dynamic_symbols()
                .find(|symbol| symbol.index().0 == at)
                .and_then(|symbol| symbol.name().ok().map(str::to_owned))
        });
        wants.glibc.push((version, symbol));
    }
    Ok(wants)
}

fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
    Some((major, minor))
}

fn machine_name(machine: u16) -> String {
    match machine {
        elf::EM_X86_64 => "x86-64".to_owned(),
        elf::EM_AARCH64 => "arm64".to_owned(),
        elf::EM_386 => "x86 (32 bits)".to_owned(),
        elf::EM_ARM => "arm (32 bits)".to_owned(),
        elf::EM_RISCV => "RISC-V".to_owned(),
        other => format!("machine {other}"),
    }
}

/// The environment in which files will run.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The target, for its machine and its name.
    pub target: &'a Target,
    /// The newest GLIBC symbol version there.
    pub glibc: Option<(u32, u32)>,
    /// Names of available shared libraries: in the artifact, and on the target.
    pub libraries: [&'a BTreeSet<String>; 2],
    /// The message for a library that is not among them.
    pub lacking: &'a str,
}

/// Why a file would not run; empty if it would.
pub fn objections(path: &str, wants: &Wants, ground: &Ground<'_>) -> Vec<String> {
    let target = ground.target;
    let mut found = Vec::new();
    let machine = match target.platform {
        Platform::Amd64 => elf::EM_X86_64,
        Platform::Arm64 => elf::EM_AARCH64,
    };
    if wants.machine != machine {
        let (is, wanted) = (machine_name(wants.machine), target.platform);
        found.push(format!("`{path}` is for {is}; target `{}` is {wanted}", target.name));
    }
    if let (Some(most), Some((version, symbol))) =
        (ground.glibc, wants.glibc.iter().max_by_key(|(version, _)| *version))
        && *version > most
    {
        let symbol = symbol.as_ref().map_or(String::new(), |symbol| format!(" for symbol `{symbol}`"));
        found.push(format!(
            "`{path}` requires GLIBC_{}.{}{symbol} from `libc.so.6`; target `{}` has {}.{} (build it on an older system, or raise `glibc`)",
            version.0, version.1, target.name, most.0, most.1
        ));
    }
    for library in &wants.needed {
        if !ground.libraries.iter().any(|there| there.contains(library)) {
            found.push(format!("`{path}` needs the shared library `{library}`, {}", ground.lacking));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(glibc: Option<(u32, u32)>, platform: Platform) -> Target {
        Target { name: "prod".into(), glibc, ..Target::bare(platform) }
    }

    /// This test's own executable is a real ELF file of the machine at hand.
    fn own() -> Wants {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_elf(&data));
        read(&data).unwrap()
    }

    fn objections(path: &str, wants: &Wants, target: &Target, carried: &BTreeSet<String>) -> Vec<String> {
        let own = target.libraries.iter().cloned().collect();
        let ground = Ground { target, glibc: target.glibc, libraries: [carried, &own], lacking: "which is nowhere" };
        super::objections(path, wants, &ground)
    }

    fn here() -> (Platform, Platform) {
        if cfg!(target_arch = "x86_64") {
            (Platform::Amd64, Platform::Arm64)
        } else {
            (Platform::Arm64, Platform::Amd64)
        }
    }

    #[test]
    fn a_file_of_this_machine_runs_here_and_not_on_the_other() {
        let wants = own();
        assert!(wants.needed.iter().any(|library| library == "libc.so.6"), "{wants:?}");
        assert_eq!(objections("own", &wants, &target(Some((9, 0)), here().0), &BTreeSet::new()), Vec::<String>::new());
        let other = objections("own", &wants, &target(None, here().1), &BTreeSet::new());
        assert!(other[0].contains("`own`") && other[0].contains("prod"), "{other:?}");
    }

    #[test]
    fn too_new_a_symbol_is_named_with_its_version() {
        let objections = objections("own", &own(), &target(Some((2, 1)), here().0), &BTreeSet::new());
        assert!(objections[0].contains("GLIBC_2.") && objections[0].contains("symbol `"), "{objections:?}");
    }

    #[test]
    fn a_library_that_is_nowhere_is_named_and_one_in_the_artifact_is_not() {
        let wants = Wants { needed: vec!["libpq.so.5".into()], ..own() };
        let target = target(None, here().0);
        let missing = objections("bin/shop", &wants, &target, &BTreeSet::new());
        assert!(missing[0].contains("libpq.so.5") && missing[0].contains("bin/shop"), "{missing:?}");
        assert!(objections("bin/shop", &wants, &target, &BTreeSet::from(["libpq.so.5".to_owned()])).is_empty());
    }
}
