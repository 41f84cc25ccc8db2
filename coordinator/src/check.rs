//! Everything about a configuration that can be verified without starting the coordinator.

use crate::Config;
use crate::files::Files;

/// What is wrong with the files that a configuration names, and with options that contradict each other.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = config.auth.problems(config.listen, &config.data_dir);
    problems.extend(Files::problems(config).iter().map(|error| format!("{error:#}")));
    problems.extend(config.check().err());
    problems.extend(stores(config).err());
    let signing = kiln_signing::Signer::check(&config.signing, &config.signing_key_file());
    problems.extend(signing.err().map(|error| error.to_string()));
    problems.extend(kiln_options::usable_directory("data directory", &config.data_dir).err());
    for address in [config.tool_caches.listen, config.web.listen].into_iter().flatten() {
        problems.extend(config.auth.check(address).err().map(|error| error.to_string()));
    }
    problems
}

/// Addresses, certificates and keys of Redis and the bucket.
fn stores(config: &Config) -> Result<(), String> {
    let words = |error: kiln_store::Error| format!("{:#}", anyhow::Error::new(error));
    config.stores(&kiln_auth::FarmKey::ephemeral()).map(drop).map_err(words)
}
