//! Rust, Go, C and Java.

use insta::assert_snapshot;

use super::{planned, written};

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"itoa\"\nversion = \"1.0.1\"\nsource = \"registry+x\"\n\n\
                    [[package]]\nname = \"shop\"\nversion = \"1.4.2\"\ndependencies = [\n \"itoa\",\n]\n";

#[test]
fn a_rust_package() {
    let manifest = "[package]\nname = \"shop\"\nversion = \"1.4.2\"\nedition = \"2024\"\n[dependencies]\nitoa = \"1\"\n\
                    [[bench]]\nname = \"speed\"\nharness = false\n";
    assert_snapshot!(written(&[
        (".cargo/config.toml", ""), ("Cargo.lock", LOCK), ("Cargo.toml", manifest), ("benches/speed.rs", ""),
        ("build.rs", ""), ("src/lib.rs", ""), ("src/main.rs", ""),
    ], &["src/other.rs"]), @r###"
# rust: `Cargo.toml` is a package; `Cargo.lock` locks what it needs
name = "shop"
# version: the manifest's, now 1.4.2

[steps.fetch]
why = "fetches the packages that `Cargo.lock` names"
inputs = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
unversioned = ["Cargo.toml", "Cargo.lock"]
run = "cargo fetch --locked"
outputs = [".cargo-home"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target" }
network = true
tools = ["cargo"]
[steps.fetch.files]
"benches/speed.rs" = '''
fn main() {}
'''
"build.rs" = '''
fn main() {}
'''
"src/lib.rs" = ""
"src/main.rs" = '''
fn main() {}
'''

[steps.deps]
why = "compiles the dependencies; keyed by the manifests and the lock file, with the sources stubbed"
needs = ["fetch"]
inputs = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
unversioned = ["Cargo.toml", "Cargo.lock"]
run = '''
cargo build --release --offline --locked
cargo clean --release --offline -p shop'''
outputs = ["target"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target" }
cpus = 2
memory = "2GiB"
tools = ["cargo", "rustc", "cc"]
[steps.deps.files]
"benches/speed.rs" = '''
fn main() {}
'''
"build.rs" = '''
fn main() {}
'''
"src/lib.rs" = ""
"src/main.rs" = '''
fn main() {}
'''

[steps.compile]
why = "compiles the project's own packages"
needs = ["fetch", "deps"]
run = "cargo build --release --offline --locked"
outputs = ["target/release/shop"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target" }
cpus = 2
memory = "2GiB"
tools = ["cargo", "rustc", "cc"]

[artifacts.shop]
from = ["compile"]
files = [{ path = "target/release/shop", dest = "shop" }]
"###);
}

#[test]
fn a_rust_workspace_with_members_libraries_and_path_dependencies() {
    let plan = planned(&[
        (
            "Cargo.lock",
            &format!(
                "{LOCK}\n[[package]]\nname = \"parts\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"odd\"\nversion = \"0.1.0\"\n"
            ),
        ),
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nexclude = [\"crates/left-out\"]\n"),
        ("crates/left-out/Cargo.toml", "[package]\nname = \"left-out\""),
        ("crates/left-out/src/main.rs", ""),
        ("crates/parts/Cargo.toml", "[package]\nname = \"parts\"\nversion = \"0.1.0\"\n[lib]\nproc-macro = true\n"),
        ("crates/parts/src/lib.rs", ""),
        (
            "crates/shop/Cargo.toml",
            "[package]\nname = \"shop\"\nversion = \"1.4.2\"\n[dependencies]\nitoa = \"1\"\n\
          odd = { path = \"../../odd\" }\n",
        ),
        ("crates/shop/src/bin/admin.rs", ""),
        ("crates/shop/src/bin/serve/main.rs", ""),
        ("odd/Cargo.toml", "[package]\nname = \"odd\"\nversion = \"0.1.0\"\n[lib]\npath = \"odd.rs\"\n"),
        ("odd/odd.rs", ""),
    ]);
    let [fetch, deps, compile] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!(
        fetch.inputs,
        ["Cargo.toml", "crates/parts/Cargo.toml", "crates/shop/Cargo.toml", "odd/Cargo.toml", "Cargo.lock"]
    );
    let stubs: Vec<&str> = deps.files.keys().map(String::as_str).collect();
    assert_eq!(
        stubs,
        ["crates/parts/src/lib.rs", "crates/shop/src/bin/admin.rs", "crates/shop/src/bin/serve/main.rs", "odd/odd.rs"]
    );
    assert!(deps.run.ends_with("cargo clean --release --offline -p parts -p shop -p odd"), "{}", deps.run);
    assert_eq!(compile.outputs, ["target/release/admin", "target/release/serve"]);
    assert_eq!(plan.artifacts.len(), 2);
}

#[test]
fn a_rust_library_and_a_program_that_needs_nothing() {
    let library = planned(&[
        ("Cargo.toml", "[package]\nname = \"my-parts\"\nversion = \"1.0.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n"),
        ("src/lib.rs", ""),
    ]);
    assert_eq!(library.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["compile"]);
    assert_eq!(library.steps[0].outputs, ["target/release/libmy_parts.so"]);
    assert_eq!(library.notes.len(), 1);
}

#[test]
fn a_go_module() {
    assert_snapshot!(written(&[
        ("cmd/shop/main.go", ""),
        ("go.mod", "module example.com/shop/v2\n\ngo 1.21\n\nrequire (\n\trsc.io/quote v1.5.2\n\tgolang.org/x/text v0.1.0 // indirect\n)\n"),
        ("go.sum", "rsc.io/quote v1.5.2 h1:x\nrsc.io/quote v1.5.2/go.mod h1:x\ngolang.org/x/text v0.1.0/go.mod h1:x\n"),
    ], &["cmd/shop/main.go"]), @r###"
# go: `go.mod` is a module
name = "shop"
# version: what git describe says

[steps.fetch]
why = "fetches the modules that `go.sum` names"
inputs = ["go.mod", "go.sum"]
run = '''
go mod download
mkdir -p .kiln/go-mod'''
outputs = [".kiln/go-mod"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
network = true
tools = ["go"]

[steps.deps]
why = "compiles the standard library and the requirements; keyed by the `go.mod` and `go.sum` files"
needs = ["fetch"]
inputs = ["go.mod", "go.sum"]
run = '''
go build -trimpath -buildvcs=false -ldflags=-buildid= std
go list -e -f '{{if not .Error}}{{.ImportPath}}{{end}}' rsc.io/quote/... | xargs -r -n 50 go build -trimpath -buildvcs=false -ldflags=-buildid= || true'''
outputs = [".kiln/go-cache"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
cpus = 2
memory = "2GiB"
tools = ["go"]

[steps.compile]
why = "compiles the project's own packages"
needs = ["fetch", "deps"]
run = '''
mkdir -p .kiln/out/
go build -trimpath -buildvcs=false -ldflags=-buildid= -o .kiln/out/ ./cmd/...
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: no package `main` was found, so there is no program to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
cpus = 2
memory = "2GiB"
tools = ["go"]

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
}

#[test]
fn a_go_workspace_keys_on_every_module() {
    let plan = planned(&[
        ("a/go.mod", "module example.com/a\n\nrequire example.com/b v0.0.0\n"),
        ("a/main.go", ""),
        ("b/b.go", ""),
        ("b/go.mod", "module example.com/b\n"),
        ("go.work", "go 1.21\n\nuse (\n\t./a\n\t./b\n)\n"),
    ]);
    assert_eq!(plan.steps[0].inputs, ["a/go.mod", "b/go.mod", "go.work"]);
    assert!(plan.steps[1].run.contains("./a ./b/..."), "{}", plan.steps[1].run);
}

#[test]
fn c_by_cmake_meson_configure_and_make() {
    let cmake = "cmake_minimum_required(VERSION 3.16)\nproject(count VERSION 1.2.0 LANGUAGES C)\n";
    assert_snapshot!(written(&[("CMakeLists.txt", cmake), ("main.c", "")], &["main.c"]), @r###"
# c (cmake): `CMakeLists.txt` is a CMake project
name = "count"
# version: the manifest's, now 1.2.0

[steps.compile]
why = "compiles the project and installs it into a staging directory"
run = '''
cmake -S . -B .kiln/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local
cmake --build .kiln/build -j "$(nproc)"
mkdir -p .kiln/out
DESTDIR=/build/.kiln/out cmake --install .kiln/build
if [ -z "$(find .kiln/out -type f | head -n 1)" ]; then
mkdir -p .kiln/out/bin
touch -d 2010-01-01 .kiln/age
find . -path ./.kiln/out -prune -o -path '*/CMakeFiles' -prune -o -path '*/meson-private' -prune -o \
    -type f -perm -u+x -newer .kiln/age -print | LC_ALL=C sort | while read -r file; do
    case "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" in
        7f454c46) cp "$file" .kiln/out/bin/ ;;
    esac
done
fi
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: the build installed nothing and left no executable, so there is nothing to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["cmake", "make", "cc"]

[artifacts.count]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
    assert_snapshot!(written(
        &[("main.c", ""), ("meson.build", "project('count', 'c', version: '0.3')\n"), ("subprojects/zlib.wrap", "")],
        &["main.c"]
    ), @r###"
# c (meson): `meson.build` is a Meson project
name = "count"
# version: the manifest's, now 0.3

[steps.fetch]
why = "fetches the subprojects that wraps name"
inputs = ["meson.build", "subprojects"]
run = "meson subprojects download"
outputs = ["subprojects"]
network = true
tools = ["meson"]

[steps.compile]
why = "compiles the project and installs it into a staging directory"
needs = ["fetch"]
run = '''
meson setup .kiln/build --buildtype=release --prefix=/usr/local --wrap-mode=nodownload
meson compile -C .kiln/build
mkdir -p .kiln/out
DESTDIR=/build/.kiln/out meson install -C .kiln/build --no-rebuild
if [ -z "$(find .kiln/out -type f | head -n 1)" ]; then
mkdir -p .kiln/out/bin
touch -d 2010-01-01 .kiln/age
find . -path ./.kiln/out -prune -o -path '*/CMakeFiles' -prune -o -path '*/meson-private' -prune -o \
    -type f -perm -u+x -newer .kiln/age -print | LC_ALL=C sort | while read -r file; do
    case "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" in
        7f454c46) cp "$file" .kiln/out/bin/ ;;
    esac
done
fi
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: the build installed nothing and left no executable, so there is nothing to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["meson", "ninja", "cc"]

[artifacts.count]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
    let configure = planned(&[("configure", ""), ("main.c", ""), ("Makefile.in", "")]);
    assert!(configure.steps[0].run.starts_with("./configure --prefix=/usr/local\nmake -j"));
    let install = planned(&[("Makefile", "install: all\n\tcp a $(DESTDIR)/usr/bin\n")]);
    assert!(install.steps[0].run.contains("make DESTDIR=/build/.kiln/out"));
    let empty = planned(&[("Makefile", "DESTDIR ?=\ninstall: all\n\tcp a $(DESTDIR)/usr/bin\n")]);
    assert!(empty.steps[0].run.contains("make DESTDIR=/build/.kiln/out"));
    let own = "DESTDIR=${PREFIX}/bin\ninstall: all\n\tcp a $(DESTDIR)\n\tcp a.1 $(PREFIX)/man/man1\n";
    let own = planned(&[("Makefile", own)]);
    assert!(!own.steps[0].run.contains("DESTDIR"), "its `DESTDIR` is a place and no root: {}", own.steps[0].run);
    assert_snapshot!(written(&[("Makefile", "all:\n\tcc -o a a.c\n"), ("a.c", "")], &["a.c"]), @r###"
# c (make): `Makefile` is built by Make; without an `install` that knows `DESTDIR`, its executables are collected
name = "project"
# version: what git describe says

[steps.compile]
why = "compiles the project and installs it into a staging directory"
run = '''
make -j "$(nproc)"
mkdir -p .kiln/out
if [ -z "$(find .kiln/out -type f | head -n 1)" ]; then
mkdir -p .kiln/out/bin
touch -d 2010-01-01 .kiln/age
find . -path ./.kiln/out -prune -o -path '*/CMakeFiles' -prune -o -path '*/meson-private' -prune -o \
    -type f -perm -u+x -newer .kiln/age -print | LC_ALL=C sort | while read -r file; do
    case "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" in
        7f454c46) cp "$file" .kiln/out/bin/ ;;
    esac
done
fi
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: the build installed nothing and left no executable, so there is nothing to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["make", "cc"]

[artifacts.project]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
}

#[test]
fn java_by_maven_gradle_and_alone() {
    let pom = "<project><artifactId>shop</artifactId><version>1.4.2</version></project>";
    assert_snapshot!(written(&[("pom.xml", pom), ("src/main/java/A.java", "")], &["src/main/java/A.java"]), @r###"
# java (maven): `pom.xml` is a Maven project
name = "shop"
# version: the manifest's, now 1.4.2

[steps.deps]
why = "fills the local repository; keyed by the `pom.xml` files"
inputs = ["pom.xml"]
unversioned = ["pom.xml"]
run = '''
mvn -B -Dmaven.repo.local=/build/.kiln/m2 dependency:go-offline
mvn -B -Dmaven.repo.local=/build/.kiln/m2 -fae -DskipTests package || true
# what differs from one run to the next
find .kiln/m2 \( -name '*.lastUpdated' -o -name resolver-status.properties -o -name _remote.repositories \) \
    -delete'''
outputs = [".kiln/m2"]
network = true
tools = ["mvn", "java", "javac"]

[steps.compile]
why = "compiles and packages the project; tests are left to a step of their own"
needs = ["deps"]
run = '''
mvn -B -o -Dmaven.repo.local=/build/.kiln/m2 -Dproject.build.outputTimestamp=2000-01-01T00:00:00Z -DskipTests package
mkdir -p .kiln/out
find . -path ./.kiln -prune -o -type f \( -path '*/target/*.jar' -o -path '*/target/*.war' \) \
    ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-plain.jar' \
    -exec cp {} .kiln/out/ \;
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: the build left no package, so there is nothing to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["mvn", "java", "javac"]

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
    assert_snapshot!(written(&[
        ("build.gradle", "version = '1.4.2'\ndependencies { }\n"),
        ("settings.gradle", "rootProject.name = 'shop'\n"),
        ("src/main/java/A.java", ""),
    ], &["src/main/java/A.java"]), @r###"
# java (gradle): `settings.gradle` is a Gradle project
name = "shop"
# version: the manifest's, now 1.4.2

[steps.deps]
why = "resolves every configuration; keyed by the build files"
inputs = ["build.gradle", "settings.gradle"]
unversioned = ["build.gradle", "settings.gradle"]
run = '''
gradle --no-daemon --init-script .kiln/resolve.gradle kilnResolve
find .kiln/gradle-home -name '*.lock' -delete
rm -rf .kiln/gradle-home/daemon'''
outputs = [".kiln/gradle-home"]
env = { GRADLE_USER_HOME = "/build/.kiln/gradle-home" }
network = true
tools = ["gradle", "java", "javac"]
[steps.deps.files]
".kiln/resolve.gradle" = '''
allprojects {
    task kilnResolve {
        doLast {
            def all = project.configurations.findAll { it } + project.buildscript.configurations.findAll { it }
            all.each { configuration ->
                def open = !configuration.hasProperty('canBeResolved') || configuration.canBeResolved
                if (open) { configuration.files }
            }
        }
    }
}
'''

[steps.compile]
why = "compiles and packages the project; tests are left to a step of their own"
needs = ["deps"]
run = '''
gradle --no-daemon --offline build -x test
mkdir -p .kiln/out
find . -path ./.kiln -prune -o -type f \( -path '*/build/libs/*.jar' -o -path '*/build/libs/*.war' \) \
    ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-plain.jar' \
    -exec cp {} .kiln/out/ \;
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo "kiln: the build left no package, so there is nothing to hand over" >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { GRADLE_USER_HOME = "/build/.kiln/gradle-home" }
cpus = 2
memory = "2GiB"
tools = ["gradle", "java", "javac"]

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
note: no `gradle.lockfile` locks the dependencies, so two builds of one commit could differ: enable `dependencyLocking` and run `gradle dependencies --write-locks`
"###);
    assert_snapshot!(written(&[("src/A.java", ""), ("src/words.properties", "")], &["src/A.java"]), @r###"
# java: there are 1 Java sources and no build tool's file
name = "project"
# version: what git describe says

[steps.compile]
why = "compiles every source and packs the classes into a jar"
run = '''
mkdir -p .kiln/classes .kiln/out
find src -path ./.kiln -prune -o -name '*.java' ! -path '*/test/*' -print | LC_ALL=C sort > .kiln/sources
javac -encoding UTF-8 -d .kiln/classes -cp 'lib/*' @.kiln/sources
(cd src && find . -type f ! -name '*.java' -exec cp --parents {} /build/.kiln/classes/ \;)
main=$(xargs grep -lE 'static +(final +)?void +main *\(' < .kiln/sources | head -n 1 || true)
entry=''
if [ -n "$main" ]; then
    package=$(sed -nE 's/^ *package +([A-Za-z0-9_.]+) *;.*/\1./p' "$main" | head -n 1)
    entry="--main-class=$package$(basename "$main" .java)"
fi
# entries in one order and of one time, where this jar can
if jar --help | grep -q -- --date; then entry="$entry --date=2000-01-01T00:00:00Z"; fi
cd .kiln/classes
find . -type f | LC_ALL=C sort | sed 's,^\./,,' > ../entries
jar --create --file=/build/.kiln/out/project.jar $entry @../entries
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["javac", "jar"]

[artifacts.project]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
}
