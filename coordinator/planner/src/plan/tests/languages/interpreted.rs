//! Node, Python and Ruby.

use insta::assert_snapshot;

use super::{planned, written};

#[test]
fn node_by_npm() {
    assert_snapshot!(written(&[
        ("index.js", ""),
        ("package-lock.json", r#"{"packages":{"node_modules/ms":{}}}"#),
        ("package.json", r#"{"name":"@acme/shop","version":"1.4.2","scripts":{"build":"x","postinstall":"y"},
            "dependencies":{"ms":"^2"}}"#),
        ("patches/ms.patch", ""),
    ], &["index.js"]), @r###"
# node (npm): `package.json` is a package; `package-lock.json` locks its dependencies
name = "@acme/shop"
# version: from the manifest, currently 1.4.2

[steps.deps]
why = "installs what `package-lock.json` names; keyed by it and each `package.json`"
inputs = ["package.json", "package-lock.json", "patches"]
unversioned = ["package.json", "package-lock.json"]
run = '''
npm ci --no-audit --no-fund
mkdir -p node_modules
'''
outputs = ["node_modules"]
env = { npm_config_cache = "/tmp/npm-cache", npm_config_update_notifier = "false" }
network = true
memory = "2GiB"
tools = ["node", "npm"]

[steps.production]
why = "removes development dependencies; keyed like the layer before it"
needs = ["deps"]
inputs = ["package.json", "package-lock.json", "patches"]
unversioned = ["package.json", "package-lock.json"]
run = '''
mkdir -p .kiln/out
for path in node_modules; do
    if [ -e "$path" ]; then
        # what differs from one run to the next
        rm -rf "$path/.cache" "$path/.modules.yaml" "$path"/.pnpm-workspace-state*.json
        mkdir -p "$(dirname ".kiln/out/$path")"
        mv "$path" ".kiln/out/$path"
    fi
done
'''
outputs = [".kiln/out"]
env = { npm_config_cache = "/tmp/npm-cache", npm_config_update_notifier = "false" }
cpus = 2
memory = "2GiB"
tools = ["node", "npm"]

[steps.bundle]
why = "runs the package's own scripts, and bundles it with its dependencies"
needs = ["deps", "production"]
run = '''
mkdir -p .kiln
touch -d 2010-01-01 .kiln/age
npm run postinstall
npm run build
# what the scripts wrote into installed packages
for root in node_modules; do
    find "$root" \( -name .cache -o -name '.vite*' -o -name .tmp -o -name .temp \) -prune -o \
        -type f -newer .kiln/age -print 2>/dev/null | while read -r file; do
        inner=${file#"$root"/}
        package=${inner%%/*}
        case "$inner" in @*/*/*|.pnpm/*/*|.bun/*/*) rest=${inner#*/}; package=$package/${rest%%/*} ;; esac
        if [ -e ".kiln/out/$root/$package" ] ||
            [ -z "$(find "$root/$package" -type f ! -newer .kiln/age | head -n 1)" ]; then
            mkdir -p "$(dirname ".kiln/out/$file")"
            cp -p "$file" ".kiln/out/$file"
        fi
    done
done
rm -rf .next/cache
mkdir -p .kiln/out
for file in .* *; do
    case "$file" in
        .|..|.kiln|'*'|node_modules) ;;
        *)
            if [ -d "$file" ] && [ -d ".kiln/out/$file" ]; then
                cp -a "$file/." ".kiln/out/$file/"
            else
                mv "$file" .kiln/out/
            fi ;;
    esac
done
'''
outputs = [".kiln/out"]
env = { npm_config_cache = "/tmp/npm-cache", npm_config_update_notifier = "false" }
cpus = 2
memory = "2GiB"
tools = ["node", "npm"]

[artifacts.acme-shop]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
}

#[test]
fn node_by_pnpm_and_yarn() {
    assert_snapshot!(written(&[
        ("package.json", r#"{"name":"shop","private":true}"#),
        ("packages/a/index.js", ""),
        ("packages/a/package.json", r#"{"name":"a","dependencies":{"ms":"^2"},"scripts":{"build":"x"}}"#),
        ("pnpm-lock.yaml", "packages:\n  ms@2.1.3:\n"),
        ("pnpm-workspace.yaml", "packages:\n  - 'packages/*' # all\n"),
    ], &["packages/a/index.js"]), @r###"
# node (pnpm): `package.json` is a package; `pnpm-lock.yaml` locks its dependencies
name = "shop"
# version: from git describe

[steps.deps]
why = "installs what `pnpm-lock.yaml` names; keyed by it and each `package.json`"
inputs = ["package.json", "packages/a/package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"]
unversioned = ["package.json", "packages/a/package.json"]
run = '''
pnpm fetch
pnpm install --offline --frozen-lockfile
mkdir -p node_modules packages/a/node_modules
'''
outputs = [".kiln/pnpm-store", "node_modules", "packages/a/node_modules"]
env = { CI = "true", npm_config_manage_package_manager_versions = "false", npm_config_package_import_method = "copy", npm_config_store_dir = "/build/.kiln/pnpm-store" }
network = true
memory = "2GiB"
tools = ["node", "pnpm"]

[steps.production]
why = "removes development dependencies; keyed like the layer before it"
needs = ["deps"]
inputs = ["package.json", "packages/a/package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"]
unversioned = ["package.json", "packages/a/package.json"]
run = '''
mkdir -p .kiln/out
for path in node_modules packages/a/node_modules; do
    if [ -e "$path" ]; then
        # what differs from one run to the next
        rm -rf "$path/.cache" "$path/.modules.yaml" "$path"/.pnpm-workspace-state*.json
        mkdir -p "$(dirname ".kiln/out/$path")"
        mv "$path" ".kiln/out/$path"
    fi
done
'''
outputs = [".kiln/out"]
env = { CI = "true", npm_config_manage_package_manager_versions = "false", npm_config_package_import_method = "copy", npm_config_store_dir = "/build/.kiln/pnpm-store" }
cpus = 2
memory = "2GiB"
tools = ["node", "pnpm"]

[steps.bundle]
why = "runs the package's own scripts, and bundles it with its dependencies"
needs = ["deps", "production"]
run = '''
mkdir -p .kiln
touch -d 2010-01-01 .kiln/age
(cd packages/a && pnpm run build)
# what the scripts wrote into installed packages
for root in node_modules packages/a/node_modules; do
    find "$root" \( -name .cache -o -name '.vite*' -o -name .tmp -o -name .temp \) -prune -o \
        -type f -newer .kiln/age -print 2>/dev/null | while read -r file; do
        inner=${file#"$root"/}
        package=${inner%%/*}
        case "$inner" in @*/*/*|.pnpm/*/*|.bun/*/*) rest=${inner#*/}; package=$package/${rest%%/*} ;; esac
        if [ -e ".kiln/out/$root/$package" ] ||
            [ -z "$(find "$root/$package" -type f ! -newer .kiln/age | head -n 1)" ]; then
            mkdir -p "$(dirname ".kiln/out/$file")"
            cp -p "$file" ".kiln/out/$file"
        fi
    done
done
rm -rf packages/a/node_modules .next/cache
mkdir -p .kiln/out
for file in .* *; do
    case "$file" in
        .|..|.kiln|'*'|node_modules) ;;
        *)
            if [ -d "$file" ] && [ -d ".kiln/out/$file" ]; then
                cp -a "$file/." ".kiln/out/$file/"
            else
                mv "$file" .kiln/out/
            fi ;;
    esac
done
'''
outputs = [".kiln/out"]
env = { CI = "true", npm_config_manage_package_manager_versions = "false", npm_config_package_import_method = "copy", npm_config_store_dir = "/build/.kiln/pnpm-store" }
cpus = 2
memory = "2GiB"
tools = ["node", "pnpm"]

[artifacts.shop]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
    let classic = planned(&[("package.json", r#"{"dependencies":{"ms":"^2"}}"#), ("yarn.lock", "ms@^2:\n")]);
    assert_eq!(classic.steps[0].run, "yarn install --frozen-lockfile --non-interactive\nmkdir -p node_modules\n");
    let modern = planned(&[
        (".yarnrc.yml", "enableTelemetry: false\n"),
        ("package.json", r#"{"dependencies":{"ms":"^2"}}"#),
        ("yarn.lock", "__metadata:\n  version: 8\n\n\"ms@npm:^2\":\n"),
    ]);
    assert!(modern.steps[0].run.starts_with("yarn install --immutable"));
    assert_eq!(modern.steps[0].outputs, [".yarn/cache", ".yarn/unplugged", ".pnp.cjs"]);
}

#[test]
fn node_that_needs_nothing_has_no_layer() {
    let plan = planned(&[("index.js", ""), ("package.json", r#"{"name":"shop"}"#)]);
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn python_by_pip() {
    let hashed = "jinja2==3.1.6 \\\n    --hash=sha256:aa\nmarkupsafe==3.0 --hash=sha256:bb\n";
    assert_snapshot!(written(&[("main.py", ""), ("requirements.txt", hashed)], &["main.py"]), @r###"
# python (pip): `requirements.txt` names what it needs
name = "project"
# version: from git describe

[steps.deps]
why = "installs what `requirements.txt` names, into a directory of its own"
inputs = ["requirements.txt"]
run = '''
mkdir -p .kiln/packages .kiln/backend
python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore --target .kiln/packages --require-hashes -r requirements.txt
'''
outputs = [".kiln/packages", ".kiln/backend"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
network = true
tools = ["python3"]

[steps.bundle]
why = "combines the sources with their packages, with reproducible byte code"
needs = ["deps"]
run = '''
mkdir -p .kiln/out
for file in .* *; do
    case "$file" in
        .|..|.kiln|'*') ;;
        *) mv "$file" .kiln/out/ ;;
    esac
done
mv .kiln/packages .kiln/out/packages
python3 .kiln/arrange.py .kiln/out packages .kiln/own.txt
find .kiln/out -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -s .kiln/out --invalidation-mode unchecked-hash .kiln/out || true
'''
outputs = [".kiln/out"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
tools = ["python3"]
[steps.bundle.files]
".kiln/arrange.py" = '''
...
'''

[artifacts.project]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
    let loose = planned(&[
        ("main.py", ""),
        ("base.txt", ""),
        ("requirements.txt", "-r requirements-base.txt\njinja2>=3\n"),
        ("requirements-base.txt", "click==8\n"),
    ]);
    assert!(!loose.steps[0].run.contains("--require-hashes"));
    assert_eq!(loose.steps[0].inputs, ["requirements.txt", "requirements-base.txt"]);
    assert_snapshot!(loose.notes.join("\n"), @"`requirements.txt` does not pin `jinja2`, so two builds of one commit could differ: pin with `==` and hashes");
}

#[test]
fn python_by_a_plain_pyproject() {
    assert_snapshot!(written(&[
        ("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1.4.2\"\ndependencies = [\"click>=8\"]\n"),
        ("shop/__init__.py", ""),
    ], &["shop/__init__.py"]), @r###"
# python (pip): `pyproject.toml` is a package
name = "shop"
# version: from the manifest, currently 1.4.2

[steps.deps]
why = "installs what `pyproject.toml` names, into a directory of its own"
inputs = ["!**"]
run = '''
mkdir -p .kiln/packages .kiln/backend
python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore --target .kiln/packages -r .kiln/requirements.txt
python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore --target .kiln/backend setuptools wheel
'''
outputs = [".kiln/packages", ".kiln/backend"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
network = true
tools = ["python3"]
[steps.deps.files]
".kiln/requirements.txt" = '''
click>=8
'''

[steps.bundle]
why = "installs the project with its packages, with reproducible byte code"
needs = ["deps"]
run = '''
mkdir -p .kiln/packages .kiln/out
mkdir -p .kiln/own
PATH="$PWD/.kiln/backend/bin:$PATH" PYTHONPATH="$PWD/.kiln/backend" python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore --no-index --no-deps --no-build-isolation --target .kiln/built .
rm -f .kiln/built/*.dist-info/direct_url.json
cp -a .kiln/built/. .kiln/own/
rm -rf .kiln/built
cp -a .kiln/packages/. .kiln/out/
cp -a .kiln/own/. .kiln/out/
python3 .kiln/arrange.py .kiln/out
find .kiln/out -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -s .kiln/out --invalidation-mode unchecked-hash .kiln/out || true
'''
outputs = [".kiln/out"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
tools = ["python3"]
[steps.bundle.files]
".kiln/arrange.py" = '''
...
'''

[artifacts.shop]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
note: nothing locks what the package needs, so two builds of one commit could differ: add a `requirements.txt` with hashes, or use uv or poetry
"###);
}

#[test]
fn python_by_uv_and_poetry() {
    assert_snapshot!(written(&[
        ("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1.4.2\"\ndependencies = [\"click>=8\"]\n"),
        ("shop.py", ""),
        ("uv.lock", "[[package]]\nname = \"click\"\n"),
    ], &["shop.py"]), @r###"
# python (uv): `pyproject.toml` is a project; `uv.lock` locks its dependencies
name = "shop"
# version: from the manifest, currently 1.4.2

[steps.deps]
why = "installs what `uv.lock` names, into a directory of its own"
inputs = ["pyproject.toml", "uv.lock"]
unversioned = ["pyproject.toml", "uv.lock"]
run = '''
mkdir -p .kiln/packages .kiln/backend
uv sync --locked --no-dev --no-editable --no-install-workspace --python "$(command -v python3)"
cp -a .venv/lib/python3*/site-packages/. .kiln/packages/
find .kiln/packages -name __pycache__ -prune -exec rm -rf {} +
rm -f .kiln/packages/_virtualenv.py .kiln/packages/_virtualenv.pth
for file in .venv/bin/*; do
    case "${file##*/}" in
        python*|pydoc*|[Aa]ctivate*|deactivate*) ;;
        *) mkdir -p .kiln/packages/bin && cp -a "$file" .kiln/packages/bin/ ;;
    esac
done
if [ -d .venv/share ]; then cp -a .venv/share .kiln/packages/; fi
'''
outputs = [".kiln/packages", ".kiln/backend"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
network = true
tools = ["python3", "uv"]

[steps.bundle]
why = "combines the sources with their packages, with reproducible byte code"
needs = ["deps"]
run = '''
mkdir -p .kiln/out
for file in .* *; do
    case "$file" in
        .|..|.kiln|'*') ;;
        *) mv "$file" .kiln/out/ ;;
    esac
done
mv .kiln/packages .kiln/out/packages
python3 .kiln/arrange.py .kiln/out packages .kiln/own.txt
find .kiln/out -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -s .kiln/out --invalidation-mode unchecked-hash .kiln/out || true
'''
outputs = [".kiln/out"]
env = { PIP_DISABLE_PIP_VERSION_CHECK = "1", PIP_NO_CACHE_DIR = "1", POETRY_CACHE_DIR = "/tmp/poetry", POETRY_VIRTUALENVS_IN_PROJECT = "true", PYTHONDONTWRITEBYTECODE = "1", PYTHONHASHSEED = "0", UV_CACHE_DIR = "/tmp/uv", UV_LINK_MODE = "copy", UV_PROJECT_ENVIRONMENT = ".venv", UV_PYTHON_DOWNLOADS = "never" }
tools = ["python3"]
[steps.bundle.files]
".kiln/arrange.py" = '''
...
'''

[artifacts.shop]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
    let poetry = planned(&[
        ("poetry.lock", "[[package]]\nname = \"click\"\n"),
        (
            "pyproject.toml",
            "[tool.poetry]\nname = \"shop\"\nversion = \"1\"\n[tool.poetry.dependencies]\nclick = \"*\"\n\
          [build-system]\nrequires = [\"poetry-core\"]\n",
        ),
    ]);
    assert!(poetry.steps[0].run.contains("poetry install --only main --no-root"), "{}", poetry.steps[0].run);
    assert_eq!(poetry.notes.len(), 1);
}

#[test]
fn ruby_by_bundler() {
    assert_snapshot!(written(&[
        ("Gemfile", "source 'x'\ngem 'rack'\n"),
        ("Gemfile.lock", "GEM\n  specs:\n    rack (3.0)\n\nDEPENDENCIES\n  rack\n"),
        ("main.rb", ""),
    ], &["main.rb"]), @r###"
# ruby (bundler): `Gemfile` names its gems; `Gemfile.lock` locks them
name = "project"
# version: from git describe

[steps.deps]
why = "installs the gems that `Gemfile.lock` names"
inputs = ["Gemfile", "Gemfile.lock"]
unversioned = ["Gemfile.lock"]
run = '''
bundle install --jobs 4 --retry 3
mkdir -p vendor/bundle
# logs and downloads, which differ from one run to the next
find vendor/bundle \( -name gem_make.out -o -name mkmf.log -o -path '*/cache/*.gem' \) -delete'''
outputs = ["vendor/bundle"]
env = { BUNDLE_APP_CONFIG = "/build/.kiln/bundle", BUNDLE_DEPLOYMENT = "true", BUNDLE_PATH = "/build/vendor/bundle", BUNDLE_WITHOUT = "development:test" }
network = true
tools = ["ruby", "bundle", "cc"]

[steps.bundle]
why = "bundles the application"
needs = ["deps"]
run = '''
mkdir -p .kiln/out
for file in .* *; do
    case "$file" in
        .|..|.kiln|'*') ;;
        *) mv "$file" .kiln/out/ ;;
    esac
done
mkdir -p .kiln/out/.bundle
touch .kiln/out/.bundle/config
sed -i -e '/^BUNDLE_\(PATH\|DEPLOYMENT\|WITHOUT\):/d' .kiln/out/.bundle/config
printf 'BUNDLE_PATH: "vendor/bundle"\nBUNDLE_DEPLOYMENT: "true"\nBUNDLE_WITHOUT: "development:test"\n' >> .kiln/out/.bundle/config
'''
outputs = [".kiln/out"]
env = { BUNDLE_APP_CONFIG = "/build/.kiln/bundle", BUNDLE_DEPLOYMENT = "true", BUNDLE_PATH = "/build/vendor/bundle", BUNDLE_WITHOUT = "development:test" }
cpus = 2
memory = "2GiB"
tools = ["ruby", "bundle"]

[artifacts.project]
from = ["bundle"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
}

#[test]
fn a_source_distribution_says_itself_what_it_needs() {
    let info = "Metadata-Version: 2.1\nName: httpie\nVersion: 3.2.2\n\nName: not this\n";
    let requires = "requests[socks]>=2.22.0\nrich\n\n[dev]\npytest\n";
    let plan = planned(&[
        ("setup.py", "from setuptools import setup\nsetup(install_requires=[])\n"),
        ("PKG-INFO", info),
        ("httpie.egg-info/requires.txt", requires),
    ]);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("httpie", Some("3.2.2")));
    let deps = plan.steps.iter().find(|step| step.name == "deps").expect("a dependency layer");
    assert_eq!(deps.files[".kiln/requirements.txt"], "requests[socks]>=2.22.0\nrich\n");
    assert!(plan.notes.iter().any(|note| note.contains("nothing locks")), "{:?}", plan.notes);
}
