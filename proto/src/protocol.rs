//! The compatibility of Kiln's programs: each call carries its sender's protocol version.
//!
//! Invariant: a difference of one works in both directions; a larger one is refused before a call has any effect. Every
//! call of `kiln` and of workers goes to the coordinator, so it alone compares. Callers without a version are not part
//! of Kiln (other Remote Execution clients) or older than the versions; they are not refused.

/// This program's version. Increased by one with a change that the previous version does not understand; support for
/// the previous version is kept until the next increase. The protocol before there were versions is 1.
pub const PROTOCOL: u32 = 2;

/// The header with the version.
pub const HEADER: &str = "kiln-protocol";

/// Two programs are too far apart, or a version is invalid. The text is for the caller's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "this `kiln` or worker is older than the farm's coordinator: it speaks protocol {theirs} and the coordinator {ours}, and they may \
         differ by one at most; upgrade it to the coordinator's version"
    )]
    CallerOlder { theirs: u32, ours: u32 },
    #[error(
        "the farm's coordinator is older than this `kiln` or worker: the coordinator speaks protocol {ours} and this {theirs}, and they \
         may differ by one at most; the farm's operator must upgrade the coordinator, or use an older `kiln` or worker"
    )]
    CoordinatorOlder { theirs: u32, ours: u32 },
    #[error("invalid header `{HEADER}`; expected a number such as `{PROTOCOL}`")]
    NoNumber,
}

/// Whether a coordinator with [`PROTOCOL`] serves a caller that sent this version.
///
/// # Errors
/// Which side is older.
pub fn check(sent: &[u8]) -> Result<(), Error> {
    let text = std::str::from_utf8(sent).map_err(|_| Error::NoNumber)?;
    let theirs: u32 = text.parse().map_err(|_| Error::NoNumber)?;
    if theirs.abs_diff(PROTOCOL) <= 1 {
        Ok(())
    } else if theirs < PROTOCOL {
        Err(Error::CallerOlder { theirs, ours: PROTOCOL })
    } else {
        Err(Error::CoordinatorOlder { theirs, ours: PROTOCOL })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_apart_is_taken_and_more_names_the_older_side() {
        let said = |number: u32| check(number.to_string().as_bytes());
        for near in PROTOCOL - 1..=PROTOCOL + 1 {
            assert_eq!(said(near), Ok(()), "expected protocol {near} to be taken");
        }
        assert_eq!(said(PROTOCOL - 2), Err(Error::CallerOlder { theirs: PROTOCOL - 2, ours: PROTOCOL }));
        assert_eq!(said(u32::MAX), Err(Error::CoordinatorOlder { theirs: u32::MAX, ours: PROTOCOL }));
        for none in [&b""[..], b"two", b"-1", b"99999999999", b"\xff"] {
            assert_eq!(check(none), Err(Error::NoNumber));
        }
    }
}
