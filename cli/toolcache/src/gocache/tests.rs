use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::*;

fn args(dir: &std::path::Path) -> Gocache {
    let second = Duration::from_secs(1);
    Gocache { url: None, dir: Some(dir.to_owned()), wait: second, flush: second }
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
async fn said(dir: &std::path::Path, lines: &str) -> Vec<Value> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let remote = None;
    let args = args(dir);
    let serving = serve(&args, dir.to_owned(), remote, lines.as_bytes(), theirs);
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
        let failed = serve(&args(dir.path()), dir.path().to_owned(), None, lines.as_bytes(), theirs).await;
        let error = failed.expect_err(word).to_string();
        assert!(error.contains(word), "expected `{word}` in: {error}");
    }
}
