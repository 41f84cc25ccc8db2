//! Environment variables that configure the worker of a farm inside a command, like those of `kiln-worker`.
//!
//! Invariant: an invalid value is an error and never replaced by the default, because some of them determine how steps
//! are isolated.

use clap::ValueEnum;
use kiln_worker::docker;
use kiln_worker::sandbox::{Isolation, Mode, SubIds};

use super::Error;

/// The values of the variables.
#[derive(Debug, Clone)]
pub(super) struct Variables {
    pub(super) sandbox: Mode,
    pub(super) sub_ids: Option<SubIds>,
    pub(super) network_isolation: Isolation,
    pub(super) docker: docker::Mode,
    pub(super) docker_host: String,
    pub(super) docker_network: String,
    pub(super) verify_calls: f64,
}

impl Variables {
    /// Reads this process's variables.
    ///
    /// # Errors
    /// Which variable is invalid, and what was expected.
    pub(super) fn read() -> Result<Self, Error> {
        Self::of(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(Error::Variable(format!("`{name}` is not UTF-8; unset it"))),
        })
    }

    /// Empty values count as unset.
    fn of(variable: impl Fn(&str) -> Result<Option<String>, Error>) -> Result<Self, Error> {
        let set = |name| Ok::<_, Error>(variable(name)?.filter(|value| !value.is_empty()));
        let sub_ids = set("KILN_SUBIDS")?.map(|value| {
            let wrong = |reason| Error::Variable(format!("`KILN_SUBIDS`: {reason}"));
            value.parse::<SubIds>().map_err(wrong)
        });
        let verify_calls = set("KILN_VERIFY_CALLS")?.map(|value| {
            let wrong = |reason| Error::Variable(format!("`KILN_VERIFY_CALLS`: {reason}"));
            kiln_worker::percent(&value).map_err(wrong)
        });
        Ok(Self {
            sandbox: one_of("KILN_SANDBOX", set("KILN_SANDBOX")?, Mode::Auto)?,
            sub_ids: sub_ids.transpose()?,
            network_isolation: one_of("KILN_NETWORK_ISOLATION", set("KILN_NETWORK_ISOLATION")?, Isolation::Auto)?,
            docker: one_of("KILN_DOCKER", set("KILN_DOCKER")?, docker::Mode::Auto)?,
            docker_host: set("DOCKER_HOST")?.unwrap_or_else(|| docker::DEFAULT_HOST.to_owned()),
            verify_calls: verify_calls.transpose()?.unwrap_or(kiln_worker::DEFAULT_VERIFY_CALLS),
            docker_network: set("KILN_DOCKER_NETWORK")?.unwrap_or_else(|| "bridge".to_owned()),
        })
    }
}

fn one_of<T: ValueEnum>(name: &str, value: Option<String>, default: T) -> Result<T, Error> {
    let Some(value) = value else { return Ok(default) };
    T::from_str(&value, false).map_err(|_| {
        let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let known: Vec<String> = known.map(|known| format!("`{}`", known.get_name())).collect();
        Error::Variable(format!("`{name}` is `{value}`; expected one of {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Variables, Error> {
        Variables::of(move |asked| Ok((asked == name).then(|| value.to_owned())))
    }

    #[test]
    fn what_is_set_holds_and_what_is_empty_is_not_set() {
        assert_eq!(with("KILN_SANDBOX", "required").unwrap().sandbox, Mode::Required);
        assert_eq!(with("KILN_NETWORK_ISOLATION", "off").unwrap().network_isolation, Isolation::Off);
        assert_eq!(with("KILN_DOCKER_NETWORK", "build").unwrap().docker_network, "build");
        assert!(with("KILN_SUBIDS", "1000000:1048576").unwrap().sub_ids.is_some());
        let unset = with("DOCKER_HOST", "").unwrap();
        assert_eq!((unset.docker_host.as_str(), unset.sandbox), (docker::DEFAULT_HOST, Mode::Auto));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_in_words() {
        for (name, value) in [
            ("KILN_NETWORK_ISOLATION", "strict"),
            ("KILN_NETWORK_ISOLATION", "Required"),
            ("KILN_SANDBOX", "yes"),
            ("KILN_DOCKER", "1"),
        ] {
            let error = with(name, value).expect_err(name).to_string();
            assert!(error.starts_with(&format!("`{name}` is `{value}`")), "{error}");
        }
        let error = with("KILN_SUBIDS", "everything").unwrap_err().to_string();
        assert!(error.starts_with("`KILN_SUBIDS`: invalid range of ids `everything`"), "{error}");
        let error = with("KILN_NETWORK_ISOLATION", "strict").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`KILN_NETWORK_ISOLATION` is `strict`; expected one of `auto`, `required`, `off`"
        );
        assert_eq!(error.code(), crate::Code::Usage);
    }
}
