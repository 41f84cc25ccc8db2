//! Options for the assembler: `-Wa,` and `-Xassembler`.

use crate::refusal::Refusal;

/// Options that name no file; a value may follow. Source: the manual of GNU as.
const PREFIXES: [&str; 17] = [
    "-m",
    "-g",
    "-W",
    "--gdwarf",
    "--gen-debug",
    "--warn",
    "--no-warn",
    "--noexecstack",
    "--execstack",
    "--fatal-warnings",
    "--generate-missing-build-notes=",
    "--compress-debug-sections",
    "--nocompress-debug-sections",
    "--elf-stt-common=",
    "--size-check=",
    "--debug-prefix-map",
    "--reduce-memory-overheads",
];
const FLAGS: [&str; 8] = ["--32", "--64", "--x32", "--divide", "-L", "--keep-locals", "-K", "--traditional-format"];

/// Refuses options that write a listing, hide others, or are not known.
pub(super) fn check<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Refusal> {
    let mut items = items.into_iter();
    while let Some(item) = items.next() {
        if item == b"--defsym" {
            items.next();
            continue;
        }
        let known = FLAGS.iter().any(|flag| flag.as_bytes() == item)
            || PREFIXES.iter().any(|prefix| item.starts_with(prefix.as_bytes()));
        if !known {
            return Err(Refusal::AssemblerOption { option: String::from_utf8_lossy(item).into_owned() });
        }
    }
    Ok(())
}
