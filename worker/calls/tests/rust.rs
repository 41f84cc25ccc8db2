//! What rustc's command lines say, as cargo writes them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use kiln_calls::crates::Crates;
use kiln_calls::{
    Call, CrateType, Details, Language, OutputKind, Refusal, RustDetails, announced, dep_info, understand,
};
use support::{Memory, call, inputs, invocation, outputs, refused, with_files};

const RUSTC: &str = "/kiln/call/bin/kiln-call /usr/bin/rustc";

fn rust(call: &Call) -> &RustDetails {
    match &call.details {
        Details::Rust(details) => details,
        Details::C(_) => panic!("expected a call of rustc, found {call:?}"),
    }
}

/// A call as cargo writes it, with its kind and what is emitted.
fn cargo(kind: &str, emit: &str, more: &str) -> String {
    format!(
        "{RUSTC} --crate-name foo --edition=2021 src/lib.rs --error-format=json \
         --json=diagnostic-rendered-ansi,artifacts,future-incompat --crate-type {kind} --emit={emit} -C embed-bitcode=no \
         -C metadata=01c7 -C extra-filename=-b8e8 --out-dir /build/target/deps -L dependency=/build/target/deps \
         --extern bar=/build/target/deps/libbar-1.rmeta --cap-lints allow {more}"
    )
}

fn all_outputs(call: &Call) -> Vec<&str> {
    call.outputs
        .iter()
        .map(|output| output.absolute.strip_prefix("/build/target/deps").unwrap().to_str().unwrap())
        .collect()
}

#[test]
fn outputs_are_named_by_kind_of_crate_and_extra_filename() {
    let outputs = |kind: &str, emit: &str| {
        let call = call(&cargo(kind, emit, ""));
        all_outputs(&call).join(" ")
    };
    assert_eq!(outputs("lib", "dep-info,metadata,link"), "foo-b8e8.d libfoo-b8e8.rmeta libfoo-b8e8.rlib");
    assert_eq!(outputs("rlib", "dep-info,link"), "foo-b8e8.d libfoo-b8e8.rlib");
    assert_eq!(outputs("staticlib", "link"), "libfoo-b8e8.a");
    assert_eq!(outputs("proc-macro", "dep-info,link"), "foo-b8e8.d libfoo-b8e8.so");
    assert_eq!(outputs("bin", "dep-info,link"), "foo-b8e8.d foo-b8e8");
    assert_eq!(outputs("bin", "dep-info,metadata"), "foo-b8e8.d libfoo-b8e8.rmeta");
    assert_eq!(outputs("lib,cdylib,staticlib", "link"), "libfoo-b8e8.rlib libfoo-b8e8.a libfoo-b8e8.so");
}

#[test]
fn a_test_harness_is_a_program() {
    let line = cargo("lib", "dep-info,link", "--test");
    let call = call(&line);
    assert_eq!(rust(&call).crate_types, [CrateType::Bin]);
    assert_eq!(all_outputs(&call), ["foo-b8e8.d", "foo-b8e8"]);
}

#[test]
fn outputs_with_a_path_of_their_own_are_there() {
    let call = call("rustc --crate-name a a.rs --crate-type lib --emit metadata=x/a.rmeta,dep-info=a.d");
    assert_eq!(outputs(&call, OutputKind::Metadata), ["x/a.rmeta"]);
    assert_eq!(outputs(&call, OutputKind::Depfile), ["a.d"]);
}

