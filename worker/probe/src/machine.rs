//! Facts about the machine itself.
//!
//! Sources: os-release(5); the x86-64 psABI's micro-architecture levels.

use std::fs;
use std::process::Command;

use kiln_proto::digest::DigestFunction;
use kiln_proto::v1;

/// `ID:VERSION_ID` from os-release; without a version its code name, or only the ID.
pub(super) fn os() -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    os_of(&text.unwrap_or_default())
}

pub(super) fn os_of(text: &str) -> String {
    let value = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let id = value("ID").unwrap_or_else(|| "linux".to_owned());
    match value("VERSION_ID").or_else(|| value("VERSION_CODENAME")) {
        Some(version) => format!("{id}:{version}"),
        None => id,
    }
}

/// Such as `glibc:2.36` or `musl:1.2.4`; empty if neither is found.
pub(super) fn libc() -> String {
    let said = |program: &str, argument: &str| {
        Command::new(program).arg(argument).output().map(|output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })
    };
    if let Some(version) =
        said("getconf", "GNU_LIBC_VERSION").ok().and_then(|text| text.trim().strip_prefix("glibc ").map(str::to_owned))
    {
        return format!("glibc:{version}");
    }
    libc_of(&said("ldd", "--version").unwrap_or_default())
}

pub(super) fn libc_of(ldd: &str) -> String {
    let first = ldd.lines().next().unwrap_or_default();
    if first.contains("musl") {
        let version = ldd.lines().find_map(|line| line.strip_prefix("Version "));
        return format!("musl:{}", version.unwrap_or("unknown").trim());
    }
    match first.rsplit(' ').next().filter(|last| last.starts_with(|c: char| c.is_ascii_digit())) {
        Some(version) => format!("glibc:{version}"),
        None => String::new(),
    }
}

/// REAPI's name for the instruction set.
pub(super) fn isa() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        "aarch64" => "arm-a64",
        other => other,
    }
    .to_owned()
}

const V2: &[&str] = &["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"];
const V3: &[&str] = &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"];
const V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/// Such as `x86-64-v3` or `armv8`.
pub(super) fn cpu_level() -> String {
    match std::env::consts::ARCH {
        "x86_64" => x86_level(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        "aarch64" => "armv8".to_owned(),
        other => other.to_owned(),
    }
}

/// The lines of `/proc/cpuinfo` that determine what a compiler does for `-march=native`.
const CPU_FIELDS: [&str; 11] = [
    "vendor_id",
    "cpu family",
    "model",
    "stepping",
    "cache size",
    "flags",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
];

/// The CPU's name and a digest over its model and features, such as `AMD EPYC 7B13 6c2a…`.
pub(super) fn cpu() -> String {
    cpu_of(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn cpu_of(cpuinfo: &str) -> String {
    // Each CPU has its own paragraph; a machine with two kinds of CPU includes both in the digest.
    let value = |paragraph: &str, wanted: &str| {
        let found = paragraph.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == wanted);
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let of = |paragraph: &str| CPU_FIELDS.map(|field| value(paragraph, field)).join("\n");
    let kinds: std::collections::BTreeSet<String> =
        cpuinfo.split("\n\n").map(of).filter(|kind| !kind.trim().is_empty()).collect();
    let text: Vec<String> = kinds.into_iter().collect();
    let digest = DigestFunction::Sha256.digest(text.join("\n\n").as_bytes()).hex()[..12].to_owned();
    let name = value(cpuinfo, "model name");
    [name.as_str(), digest.as_str()].join(" ").trim().to_owned()
}

/// The level that every machine of an instruction set has.
pub(super) fn least_level(isa: &str) -> String {
    match isa {
        "x86-64" => "x86-64-v1",
        "arm-a64" => "armv8",
        other => other,
    }
    .to_owned()
}

fn x86_level(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let flags: std::collections::HashSet<&str> = flags.split_whitespace().collect();
    let has = |wanted: &[&str]| wanted.iter().all(|flag| flags.contains(flag));
    let level = [V2, V3, V4].iter().take_while(|wanted| has(wanted)).count() + 1;
    format!("x86-64-v{level}")
}

/// CPUs and memory that this worker offers: the given values, or else the machine's within its control groups' limits.
pub fn capacity(cpus: Option<f64>, memory: Option<u64>) -> v1::Capacity {
    let available = || std::thread::available_parallelism().map_or(1.0, |cpus| usize::from(cpus) as f64);
    v1::Capacity {
        milli_cpus: (cpus.unwrap_or_else(available) * 1000.0) as u32,
        memory_bytes: memory.unwrap_or_else(memory_bytes),
    }
}

/// The memory of the machine or its control group, minus a tenth for the system and the worker itself.
fn memory_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let machine = total.map_or(1 << 30, |kib| kib * 1024);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).min();
    let usable = machine.min(limit.unwrap_or(u64::MAX));
    usable - usable / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_a_version() {
        assert_eq!(os_of("ID=debian\nVERSION_ID=\"12\"\n"), "debian:12");
        assert_eq!(os_of("ID=debian\nVERSION_CODENAME=trixie\n"), "debian:trixie");
        assert_eq!(os_of("ID=arch\n"), "arch");
    }

    #[test]
    fn libc_is_told_from_what_ldd_says() {
        assert_eq!(libc_of("ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nmore"), "glibc:2.36");
        assert_eq!(libc_of("musl libc (x86_64)\nVersion 1.2.4\n"), "musl:1.2.4");
        assert_eq!(libc_of("ldd: unknown option"), "");
    }

    #[test]
    fn a_cpu_level_needs_all_of_its_flags_and_those_below() {
        let flags = |sets: &[&[&str]]| format!("flags\t\t: {}\n", sets.concat().join(" "));
        assert_eq!(x86_level(&flags(&[])), "x86-64-v1");
        assert_eq!(x86_level(&flags(&[V2, V3])), "x86-64-v3");
        assert_eq!(x86_level(&flags(&[V2, V4])), "x86-64-v2");
        assert_eq!(x86_level(&flags(&[V2, V3, V4])), "x86-64-v4");
    }

    #[test]
    fn another_feature_is_another_cpu_and_another_frequency_is_not() {
        let cpuinfo = |mhz: u32, flags: &str| {
            let one = format!("vendor_id\t: X\nmodel name\t: X 1\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\n");
            one.repeat(2)
        };
        assert_eq!(cpu_of(&cpuinfo(1000, "avx")), cpu_of(&cpuinfo(2000, "avx")));
        assert_ne!(cpu_of(&cpuinfo(1000, "avx")), cpu_of(&cpuinfo(1000, "avx avx2")));
        assert!(cpu_of(&cpuinfo(1000, "avx")).starts_with("X 1 "));
    }
}
