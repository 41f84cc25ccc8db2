//! What an `ADD` of something elsewhere runs on a worker: a download, or a checkout.

use kiln_artifacts::Login;
use kiln_dockerfile::{Fetch, GitSource};

/// Where a downloaded file is.
pub(super) const DOWNLOADED: &str = "downloaded";
/// Where the time is that its server says, in seconds since the epoch; -1 if it says none.
pub(super) const MODIFIED: &str = "modified";
/// Where a repository's files are.
pub(super) const REPOSITORY: &str = "repository";
/// Where the time of the commit is, in seconds since the epoch.
pub(super) const COMMITTED: &str = "committed";

/// How Git reaches a host: nobody is asked, and a host that is not known is believed to be what it says that it is.
const SSH: &str =
    "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known_hosts";

/// A command that downloads a file to [`DOWNLOADED`].
pub(super) fn download(fetch: &Fetch, login: Option<&Login>) -> String {
    // Not among the arguments, which other processes see. curl tells only the server of the URL, and not where that redirects to.
    let (told, header) = match login {
        Some(Login { secret, is_token }) => {
            let scheme = if *is_token { "Bearer " } else { "" };
            (format!("printf 'Authorization: {scheme}%s\\n' \"$(printf %s \"${secret}\")\" | "), "--header @- ")
        }
        None => (String::new(), ""),
    };
    let mut script = format!(
        "set -e\n{told}curl {header}--fail --silent --show-error --location --proto =http,https --remote-time --dump-header headers \
         --output {DOWNLOADED} -- {}\n\
         if grep -qi '^last-modified:' headers; then stat -c %Y {DOWNLOADED}; else echo -1; fi > {MODIFIED}",
        quoted(&fetch.url)
    );
    if let Some((function, hex)) = fetch.checksum.as_deref().and_then(|checksum| checksum.split_once(':')) {
        script.push_str(&format!("\necho {} | {function}sum --check --quiet", quoted(&format!("{hex}  {DOWNLOADED}"))));
    }
    script
}

/// A command that leaves a repository's files in [`REPOSITORY`]. They are the same for the same commit, unless `.git` is kept.
pub(super) fn checkout(source: &GitSource) -> String {
    let wanted = match () {
        () if source.fetch_by_commit && !source.checksum.is_empty() => &source.checksum,
        () if source.reference.is_empty() => "HEAD",
        () => &source.reference,
    };
    let mut script = format!(
        "set -eu\numask 022\n\
         export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=git:http:https:ssh GIT_SSH_COMMAND={ssh}\n\
         git -c init.defaultBranch=main init -q checkout\ncd checkout\ntop=$(pwd -P)\n\
         git remote add origin -- {remote}\n",
        ssh = quoted(SSH),
        remote = quoted(&source.remote)
    );
    // Plain HTTP knows no shallow copies.
    let (name, fetch) = (quoted(wanted), "git fetch -q --no-tags");
    script.push_str(&format!("if ! {fetch} --depth 1 -- origin {name} 2>/dev/null; then\n"));
    if is_commit(wanted) {
        // A server need not send a commit by its name; then it is among those of its branches and tags.
        script.push_str(&format!(
            "  {fetch} -- origin {name} 2>/dev/null || git fetch -q origin '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'\nfi\n\
             git checkout -q --detach {name}\n"
        ));
    } else {
        script.push_str(&format!("  {fetch} -- origin {name}\nfi\ngit checkout -q --detach FETCH_HEAD\n"));
    }
    if !source.checksum.is_empty() {
        let expected = quoted(&source.checksum);
        script.push_str(&format!(
            "expected={expected} found=$(git rev-parse HEAD) tag=$(git rev-parse {})\n\
             case \"$found $tag\" in \"$expected\"*|*\" $expected\"*) ;; *)\n  \
             echo \"expected the commit $expected, found $found\" >&2\n  exit 1 ;; esac\n",
            if is_commit(wanted) { "HEAD" } else { "FETCH_HEAD" }
        ));
    }
    if !source.skips_submodules {
        script.push_str(
            "if [ -f .gitmodules ]; then\n  git submodule -q update --init --recursive --depth 1 2>/dev/null ||\n    \
             git submodule -q update --init --recursive\nfi\n",
        );
    }
    script.push_str(&format!("git log -1 --format=%ct > ../{COMMITTED}\n"));
    if source.keep_git_dir != Some(true) {
        script.push_str("find . -name .git -prune -exec rm -rf {} +\n");
    }
    if source.directory.is_empty() {
        script.push_str(&format!("cd ..\nmv checkout {REPOSITORY}\n"));
    } else {
        // A link must not lead out of the repository.
        let directory = quoted(&source.directory);
        script.push_str(&format!(
            "directory={directory}\n\
             inside=$(cd -P \"./$directory\" 2>/dev/null && pwd -P) || inside=\n\
             case \"$inside\" in \"$top\"/*) ;; *)\n  \
             echo \"the repository has no directory $directory\" >&2\n  exit 1 ;; esac\n\
             mv \"$inside\" ../{REPOSITORY}\n"
        ));
    }
    script
}

/// Whether a source always is the same: it names a commit.
pub(super) fn is_pinned(source: &GitSource) -> bool {
    is_commit(&source.reference) || is_commit(&source.checksum)
}

fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.chars().all(|c| c.is_ascii_hexdigit())
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_source_is_read_by_the_shell() {
        let evil = "a'; rm -rf /; '";
        let source = GitSource {
            remote: format!("https://example.com/{evil}.git"),
            reference: evil.to_owned(),
            directory: evil.to_owned(),
            checksum: evil.to_owned(),
            ..GitSource::default()
        };
        let script = checkout(&source);
        assert!(!script.contains(evil), "{script}");
        assert!(!is_pinned(&source));
        assert!(is_pinned(&GitSource { checksum: "0".repeat(40), ..GitSource::default() }));
    }

    #[test]
    fn a_login_is_read_from_its_variable_by_the_shell_itself() {
        let fetch = Fetch { url: "https://a.example/b".to_owned(), file: "b".to_owned(), checksum: None };
        let login = Login { secret: "TOKEN".to_owned(), is_token: true };
        let script = download(&fetch, Some(&login));
        let told = "printf 'Authorization: Bearer %s\\n' \"$(printf %s \"$TOKEN\")\" | curl --header @- --fail";
        assert!(script.contains(told), "{script}");
        assert!(!download(&fetch, None).contains("header @-"));
    }

    #[test]
    fn a_reference_is_no_option_of_git() {
        let source = GitSource { remote: "--upload-pack=x".to_owned(), ..GitSource::default() };
        assert!(checkout(&source).contains("remote add origin -- '--upload-pack=x'"));
    }
}
