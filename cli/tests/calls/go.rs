//! Go's build cache inside steps: what one step compiled is there for the next, on every worker.

use kiln_harness::{Built, Farm, commit, http, output, project, until, write};

/// The directory of Go 1.24 or later, which the tests install; the system's may be older.
fn go() -> Option<String> {
    let tools = std::fs::read_dir("/opt/kiln-test-tools/lib").into_iter().flatten().flatten();
    let found = tools.map(|python| python.path().join("site-packages/go/bin")).find(|bin| bin.join("go").exists());
    assert!(found.is_some() || std::env::var_os("KILN_TESTS_MUST_RUN").is_none(), "no Go; `.ci/test` installs it");
    if found.is_none() {
        eprintln!("skipped: no Go of the tests; `.ci/test` installs it");
    }
    found.map(|bin| bin.display().to_string())
}

const LIB: &str = "package lib\n\nfunc Greeting() string { return \"hello\" }\n";
/// Imports nothing of the standard library: the runtime alone takes half as long to compile as all that `fmt` needs.
const MAIN: &str = "package main\n\nimport \"example.com/p/lib\"\n\nfunc main() { println(lib.Greeting()) }\n";
const WITH_FMT: &str = "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.com/p/lib\"\n)\n\nfunc main() { fmt.Println(lib.Greeting()) }\n";

fn config(go: &str, name: &str, run: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\n[steps.compile]\nrun = '''\nexport PATH={go}:$PATH\n{run}\n'''\noutputs = [\"out\"]\n\
         env = {{ GOTOOLCHAIN = \"local\", GOFLAGS = \"-trimpath -buildvcs=false\" }}\nmemory = \"2GiB\"\ntimeout = \"10m\"\n{more}\n"
    )
}

/// A program of two packages.
fn program(go: &str, name: &str, run: &str, more: &str) -> tempfile::TempDir {
    project(&[
        ("kiln.toml", &config(go, name, run, more)),
        ("go.mod", "module example.com/p\n\ngo 1.24\n"),
        ("lib/lib.go", LIB),
        ("main.go", MAIN),
    ])
}

/// Entries that were there, and those that were not.
fn found(built: &Built) -> (u64, u64) {
    let calls = &built.of_type("step_finished")[0]["calls"];
    (calls["go_hits"].as_u64().unwrap_or_default(), calls["go_misses"].as_u64().unwrap_or_default())
}

fn built(farm: &Farm, dir: &std::path::Path) -> (Built, String) {
    let built = farm.build(dir, &[]).well();
    let said = built.log();
    (built, said)
}

#[test]
fn what_a_step_compiled_is_there_for_the_next_one_on_another_worker() {
    let Some(go) = go() else { return };
    let farm = Farm::start(&["one", "two"]);
    let dir = program(&go, "shared", "mkdir out; go build -v -ldflags=-buildid= -o out/p .; out/p", "");
    let (first, said) = built(&farm, dir.path());
    assert!(said.contains("hello"), "{said}");
    let (hits, cold) = found(&first);
    assert!(hits == 0 && cold > 20, "expected a cold cache, found {hits} of {}", hits + cold);
    let on = |built: &Built| built.of_type("step_finished")[0]["worker"].as_str().unwrap().to_owned();
    // The other worker has nothing but what the farm has.
    farm.stop_worker(&on(&first));
    write(dir.path(), "lib/lib.go", &LIB.replace("hello", "good day"));
    let (second, said) = built(&farm, dir.path());
    assert!(said.contains("good day"), "{said}");
    assert_ne!(on(&second), on(&first));
    let (hits, misses) = found(&second);
    assert!(hits > cold / 2, "expected what was compiled before, found {hits} of {}", hits + misses);
    let compiled: Vec<&str> = said.lines().filter(|line| !line.contains("good day")).collect();
    assert_eq!(compiled, ["example.com/p/lib", "example.com/p"], "expected nothing else to be compiled");
    // The outputs are those of a build without it.
    let plain = farm.build(dir.path(), &["--no-cache"]).well();
    assert_eq!(found(&plain), (0, 0));
    let digest = |built: &Built| built.of_type("step_finished")[0]["outputs"].clone();
    assert_eq!(digest(&plain), digest(&second));
}

