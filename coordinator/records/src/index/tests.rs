use kiln_proto::v1::{SubmitRequest, event};
use proptest::prelude::*;

use super::*;
use crate::Keep;
use crate::tests::records;

/// Different from the first character on.
fn commit(number: usize) -> String {
    format!("{number:x}").chars().rev().cycle().take(40).collect()
}

fn build(number: usize, project: &str, user: &str, branch: &str, status: Status) -> Build {
    let source = Source { branch: branch.into(), commit: commit(number), ..Source::default() };
    Build {
        id: format!("0190{number:08}"),
        project: project.into(),
        user: user.into(),
        platforms: vec![if number.is_multiple_of(2) { "linux/amd64" } else { "linux/arm64" }.into()],
        source: Some(source),
        status: status.into(),
        ..Build::default()
    }
}

async fn put(records: &Records, build: &Build) {
    let running = Build { status: Status::Running.into(), ..build.clone() };
    records.submit(&running, &SubmitRequest::default()).await.unwrap();
    if build.status() != Status::Running {
        let last = event::Event::BuildFinished(Default::default());
        records.finish(build, (&records.new_events(&build.id), last), &[]).await.unwrap();
    }
}

/// All that a request finds, through all pages of this size.
async fn found(records: &Records, request: &ListRequest, limit: usize) -> Vec<String> {
    let (mut all, mut request) = (Vec::new(), request.clone());
    loop {
        let (page, more) = records.search(&request, limit).await.unwrap();
        all.extend(page.into_iter().map(|build| build.id));
        match more {
            Some(more) => request.before = more,
            None => return all,
        }
    }
}

#[tokio::test]
async fn a_build_is_found_by_its_end_and_no_more_by_its_beginning() {
    let (_directory, records) = records();
    put(&records, &build(1, "shop", "ann", "main", Status::Running)).await;
    let running = ListRequest { statuses: vec![Status::Running.into()], ..Default::default() };
    assert_eq!(found(&records, &running, 10).await, ["019000000001"]);
    put(&records, &build(1, "shop", "ann", "main", Status::Failed)).await;
    assert!(found(&records, &running, 10).await.is_empty());
    let failed = ListRequest { statuses: vec![Status::Failed.into()], ..Default::default() };
    assert_eq!(found(&records, &failed, 10).await, ["019000000001"]);
}

#[tokio::test]
async fn a_build_is_found_by_the_beginnings_of_its_words_its_commit_and_its_id() {
    let (_directory, records) = records();
    put(&records, &build(7, "payment-service", "ann.lee", "feature/Refunds", Status::Succeeded)).await;
    put(&records, &build(8, "<script>", "bob", "main", Status::Succeeded)).await;
    let of = |text: &str| ListRequest { text: text.to_owned(), ..Default::default() };
    for text in ["payment", "PAY serv", "refund ann", "lee", &commit(7)[..12], "019000000007"] {
        assert_eq!(found(&records, &of(text), 10).await, ["019000000007"], "for `{text}`");
    }
    assert_eq!(found(&records, &of("01900000"), 10).await, ["019000000008", "019000000007"]);
    for text in ["ayment", "pay bob", "0191"] {
        assert!(found(&records, &of(text), 10).await.is_empty(), "for `{text}`");
    }
    let request = ListRequest { text: "<Script>".into(), ..Default::default() };
    assert_eq!(found(&records, &request, 10).await, ["019000000008"]);
}

#[tokio::test]
async fn what_retention_deletes_is_found_no_more() {
    let (_directory, records) = records();
    for number in 0..5 {
        put(&records, &build(number, "shop", "ann", "main", Status::Succeeded)).await;
    }
    assert_eq!(records.trim(&"2".parse::<Keep>().unwrap()).await.unwrap(), 3);
    for request in [ListRequest::default(), ListRequest { project: "shop".into(), ..Default::default() }] {
        assert_eq!(found(&records, &request, 10).await, ["019000000004", "019000000003"]);
    }
    let left = records.journal.count(INDEX).await.unwrap();
    let each = terms(&build(4, "shop", "ann", "main", Status::Succeeded)).len() as u64 + 1;
    assert_eq!(left, 2 * each, "expected nothing of the deleted builds in the index");
}

