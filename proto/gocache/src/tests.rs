use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::*;

fn cache(dir: &Path, kept: Kept) -> Cache {
    let second = Duration::from_secs(1);
    let disks = vec![Arc::new(Disk::open(dir.to_owned()).unwrap())];
    let sending = TaskTracker::new();
    let unkept = vec![Arc::default()];
    Cache {
        disks,
        farm: None,
        sends: false,
        wait: second,
        flush: second,
        kept,
        unkept,
        noted: None,
        show: None,
        sending,
    }
}

fn put(id: i64, action: u8, body: &[u8], output: &[u8]) -> String {
    let ids = |id: &[u8]| STANDARD.encode(id);
    let request = json!({ "ID": id, "Command": "put", "ActionID": ids(&[action; 32]), "OutputID": ids(output),
        "BodySize": body.len() });
    let body = if body.is_empty() { String::new() } else { format!("\"{}\"\n", STANDARD.encode(body)) };
    format!("{request}\n\n{body}")
}

fn get(id: i64, action: u8) -> String {
    format!("{}\n\n", json!({ "ID": id, "Command": "get", "ActionID": STANDARD.encode([action; 32]) }))
}

/// What is said to these lines, by the request's number.
async fn said(dir: &Path, lines: &str) -> Vec<Value> {
    told(cache(dir, Kept::All), lines).await
}

async fn told(cache: Cache, lines: &str) -> Vec<Value> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let serving = serve(cache, lines.as_bytes(), theirs);
    let reading = async {
        let (mut ours, mut text) = (ours, String::new());
        ours.read_to_string(&mut text).await.unwrap();
        text
    };
    let (served, text) = tokio::join!(serving, reading);
    served.unwrap();
    let mut answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    answers.sort_by_key(|answer| answer["ID"].as_i64());
    answers
}

#[tokio::test]
async fn what_was_put_is_there_for_the_next_command() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; 300_000];
    let (large_id, empty_id) = (Sha256::digest(&large), Sha256::digest(b""));
    let close = "{\"ID\":9,\"Command\":\"close\"}\n";
    let answers =
        said(dir.path(), &format!("{}{}{}{close}", get(1, 9), put(2, 1, &large, &large_id), put(3, 2, b"", &empty_id)))
            .await;
    assert_eq!(answers[0]["KnownCommands"], json!(["get", "put", "close"]));
    assert_eq!(answers[1]["Miss"], true);
    assert_eq!(std::fs::read(answers[2]["DiskPath"].as_str().unwrap()).unwrap(), large);
    assert_eq!(answers[4]["ID"], 9);
    let answers = said(dir.path(), &format!("{}{}{}{close}", get(1, 1), get(2, 2), get(3, 3))).await;
    assert_eq!((&answers[1]["Size"], &answers[1]["OutputID"]), (&json!(300_000), &json!(STANDARD.encode(large_id))));
    assert_eq!((&answers[2]["Size"], &answers[3]["Miss"]), (&json!(0), &json!(true)));
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let answers = said(dir.path(), &format!("{}{}", put(1, 1, b"a body", &[0; 32]), get(2, 1))).await;
    assert!(answers[1]["Err"].as_str().unwrap().contains("`OutputID`"), "{answers:?}");
    assert_eq!(answers[2]["Miss"], true);
}

#[tokio::test]
async fn what_is_not_understood_ends_the_helper_with_words() {
    let dir = tempfile::tempdir().unwrap();
    for (lines, word) in [
        ("{\"ID\":1,\"Command\":\"put\",\"BodySize\":3}\nxxx", "does not begin with a quote"),
        ("{\"ID\":1,\"Command\":\"put\",\"BodySize\":3}\n\"???\"", "not base64"),
        ("{\"ID\":1,\"Command\":\"put\",\"BodySize\":3}\n\"aaaa", "broke off"),
        ("hello\n", "not understood"),
    ] {
        let (_ours, theirs) = tokio::io::duplex(1 << 20);
        let failed = serve(cache(dir.path(), Kept::All), lines.as_bytes(), theirs).await;
        let error = failed.expect_err(word).to_string();
        assert!(error.contains(word), "expected `{word}` in: {error}");
    }
}

