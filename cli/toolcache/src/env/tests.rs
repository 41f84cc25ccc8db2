use super::*;

fn env(tool: Tool) -> Env {
    Env { tool, scope: None, format: Format::Shell, show_token: false }
}

fn served() -> FarmStatus {
    FarmStatus { cache_port: 8981, cache_writes: true, cache_writes_scopes: true, ..Default::default() }
}

fn with_file(text: &str) -> (tempfile::TempDir, Access) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token of ci");
    std::fs::write(&file, text).unwrap();
    (directory, Access { token_file: Some(file), ..Access::default() })
}

#[test]
fn no_setting_contains_the_token_unless_that_was_asked_for() {
    let (_directory, access) = with_file("kiln_secret\n");
    for tool in Tool::value_variants() {
        let farm = &["http://127.0.0.1:8980".to_owned()];
        let text = settings(&env(*tool), farm, &access, &served()).unwrap();
        assert!(!text.contains("kiln_secret") && text.contains("http://127.0.0.1:8981/cache/"), "{tool:?}: {text}");
        let shown = settings(&Env { show_token: true, ..env(*tool) }, farm, &access, &served()).unwrap();
        assert_eq!(shown.contains("kiln_secret"), *tool != Tool::Go, "{tool:?}: {shown}");
    }
    let file = Env { format: Format::File, ..env(Tool::Gradle) };
    let text = settings(&file, &["http://127.0.0.1:8980".to_owned()], &access, &served()).unwrap();
    assert!(text.contains("HttpBuildCache") && !text.contains("kiln_secret"), "{text}");
}

#[test]
fn a_shell_gives_the_tool_the_token_from_its_file() {
    let (_directory, access) = with_file("kiln_secret\n");
    let text = settings(&env(Tool::Ccache), &["http://127.0.0.1:8980".to_owned()], &access, &served()).unwrap();
    let script = format!("{text}printf %s \"$CCACHE_REMOTE_STORAGE\"");
    let ran = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let value = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(value, "http://127.0.0.1:8981/cache/ccache|bearer-token=kiln_secret");
    let text = settings(&env(Tool::Bazel), &["http://127.0.0.1:8980".to_owned()], &access, &served()).unwrap();
    let script = format!("bazel() {{ printf '%s\\n' \"$@\"; }}\n{text}kiln_bazel build //a b");
    let ran = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let cache = "--remote_cache=http://127.0.0.1:8981/cache/bazel";
    assert_eq!(lines, ["build", cache, "--remote_header=Authorization=Bearer kiln_secret", "//a", "b"]);
}

#[test]
fn who_may_only_read_is_told_not_to_write() {
    let reads = FarmStatus { cache_port: 8981, cache_writes_scopes: true, ..Default::default() };
    let said = |tool, scope: Option<&str>| {
        let env = Env { scope: scope.map(str::to_owned), ..env(tool) };
        settings(&env, &["http://127.0.0.1:8980".to_owned()], &Access::default(), &reads).unwrap()
    };
    for (tool, word) in [
        (Tool::Bazel, "--remote_upload_local_results=false"),
        (Tool::Ccache, "|read-only=true"),
        (Tool::Gradle, "KILN_GRADLE_PUSH=false"),
        (Tool::Sccache, "READ_ONLY"),
    ] {
        assert!(said(tool, None).contains(word), "{tool:?}: {}", said(tool, None));
        assert!(!said(tool, Some("mine")).contains(word), "{tool:?}: {}", said(tool, Some("mine")));
    }
}

#[test]
fn the_address_is_the_farms_or_the_one_that_it_names() {
    let url = |farm: &str, status: &FarmStatus| root(farm, status).map(|url| url.to_string());
    assert_eq!(url("grpcs://farm.example:8980", &served()).unwrap(), "https://farm.example:8981/");
    assert_eq!(url("farm.example:8980", &served()).unwrap(), "http://farm.example:8981/");
    let named = FarmStatus { cache_url: "https://cache.example/tools".into(), ..served() };
    assert_eq!(url("http://10.0.0.1:8980", &named).unwrap(), "https://cache.example/tools");
    assert!(url("unix:///run/kiln", &served()).unwrap_err().to_string().contains("--cache-url"));
    let not = url("http://farm.example:8980", &FarmStatus::default()).unwrap_err().to_string();
    assert!(not.contains("`--cache-listen ADDRESS`"), "{not}");
}

#[test]
fn a_scope_is_one_segment_and_what_cannot_work_is_said() {
    let (_directory, access) = with_file("kiln_secret");
    let scoped = Env { scope: Some("refs/pull/7".into()), ..env(Tool::Nx) };
    let text = settings(&scoped, &["http://127.0.0.1:8980".to_owned()], &access, &served()).unwrap();
    assert!(text.contains("/cache/scope/refs%2Fpull%2F7/nx"), "{text}");
    // What ccache cannot do itself, its helper does.
    let tls = settings(&env(Tool::Ccache), &["https://farm.example:8980".to_owned()], &access, &served()).unwrap();
    assert!(
        tls.contains("kiln://farm helper=") && tls.contains("@url=https://farm.example:8981/cache/ccache"),
        "{tls}"
    );
    assert!(tls.contains("@token-file=") && !tls.contains("kiln_secret"), "{tls}");
    let file = Env { format: Format::File, ..env(Tool::Nx) };
    assert!(settings(&file, &["http://127.0.0.1:8980".to_owned()], &access, &served()).is_err());
}

#[test]
fn helpers_know_all_coordinators_and_other_tools_the_one_that_answers() {
    let farms = ["https://10.0.0.1:8980".to_owned(), "https://10.0.0.2:8980".to_owned()];
    let said = |tool, status: &FarmStatus| settings(&env(tool), &farms, &Access::default(), status).unwrap();
    let of = |tool: &str| ["1", "2"].map(|host| format!("https://10.0.0.{host}:8981/cache/{tool}")).join(",");
    for (tool, urls) in [(Tool::Ccache, of("ccache")), (Tool::Go, of("go"))] {
        assert!(said(tool, &served()).contains(&urls), "{}", said(tool, &served()));
    }
    for tool in [Tool::Bazel, Tool::Gradle, Tool::Nx, Tool::Sccache, Tool::Turbo] {
        let text = said(tool, &served());
        assert!(text.contains("https://10.0.0.1:8981") && !text.contains("10.0.0.2"), "{text}");
    }
    let named = FarmStatus { cache_url: "https://cache.example".into(), ..served() };
    assert!(!said(Tool::Go, &named).contains(','), "expected one address: {}", said(Tool::Go, &named));
}
