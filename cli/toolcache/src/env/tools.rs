//! Each tool's settings.

use kiln_proto::channel::TokenPlace;

use super::shell::{export, path, token, word};
use super::{Settings, Token, Tool};
use crate::Error;

/// What node reads an authority's certificate from.
const NODE_CA: &str = "NODE_EXTRA_CA_CERTS";
/// The same for programs that use OpenSSL's variables, such as sccache.
const SSL_CA: &str = "SSL_CERT_FILE";
/// What Gradle's init script reads.
const GRADLE_URL: &str = "KILN_GRADLE_CACHE";
const GRADLE_TOKEN: &str = "KILN_GRADLE_TOKEN";
const GRADLE_PUSH: &str = "KILN_GRADLE_PUSH";

pub(super) fn shell(tool: Tool, settings: &Settings) -> Result<String, Error> {
    let url = word(&settings.url);
    let is_tls = settings.url.starts_with("https:");
    let secret = settings.token.as_ref().map(token);
    let unusable = |reason| Err(Error::Unusable { tool: tool.name(), reason });
    if secret.is_none() && settings.certificate.is_some() && !matches!(tool, Tool::Bazel | Tool::Go) {
        return unusable("it sends no client certificate; use a token (`KILN_TOKEN` or `--token-file`)");
    }
    let ca = |name| settings.ca.as_deref().map(|ca| export(name, &path(ca))).unwrap_or_default();
    Ok(match tool {
        Tool::Bazel => bazel(settings, &url, secret.as_deref()),
        // ccache itself has no TLS; its helper, from 4.13 on, does.
        Tool::Ccache if is_tls => export("CCACHE_REMOTE_STORAGE", &helper(settings)),
        Tool::Ccache => {
            let bearer = secret.map(|secret| format!("'|bearer-token='{secret}")).unwrap_or_default();
            let rights = if settings.writes { "" } else { "'|read-only=true'" };
            export("CCACHE_REMOTE_STORAGE", &format!("{url}{rights}{bearer}"))
        }
        Tool::Go => export("GOCACHEPROG", &word(&go(settings)?)),
        Tool::Gradle => {
            let secret = secret.map(|secret| export(GRADLE_TOKEN, &secret)).unwrap_or_default();
            // Gradle before 6 uses the cache no more once it could not store something.
            let push = export(GRADLE_PUSH, if settings.writes { "true" } else { "false" });
            format!(
                "# once: kiln cache env gradle --format file > ~/.gradle/init.d/kiln.gradle; then: gradle --build-cache\n{}{push}{secret}",
                export(GRADLE_URL, &format!("{url}/"))
            )
        }
        Tool::Nx => {
            let secret = secret.map(|secret| export("NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN", &secret));
            export("NX_SELF_HOSTED_REMOTE_CACHE_SERVER", &url) + &secret.unwrap_or_default() + &ca(NODE_CA)
        }
        Tool::Sccache => {
            let secret = secret.map(|secret| export("SCCACHE_WEBDAV_TOKEN", &secret)).unwrap_or_default();
            let rights = export("SCCACHE_WEBDAV_RW_MODE", if settings.writes { "READ_WRITE" } else { "READ_ONLY" });
            export("SCCACHE_WEBDAV_ENDPOINT", &url) + &rights + &secret + &ca(SSL_CA)
        }
        Tool::Turbo => {
            // Turborepo uses its remote cache only with a token and a team, whichever.
            let secret = export("TURBO_TOKEN", secret.as_deref().unwrap_or("none"));
            export("TURBO_API", &url) + &secret + &export("TURBO_TEAM", "kiln") + &ca(SSL_CA)
        }
    })
}

/// The words that make ccache start this program as its storage helper.
fn helper(settings: &Settings) -> String {
    let mut words = format!("kiln://farm helper={} @url={}", own(), settings.urls);
    let mut option = |name: &str, path: &std::path::Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        words.push_str(&format!(" @{name}={}", path.display()));
    };
    if let Some(ca) = &settings.ca {
        option("ca", ca);
    }
    if let Some(Token::At(TokenPlace::File(file))) = &settings.token {
        option("token-file", file);
    }
    word(&words)
}