#[tokio::test]
async fn what_go_finds_by_the_times_of_files_does_not_outlive_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let (log, index, object) = (&b"# test log\nopen x\n"[..], &b"go index v2\n..."[..], &b"go object linux"[..]);
    let puts: String = [log, index, object]
        .iter()
        .zip(1..)
        .map(|(body, number)| put(i64::from(number), number, body, &Sha256::digest(body)))
        .collect();
    let answers = told(cache(dir.path(), Kept::Content([0; 32])), &puts).await;
    for (answer, body) in answers[1..].iter().zip([log, index, object]) {
        assert_eq!(std::fs::read(answer["DiskPath"].as_str().unwrap()).unwrap(), body, "the command itself needs it");
    }
    let gets: String = (1..=3).map(|number| get(i64::from(number), number)).collect();
    let answers = told(cache(dir.path(), Kept::Content([0; 32])), &gets).await;
    let missed: Vec<bool> = answers[1..].iter().map(|answer| answer["Miss"] == true).collect();
    assert_eq!(missed, [true, true, false]);
}

/// A farm with one entry, which may be another than it says.
#[derive(Debug)]
struct One {
    promised: Vec<u8>,
    body: Vec<u8>,
}

#[async_trait]
impl Farm for One {
    fn is_down(&self) -> bool {
        false
    }

    fn is_late(&self) {}

    async fn get(&self, actions: &[Vec<u8>], body: &mut Body) -> Option<(Vec<u8>, String)> {
        body.push(&self.body).ok()?;
        Some((actions[0].clone(), hex::encode(&self.promised)))
    }

    async fn put(&self, _: &[u8], _: &Found) {}
}

#[tokio::test]
async fn an_entry_of_the_farm_is_taken_only_if_it_is_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    for (body, is_hit) in [(&b"true"[..], true), (b"false", false)] {
        let farm = One { promised: Sha256::digest(b"true").to_vec(), body: body.to_vec() };
        let below = dir.path().join(is_hit.to_string());
        let cache = Cache { farm: Some(Arc::new(farm)), ..cache(&below, Kept::Content([0; 32])) };
        let answers = told(cache, &get(1, 1)).await;
        assert_eq!(answers[1]["Miss"].is_null(), is_hit, "{answers:?}");
    }
}

#[tokio::test]
async fn what_a_c_compiler_made_is_not_there_beside_other_headers() {
    let dir = tempfile::tempdir().unwrap();
    let made = b"// Code generated by cmd/cgo; DO NOT EDIT.\n";
    let lines = format!("{}{}", put(1, 1, made, &Sha256::digest(made)), put(2, 2, b"go", &Sha256::digest(b"go")));
    told(cache(dir.path(), Kept::Content([1; 32])), &lines).await;
    for (others, expected) in [(1, [false, false]), (2, [true, false])] {
        let answers =
            told(cache(dir.path(), Kept::Content([others; 32])), &format!("{}{}", get(1, 1), get(2, 2))).await;
        let missed: Vec<bool> = answers[1..].iter().map(|answer| answer["Miss"] == true).collect();
        assert_eq!(missed, expected, "{others}");
    }
}

/// A farm without entries that counts how often it is asked.
#[derive(Debug, Default)]
struct Nothing(std::sync::atomic::AtomicUsize);

#[async_trait]
impl Farm for Nothing {
    fn is_down(&self) -> bool {
        false
    }

    fn is_late(&self) {}

    async fn get(&self, _: &[Vec<u8>], _: &mut Body) -> Option<(Vec<u8>, String)> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    }

    async fn put(&self, _: &[u8], _: &Found) {}
}

#[tokio::test]
async fn nobody_is_asked_for_what_is_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Arc::new(Nothing::default());
    let cache = Cache { farm: Some(farm.clone()), ..cache(dir.path(), Kept::Content([0; 32])) };
    let asked = || farm.0.swap(0, std::sync::atomic::Ordering::Relaxed);
    let index = b"go index v2\nand more";
    told(cache.clone(), &format!("{}{}", get(1, 1), get(2, 2))).await;
    assert_eq!(asked(), 2);
    told(cache.clone(), &put(1, 1, index, &Sha256::digest(index))).await;
    // Another command, in another step of the same space: what was absent and is never kept is not asked for again.
    let answers = told(cache, &format!("{}{}", get(1, 1), get(2, 2))).await;
    assert!(answers[1..].iter().all(|answer| answer["Miss"] == true), "{answers:?}");
    assert_eq!(asked(), 1);
}
