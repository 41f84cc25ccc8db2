//! Steps that run in an image's file system: the caches of their build tools, and their compiler calls.

use std::path::Path;

use kiln_harness::bases::{busybox_layout, gcc_layout, go_layout};
use kiln_harness::{Built, Farm, copy, project, write};

use super::project::{c_project, calls, config, counts, outputs};

fn worker(built: &Built) -> String {
    built.of_type("step_finished").last().unwrap()["worker"].as_str().unwrap().to_owned()
}

/// Runs a project's only step twice, on two workers; in between, this changes the project.
fn twice(dir: &Path, change: impl FnOnce(&Path)) -> [Built; 2] {
    let farm = Farm::start(&["one", "two"]);
    let first = farm.build(dir, &["--executor", "sandbox"]).well();
    farm.stop_worker(&worker(&first));
    change(dir);
    let second = farm.build(dir, &["--executor", "sandbox"]).well();
    assert_ne!(worker(&first), worker(&second));
    [first, second]
}

#[test]
fn go_in_an_image_finds_what_was_compiled_on_another_worker() {
    let Some(base) = go_layout() else { return };
    let run = "export PATH=/usr/local/go/bin:$PATH CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'\nmkdir out; go build -v -o out/p . 2>&1; out/p";
    let main = "package main\n\nfunc main() { println(\"hello\") }\n";
    let dir = project(&[
        ("kiln.toml", &config("go-in-image", run, "image = \"./base\"\nmemory = \"2GiB\"\ntimeout = \"10m\"")),
        ("go.mod", "module example.com/p\n\ngo 1.24\n"),
        ("main.go", main),
    ]);
    copy(base, &dir.path().join("base"));
    let [first, second] = twice(dir.path(), |dir| write(dir, "main.go", &main.replace("hello", "good day")));
    let (cold, warm) = (first.log(), second.log());
    assert!(cold.contains("\nruntime\n") && cold.contains("hello"), "{cold}");
    assert!(warm.contains("good day"), "{warm}");
    let compiled: Vec<&str> = warm.lines().filter(|line| !line.contains("good day")).collect();
    assert_eq!(compiled, ["example.com/p"], "expected nothing else to be compiled");
}

#[test]
fn tools_in_an_image_find_what_was_stored_on_another_worker_and_nothing_of_another_root() {
    let put = "printf 'PUT /cache/ccache/aa HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\nmine' | nc 127.0.0.1 18981";
    let get = "wget -qO- $CCACHE_REMOTE_STORAGE/aa || echo nothing";
    let more = "image = \"./base\"";
    let dir = project(&[("kiln.toml", &config("tool-in-image", &format!("mkdir out; {put}"), more))]);
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    if busybox_layout(&base).is_none() {
        return;
    }
    let [first, second] = twice(dir.path(), |dir| {
        write(dir, "kiln.toml", &config("tool-in-image", &format!("mkdir out; {get}"), more));
    });
    assert!(first.log().contains("200 OK"), "{}", first.log());
    assert!(second.log().contains("mine"), "{}", second.log());
    // A step of the same project on the worker's own system has entries of its own.
    let farm = Farm::shared();
    let store = |more: &str| write(dir.path(), "kiln.toml", &config("tool-apart", &format!("mkdir out; {put}"), more));
    let look = |more: &str| {
        write(dir.path(), "kiln.toml", &config("tool-apart", &format!("mkdir out; {get}"), more));
        farm.build(dir.path(), &["--executor", "sandbox"]).well().log()
    };
    store(more);
    assert!(farm.build(dir.path(), &["--executor", "sandbox"]).well().log().contains("200 OK"));
    assert!(look("").contains("nothing"), "expected no entry of an image's step");
    assert!(look(more).contains("mine"));
}

/// A Dockerfile over busybox with Go.
fn dockerfile(base: &Path, text: &str) -> tempfile::TempDir {
    let kiln = "name = \"in-dockerfile\"\nversion = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n\
                contexts = { base = \"oci-layout://base\" }\nmemory = \"2GiB\"\n";
    let dir = project(&[
        ("kiln.toml", kiln),
        ("Dockerfile", text),
        (".dockerignore", "base\nkiln-out\nkiln.toml\n"),
        ("go.mod", "module example.com/p\n\ngo 1.24\n"),
        ("main.go", "package main\n\nfunc main() { println(\"hello\") }\n"),
    ]);
    copy(base, &dir.path().join("base"));
    dir
}

