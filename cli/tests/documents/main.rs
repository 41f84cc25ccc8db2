//! Every command of every page runs unchanged, with the real programs, in a scratch directory.
//!
//! `page` finds the commands, `world` is where they run, and `elsewhere` lists those that cannot run there, each with
//! the test that covers it. A command that is neither run nor listed fails.

#![allow(clippy::unwrap_used)]

mod elsewhere;
mod evidence;
mod page;
mod tools;
mod world;

use elsewhere::{BLOCKS, ELSEWHERE};
use kiln_harness::redis::Redis;
use kiln_harness::{cannot_run, write};
use world::World;

/// The example project of the pages: a program whose dependencies are fetched and compiled in separate steps.
const GREET: &str = r#"
name = "greet"
version = "1.4.2"
[steps.fetch]
inputs = ["lock"]
run = "cp lock fetched"
outputs = ["fetched"]
[steps.deps]
inputs = ["lock"]
needs = ["fetch"]
run = "cp fetched built"
outputs = ["built"]
[steps.compile]
needs = ["deps"]
run = "cat built src/main.rs > greet"
outputs = ["greet"]
[steps.test]
needs = ["compile"]
run = "grep -q . greet"
test = true
[artifacts.greet]
from = "compile"
files = ["greet"]
"#;

/// One that asks for a secret.
const PUBLISH: &str = r#"
name = "publish"
version = "1.0"
[steps.compile]
run = 'test "$NPM_TOKEN" = s3cr3t && echo it > out'
outputs = ["out"]
secrets = ["NPM_TOKEN"]
[artifacts.out]
from = "compile"
files = ["out"]
"#;

/// What the chart's page has installed before it changes something.
const INSTALLED: &str =
    "helm install kiln deploy/helm/kiln --namespace kiln --set images.registry=registry.corp.example";

/// Pages, each with what its sections need before their commands: a heading, and commands as a page writes them.
const PAGES: &[(&str, &[(&str, &str)])] = &[
    ("CONTRIBUTING.md", &[]),
    ("README.md", &[("A first build and a second", "cd cli/examples/rust")]),
    ("benches/README.md", &[]),
    (
        "cli/README.md",
        &[
            (
                "Daily use",
                "kiln-coordinator --data-dir /var/lib/kiln\nexport KILN_FARM=http://127.0.0.1:8980\n\
              kiln-worker --coordinator $KILN_FARM --state-dir /var/lib/kiln-worker\ncd cli/examples/rust\n",
            ),
            (
                "When something does not work",
                "kiln-coordinator --data-dir /var/lib/kiln\nexport KILN_FARM=http://127.0.0.1:8980\n\
                 kiln-worker --coordinator $KILN_FARM --name one --state-dir /var/lib/kiln-worker",
            ),
            (
                "An image without configuration",
                "mkdir detected && cd detected && printf 'hello:\\n\\tcc -o hello hello.c\\n' > Makefile && echo 'int main(void) { return 0; }' > hello.c",
            ),
            (
                "Gates",
                "mkdir -p kiln-out security/osv\necho '{ \"bomFormat\": \"CycloneDX\" }' > kiln-out/shop.cdx.json\n\
                 echo '{ \"id\": \"X-1\" }' > security/osv/X-1.json\necho shop > kiln-out/shop",
            ),
            ("Secrets", "cd publish\necho s3cr3t > npm.token"),
            ("Reproducible artifacts", "cd cli/examples/rust"),
            (
                "Dockerfiles",
                "mkdir -p deploy web/assets\necho a > web/assets/a\n\
                 echo 'FROM scratch AS final' > deploy/Dockerfile\necho 'COPY --from=assets a /a' >> deploy/Dockerfile",
            ),
            (
                "In place of `docker build`",
                "mkdir shop\ncd shop\necho 'FROM scratch' > Dockerfile\necho 'COPY . /' >> Dockerfile",
            ),
        ],
    ),
    (
        "coordinator/README.md",
        &[
            ("Sharing a cache between coordinators", "kiln farm init /etc/kiln --host farm.example"),
            (
                "Webhooks",
                "kiln farm init /etc/kiln --host farm.example\ncp /etc/kiln/coordinator.pem /etc/kiln/hooks.pem\n\
              cp /etc/kiln/coordinator.key /etc/kiln/hooks.key\necho 0123456789abcdef0123456789abcdef > /etc/kiln/shop.secret\n\
              cp /etc/kiln/shop.secret /etc/kiln/shop.token",
            ),
        ],
    ),
    ("deploy/README.md", &[("Observability", "export KILN_JOIN=$(kiln farm init /etc/kiln --host farm.example)")]),
    ("deploy/ci/README.md", &[]),
    ("deploy/compose.md", &[]),
    ("deploy/helm/kiln/README.md", &[("Certificates", INSTALLED), ("Redis and S3", INSTALLED)]),
    ("deploy/packages/README.md", &[]),
    ("deploy/replicas.md", &[]),
    ("deploy/tools.md", &[]),
    (
        "worker/README.md",
        &[(
            "kiln-worker",
            "kiln farm init /etc/kiln --host farm.example > TOKEN\nkiln-coordinator --farm-dir /etc/kiln --data-dir /var/lib/kiln",
        )],
    ),
];

