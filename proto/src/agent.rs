//! The part of the SSH agent protocol that steps may use: which keys there are, and signatures by them.
//!
//! Invariant: nothing else is ever passed on, by any process on the way: no step can add, remove or lock keys of whoever builds. Source:
//! draft-ietf-sshm-ssh-agent, sections 3 and 6.

/// Maximum bytes of a message, as in OpenSSH.
pub const MAX_BYTES: usize = 256 << 10;
/// What an agent answers to what it does not do (`SSH_AGENT_FAILURE`).
pub const FAILURE: &[u8] = &[5];
/// `SSH_AGENTC_REQUEST_IDENTITIES`.
const LIST: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
const SIGN: u8 = 13;
/// What an agent is called if nobody names it.
pub const DEFAULT: &str = "default";

/// Whether a request, without its length, may be passed on.
pub fn may_pass(request: &[u8]) -> bool {
    request.len() <= MAX_BYTES && matches!(request.first(), Some(&(LIST | SIGN)))
}

/// An answer as it is passed on: a failure in place of one that is none.
pub fn passed(answer: &[u8]) -> &[u8] {
    if answer.is_empty() || answer.len() > MAX_BYTES { FAILURE } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_listed_and_used_and_nothing_else() {
        let passing: Vec<u8> = (0..=255).filter(|kind| may_pass(&[*kind, 0])).collect();
        assert_eq!(passing, [LIST, SIGN]);
        assert!(!may_pass(&[]) && !may_pass(&vec![SIGN; MAX_BYTES + 1]));
        assert_eq!((passed(&[]), passed(&[12, 0])), (FAILURE, &[12, 0][..]));
    }
}