#[test]
fn commands_of_a_dockerfile_that_asks_for_it_find_what_was_compiled_on_another_worker() {
    let Some(base) = go_layout() else { return };
    let text = "FROM base\nENV PATH=/usr/local/go/bin:/bin CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'\nCOPY . /src\nWORKDIR /src\n\
                ARG KILN_TOOL_CACHE=tools\nRUN go build -v -o /p . 2>&1 && /p\n";
    let dir = dockerfile(base, text);
    let change = |dir: &Path| write(dir, "main.go", "package main\n\nfunc main() { println(\"good day\") }\n");
    let [first, second] = twice(dir.path(), change);
    let (cold, warm) = (first.log(), second.log());
    assert!(cold.contains("\nruntime\n") && cold.contains("hello"), "{cold}");
    let compiled: Vec<&str> = warm.lines().filter(|line| !line.contains("good day")).collect();
    assert!(warm.contains("good day"), "{warm}");
    assert_eq!(compiled, ["example.com/p"], "expected nothing else to be compiled");
}

#[test]
fn what_assemblers_and_c_compilers_made_in_a_root_is_not_found_beside_other_headers() {
    let Some(base) = go_layout() else { return };
    let of = |header: &str, before: &str| {
        let text = format!(
            "FROM base\nENV PATH=/usr/local/go/bin:/bin CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'\nCOPY . /src\nWORKDIR /src\n\
             ARG KILN_TOOL_CACHE=headers\nRUN mkdir /include && echo '#define V {header}' > /include/v.h\n\
             RUN {before}go build -v -o /p . 2>&1 && /p\n"
        );
        let dir = dockerfile(base, &text);
        write(
            dir.path(),
            "v_amd64.s",
            "#include \"/include/v.h\"\n#include \"textflag.h\"\nTEXT ·v(SB),NOSPLIT,$0-8\n\tMOVQ $V, ret+0(FP)\n\tRET\n",
        );
        write(dir.path(), "main.go", "package main\n\nfunc v() int\n\nfunc main() { println(\"V is\", v()) }\n");
        Farm::shared().build(dir.path(), &[]).well().log()
    };
    if kiln_harness::bases::own_architecture() != "amd64" {
        return;
    }
    assert!(of("1", "").contains("V is 1"));
    assert!(of("2", "").contains("V is 2"), "expected another root to be noticed");
    let within = of("1", "echo '#define V 3' > /include/v.h; ");
    assert!(within.contains("V is 3"), "expected what the command itself has changed to be noticed: {within}");
}

#[test]
fn a_command_sees_no_trace_of_its_builder_unless_its_dockerfile_asks_and_leaves_none() {
    let Some(base) = go_layout() else { return };
    let text = "FROM base\nRUN echo \"before: $(env | grep -c -e CCACHE -e KILN -e GOCACHEPROG) $(ls -d /kiln)\"\n\
                ARG KILN_TOOL_CACHE=traces\nRUN echo \"with: $(env | grep -c -e ^CCACHE -e KILN_TOOL -e GOCACHEPROG) $(ls /kiln)\"\n\
                RUN --network=none printf 'GET /cache/ccache/aa HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | nc 127.0.0.1 18981\n\
                RUN --mount=type=cache,target=/own echo \"own: $(env | grep -c -e CCACHE -e GOCACHEPROG) $(ls -d /kiln)\"\n\
                ARG KILN_TOOL_CACHE=\nRUN echo \"after: $(env | grep -c -e CCACHE -e GOCACHEPROG) $(ls -d /kiln)\"\n";
    let dir = dockerfile(base, text);
    let said = Farm::shared().build(dir.path(), &[]).well().log();
    for line in ["before: 0 \n", "with: 3 call\n", "404 Not Found", "own: 0 \n", "after: 0 \n"] {
        assert!(said.contains(line), "expected `{line}` in: {said}");
    }
}

/// The C project, in an image with GCC.
fn c_in_image(name: &str, base: &Path, more: &str) -> tempfile::TempDir {
    let dir = c_project(name, &format!("image = \"./base\"\n{more}"));
    let makefile = std::fs::read_to_string(dir.path().join("Makefile")).unwrap();
    write(dir.path(), "Makefile", &makefile.replace("\tcc ", "\tgcc "));
    copy(base, &dir.path().join("base"));
    dir
}

