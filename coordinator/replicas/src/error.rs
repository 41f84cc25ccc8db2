//! Why the replicas cannot agree.

/// Why the replicas cannot agree. Whatever it is, it is the farm's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Redis(#[from] kiln_redis::Error),
    #[error("invalid prefix `{prefix}` of Redis keys: expected at least one character, and neither `{{` nor `}}`")]
    Prefix { prefix: String },
    #[error("Redis at `{shown}` cannot keep the journal: {found}; {fix}")]
    Settings { shown: String, found: String, fix: String },
    #[error(
        "the keys below `{{{prefix}}}` in Redis at `{shown}` belong to another farm: its id is not sealed with this farm's key; use another \
         prefix, or the same farm key for all coordinators of one farm"
    )]
    OtherFarm { shown: String, prefix: String },
    #[error(
        "replica `{theirs}` speaks protocol {their_protocol} and this one {protocol}, and they may differ by one at most; stop it first, or \
         upgrade in smaller steps"
    )]
    Versions { theirs: String, their_protocol: u32, protocol: u32 },
    #[error("the register of replicas is unreachable: {why}")]
    Away { why: String },
}