#[tokio::test]
async fn builds_of_an_earlier_version_are_indexed_once() {
    let (_directory, records) = records();
    for number in 0..300 {
        let old = build(number, "shop", "ann", "main", Status::Succeeded);
        let batch = Batch::default().put(BUILDS, &old.id, encoded(&old));
        records.journal.commit(batch, Durability::Relaxed).await.unwrap();
    }
    records.complete_index().await.unwrap();
    let request = ListRequest { user: "ann".into(), ..Default::default() };
    assert_eq!(found(&records, &request, 1000).await.len(), 300);
    let entries = records.journal.count(INDEX).await.unwrap();
    records.complete_index().await.unwrap();
    assert_eq!(records.journal.count(INDEX).await.unwrap(), entries);
}

/// What a search takes in a long history; `KILN_INDEXED_BUILDS` is its length. It prints and asserts no time.
#[tokio::test]
#[ignore = "writes a long history"]
async fn a_long_history_is_searched() {
    let builds = std::env::var("KILN_INDEXED_BUILDS").ok().and_then(|number| number.parse().ok()).unwrap_or(100_000);
    let (_directory, records) = records();
    let projects: Vec<String> = (0..200).map(|number| format!("service-{number}")).collect();
    for first in (0..builds).step_by(2_000) {
        let mut batch = Batch::default();
        for number in first..(first + 2_000).min(builds) {
            let status = if number % 50 == 0 { Status::Failed } else { Status::Succeeded };
            let user = format!("user{}", number % 97);
            batch = add(batch, &build(number, &projects[number % 200], &user, "main", status));
        }
        records.journal.commit(batch, Durability::Relaxed).await.unwrap();
    }
    let requests = [
        ("newest", ListRequest::default()),
        ("project and user", ListRequest { project: "service-7".into(), user: "user3".into(), ..Default::default() }),
        ("failed", ListRequest { statuses: vec![Status::Failed.into()], ..Default::default() }),
        ("an old commit", ListRequest { text: commit(17), ..Default::default() }),
        ("an old id", ListRequest { text: format!("0190{:08}", 3), ..Default::default() }),
        ("words", ListRequest { text: "service 77 user5".into(), ..Default::default() }),
        ("nothing", ListRequest { text: "nothing".into(), ..Default::default() }),
        (
            "a user without this project",
            ListRequest { project: "service-7".into(), user: "nobody".into(), ..Default::default() },
        ),
    ];
    for (what, request) in requests {
        let began = std::time::Instant::now();
        let (page, more) = records.search(&request, 50).await.unwrap();
        println!("{what}: {} builds of {builds} in {:?}, more: {}", page.len(), began.elapsed(), more.is_some());
        assert_eq!(page.is_empty(), what.starts_with("nothing") || what.contains("without"), "for {what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_search_finds_what_looking_at_every_build_would(
        made in proptest::collection::vec((0..3_usize, 0..3_usize, 0..2_usize, 1..6_i32), 0..60),
        asked in (0..4_usize, 0..4_usize, 0..3_usize, 0..6_i32, any::<bool>()),
        limit in 1..7_usize,
    ) {
        let names = ["shop", "shopping", "till", ""];
        let users = ["ann", "bob", "cy", ""];
        let branches = ["main", "dev", ""];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_directory, records) = records();
            let mut all = Vec::new();
            for (number, (project, user, branch, status)) in made.into_iter().enumerate() {
                let status = Status::try_from(status).unwrap();
                let build = build(number, names[project], users[user], branches[branch], status);
                put(&records, &build).await;
                all.insert(0, build);
            }
            let (project, user, branch, status, text) = asked;
            let request = ListRequest {
                project: if text { String::new() } else { names[project].into() },
                text: if text { names[project].into() } else { String::new() },
                user: users[user].into(),
                branch: branches[branch].into(),
                statuses: (status > 0).then_some(status).into_iter().collect(),
                ..Default::default()
            };
            let words: Vec<String> = split(&request.text).collect();
            let expected: Vec<String> = all.iter().filter(|build| is_asked(build, &request, &words)).map(|build| build.id.clone()).collect();
            assert_eq!(found(&records, &request, limit).await, expected, "for {request:?}");
        });
    }
}