#[test]
fn compilers_of_an_image_are_known_by_what_they_read() {
    let Some(base) = gcc_layout() else { return };
    let dir = c_in_image("c-in-image", base, "");
    let build = |dir: &Path| (Farm::shared().build(dir, &["--executor", "sandbox"]).well(), outputs(dir));
    let (cold, first) = build(dir.path());
    assert_eq!(counts(&cold), (0, 7), "{:?}", calls(&cold, "build"));
    write(dir.path(), "src/f2.c", "#include \"own.h\"\nint f2(int x) { return x + OWN; }\n");
    let (edited, second) = build(dir.path());
    assert_eq!(counts(&edited), (6, 1), "{:?}", calls(&edited, "build"));
    let plain = c_in_image("c-in-image", base, "split = false");
    write(plain.path(), "src/f2.c", "#include \"own.h\"\nint f2(int x) { return x + OWN; }\n");
    let (not_split, objects) = build(plain.path());
    assert_eq!(counts(&not_split), (0, 0));
    assert!(objects == second && first != second, "expected what is built without splitting");
}

/// The same project as a Dockerfile that makes it; its command has this before it.
fn c_dockerfile(name: &str, base: &Path, before: &str) -> tempfile::TempDir {
    let dir = c_in_image(name, base, "");
    let kiln = format!(
        "name = \"{name}\"\nversion = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n\
         contexts = {{ base = \"oci-layout://base\" }}\nmemory = \"2GiB\"\n"
    );
    write(dir.path(), "kiln.toml", &kiln);
    write(dir.path(), ".dockerignore", "base\nkiln-out\nkiln.toml\nDockerfile\n");
    let text = format!(
        "FROM base AS made\nCOPY . /src\nWORKDIR /src\n{before}RUN make -s -j4 && mkdir /out && cp prog obj/*.o obj/*.d /out && sha256sum /out/*\n\
         FROM base\nCOPY --from=made /out /out\n"
    );
    write(dir.path(), "Dockerfile", &text);
    dir
}

/// The hits and the compiled calls of a build's only command that compiled anything, and what it said of its outputs.
fn made(dir: &Path) -> ((u64, u64), Vec<String>) {
    let built = Farm::shared().build(dir, &[]).well();
    let finished = built.of_type("step_finished");
    let count = |name: &str| finished.iter().filter_map(|step| step["calls"][name].as_u64()).sum::<u64>();
    let mut said: Vec<String> =
        built.log().lines().filter(|line| line.contains("  /out/")).map(str::to_owned).collect();
    said.sort();
    ((count("hits"), count("compiled")), said)
}

#[test]
fn a_command_of_a_dockerfile_compiles_what_an_edit_changed() {
    let Some(base) = gcc_layout() else { return };
    let edit = |dir: &Path| write(dir, "src/f2.c", "#include \"own.h\"\nint f2(int x) { return x + OWN; }\n");
    let dir = c_dockerfile("c-in-dockerfile", base, "ARG KILN_TOOL_CACHE=calls\n");
    let (cold, first) = made(dir.path());
    assert_eq!(cold, (0, 7));
    edit(dir.path());
    let (edited, second) = made(dir.path());
    assert_eq!(edited, (6, 1));
    // Without its help, of the same time.
    let plain = c_dockerfile("c-in-dockerfile", base, "ENV SOURCE_DATE_EPOCH=946684800\n");
    edit(plain.path());
    let (nothing, same) = made(plain.path());
    assert_eq!(nothing, (0, 0));
    assert!(same == second && first != second && same.len() > 10, "{first:#?} {second:#?} {same:#?}");
}

#[test]
fn a_command_that_changes_headers_of_its_root_compiles_with_what_it_has_made_of_them() {
    let Some(base) = gcc_layout() else { return };
    let of = |value: &str, make: &str| {
        let dir = c_dockerfile("c-headers", base, "ARG KILN_TOOL_CACHE=calls\n");
        let text = std::fs::read_to_string(dir.path().join("Dockerfile")).unwrap();
        // One header of the root is new, and one is not what it was.
        let before = format!(
            "RUN echo '#define NEW {value}' > /usr/include/new.h && echo '#define OF_ROOT {value}' >> /usr/include/paths.h && {make}"
        );
        write(dir.path(), "Dockerfile", &text.replace("RUN make", &before));
        let main = "#include <new.h>\n#include <paths.h>\nint main(void) { return NEW + OF_ROOT; }\n";
        write(dir.path(), "src/main.c", main);
        made(dir.path())
    };
    let (first, other, again) = (of("3", "make"), of("4", "make"), of("3", "true && make"));
    assert_eq!((first.0, other.0), ((0, 7), (6, 1)), "expected a changed header to count");
    assert_eq!(again.0, (7, 0));
    let main =
        |made: &((u64, u64), Vec<String>)| made.1.iter().find(|line| line.ends_with("/main.o")).cloned().unwrap();
    assert_ne!(main(&first), main(&other));
    assert_eq!(main(&first), main(&again));
}
