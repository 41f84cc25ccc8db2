//! Who may see the pages: a token, a link that works once, a certificate, and nobody else.

use kiln_harness::guarded::{access, certificate, token};
use kiln_harness::{Farm, has, until};

use crate::world::{Answer, browse, curl, farm, guarded, has_browser, link, pages};

/// A session of whoever a link is for.
fn session(pages: &str, link: &str) -> String {
    let code = link.rsplit('/').next().unwrap();
    let origin = format!("Origin: {pages}");
    curl(&["-X", "POST", "-H", &origin, "-d", &format!("code={code}"), &format!("{pages}/open")]).cookie()
}

fn with(cookie: &str, url: &str) -> Answer {
    curl(&["-H", &format!("Cookie: {cookie}"), url])
}

#[test]
fn a_token_a_link_and_a_certificate_each_let_their_owner_in_and_nothing_else_does() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    let list = format!("{pages}/builds");
    // Nobody is sent to the login, with where they wanted to go.
    let nobody = curl(&[&list]);
    assert_eq!((nobody.status, nobody.header("location")), (303, Some("/login?to=%2Fbuilds")));
    assert_eq!(curl(&["-H", "Authorization: Bearer kiln_wrong", &list]).status, 401);
    assert_eq!(curl(&["-H", "Cookie: __Host-kiln-1=x; kiln=y", &list]).status, 303);
    // A token.
    let secret = guarded.make(&["token", "ci", "--role", "builder"]);
    let secret = secret.lines().last().unwrap().trim();
    assert_eq!(curl(&["-H", &format!("Authorization: Bearer {secret}"), &list]).status, 200);
    let origin = format!("Origin: {pages}");
    let log_in = |token: &str, origin: &str| {
        curl(&[
            "-X",
            "POST",
            "-H",
            origin,
            "--data-urlencode",
            &format!("token={token}"),
            "-d",
            "to=/builds?q=a",
            &format!("{pages}/login"),
        ])
    };
    let refused = log_in("kiln_wrong", &origin);
    assert!(refused.status == 401 && refused.body.contains("was refused"), "{refused:?}");
    let welcome = log_in(secret, &origin);
    assert_eq!((welcome.status, welcome.header("location")), (303, Some("/builds?q=a")), "{welcome:?}");
    let set = welcome.header("set-cookie").unwrap();
    for attribute in ["__Host-", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
        assert!(set.contains(attribute), "expected `{attribute}` in `{set}`");
    }
    assert_eq!(with(&welcome.cookie(), &list).status, 200);
    // A link of a certificate's owner works once.
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let link = link(&guarded, access(&guarded.dir(), Some(&ann)));
    assert!(link.starts_with(&format!("{pages}/open/")), "{link}");
    let looked = curl(&[&link]);
    assert_eq!(looked.status, 200, "what only looks at a link does not use it up");
    let cookie = session(&pages, &link);
    assert!(with(&cookie, &list).body.contains("ann"), "expected the pages to name their visitor");
    let again = curl(&[
        "-X",
        "POST",
        "-H",
        &origin,
        "-d",
        &format!("code={}", link.rsplit('/').next().unwrap()),
        &format!("{pages}/open"),
    ]);
    assert_eq!((again.status, again.header("set-cookie")), (410, None), "{again:?}");
    // Every answer has the headers that confine it.
    for answer in [&nobody, &refused, &looked, &with(&cookie, &list), &curl(&[&format!("{pages}/none")])] {
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    }
    // Whoever logs out is out, and so is whoever is revoked.
    let out = curl(&[
        "-X",
        "POST",
        "-H",
        &origin,
        "-H",
        &format!("Cookie: {}", welcome.cookie()),
        &format!("{pages}/logout"),
    ]);
    assert!(out.status == 303 && out.header("set-cookie").unwrap().contains("Max-Age=0"), "{out:?}");
    assert_eq!(with(&welcome.cookie(), &list).status, 303);
    guarded.make(&["revoke", "ann"]);
    until("the session of who was revoked to end", || (with(&cookie, &list).status != 200).then_some(()));
}