#[test]
fn crates_and_directories_are_inputs() {
    let mut invocation = invocation(&cargo(
        "lib",
        "dep-info,metadata,link",
        "--extern priv:baz=/build/target/deps/libbaz.so --extern proc_macro -L native=/build/out/lib -L rel -l static=z",
    ));
    invocation.environment = [("OUT_DIR", "/build/target/build/foo/out"), ("CARGO_MANIFEST_DIR", "/build/foo")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let call = understand(&invocation, &Memory::default()).unwrap();
    assert_eq!(call.language, Language::Rust);
    assert_eq!(call.source, Path::new("/build/src/lib.rs"));
    assert_eq!(inputs(&call), ["/build/target/deps/libbar-1.rmeta", "/build/target/deps/libbaz.so"]);
    let details = rust(&call);
    let externs: Vec<_> = details.externs.iter().map(|one| (one.name.as_str(), one.path.is_some())).collect();
    assert_eq!(externs, [("bar", true), ("baz", true), ("proc_macro", false)]);
    assert_eq!(details.dependency_directories, [Path::new("/build/target/deps"), Path::new("/build/rel")]);
    assert_eq!(details.native_directories, [Path::new("/build/out/lib"), Path::new("/build/rel")]);
    assert_eq!(details.out_dir.as_deref(), Some(Path::new("/build/target/build/foo/out")));
    assert_eq!(details.manifest_directory.as_deref(), Some(Path::new("/build/foo")));
    assert!(details.announces_artifacts);
}

#[test]
fn code_of_dependencies_is_read_only_by_kinds_that_link() {
    let needs = |kind: &str, emit: &str| {
        let call = call(&cargo(kind, emit, ""));
        (rust(&call).needs_code(), rust(&call).runs_linker())
    };
    assert_eq!(needs("lib", "dep-info,metadata,link"), (false, false));
    assert_eq!(needs("staticlib", "link"), (true, false));
    assert_eq!(needs("proc-macro", "dep-info,link"), (true, true));
    assert_eq!(needs("bin", "dep-info,link"), (true, true));
    assert_eq!(needs("bin", "dep-info,metadata"), (false, false));
}

#[test]
fn the_environment_is_all_but_what_has_no_meaning() {
    let mut invocation = invocation(&cargo("lib", "link", ""));
    invocation.environment = [
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
        "MFLAGS",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "RUSTC_WRAPPER",
        "KILN_JOBS",
        "CARGO_BUILD_JOBS",
        "CMAKE_BUILD_PARALLEL_LEVEL",
        "CARGO_PKG_NAME",
        "HOME",
        "X",
    ]
    .map(|name| (name.into(), "x".into()))
    .into();
    let call = understand(&invocation, &Memory::default()).unwrap();
    let names: Vec<_> = call.environment.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["CARGO_PKG_NAME", "HOME", "X"]);
}

#[test]
fn questions_run_in_the_step() {
    for arguments in [
        "-vV",
        "-V",
        "--version",
        "--help",
        "-C help",
        "-W help",
        "--explain E0001",
        "- --crate-name ___ --print=file-names --crate-type bin",
    ] {
        assert_eq!(refused(&format!("{RUSTC} {arguments}")), "information", "{arguments}");
    }
}

#[test]
fn a_question_about_the_compiler_is_told_as_it_was_asked() {
    for question in ["-vV", "--version", "--print cfg", "--print=cfg", "--explain E0432"] {
        let invocation = invocation(&format!("{RUSTC} {question}"));
        let refusal = understand(&invocation, &Memory::default()).unwrap_err();
        let shown = question.replace('=', " ");
        assert_eq!(refusal, Refusal::Information { option: shown.clone() });
        assert_eq!(refusal.to_string(), format!("`{shown}` asks the compiler about itself"));
    }
}

#[test]
fn native_code_stays_as_it_is_written_and_is_said_to_depend_on_the_cpu() {
    let native = |more: &str| {
        let call = call(&cargo("lib", "dep-info,link", more));
        assert!(more.is_empty() || call.arguments.iter().any(|argument| more.contains(argument.to_str().unwrap())));
        rust(&call).native
    };
    assert!(native("-C target-cpu=native") && native("-Ctarget-cpu=native"));
    assert!(native("-C target-cpu=x86-64-v3 -C target-cpu=native"), "the last one counts");
    assert!(!native("-C target-cpu=native -C target-cpu=x86-64-v3"));
    assert!(!native("") && !native("-C target-cpu=x86-64-v3"));
}