/// The first block of TOML under a heading.
fn toml(page: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(page::root().join(page)).unwrap();
    let (_, section) = text.split_once(&format!("# {heading}\n")).unwrap();
    let (_, block) = section.split_once("```toml\n").unwrap();
    block.split_once("\n```").unwrap().0.to_owned()
}

/// Runs all sections of a page, each in its own world.
#[track_caller]
fn run(name: &'static str) {
    let (page, before) = PAGES.iter().find(|(page, _)| *page == name).unwrap();
    let redis = Redis::with(&["--requirepass", "PASSWORD"]);
    let mut met = Vec::new();
    for mut section in page::sections(page) {
        section
            .blocks
            .retain(|block| !BLOCKS.iter().any(|(page, words, _)| *page == name && block.script.contains(words)));
        let world = World::new(page, Some(redis.port));
        let repository = world.repository();
        for place in ["cli/examples/rust", "."] {
            write(&repository, &format!("{place}/kiln.toml"), GREET);
            write(&repository, &format!("{place}/lock"), "three\n");
            write(&repository, &format!("{place}/src/main.rs"), "hello: &'a str\n");
        }
        write(&repository, "publish/kiln.toml", PUBLISH);
        if section.heading == "Webhooks" {
            write(&repository, "webhooks.toml", &world.placed(&toml(page, "Webhooks")));
        }
        let before = before.iter().find(|(heading, _)| *heading == section.heading).map_or("", |(_, before)| before);
        let ran = world.run(before, &section.blocks);
        met.extend(world.met());
        let told = |text: &str| -> Vec<(String, String)> {
            let row = |line: &str| {
                let mut words = line.split_whitespace().map(str::to_owned);
                Some((words.next()?, words.next()?)).filter(|(_, cache)| ["hit", "miss"].contains(&cache.as_str()))
            };
            text.lines().filter_map(row).collect()
        };
        let recorded: String = section.blocks.iter().map(|block| format!("{}\n", block.printed)).collect();
        if !told(&recorded).is_empty() {
            assert_eq!(told(&recorded), told(&ran.err), "expected the hits and misses that the page shows of {before}");
        }
    }
    let listed = ELSEWHERE.iter().filter(|(page, ..)| *page == name);
    let stale: Vec<&str> = listed.map(|(_, command, _)| *command).filter(|command| !met.contains(command)).collect();
    assert!(stale.is_empty(), "{name} no longer has these commands, which `elsewhere` lists: {stale:?}");
}

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(#[test]
        fn $test() {
            if !kiln_harness::redis::is_installed() {
                return cannot_run("redis-server");
            }
            if let Some(program) = world::unbuilt() {
                return cannot_run(&format!("`{}` is not built; `cargo test --workspace` builds it", program.display()));
            }
            run($page);
        })*

        #[test]
        fn every_page_with_commands_is_run() {
            assert_eq!(page::all(), [$($page),*]);
            assert_eq!(page::all(), PAGES.iter().map(|(page, _)| *page).collect::<Vec<_>>());
            for (page, headings) in PAGES {
                let known: Vec<String> = page::sections(page).into_iter().map(|section| section.heading).collect();
                assert!(headings.iter().all(|(heading, _)| known.contains(&(*heading).to_owned())), "{page}: {known:?}");
            }
            world::check_table();
        }
    };
}

pages! {
    how_to_contribute: "CONTRIBUTING.md",
    the_first_page: "README.md",
    measuring: "benches/README.md",
    using_kiln: "cli/README.md",
    running_a_coordinator: "coordinator/README.md",
    deploying: "deploy/README.md",
    building_in_ci: "deploy/ci/README.md",
    composing: "deploy/compose.md",
    installing_the_chart: "deploy/helm/kiln/README.md",
    releasing: "deploy/packages/README.md",
    running_several_coordinators: "deploy/replicas.md",
    using_other_tools: "deploy/tools.md",
    running_workers: "worker/README.md",
}