#[test]
fn forms_of_other_sites_are_refused() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let cookie = session(&pages, &link(&guarded, access(&guarded.dir(), Some(&ann))));
    let cookie = format!("Cookie: {cookie}");
    for header in [
        "Origin: https://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "X-None: x",
    ] {
        let answer = curl(&["-X", "POST", "-H", header, "-H", &cookie, &format!("{pages}/logout")]);
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "for `{header}`: {answer:?}");
    }
    assert_eq!(curl(&["-H", &cookie, &format!("{pages}/builds")]).status, 200, "expected the session to go on");
    // A login that another site starts would make somebody else of its visitor.
    let open = link(&guarded, access(&guarded.dir(), Some(&ann)));
    let code = format!("code={}", open.rsplit('/').next().unwrap());
    let foreign = curl(&["-X", "POST", "-H", "Origin: https://evil.example", "-d", &code, &format!("{pages}/open")]);
    assert_eq!((foreign.status, foreign.header("set-cookie")), (403, None));
}

#[test]
fn roles_are_those_of_the_services() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    let as_role = |role: &str| {
        let made = guarded.make(&["token", &format!("a-{role}"), "--role", role]);
        format!("Authorization: Bearer {}", made.lines().last().unwrap().trim())
    };
    for (role, status) in [("builder", 200), ("admin", 200), ("cache-reader", 403), ("farm-admin", 403)] {
        let answer = curl(&["-H", &as_role(role), &format!("{pages}/builds")]);
        assert_eq!(answer.status, status, "for `{role}`: {answer:?}");
        let live = curl(&["-H", &as_role("cache-reader"), &format!("{pages}/live/builds")]);
        assert_eq!(live.status, 403, "what is live is not open to whom the page is not");
    }
    // Without pages there is no link.
    let none = Farm::with(&[], &[]);
    let ran = none.kiln(&["web", "--print"]);
    assert!(ran.code != 0 && ran.err.contains("--web-listen"), "{ran:?}");
}

#[test]
fn a_farm_without_authentication_answers_only_under_names_that_no_other_site_has() {
    if !has("curl") {
        return;
    }
    let (_farm, pages) = farm(&[]);
    let list = format!("{pages}/builds");
    let port = pages.rsplit(':').next().unwrap();
    assert_eq!(curl(&[&list]).status, 200);
    // A name that is empty is left out by `curl`, which HTTP/1.1 does not allow either.
    for (host, status) in
        [("localhost", 200), ("127.0.0.1", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("", 421)]
    {
        let header = format!("Host: {host}:{port}");
        let also = ["/live/builds", "/assets/x/style.css"];
        for path in ["/builds"].iter().chain(also.iter().filter(|_| status == 421)) {
            let answer = curl(&["-H", &header, &format!("{pages}{path}")]);
            assert_eq!(answer.status, status, "for `{host}` and `{path}`");
        }
    }
}

#[test]
fn a_browser_logs_in_by_token_and_by_link_and_is_refused_without() {
    if !has_browser() {
        return;
    }
    let (guarded, pages) = guarded();
    let made = guarded.make(&["token", "ci", "--role", "builder"]);
    let secret = made.lines().last().unwrap().trim();
    let link = link(&guarded, token(&guarded.dir(), secret));
    browse("access.cjs", &[&pages, secret, &link]);
}

#[test]
fn a_farm_on_this_machine_is_open_to_its_user_only() {
    if !has("curl") {
        return;
    }
    let farm = Farm::with(&[kiln_harness::ASKS, "--web-listen", "127.0.0.1:0"], &[]);
    let pages = pages(&farm);
    assert_eq!(curl(&[&format!("{pages}/builds")]).status, 303);
    let link = farm.kiln(&["web", "--print"]);
    let cookie = session(&pages, link.out.trim());
    assert_eq!(with(&cookie, &format!("{pages}/builds")).status, 200);
}
