use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Rules, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.toml");
    std::fs::write(&path, text).unwrap();
    Rules::read(&path)
}

const RULES: &str = r#"
[[rule]]
when = { repository_owner_id = 4242, ref_protected = true }
tenant = "shop"
roles = ["builder", "cache-writer"]
[[rule]]
when = { repository = ["team/*", "tools/kiln"] }
tenant = "gh-{repository_owner}"
roles = ["builder"]
[[rule]]
when = { groups_direct = "platform" }
roles = ["admin"]
"#;

#[test]
fn the_first_rule_that_fits_says_tenant_and_roles() {
    let rules = read(RULES).unwrap();
    let builder: BTreeSet<Role> = [Role::Builder].into();
    let protected = json!({ "repository_owner_id": "4242", "ref_protected": "true", "repository": "team/shop" });
    assert_eq!(rules.apply(&protected).unwrap(), ("shop".into(), [Role::Builder, Role::CacheWriter].into()));
    let branch = json!({ "repository_owner_id": "4242", "ref_protected": "false", "repository": "team/shop",
        "repository_owner": "team" });
    assert_eq!(rules.apply(&branch).unwrap(), ("gh-team".into(), builder.clone()));
    let listed = json!({ "repository": "tools/kiln", "repository_owner": "tools" });
    assert_eq!(rules.apply(&listed).unwrap(), ("gh-tools".into(), builder));
    let groups = json!({ "groups_direct": ["shop", "platform"] });
    assert_eq!(rules.apply(&groups).unwrap(), (String::new(), [Role::Admin].into()));
}

#[test]
fn a_rule_may_confine_to_the_scope_that_a_claim_names() {
    let rules = read(
        "[[rule]]\nwhen = { ref = \"refs/heads/main\" }\nroles = [\"cache-writer\"]\n\
         [[rule]]\nwhen = { repository = \"team/*\" }\nroles = [\"builder\"]\nscope = \"{repository}\"\n",
    )
    .unwrap();
    assert_eq!(rules.scope(&json!({ "ref": "refs/heads/main", "repository": "team/shop" })), Ok(None));
    let scope = rules.scope(&json!({ "ref": "refs/heads/x", "repository": "team/shop" }));
    assert_eq!(scope, Ok(Some("team/shop".to_owned())));
    assert!(rules.scope(&json!({ "repository": "team/\n" })).unwrap_err().contains("invalid scope"));
    let wrong = read("[[rule]]\nwhen = { ref = \"x\" }\nroles = [\"builder\"]\nscope = \"{\"\n").unwrap_err();
    assert!(wrong.to_string().contains("`scope = \"{\"`"), "{wrong}");
}

#[test]
fn what_fits_no_rule_is_nobody() {
    let rules = read(RULES).unwrap();
    for claims in [
        json!({}),
        json!({ "repository": "team/shop/more" }),
        json!({ "repository": "other/team/shop" }),
        json!({ "repository": "Team/shop" }),
        json!({ "repository": null }),
        json!({ "repository": { "team/shop": "team/shop" } }),
        json!({ "repository_owner_id": "42420", "ref_protected": "true" }),
        json!({ "repository_owner_id": "4242" }),
        json!({ "groups_direct": ["platforms", ["platform"]] }),
    ] {
        let refused = rules.apply(&claims).expect_err("expected no rule to fit");
        assert!(refused.contains("no rule"), "{claims}: {refused}");
    }
}

#[test]
fn a_claim_that_can_name_no_tenant_is_refused() {
    let rules = read(RULES).unwrap();
    for (owner, word) in [
        (json!("../other"), "invalid tenant name"),
        (json!("group/part"), "invalid tenant name"),
        (json!(""), "not a single string"),
        (json!(null), "not a single string"),
        (json!(["a", "b"]), "not a single string"),
    ] {
        let claims = json!({ "repository": "team/shop", "repository_owner": owner });
        let refused = rules.apply(&claims).expect_err(word);
        assert!(refused.contains(word), "expected `{word}` in: {refused}");
    }
}

#[test]
fn rules_that_are_none_are_refused_in_words() {
    let rule = |when: &str, more: &str| format!("[[rule]]\nwhen = {when}\n{more}\nroles = [\"builder\"]");
    for (text, word) in [
        (String::new(), "no `[[rule]]`"),
        (rule("{}", ""), "rule 1: `when` is empty"),
        (rule("{ a = [] }", ""), "`a` lists no values"),
        (rule("{ a = \"[\" }", ""), "invalid pattern"),
        (rule("{ a = \"b\" }", "tenant = \"a b\""), "invalid tenant name"),
        (rule("{ a = \"b\" }", "tenant = \"{a}{b}\""), "at most one"),
        (rule("{ a = \"b\" }", "tenant = \"a}\""), "at most one"),
        (rule("{ a = \"b\" }", "tenant = \"{}\""), "at most one"),
        (rule("{ a = \"b\" }", "tenants = \"c\""), "tenants"),
        ("[[rule]]\nwhen = { a = \"b\" }\nroles = []".to_owned(), "`roles` is empty"),
        ("[[rule]]\nwhen = { a = \"b\" }\nroles = [\"root\"]".to_owned(), "root"),
    ] {
        let error = read(&text).expect_err(word).to_string();
        assert!(error.contains(word) && error.contains("rules.toml"), "expected `{word}` in: {error}");
    }
}
