//! Keys that sign calls. Source: Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>).
//!
//! A receiver checks a call with the specification's libraries and the same secret.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use zeroize::Zeroizing;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, as the specification has them.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets of one file: the new one and the one before.
const MOST: usize = 4;

/// The secrets in a file, one on a line: the first is the current one, others are still accepted somewhere.
pub(crate) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl Secrets {
    /// Reads a file.
    ///
    /// # Errors
    /// In words that show nothing of a secret.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| format!("cannot read `{shown}`: {error}"))?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.len() > MOST {
            return Err(format!("`{shown}` has {} secrets; expected 1 to {MOST}, one on a line", lines.len()));
        }
        let wrong = || {
            format!(
                "`{shown}` holds no secret: expected `{PREFIX}` and the base64 of {} to {} bytes, as from `echo {PREFIX}$(openssl rand -base64 32)`",
                BYTES.start(),
                BYTES.end()
            )
        };
        let decode = |line: &str| {
            let bytes = Zeroizing::new(STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?);
            BYTES.contains(&bytes.len()).then_some(bytes)
        };
        lines.into_iter().map(decode).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }

    /// The header `webhook-signature`: a signature by each secret.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let one = |secret: &Zeroizing<Vec<u8>>| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secrets, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Secrets::read(file.path())
    }

    #[test]
    fn a_call_is_signed_as_the_specifications_libraries_sign() {
        let secrets = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_replaced_both_sign() {
        let both = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n").unwrap();
        let signed = both.sign("msg_1", 1, b"{}");
        assert_eq!(signed.split(' ').filter(|one| one.starts_with("v1,")).count(), 2, "{signed}");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!", "a\nb\nc\nd\ne"] {
            let words = read(text).err().unwrap_or_else(|| panic!("expected `{text}` to be refused"));
            assert!(words.contains("expected") && !words.contains("c2hvcnQ") && !words.contains("MfKQ9"), "{words}");
        }
    }
}
