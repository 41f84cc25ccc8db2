//! The file with the farm's toolchains: `[toolchains]` with `"go 1.25" = "registry.example/golang:1.25"`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use kiln_images::reference::Reference;
use kiln_planner::plan::Toolchains;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    toolchains: BTreeMap<String, String>,
}

/// Reads the file.
///
/// # Errors
/// If it cannot be read, or a name or an image in it is invalid.
pub fn read(path: &Path) -> anyhow::Result<Toolchains> {
    let place = || format!("the toolchains in `{}`", path.display());
    let text = std::fs::read_to_string(path).with_context(place)?;
    let file: File = toml::from_str(&text).with_context(place)?;
    for image in file.toolchains.values() {
        image.parse::<Reference>().with_context(place)?;
    }
    Toolchains::read(&file.toolchains).with_context(place)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_read_or_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            super::read(file.path()).map_err(|error| format!("{error:#}"))
        };
        let known = read("[toolchains]\n\"go 1.25\" = \"registry.example/go:1.25\"\n").unwrap();
        assert_eq!(known.pairs()["go 1.25"], "registry.example/go:1.25");
        for (text, words) in [
            ("[toolchains]\ncobol = \"x\"\n", "toolchain `cobol`"),
            ("[toolchains]\ngo = \"No Image\"\n", "No Image"),
            ("[tools]\n", "tools"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words) && refused.contains("the toolchains in"), "{refused}");
        }
    }
}
