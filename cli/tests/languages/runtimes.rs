//! Bun and Deno: programs, members of workspaces, and what is compiled to one file.

use std::path::Path;

use kiln_harness::{Farm, commit, example, output, project, unpack, write};

use super::built;

#[test]
fn a_program_of_bun_runs_where_it_is_unpacked() {
    let dir = built("bun");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("bun", &["dist/main.js"], unpacked.path()), "2 hours\n");
    assert!(!unpacked.path().join("node_modules/is-odd").exists(), "a development dependency is not delivered");
    let tested = Farm::shared().kiln(&["test", &dir.path().display().to_string()]);
    assert_eq!(tested.code, 0, "{}", tested.err);
}

#[test]
fn a_program_of_deno_runs_where_it_is_unpacked() {
    let dir = built("deno");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let empty = tempfile::tempdir().unwrap();
    let ran = std::process::Command::new("deno")
        .args(["run", "--cached-only", "--allow-read=.", "main.ts"])
        .current_dir(unpacked.path())
        .env("DENO_DIR", empty.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "2 hours\n", "{}", String::from_utf8_lossy(&ran.stderr));
    let tested = Farm::shared().kiln(&["test", &dir.path().display().to_string()]);
    assert_eq!(tested.code, 0, "{}", tested.err);
}

#[test]
fn bun_compiles_a_program_into_one_file() {
    let dir = example("bun");
    let manifest = std::fs::read_to_string(dir.path().join("package.json")).unwrap();
    let manifest = manifest.replace("--target=bun --outdir dist", "--compile --outfile dist/ruler");
    write(dir.path(), "package.json", &manifest);
    Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(output(dir.path().join("kiln-out/ruler"), &[], Path::new("/")), "2 hours\n");
}

#[test]
fn an_edit_leaves_the_layers_of_bun_and_deno() {
    for (name, source) in [("bun", "src/main.ts"), ("deno", "main.ts")] {
        let dir = example(name);
        commit(dir.path());
        Farm::shared().build(dir.path(), &[]).well();
        let text = std::fs::read_to_string(dir.path().join(source)).unwrap();
        write(dir.path(), source, &format!("{text}\n// edited\n"));
        let manifest = if name == "bun" { "package.json" } else { "deno.json" };
        let text = std::fs::read_to_string(dir.path().join(manifest)).unwrap();
        write(dir.path(), manifest, &text.replace("1.2.3", "1.2.4").replace("1.4.0", "1.4.1"));
        let caches = Farm::shared().build(dir.path(), &[]).well().caches();
        let last = if name == "bun" { "bundle" } else { "build" };
        assert_eq!((caches["deps"].as_str(), caches[last].as_str()), ("hit", "miss"), "{name}: {caches:?}");
    }
}

/// A farm whose steps with network access reach this machine's loopback, where the server is.
fn farm() -> Farm {
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    farm
}

#[test]
fn what_deno_imports_by_url_is_fetched_once_and_is_in_the_archive() {
    let module = b"export const x = 41;\n";
    let url = format!("{}/mod.js", super::native::serve(module.to_vec()));
    let hash = kiln_proto::digest::DigestFunction::Sha256.digest(module).hex();
    let lock = format!(r#"{{"version":"5","remote":{{"{url}":"{hash}"}}}}"#);
    let source = format!("import {{ x }} from \"{url}\";\nconsole.log(x + 1);\n");
    let dir = project(&[("deno.json", "{}"), ("deno.lock", &lock), ("main.ts", &source)]);
    let farm = farm();
    farm.build(dir.path(), &[]).well();
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("deno", &["run", "--cached-only", "main.ts"], unpacked.path()), "42\n");
    write(dir.path(), "main.ts", &format!("{source}// edited\n"));
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["deps"], "hit");
    write(dir.path(), "deno.lock", &lock.replace(&hash, &"0".repeat(64)));
    let wrong = farm.build(dir.path(), &[]);
    assert_eq!(wrong.0.code, 1, "what was fetched is not what is locked: {}", wrong.0.err);
}

