//! Which packages of Debian and those like it have the tools that steps call.

use std::collections::BTreeSet;

/// The command that installs these tools on a system, as `debian:12`; of those that it has packages of. `None` if it has none, or is another system.
pub(crate) fn install<'a>(os: &str, tools: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if !matches!(os.split(':').next(), Some("debian" | "ubuntu")) {
        return None;
    }
    let packages: BTreeSet<&str> = tools.into_iter().filter_map(packages).flat_map(str::split_whitespace).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    (!packages.is_empty()).then(|| format!("apt-get install {}", packages.join(" ")))
}

/// What has a tool, with what it is of no use without. `None` for those that are published elsewhere.
fn packages(tool: &str) -> Option<&'static str> {
    Some(match tool {
        "autoreconf" => "autoconf automake libtool",
        "bundle" => "bundler",
        "c++" => "g++",
        "cargo" => "cargo",
        "cc" | "gcc" => "gcc libc6-dev",
        "clang" => "clang",
        "cmake" => "cmake",
        "composer" => "composer",
        "git" => "git",
        "go" => "golang-go",
        "gradle" => "gradle",
        "hugo" => "hugo",
        "jar" | "javac" => "default-jdk-headless",
        "java" => "default-jre-headless",
        "make" => "make",
        "meson" => "meson",
        "mvn" => "maven",
        "ninja" => "ninja-build",
        "node" => "nodejs",
        "npm" => "npm",
        "php" => "php-cli",
        "pip" => "python3-pip",
        "pkg-config" => "pkg-config",
        "poetry" => "python3-poetry",
        "protoc" => "protobuf-compiler",
        "python3" => "python3 python3-venv",
        "ruby" => "ruby",
        "rustc" => "rustc",
        "tar" => "tar",
        "zstd" => "zstd",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_where_the_system_has_them() {
        let said = |os, tools: &[&str]| install(os, tools.iter().copied());
        assert_eq!(said("debian:12", &["cc", "make", "gcc"]).as_deref(), Some("apt-get install gcc libc6-dev make"));
        assert_eq!(said("ubuntu:24.04", &["zig", "mvn"]).as_deref(), Some("apt-get install maven"));
        assert_eq!(said("debian:12", &["zig"]), None, "Debian has none");
        assert_eq!((said("alpine:3.20", &["make"]), said("", &["make"])), (None, None));
    }

    #[test]
    fn a_package_is_named_for_no_tool_that_is_not_looked_for() {
        let elsewhere = ["bun", "conan", "deno", "pnpm", "uv", "yarn", "zig"];
        for tool in kiln_proto::property::PROBED_TOOLS {
            assert_eq!(packages(tool).is_none(), elsewhere.contains(tool), "{tool}");
        }
    }
}
