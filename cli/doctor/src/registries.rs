//! The registries of the images that a project names.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kiln_images::reference::Reference;
use kiln_proto::v1::Check;
use kiln_proto::v1::check::State;

use crate::{lacks, ok};

/// How long a registry may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys of `kiln.toml` that name images.
const IMAGES: [&str; 2] = ["image", "base"];
const WHY: &str = "images of the project come from it";

/// Asks each registry that the project's `kiln.toml` and `Dockerfile` name. Without a farm, this machine fetches from them.
pub(crate) async fn look(project: &Path, is_here: bool) -> Vec<Check> {
    let read = |name: &str| std::fs::read_to_string(project.join(name)).unwrap_or_default();
    let mut names = of_project(&read("kiln.toml"));
    names.extend(of_dockerfile(&read("Dockerfile")));
    let mut registries: BTreeMap<String, String> = BTreeMap::new();
    for name in names {
        if let Ok(reference) = name.parse::<Reference>() {
            registries.entry(reference.registry().to_owned()).or_insert(name);
        }
    }
    let mut checks = Vec::new();
    for (registry, image) in registries {
        checks.push(one(&registry, &image, is_here).await);
    }
    checks
}

async fn one(registry: &str, image: &str, is_here: bool) -> Check {
    let name = format!("registry {registry}");
    let found = match answers(registry).await {
        Ok(status) => return ok(&name, format!("answers {status}, for `{image}`"), WHY),
        Err(reason) => reason,
    };
    let url = url(registry);
    let (state, found) = match is_here {
        true => (State::Missing, found),
        false => (State::Warning, format!("{found}, from this machine; the farm's coordinator fetches `{image}`")),
    };
    lacks(&name, state, found, WHY, format!("curl -v {url}, and `HTTPS_PROXY` if there is a proxy"))
}

fn url(registry: &str) -> String {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let scheme = if matches!(host, "localhost" | "127.0.0.1" | "[::1]") { "http" } else { "https" };
    let registry = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    format!("{scheme}://{registry}/v2/")
}

/// Whatever it answers, it is there: most want to know who asks.
async fn answers(registry: &str) -> Result<u16, String> {
    // The client has no provider of its own. One that was installed earlier is kept.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| error.to_string())?;
    match client.get(url(registry)).send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(kiln_terminal::chain(&error.without_url()).replace('\n', ": ")),
    }
}

/// Images in a `kiln.toml`, wherever they stand.
fn of_project(text: &str) -> Vec<String> {
    fn walk(table: &toml::Table, found: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::String(name) if IMAGES.contains(&key.as_str()) => found.push(name.clone()),
                toml::Value::Table(below) => walk(below, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        walk(&table, &mut found);
    }
    found
}

/// Images that stages of a Dockerfile begin with. Those that depend on arguments are not known here.
fn of_dockerfile(text: &str) -> Vec<String> {
    let mut stages: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        let [from, image, rest @ ..] = &words[..] else { continue };
        if !from.eq_ignore_ascii_case("from") {
            continue;
        }
        let is_known = *image != "scratch"
            && !image.contains('$')
            && !stages.iter().any(|stage| stage.eq_ignore_ascii_case(image));
        if is_known {
            found.push((*image).to_owned());
        }
        if let [r#as, name] = rest
            && r#as.eq_ignore_ascii_case("as")
        {
            stages.push((*name).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_where_a_project_names_them() {
        let text = "[steps.a]\nimage = \"registry.example/go:1\"\n[artifacts.b]\nbase = \"debian:12\"\nfrom = \"a\"\n[targets.c]\nos = \"x\"\n";
        assert_eq!(of_project(text), ["debian:12", "registry.example/go:1"]);
        let text = "FROM --platform=linux/amd64 one.example/a AS build\nfrom build\nFROM scratch\nFROM ${BASE}\nRUN FROM x\nFrom two:1\n";
        assert_eq!(of_dockerfile(text), ["one.example/a", "two:1"]);
        assert!(of_project("image = [").is_empty());
    }

    #[test]
    fn registries_of_this_machine_speak_plain_http() {
        assert_eq!(url("docker.io"), "https://registry-1.docker.io/v2/");
        assert_eq!(url("localhost:5000"), "http://localhost:5000/v2/");
        assert_eq!(url("registry.example:5000"), "https://registry.example:5000/v2/");
    }
}
