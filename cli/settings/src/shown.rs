//! The configuration for people and for programs: its farms, which is used, and the flags that commands get.
//!
//! Invariant: no token and no command that prints one is shown.

use std::path::Path;

use serde_json::json;

use super::choice::chosen;
use super::flags::lines;
use crate::file::{Error, File};

/// The farms of the configuration, as text or as JSON. Which one is used depends on the project in `directory`.
///
/// # Errors
/// If the configuration or that of the project cannot be read.
pub fn shown(directory: &Path, as_json: bool) -> Result<String, Error> {
    let path = File::path().ok_or(Error::Nowhere)?;
    let file = File::read(&path)?;
    let used = chosen(None, directory, &file)?;
    if as_json {
        return Ok(object(&file, used.as_deref()).to_string());
    }
    if file.farms.is_empty() && file.flags.is_empty() {
        return Ok(format!("{} names no farm: `kiln login URL` adds one", path.display()));
    }
    Ok(words(&file, used.as_deref()))
}

fn words(file: &File, used: Option<&str>) -> String {
    let mut shown = Vec::new();
    for (name, farm) in &file.farms {
        let mark = if used == Some(name.as_str()) { "*" } else { " " };
        shown.push(format!("{mark} {name}  {}", farm.url));
        shown.extend(lines(&farm.flags, Some(name)));
    }
    shown.extend(lines(&file.flags, None));
    shown.join("\n")
}

fn object(file: &File, used: Option<&str>) -> serde_json::Value {
    let farms: Vec<_> = file
        .farms
        .iter()
        .map(|(name, farm)| {
            json!({ "name": name, "url": farm.url, "used": used == Some(name.as_str()), "flags": farm.flags })
        })
        .collect();
    json!({ "farms": farms, "flags": file.flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farms_are_shown_with_the_flags_of_their_commands() {
        let text = "farm = \"team\"\n[flags]\n\"cache list\" = [\"--json\"]\n[farms.other]\nurl = \"http://b:1\"\n\
                    [farms.team]\nurl = \"https://a:1\"\ntoken-command = [\"secret\"]\n[farms.team.flags]\nbuild = [\"--platform\", \"linux/arm64\"]\n";
        let file: File = toml::from_str(text).unwrap();
        let expected = "  other  http://b:1\n* team  https://a:1\n    kiln build --platform linux/arm64  [farms.team.flags]\n    \
                        kiln cache list --json  [flags]";
        assert_eq!(words(&file, Some("team")), expected);
        let expected = json!({
            "farms": [
                { "name": "other", "url": "http://b:1", "used": false, "flags": {} },
                { "name": "team", "url": "https://a:1", "used": true, "flags": { "build": ["--platform", "linux/arm64"] } },
            ],
            "flags": { "cache list": ["--json"] },
        });
        assert_eq!(object(&file, Some("team")), expected);
    }
}