#[test]
fn what_is_not_certain_is_refused() {
    let label = |more: &str| refused(&cargo("lib", "dep-info,link", more));
    assert_eq!(label("-C incremental=/build/target/incremental"), "incremental");
    assert_eq!(label("-Cincremental=x"), "incremental");
    assert_eq!(label("--sysroot /x"), "sysroot");
    assert_eq!(label("--target x86_64-custom-linux-gnu.json"), "platform");
    assert_eq!(label("--target x86_64-pc-windows-gnu"), "platform");
    assert_eq!(label("-o x"), "output_ambiguous");
    assert_eq!(label("b.rs"), "several_sources");
    assert_eq!(label("-C split-debuginfo=unpacked"), "extra_files");
    assert_eq!(label("-C save-temps"), "extra_files");
    assert_eq!(label("-C linker=/build/ld"), "other_programs");
    assert_eq!(label("-Z unstable-options"), "unknown_option");
    assert_eq!(label("--frobnicate"), "unknown_option");
    assert_eq!(label("-C frobnicate=1"), "unknown_option");
    assert_eq!(label("-C llvm-args=-x"), "unknown_option");
    assert_eq!(label("-gO"), "unknown_option");
    assert_eq!(label("-C"), "missing_argument");
    assert_eq!(refused(&cargo("dylib", "link", "")), "crate_type");
    assert_eq!(refused(&cargo("lib", "llvm-ir", "")), "extra_files");
    assert_eq!(refused("rustc a.rs --crate-name a --crate-type lib --out-dir ."), "no_emit");
    assert_eq!(refused("rustc a.rs --crate-type lib --emit=link --out-dir ."), "no_name");
    assert_eq!(refused("rustc a.rs --crate-name a --emit=link --out-dir ."), "no_name");
    assert_eq!(refused("rustc a.rs --crate-name a --crate-type lib --emit=link"), "no_name");
    assert_eq!(refused("rustc --crate-name a --crate-type lib --emit=link --out-dir ."), "no_source");
    assert_eq!(refused("rustc - --crate-name a --crate-type lib --emit=link --out-dir ."), "standard_input");
    assert_eq!(refused("rustc a.rs --crate-name ../a --crate-type lib --emit=link --out-dir ."), "no_name");
    assert_eq!(refused("rustc a.rs --crate-name a --crate-type lib --emit=link=/dev/null"), "output_not_a_file");
}

#[test]
fn a_target_that_a_file_may_describe_is_refused() {
    let mut invocation = invocation(&cargo("lib", "link", "--target x86_64-unknown-linux-musl"));
    assert!(understand(&invocation, &Memory::default()).is_ok());
    invocation.environment = [("RUST_TARGET_PATH".into(), "/build".into())].into();
    assert_eq!(understand(&invocation, &Memory::default()).unwrap_err().label(), "platform");
}

#[test]
fn options_of_code_generation_pass_however_they_are_written() {
    for option in [
        "-C opt-level=3",
        "-Copt-level=3",
        "--codegen opt_level=s",
        "--codegen=lto=thin",
        "-C target-cpu=x86-64-v3",
        "-C linker=/usr/bin/clang",
        "-C linker=gcc",
        "-C link-arg=-fuse-ld=lld",
        "-C split-debuginfo=off",
        "-g",
        "-O",
        "-Aunused",
        "-D warnings",
    ] {
        call(&cargo("bin", "dep-info,link", option));
    }
    let profile = call(&cargo("lib", "link", "-C profile-use=pgo/x.profdata"));
    assert!(inputs(&profile).contains(&"/build/pgo/x.profdata".to_owned()));
}

#[test]
fn response_files_have_one_argument_a_line() {
    let files = [("/build/args", "--crate-type\nlib\n--cfg\nfeature=\"a b\"\n"), ("/build/nested", "@args\n")];
    let line = "rustc a.rs --crate-name a --emit=link --out-dir . @args";
    assert_eq!(with_files(line, &files).unwrap().arguments.last().unwrap(), "feature=\"a b\"");
    assert_eq!(with_files("rustc @nested", &files).unwrap_err().label(), "response_file");
    assert!(matches!(with_files("rustc @missing", &files), Err(Refusal::ResponseFile { .. })));
}

