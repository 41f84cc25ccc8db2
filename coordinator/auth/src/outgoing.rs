//! An HTTP client for the coordinator's calls to other services.
//!
//! Invariant: a token is sent only to the service that it is for. Headers such as `PRIVATE-TOKEN` would otherwise
//! follow a redirect to another host: only `Authorization` is removed then.

use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Error};

/// Maximum number of consecutive redirects.
const REDIRECTS: usize = 5;

/// A client whose calls take at most `timeout` and stay on the called service: the same scheme, host and port. Any
/// other redirect is returned as the response.
///
/// # Errors
/// If TLS cannot be set up.
pub fn client(timeout: Duration) -> Result<Client, Error> {
    Client::builder().timeout(timeout).redirect(Policy::custom(stay)).build()
}

fn stay(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let is_same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if is_same && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request after another with these answers; gives back what was asked.
    async fn serve(listener: TcpListener, answers: Vec<String>) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = connection.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn a_token_does_not_follow_a_redirect_to_another_service() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (forge, thief) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = |listener: &TcpListener, path: &str| format!("http://{}{path}", listener.local_addr().unwrap());
        let (first, to) = (url(&forge, "/first"), url(&thief, "/steal"));
        // Within the service it is followed, and out of it not.
        let serving = tokio::spawn(serve(forge, vec![redirect("/second"), redirect(&to)]));
        let client = client(Duration::from_secs(20)).unwrap();
        let answer = client.post(first).header("PRIVATE-TOKEN", "secret").send().await.unwrap();
        assert_eq!(answer.status(), 307, "expected the redirect itself as the answer");
        let asked = serving.await.unwrap();
        assert!(asked[1].starts_with("POST /second") && asked[1].contains("secret"), "{asked:?}");
        let stolen = tokio::time::timeout(Duration::from_millis(50), thief.accept()).await;
        assert!(stolen.is_err(), "expected nobody to have called the other service");
    }
}