#[test]
fn what_a_worker_keeps_of_a_distrusted_one_is_not_used() {
    let Some(go) = go() else { return };
    let farm = Farm::start(&["liar"]);
    let dir = program(&go, "distrusted", "mkdir out; go build -v -ldflags=-buildid= -o out/p .; out/p", "");
    let (first, _) = built(&farm, dir.path());
    let (_, cold) = found(&first);
    farm.stop_worker("liar");
    farm.start_worker("honest");
    farm.wait_for_worker("honest");
    write(dir.path(), "lib/lib.go", &LIB.replace("hello", "good day"));
    let (second, _) = built(&farm, dir.path());
    let (hits, misses) = found(&second);
    assert!(
        hits > cold / 2,
        "expected this worker to have got what the other compiled, found {hits} of {}",
        hits + misses
    );
    let ran = farm.kiln(&["farm", "distrust", "liar", "--since", "1h"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    write(dir.path(), "lib/lib.go", &LIB.replace("hello", "good evening"));
    let (third, said) = built(&farm, dir.path());
    let (hits, misses) = found(&third);
    assert!(misses > cold / 2, "expected all of that to be compiled again, found {hits} of {}: {said}", hits + misses);
    assert!(said.lines().any(|line| line == "runtime") && said.contains("good evening"), "{said}");
}

/// The sum of all samples of a metric of a process that begin with these words.
fn sum(farm: &Farm, process: &str, words: &str) -> u64 {
    let log = farm.log(process);
    let line = log.lines().find(|line| line.contains("serving metrics and health")).unwrap();
    let samples = http::samples(line.split("address=").nth(1).unwrap().trim());
    let values = samples.iter().filter(|sample| sample.starts_with(words)).map(|sample| sample.rsplit(' ').next());
    values.map(|value| value.unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_worker_counts_hits_and_misses_and_asks_for_few_of_them() {
    let Some(go) = go() else { return };
    let listen = ["--metrics-listen", "127.0.0.1:0"];
    let farm = Farm::with(&listen, &[]);
    farm.start_worker_with("one", &listen);
    farm.wait_for_worker("one");
    let dir = program(&go, "counted", "export CGO_ENABLED=0\nmkdir out; go build -o out/p .", "");
    write(dir.path(), "main.go", WITH_FMT);
    let (first, _) = built(&farm, dir.path());
    let asked = || sum(&farm, "coordinator", "kiln_grpc_calls_total{service=\"kiln.v1.Calls\",method=\"Look\"");
    let before = asked();
    write(dir.path(), "lib/lib.go", &LIB.replace("hello", "good day"));
    let (second, _) = built(&farm, dir.path());
    let ((cold_hits, cold_misses), (hits, misses)) = (found(&first), found(&second));
    // The index of each package, and what has changed.
    assert!(misses > 50 && before >= cold_misses, "{misses} misses, the farm was asked {before} times");
    let again = asked() - before;
    assert!(again < 20, "expected few of {misses} misses to be asked for, found {again}");
    let counted = |result: &str| {
        let words = format!("kiln_worker_tool_cache_lookups_total{{tool=\"go\",result=\"{result}\"");
        sum(&farm, "one", &words)
    };
    let expected = (cold_hits + hits, cold_misses + misses);
    until("both steps to be counted", || ((counted("hit"), counted("miss")) == expected).then_some(()));
    // A worker that has nothing asks for all of it at once.
    farm.stop_worker("one");
    farm.start_worker("two");
    farm.wait_for_worker("two");
    let before = asked();
    write(dir.path(), "lib/lib.go", &LIB.replace("hello", "good night"));
    let (third, _) = built(&farm, dir.path());
    let ((hits, misses), again) = (found(&third), asked() - before);
    assert!(hits > 50, "{hits} hits, {misses} misses");
    assert!(again < 20, "expected {hits} hits and {misses} misses with few questions, found {again}");
}

#[test]
fn a_changed_file_of_a_test_or_header_elsewhere_is_never_taken_for_the_old_one() {
    let Some(go) = go() else { return };
    let farm = Farm::shared();
    // The results of tests, and of cgo, depend on files that Go knows by their times, or not at all.
    let run = "go test ./lib; CGO_ENABLED=1 go build -o p . && ./p; mkdir out";
    let dir = program(&go, "times", run, "");
    let test = "package lib\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestData(t *testing.T) {\n\tdata, _ := os.ReadFile(\"data.txt\")\n\tif string(data) != \"good\" {\n\t\tt.Fatal(string(data))\n\t}\n}\n";
    write(dir.path(), "lib/lib_test.go", test);
    write(dir.path(), "lib/data.txt", "good");
    write(dir.path(), "include/n.h", "#define N 1\n");
    let with_c = "package main\n\n// #cgo CFLAGS: -I${SRCDIR}/include\n// #include <n.h>\n// static int n(void) { return N; }\nimport \"C\"\n\nfunc main() { println(\"N is\", C.n()) }\n";
    write(dir.path(), "main.go", with_c);
    let (_, said) = built(farm, dir.path());
    assert!(said.contains("N is 1"), "{said}");
    // As long as before, and all files have one time.
    write(dir.path(), "include/n.h", "#define N 2\n");
    let (_, said) = built(farm, dir.path());
    assert!(said.contains("N is 2") && !said.contains("(cached)"), "{said}");
    write(dir.path(), "lib/data.txt", "baad");
    let failed = farm.build(dir.path(), &[]);
    assert!(failed.0.code == 1 && failed.log().contains("baad"), "{}", failed.log());
    // Imports of the same length.
    write(dir.path(), "lib/data.txt", "good");
    write(dir.path(), "include/n.h", "#define N 3\n");
    let (_, said) = built(farm, dir.path());
    assert!(said.contains("N is 3"), "{said}");
}

#[test]
fn a_step_with_a_cache_of_its_own_keeps_it() {
    let Some(go) = go() else { return };
    let more = "[steps.off]\nrun = \"echo 'prog='$GOCACHEPROG.\"\nenv = { GOCACHEPROG = \"\" }\n";
    let dir = program(&go, "own", "export GOCACHE=$PWD/out; echo \"prog=$GOCACHEPROG.\"; mkdir out; touch out/x", more);
    let text = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &text.replace("GOTOOLCHAIN =", "GOCACHE = \"/build/out\", GOTOOLCHAIN ="));
    let (_, said) = built(Farm::shared(), dir.path());
    assert_eq!(said.matches("prog=.").count(), 2, "{said}");
}

#[test]
fn a_detected_project_compiles_nothing_beforehand_that_the_cache_has() {
    let planned = |version: &str| {
        let dir = project(&[
            ("go.mod", &format!("module example.com/p\n\ngo {version}\n")),
            ("lib/lib.go", LIB),
            ("main.go", MAIN),
        ]);
        commit(dir.path());
        let json = output(kiln_harness::run::program().to_str().unwrap(), &["plan", "--json"], dir.path());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let steps = json["steps"].as_array().unwrap().clone();
        steps.iter().map(|step| step["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(planned("1.24"), ["compile"]);
    assert_eq!(planned("1.23"), ["std", "compile"]);
}
