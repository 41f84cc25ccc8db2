//! Webhooks of a farm with several coordinators: each accepts pushes, and the one that leads has them built.

use std::collections::BTreeMap;

use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use serde_json::{Value, json};

use crate::forge::{Forge, TOKEN};
use crate::{PROJECT, SECRET, headers, payload};

/// Coordinators with the same webhook, each at an address of its own.
struct Hooked {
    forge: Forge,
    farm: Replicas,
    urls: BTreeMap<String, String>,
}

impl Hooked {
    fn start() -> Option<Self> {
        let farm = Replicas::start(&["ada", "ben"], &["one"])?;
        let forge = Forge::start();
        let dir = forge.dir.path();
        std::fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
        std::fs::write(dir.join("token"), TOKEN).unwrap();
        let mut urls = BTreeMap::new();
        for name in farm.names() {
            let listen = kiln_harness::free_url().replace("http://", "");
            let file = dir.join(format!("{name}.toml"));
            let text = format!(
                "listen = \"{listen}\"\n[hooks.shop]\nforge = \"github\"\ntenant = \"\"\nsecret_file = {:?}\ntoken_file = {:?}\n\
                 repositories = [\"{}/team/*\"]\n",
                dir.join("secret"),
                dir.join("token"),
                forge.url,
            );
            std::fs::write(&file, text).unwrap();
            assert_eq!(farm.stop_coordinator(&name), Some(0));
            farm.start_coordinator_with(&name, &["--webhooks", file.to_str().unwrap()]);
            until("it to be ready", || farm.metrics(&name));
            urls.insert(name, format!("http://{listen}/webhooks/shop"));
        }
        until("one of them to lead", || farm.leader());
        Some(Self { forge, farm, urls })
    }

    fn deliver(&self, to: &str, body: &Value, headers: &[(&'static str, String)]) -> (u16, String) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.forge.deliver(&self.urls[to], &headers, &body.to_string())
    }

    /// Those that lead and follow now.
    fn leader_and_other(&self) -> (String, String) {
        let leader = until("one of them to lead", || self.farm.leader());
        let other = self.farm.names().into_iter().find(|name| *name != leader).unwrap();
        (leader, other)
    }

    fn commit(&self, word: &str) -> (String, Value) {
        let commit = self.forge.push("main", &[("kiln.toml", PROJECT), ("input", word)]);
        let body = payload(&self.forge, "refs/heads/main", &commit);
        (commit, body)
    }

    /// The builds of a commit.
    fn builds(&self, commit: &str) -> usize {
        let all: Vec<Value> = serde_json::from_str(&self.farm.kiln(&["builds", "--json"]).out).unwrap();
        all.iter().filter(|build| build["commit"] == json!(commit)).count()
    }
}

#[test]
fn each_coordinator_accepts_a_push_and_it_is_built_once() {
    let Some(hooked) = Hooked::start() else { return };
    let (leader, other) = hooked.leader_and_other();
    let (commit, body) = hooked.commit("through a follower\n");
    let forged: Vec<(&str, String)> = headers(&json!({ "another": "body" }));
    assert_eq!(hooked.deliver(&other, &body, &forged).0, 401, "expected the follower to verify it");
    let (code, words) = hooked.deliver(&other, &body, &headers(&body));
    assert!(code == 202 && words.contains(&commit), "{code}: {words}");
    for name in [&leader, &other] {
        let (code, words) = hooked.deliver(name, &body, &headers(&body));
        assert_eq!(code, 409, "expected `{name}` to know it: {words}");
    }
    assert_eq!(hooked.forge.ended(&commit).body["state"], "success");
    assert_eq!(hooked.builds(&commit), 1);
}

#[test]
fn a_push_that_comes_while_the_leader_changes_is_accepted_and_built() {
    let Some(hooked) = Hooked::start() else { return };
    let (leader, other) = hooked.leader_and_other();
    let (commit, body) = hooked.commit("while nobody leads\n");
    assert_eq!(hooked.farm.stop_coordinator(&leader), Some(0));
    let (code, words) = hooked.deliver(&other, &body, &headers(&body));
    assert_eq!(code, 202, "{words}");
    assert_eq!(hooked.forge.ended(&commit).body["state"], "success");
    assert_eq!(hooked.builds(&commit), 1);
}
