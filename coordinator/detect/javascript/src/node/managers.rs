//! How each package manager installs exactly what its lock file lists, and removes development dependencies.
//!
//! Invariant: every install command rejects a lock file that does not match; removing needs no network.

use std::collections::BTreeMap;

use super::{super::tree, locks::Tool};
use kiln_plan::Source;

/// The commands of a manager.
pub(super) struct Manager {
    pub(super) configuration: &'static [&'static str],
    pub(super) install: &'static str,
    /// Removes development dependencies after `install`.
    pub(super) prune: &'static str,
    /// The same for one workspace member, whose name replaces `NAME`; `None` if `node_modules` alone shows what a member needs.
    pub(super) prune_to_member: Option<&'static str>,
    /// The layer's outputs besides `node_modules`.
    pub(super) outputs: &'static [&'static str],
    /// Those of them that programs need at run time.
    pub(super) shipped: &'static [&'static str],
    /// Whether it creates `node_modules`.
    pub(super) modules: bool,
    pub(super) env: BTreeMap<String, String>,
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

impl Manager {
    /// The manager as this project configures it.
    pub(super) fn new(source: &dyn Source, tool: Tool) -> Self {
        match tool {
            Tool::Npm => npm(),
            Tool::Pnpm => pnpm(),
            Tool::YarnClassic => yarn_classic(),
            Tool::YarnModern => yarn_modern(source),
            Tool::Bun => bun(),
        }
    }
}

fn npm() -> Manager {
    Manager {
        configuration: &[".npmrc", ".nvmrc", ".node-version"],
        install: "npm ci --no-audit --no-fund\n",
        prune: "npm prune --omit=dev --ignore-scripts --offline --no-audit --no-fund\n",
        prune_to_member: None,
        outputs: &[],
        shipped: &[],
        modules: true,
        env: variables([("npm_config_cache", "/tmp/npm-cache"), ("npm_config_update_notifier", "false")]),
    }
}

fn pnpm() -> Manager {
    Manager {
        configuration: &["pnpm-workspace.yaml", ".npmrc", ".pnpmfile.cjs", ".nvmrc", ".node-version"],
        install: "pnpm fetch\npnpm install --offline --frozen-lockfile\n",
        prune: "pnpm install --prod --offline --frozen-lockfile --ignore-scripts\n",
        prune_to_member: None,
        outputs: &[".kiln/pnpm-store"],
        shipped: &[],
        modules: true,
        env: variables([
            ("CI", "true"),
            ("npm_config_manage_package_manager_versions", "false"),
            ("npm_config_package_import_method", "copy"),
            ("npm_config_store_dir", "/build/.kiln/pnpm-store"),
        ]),
    }
}

/// Bun finds what it fetched in its cache again, so that the second installation needs no network.
fn bun() -> Manager {
    Manager {
        configuration: &["bunfig.toml", ".npmrc", ".bun-version"],
        install: "bun install --frozen-lockfile --no-progress\n",
        prune: "find . -path ./.kiln -prune -o -type d -name node_modules -prune -exec rm -rf {} +\n\
                bun install --production --frozen-lockfile --ignore-scripts --no-progress\n",
        prune_to_member: None,
        outputs: &[".kiln/bun-cache"],
        shipped: &[],
        modules: true,
        env: variables([
            ("BUN_INSTALL_CACHE_DIR", "/build/.kiln/bun-cache"),
            ("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0"),
            ("DO_NOT_TRACK", "1"),
        ]),
    }
}

fn yarn_classic() -> Manager {
    Manager {
        configuration: &[".npmrc", ".yarnrc", ".nvmrc", ".node-version"],
        install: "yarn install --frozen-lockfile --non-interactive\n",
        prune: "yarn install --production --offline --frozen-lockfile --ignore-scripts --non-interactive\n",
        prune_to_member: None,
        outputs: &[".kiln/yarn-cache"],
        shipped: &[],
        modules: true,
        env: variables([("YARN_CACHE_FOLDER", "/build/.kiln/yarn-cache")]),
    }
}

/// Makes Yarn keep what these workspaces need at run time.
macro_rules! focus {
    ($which:literal) => {
        concat!(
            "YARN_ENABLE_NETWORK=false YARN_ENABLE_SCRIPTS=false yarn workspaces focus ",
            $which,
            " --production || {\n    echo 'kiln: warning: this yarn cannot remove development dependencies (`yarn workspaces \
             focus`), so they are kept' >&2\n}\n"
        )
    };
}

fn yarn_modern(source: &dyn Source) -> Manager {
    let settings = tree::text(source, ".yarnrc.yml").unwrap_or_default();
    let linker = settings.lines().find_map(|line| line.strip_prefix("nodeLinker:")).unwrap_or_default();
    let modules = linker.contains("node-modules") || linker.contains("pnpm");
    let configuration: &[&str] = &[".yarnrc.yml", ".npmrc", ".nvmrc", ".node-version"];
    let env = variables([
        ("YARN_ENABLE_GLOBAL_CACHE", "false"),
        ("YARN_ENABLE_TELEMETRY", "false"),
        ("YARN_ENABLE_PROGRESS_BARS", "false"),
    ]);
    let prune = focus!("--all");
    if modules {
        let install = "yarn install --immutable\nmkdir -p .yarn/cache\n";
        return Manager {
            configuration,
            install,
            prune,
            prune_to_member: None,
            outputs: &[".yarn/cache"],
            shipped: &[],
            modules: true,
            env,
        };
    }
    Manager {
        configuration,
        install: "yarn install --immutable\nmkdir -p .yarn/cache .yarn/unplugged\n",
        prune,
        prune_to_member: Some(focus!("NAME")),
        outputs: &[".yarn/cache", ".yarn/unplugged", ".pnp.cjs"],
        shipped: &[".yarn/cache", ".yarn/unplugged", ".pnp.cjs"],
        modules: false,
        env,
    }
}
