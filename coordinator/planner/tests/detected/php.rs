//! PHP projects with Composer.

use insta::assert_snapshot;

use crate::{assert_sound, planned, refused};

const MANIFEST: &str =
    r#"{"name":"shop/api","version":"1.2.0","require":{"php":"^8.1 || ~8.2","ext-json":"*","shop/money":"*"}}"#;

fn lock(options: &str) -> String {
    format!(
        r#"{{"packages":[{{"name":"shop/money","dist":{{"type":"path","url":"libs/money"}},"transport-options":{options}}}]}}"#
    )
}

#[test]
fn packages_of_the_tree_are_linked_and_their_sources_are_no_inputs() {
    let lock = lock("{}");
    let files = [
        ("composer.json", MANIFEST),
        ("composer.lock", lock.as_str()),
        ("libs/money/composer.json", "{}"),
        ("libs/money/src/M.php", ""),
        ("src/a.php", ""),
    ];
    let plan = planned(&files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("api", Some("1.2.0")));
    assert_eq!(plan.steps[0].inputs.join(" "), "composer.json composer.lock libs/money/composer.json");
    assert_eq!(plan.steps[0].tools.join(" "), "php ^8.1 || ^8.2 (composer.json) composer");
    assert!(plan.steps[1].run.contains("\ncomposer dump-autoload --no-dev --optimize\n"), "{}", plan.steps[1].run);
    assert_sound(&files, &["src/a.php", "libs/money/src/M.php"]);
}

#[test]
fn a_package_that_is_copied_is_an_input_as_a_whole() {
    let lock = lock(r#"{"symlink":false}"#);
    let files = [
        ("composer.json", MANIFEST),
        ("composer.lock", lock.as_str()),
        ("libs/money/composer.json", "{}"),
        ("libs/money/M.php", ""),
    ];
    assert_eq!(planned(&files).steps[0].inputs.join(" "), "composer.json composer.lock libs/money");
    assert!(refused(&files[..2]).contains("depends on `shop/money` at `libs/money`, which is not in the project"));
}

#[test]
fn a_lock_file_that_is_missing_or_stale_is_called_so() {
    assert_snapshot!(refused(&[("composer.json", MANIFEST)]), @"`composer.json` names dependencies but there is no `composer.lock`, so two builds of one commit could differ: run `composer update --no-install` and commit `composer.lock`");
    assert_snapshot!(refused(&[("composer.json", MANIFEST), ("composer.lock", r#"{"packages":[]}"#)]), @"`composer.lock` is stale: `composer.json` requires `shop/money`, which it lacks: run `composer update --no-install shop/money` and commit `composer.lock`");
    let provided = r#"{"packages":[{"name":"shop/all","replace":{"shop/money":"*"}}]}"#;
    assert_eq!(planned(&[("composer.json", MANIFEST), ("composer.lock", provided)]).steps.len(), 2);
    assert_eq!(planned(&[("composer.json", r#"{"name":"a/b"}"#), ("a.php", "")]).steps.len(), 1, "nothing to fetch");
}