/// The real compiler writes exactly the outputs that are foreseen.
#[test]
fn rustc_writes_what_is_foreseen() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().canonicalize().unwrap();
    std::fs::write(at.join("lib.rs"), "pub const NAME: Option<&str> = option_env!(\"KIND\");").unwrap();
    std::fs::write(at.join("macro.rs"), "extern crate proc_macro;").unwrap();
    std::fs::write(at.join("bin.rs"), "fn main() {}").unwrap();
    let cases = [
        ("lib.rs", "lib", "dep-info,metadata,link"),
        ("lib.rs", "lib,staticlib,cdylib", "dep-info,link"),
        ("macro.rs", "proc-macro", "dep-info,link"),
        ("bin.rs", "bin", "dep-info,link"),
        ("bin.rs", "bin", "dep-info,metadata"),
        ("lib.rs", "lib", "dep-info,link=named/x.rlib"),
    ];
    for (case, (source, kind, emit)) in cases.into_iter().enumerate() {
        let out = at.join(format!("out{case}"));
        std::fs::create_dir_all(out.join("named")).unwrap();
        let line = format!(
            "rustc --crate-name foo --edition=2021 {} --crate-type {kind} --emit={emit} -C metadata=1 -C extra-filename=-x --out-dir {}",
            at.join(source).display(),
            out.display()
        );
        let mut invocation = invocation(&line);
        invocation.directory = out.clone();
        let call = understand(&invocation, &Memory::default()).unwrap();
        let run = Command::new("rustc").args(&call.arguments).current_dir(&out).env("KIND", "a\\b").output().unwrap();
        assert!(run.status.success(), "{line}: {}", String::from_utf8_lossy(&run.stderr));
        let mut expected: Vec<_> = call.outputs.iter().map(|output| output.absolute.clone()).collect();
        let mut found = files_below(&out);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{line}");
        let depfile = call.outputs.iter().find(|output| output.kind == OutputKind::Depfile).unwrap();
        let depends = dep_info(&std::fs::read(&depfile.absolute).unwrap());
        assert_eq!(depends.sources, [at.join(source)].into());
        if source == "lib.rs" {
            assert_eq!(depends.environment, [("KIND".into(), Some("a\\b".into()))].into());
        }
    }
}

/// A library in `/build/t`, as cargo compiles it.
fn library(name: &str, kind: &str, externs: &[&str]) -> Call {
    let externs: String = externs.iter().map(|file| format!(" --extern x=/build/t/{file}")).collect();
    let emit = if kind == "lib" { "dep-info,metadata,link" } else { "dep-info,link" };
    call(&format!(
        "rustc --crate-name {name} {name}.rs --crate-type {kind} --emit={emit} -C extra-filename=-1 --out-dir /build/t -L dependency=/build/t{externs}"
    ))
}

#[test]
fn crates_are_followed_through_the_calls_that_made_them() {
    let mut crates = Crates::default();
    crates.add(&library("a", "lib", &[]));
    crates.add(&library("b", "lib", &["liba-1.rmeta"]));
    crates.add(&library("only_macro", "lib", &[]));
    crates.add(&library("m", "proc-macro", &["libonly_macro-1.rlib"]));
    crates.add(&call("gcc -c a.c"));
    let read = crates.read_by(&library("c", "lib", &["libb-1.rmeta", "libm-1.so"])).unwrap();
    assert_eq!(read, ["/build/t/liba-1", "/build/t/libb-1", "/build/t/libm-1"].map(Into::into).into());
    assert_eq!(crates.read_by(&library("c", "lib", &[])), Some(BTreeSet::new()));
    assert_eq!(crates.read_by(&library("c", "lib", &["libb-1.rmeta", "libunknown-1.rmeta"])), None);
    assert_eq!(crates.read_by(&call("gcc -c a.c")), None);
}

