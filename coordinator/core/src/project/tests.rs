//! What a `kiln.toml` says, and what is said about a wrong one.