#[test]
fn what_zig_needs_is_fetched_by_its_hash_and_compiled_without_the_network() {
    let mut tar = tar::Builder::new(Vec::new());
    let (path, text) = ("far/index.txt", "far\n");
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    let url = format!("{}/far.tar", super::native::serve(tar.into_inner().unwrap()));
    let hash = output("zig", &["fetch", &url], Path::new("/"));
    let build = "const std = @import(\"std\");\npub fn build(b: *std.Build) void {\n    const far = b.dependency(\"far\", .{});\n    \
                 b.getInstallStep().dependOn(&b.addInstallFile(far.path(\"index.txt\"), \"share/far.txt\").step);\n}\n";
    let zon = std::fs::read_to_string(example("zig").path().join("build.zig.zon")).unwrap();
    let dependency = format!(".far = .{{ .url = \"{url}\", .hash = \"{}\" }}", hash.trim());
    let zon = zon.replace(".words = .{ .path = \"libs/words\" }", &dependency);
    let dir = project(&[("build.zig", build), ("build.zig.zon", &zon)]);
    let farm = farm();
    farm.build(dir.path(), &[]).well();
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(std::fs::read_to_string(unpacked.path().join("share/far.txt")).unwrap(), "far\n");
    write(dir.path(), "build.zig.zon", &zon.replace("1.4.0", "1.5.0"));
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["deps"], "hit", "a release fetches nothing again");
}

#[test]
fn a_member_of_a_workspace_of_bun_has_what_it_needs_and_nothing_else() {
    let lock = r#"{
  "lockfileVersion": 1,
  "workspaces": {
    "": {
      "name": "shop",
    },
    "packages/shared": {
      "name": "shared",
      "version": "1.0.0",
      "dependencies": {
        "ms": "2.1.2",
      },
    },
    "services/api": {
      "name": "api",
      "version": "2.1.0",
      "dependencies": {
        "ms": "2.1.3",
        "shared": "workspace:*",
      },
    },
    "services/web": {
      "name": "web",
      "version": "1.0.0",
      "dependencies": {
        "ms": "2.0.0",
      },
    },
  },
  "packages": {
    "api": ["api@workspace:services/api"],

    "ms": ["ms@2.1.3", "", {}, "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="],

    "shared": ["shared@workspace:packages/shared"],

    "web": ["web@workspace:services/web"],

    "shared/ms": ["ms@2.1.2", "", {}, "sha512-sGkPx+VjMtmA6MX27oA4FBFELFCZZ4S4XqeGOXCv68tT+jb3vk/RyaKWP0PTKyWtmLSM0b+adUTEvbs1PEaH2w=="],

    "web/ms": ["ms@2.0.0", "", {}, "sha512-Tpp60P6IUJDTuOq/5Z8cdskzJujfwqfOTkrwIwj7IRISpnkJnT6SyJ4PCPnGMoFjC9ddhal5KVIYtAt97ix05A=="],
  }
}
"#;
    let dir = project(&[
        ("bun.lock", lock),
        ("package.json", r#"{"name":"shop","private":true,"workspaces":["packages/*","services/*"]}"#),
        ("packages/shared/index.js", "exports.ms = require('ms/package.json').version\n"),
        ("packages/shared/package.json", r#"{"name":"shared","version":"1.0.0","dependencies":{"ms":"2.1.2"}}"#),
        ("services/api/main.js", "console.log(require('shared').ms, require('ms/package.json').version)\n"),
        (
            "services/api/package.json",
            r#"{"name":"api","version":"2.1.0","dependencies":{"ms":"2.1.3","shared":"workspace:*"}}"#,
        ),
        ("services/web/package.json", r#"{"name":"web","version":"1.0.0","dependencies":{"ms":"2.0.0"}}"#),
        ("services/web/secret.js", ""),
    ]);
    commit(dir.path());
    let at = dir.path().join("services/api");
    Farm::shared().build(&at, &[]).well();
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output("bun", &["main.js"], unpacked.path()), "2.1.2 2.1.3\n");
    super::members::assert_without(unpacked.path(), &["web", "secret", "ms@2.0.0"]);
}
