//! Programs that a build compiles from its sources and a runtime: `bun build --compile`, `deno compile`.

use super::tree;

/// The path of the program that a command compiles, relative to the root of the tree; `directory` is where the command runs.
pub(super) fn program(command: &str, compiler: &[&str], options: &[&str], directory: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (name, arguments) = compiler.split_first()?;
    let mut rest = words.as_slice();
    let words = loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        if tree::base(first) == *name && after.first() == arguments.first() {
            break after.get(1..)?;
        }
    };
    let end = words.iter().position(|word| matches!(*word, "&&" | "||" | "|" | ";")).unwrap_or(words.len());
    let (words, _) = words.split_at(end);
    if !arguments.iter().skip(1).all(|word| words.contains(word)) {
        return None;
    }
    let named = words.iter().enumerate().find_map(|(at, word)| {
        let (name, value) = word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
        options.contains(&name).then(|| value.or_else(|| words.get(at.saturating_add(1)).copied()))?
    });
    // Without a name, it is that of the source.
    let source = || {
        let source = words.iter().find(|word| {
            !word.starts_with('-') && [".ts", ".js", ".tsx", ".mjs"].iter().any(|end| word.ends_with(end))
        })?;
        tree::base(source).rsplit_once('.').map(|(stem, _)| stem)
    };
    let path = named.map(|path| path.trim_matches(['"', '\''])).or_else(source)?;
    tree::join(directory, path).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::program;

    #[test]
    fn the_program_is_what_the_command_names_or_its_source() {
        let bun = |text: &str| program(text, &["bun", "build", "--compile"], &["--outfile"], "app");
        assert_eq!(
            bun("tsc && bun build --compile ./src/main.ts --outfile dist/shop && ls"),
            Some("app/dist/shop".into())
        );
        assert_eq!(bun("bun build src/main.ts --compile --outfile='shop'"), Some("app/shop".into()));
        assert_eq!(bun("bun build src/main.ts --compile"), Some("app/main".into()));
        assert_eq!(bun("bun build src/main.ts --outdir dist"), None);
        assert_eq!(bun("bun build --compile --outfile ../../x main.ts"), None, "outside of the tree");
        let deno = |text: &str| program(text, &["deno", "compile"], &["--output", "-o"], "");
        assert_eq!(deno("deno compile -A -o clock main.ts"), Some("clock".into()));
        assert_eq!(deno("deno run main.ts"), None);
    }
}