/// rustc is content with exactly the crates that are said to be read, in the forms that the kind needs.
#[test]
fn rustc_needs_no_other_crates() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().canonicalize().unwrap();
    let all = at.join("all");
    std::fs::create_dir(&all).unwrap();
    let sources = [
        ("a", "lib", "pub struct A;", ""),
        ("b", "lib", "pub fn b() -> a::A { a::A }", "a"),
        ("h", "lib", "pub fn h() {}", ""),
        (
            "m",
            "proc-macro",
            "extern crate proc_macro; #[proc_macro] pub fn m(input: proc_macro::TokenStream) -> proc_macro::TokenStream { h::h(); input }",
            "h",
        ),
        ("unrelated", "lib", "", ""),
    ];
    let mut crates = Crates::default();
    let run = |call: &Call| {
        let run = Command::new("rustc").args(&call.arguments).current_dir(&at).output().unwrap();
        assert!(run.status.success(), "{:?}: {}", call.arguments, String::from_utf8_lossy(&run.stderr));
    };
    let of = |name: &str, kind: &str, externs: &str, place: &Path| {
        let mut line = format!(
            "rustc --edition=2021 --crate-name {name} {name}.rs --crate-type {kind} --emit=metadata,link -C extra-filename=-1 --out-dir {0} -L dependency={0}",
            place.display()
        );
        for name in externs.split_whitespace() {
            let suffix = if name == "m" { "so" } else { "rlib" };
            line.push_str(&format!(" --extern {name}={}/lib{name}-1.{suffix}", place.display()));
        }
        let mut invocation = invocation(&line);
        invocation.directory = at.clone();
        understand(&invocation, &Memory::default()).unwrap()
    };
    for (name, kind, text, externs) in sources {
        std::fs::write(at.join(format!("{name}.rs")), text).unwrap();
        let call = of(name, kind, externs, &all);
        run(&call);
        crates.add(&call);
    }
    std::fs::write(at.join("c.rs"), "pub fn main() { m::m!(let _ = b::b();); }").unwrap();
    let read = crates.read_by(&of("c", "lib", "b m", &all)).unwrap();
    for (kind, suffixes) in [("lib", &["rmeta", "so"][..]), ("bin", &["rlib", "so"])] {
        let some = at.join(kind);
        std::fs::create_dir(&some).unwrap();
        for stem in &read {
            for suffix in suffixes.iter().map(|suffix| stem.with_extension(suffix)).filter(|path| path.is_file()) {
                std::fs::copy(&suffix, some.join(suffix.file_name().unwrap())).unwrap();
            }
        }
        let mut call = of("c", kind, "b m", &some);
        if kind == "lib" {
            call.arguments
                .iter_mut()
                .for_each(|argument| *argument = argument.to_str().unwrap().replace("b-1.rlib", "b-1.rmeta").into());
        }
        run(&call);
    }
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn what_cargo_waits_for_is_announced_with_all_that_came_before() {
    let line = cargo("lib", "dep-info,metadata,link", "");
    let call = call(&line);
    let artifact = |name: &str, emit: &str| {
        format!("{{\"$message_type\":\"artifact\",\"artifact\":\"/build/target/deps/{name}\",\"emit\":\"{emit}\"}}\n")
    };
    let (dep_info, metadata) = (artifact("foo-b8e8.d", "dep-info"), artifact("libfoo-b8e8.rmeta", "metadata"));
    let warning = "{\"$message_type\":\"diagnostic\",\"message\":\"unused\",\"artifact\":\"x\"}\nnot JSON\n";
    let before = format!("{warning}{dep_info}{metadata}");
    let all = format!("{before}{}", artifact("libfoo-b8e8.rlib", "link"));
    let found = announced(&call, all.as_bytes()).unwrap();
    assert_eq!(found.said, before.len());
    let kinds: Vec<_> = found.outputs.iter().map(|output| output.kind).collect();
    assert_eq!(kinds, [OutputKind::Depfile, OutputKind::Metadata]);
    for incomplete in [&before[..before.len() - 1], &dep_info, "", &artifact("libother.rmeta", "metadata")] {
        assert_eq!(announced(&call, incomplete.as_bytes()), None, "{incomplete}");
    }
    let silent = line.replace(",artifacts", "");
    assert_eq!(announced(&support::call(&silent), before.as_bytes()), None, "nobody waits for what is not asked for");
}
