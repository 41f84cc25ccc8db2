//! Branch scopes, roles and tenants.

use reqwest::{Client, Method};

use crate::world::World;

const KEY: &str = "00112233445566778899aabbccddeeff";

struct Asking<'a> {
    world: &'a World,
    client: Client,
}

impl Asking<'_> {
    async fn ask(&self, caller: &str, method: Method, path: &str, body: &str) -> (u16, String) {
        let url = format!("{}/{path}", self.world.root);
        let request = self.client.request(method, url).bearer_auth(self.world.token(caller)).body(body.to_owned());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn get(&self, caller: &str, path: &str) -> Option<String> {
        let (status, body) = self.ask(caller, Method::GET, path, "").await;
        (status == 200).then_some(body)
    }

    async fn put(&self, caller: &str, path: &str, body: &str) -> u16 {
        self.ask(caller, Method::PUT, path, body).await.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_reads_the_base_and_writes_for_itself_only() {
    let world = World::start();
    let asking = Asking { world: &world, client: Client::new() };
    let plain = format!("ccache/{KEY}");
    let scoped = format!("scope/feature%2Fx/ccache/{KEY}");
    let other = format!("scope/other/ccache/{KEY}");

    assert_eq!(asking.put("writer", &plain, "base").await, 200);
    assert_eq!(asking.get("branch", &plain).await.as_deref(), Some("base"), "expected a branch to read the base");
    assert_eq!(asking.put("branch", &plain, "poison").await, 200);
    assert_eq!(
        asking.get("branch", &plain).await.as_deref(),
        Some("poison"),
        "expected a branch to read its own first"
    );
    assert_eq!(asking.get("writer", &plain).await.as_deref(), Some("base"), "expected the base to be as it was");
    assert_eq!(
        asking.get("writer", &scoped).await.as_deref(),
        Some("poison"),
        "expected the scope to be that of the name"
    );
    assert_eq!(asking.get("writer", &other).await.as_deref(), Some("base"));

    let (status, words) = asking.ask("branch", Method::PUT, &other, "poison").await;
    assert!(status == 403 && words.contains("confined to the scope `feature/x`"), "{status}: {words}");
    // What it removes is its own.
    assert_eq!(asking.ask("branch", Method::DELETE, &plain, "").await.0, 204);
    assert_eq!(asking.get("branch", &plain).await.as_deref(), Some("base"));
    assert_eq!(asking.ask("branch", Method::DELETE, &plain, "").await.0, 404);
    assert_eq!(asking.get("writer", &plain).await.as_deref(), Some("base"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_those_of_the_farm_and_tenants_see_nothing_of_each_other() {
    let world = World::start();
    let asking = Asking { world: &world, client: Client::new() };
    let plain = format!("ccache/{KEY}");
    assert_eq!(asking.put("reader", &plain, "x").await, 403);
    let (status, words) = asking.ask("builder", Method::PUT, &plain, "x").await;
    assert!(status == 403 && words.contains("--scope NAME"), "{status}: {words}");
    assert_eq!(asking.put("builder", &format!("scope/mine/ccache/{KEY}"), "own").await, 200);
    assert_eq!(asking.get("builder", &format!("scope/mine/ccache/{KEY}")).await.as_deref(), Some("own"));
    assert_eq!(asking.get("builder", &plain).await, None);
    assert_eq!(asking.put("writer", &plain, "shop's").await, 200);
    assert_eq!(asking.get("bank", &plain).await, None, "expected nothing of another tenant");
    assert_eq!(asking.put("bank", &plain, "bank's").await, 200);
    assert_eq!(asking.get("writer", &plain).await.as_deref(), Some("shop's"));
    // A blob of another tenant is not there either, whoever knows its hash.
    let hash = kiln_proto::digest::DigestFunction::Sha256.digest(b"a secret").hex();
    assert_eq!(asking.put("writer", &format!("bazel/cas/{hash}"), "a secret").await, 200);
    assert_eq!(asking.get("writer", &format!("bazel/cas/{hash}")).await.as_deref(), Some("a secret"));
    assert_eq!(asking.get("bank", &format!("bazel/cas/{hash}")).await, None);
    // The statuses with which tools go on.
    assert_eq!(asking.put("reader", &format!("gradle/{KEY}"), "x").await, 413);
    assert_eq!(asking.put("reader", "nx/v1/cache/123", "x").await, 403);
    assert_eq!(asking.put("writer", "nx/v1/cache/123", "x").await, 200);
    assert_eq!(asking.put("writer", "nx/v1/cache/123", "y").await, 409);
    assert_eq!(asking.get("reader", "nx/v1/cache/123").await.as_deref(), Some("x"));
}