/// This program.
fn own() -> String {
    std::env::current_exe().map_or_else(|_| "kiln".to_owned(), |path| path.display().to_string())
}

/// A function, because a header with a blank cannot stand in a variable, nor a token in `.bazelrc`.
fn bazel(settings: &Settings, url: &str, secret: Option<&str>) -> String {
    let mut flags = vec![format!("--remote_cache={url}")];
    flags.extend(secret.map(|secret| format!("--remote_header=Authorization='Bearer '{secret}")));
    flags.extend((!settings.writes).then(|| "--remote_upload_local_results=false".to_owned()));
    flags.extend(settings.ca.as_deref().map(|ca| format!("--tls_certificate={}", path(ca))));
    if let Some((certificate, key)) = &settings.certificate {
        flags.push(format!("--tls_client_certificate={}", path(certificate)));
        flags.push(format!("--tls_client_key={}", path(key)));
    }
    format!(
        "# then: kiln_bazel build //...\nkiln_bazel() {{ kiln_verb=\"$1\"; shift; bazel \"$kiln_verb\" {} \"$@\"; }}\n",
        flags.join(" ")
    )
}

/// The command that `go` starts; it splits it at blanks, but not between quotes.
fn go(settings: &Settings) -> Result<String, Error> {
    let quoted = |text: String| {
        let is_plain = !text.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '"'));
        match (is_plain, text.contains('\'')) {
            (true, _) => text,
            (false, false) => format!("'{text}'"),
            (false, true) => format!("\"{text}\""),
        }
    };
    let mut command = vec![own(), "gocache".to_owned(), "--url".to_owned(), settings.urls.clone()];
    let mut option = |name: &str, path: &std::path::Path| {
        command.extend([
            name.to_owned(),
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string(),
        ]);
    };
    if let Some(ca) = &settings.ca {
        option("--ca", ca);
    }
    if let Some((certificate, key)) = &settings.certificate {
        option("--cert", certificate);
        option("--key", key);
    }
    match &settings.token {
        Some(Token::At(TokenPlace::File(file))) => option("--token-file", file),
        // It inherits the variable; a command line is seen by everyone on the machine.
        Some(Token::At(TokenPlace::Variable(_)) | Token::Shown(_)) | None => {}
    }
    Ok(command.into_iter().map(quoted).collect::<Vec<_>>().join(" "))
}

/// A file that the tool reads.
pub(super) fn file(tool: Tool, settings: &Settings) -> Result<String, Error> {
    if tool != Tool::Gradle {
        return Err(Error::Unusable { tool: tool.name(), reason: "it has no file of settings; use `--format shell`" });
    }
    let literal = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let otherwise = match &settings.token {
        Some(Token::Shown(token)) => literal(token),
        Some(Token::At(TokenPlace::File(file))) => {
            format!("new File({}).text.trim()", literal(&file.display().to_string()))
        }
        Some(Token::At(TokenPlace::Variable(name))) => format!("System.getenv('{name}')"),
        None => "null".to_owned(),
    };
    Ok(format!(
        "// The farm's cache for every build of this user: gradle --build-cache, or org.gradle.caching=true\n\
         gradle.settingsEvaluated {{ settings ->\n    \
             settings.buildCache {{\n        \
                 remote(HttpBuildCache) {{\n            \
                     url = System.getenv('{GRADLE_URL}') ?: {}\n            \
                     push = (System.getenv('{GRADLE_PUSH}') ?: '{}') == 'true'\n            \
                     if (it.hasProperty('allowInsecureProtocol')) {{ allowInsecureProtocol = true }}\n            \
                     def token = System.getenv('{GRADLE_TOKEN}') ?: {otherwise}\n            \
                     if (token) {{ credentials {{ username = 'kiln'; password = token }} }}\n        \
                 }}\n    \
             }}\n\
         }}\n",
        literal(&format!("{}/", settings.url)),
        settings.writes
    ))
}
