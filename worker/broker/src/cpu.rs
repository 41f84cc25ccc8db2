//! What `-C target-cpu=native` of rustc stands for on this machine.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use kiln_proto::digest::{Digest, DigestFunction};

/// What of a processor decides the code for it: its model, by which LLVM chooses names and costs, and everything that it can do. Others, such
/// as its frequency, change from one moment to the next.
const FIELDS: [&str; 12] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "CPU revision",
];

/// What tells this machine's processors from others; none if the kernel does not say.
pub(super) fn identity() -> Option<Digest> {
    static IDENTITY: OnceLock<Option<Digest>> = OnceLock::new();
    *IDENTITY.get_or_init(|| of(&std::fs::read_to_string("/proc/cpuinfo").ok()?))
}

/// The identity in the kernel's words, whichever processor comes first and however many there are.
fn of(text: &str) -> Option<Digest> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let known = lines.map(|(name, value)| (name.trim(), value.trim())).filter(|(name, _)| FIELDS.contains(name));
    let known: BTreeSet<String> = known.map(|(name, value)| format!("{name}={value}")).collect();
    let has_features = known.iter().any(|field| field.starts_with("flags=") || field.starts_with("Features="));
    let text: Vec<String> = known.into_iter().collect();
    has_features.then(|| DigestFunction::Sha256.digest(text.join("\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_what_it_can_do_and_not_how_fast_it_is_now() {
        let one = "processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: 1000.0\nflags\t\t: sse avx\n\n";
        let busy = one.replace("1000.0", "3500.0");
        let two = format!("{one}{}", one.replace(": 0", ": 1"));
        let other = one.replace("avx", "avx avx2");
        let older = one.replace(": X", ": W");
        assert!(of(one).is_some() && of(one) == of(&busy) && of(one) == of(&two));
        assert!(of(one) != of(&other) && of(one) != of(&older));
        assert_eq!(of("processor\t: 0\n"), None, "nothing is known of what it can do");
    }
}
