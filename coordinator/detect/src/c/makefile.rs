//! Where a Makefile installs to.

/// Whether every install path is prefixed with `DESTDIR`.
pub(super) fn stages(makefile: &str) -> bool {
    makefile.contains("DESTDIR") && !names_a_place(makefile)
}

/// Whether the makefile uses `DESTDIR` as a directory of its own rather than as a staging root.
pub(super) fn names_a_place(makefile: &str) -> bool {
    let is_a_place = |value: &str| !value.is_empty() && !value.starts_with('#');
    assigned(makefile, "DESTDIR").any(is_a_place)
}

/// The arguments that make the makefile install into one of the system's usual places; empty if its own prefix is one.
pub(super) fn prefix(makefile: &str) -> String {
    let names = ["PREFIX", "prefix"].into_iter().filter(|name| {
        let used = makefile.contains(&format!("$({name})")) || makefile.contains(&format!("${{{name}}}"));
        used && !assigned(makefile, name)
            .any(|value| value.starts_with('/') || value.contains(['(', '{']) && own(value))
    });
    names.map(|name| format!(" {name}=/usr/local")).collect()
}

/// Whether a value starts with one of the makefile's own variables, and so is left to it.
fn own(value: &str) -> bool {
    let outside = ["HOME", "CURDIR", "PWD", "shell"];
    let name = value.strip_prefix('$').map(|rest| rest.trim_start_matches(['(', '{']));
    name.is_some_and(|name| !outside.iter().any(|outside| name.starts_with(outside)))
}

fn assigned<'a>(makefile: &'a str, variable: &'a str) -> impl Iterator<Item = &'a str> {
    makefile.lines().filter_map(move |line| {
        let (name, value) = line.trim_start().split_once('=')?;
        let name = name.trim_start_matches("export ").trim_end_matches([':', '?', '+', '!', ' ', '\t']);
        (name == variable).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_given_only_where_the_makefile_has_none_of_its_own() {
        assert_eq!(prefix("PREFIX ?= /opt/x\ninstall:\n\tcp a $(PREFIX)/bin\n"), "");
        assert_eq!(prefix("install:\n\tcp a $(PREFIX)/bin\n"), " PREFIX=/usr/local");
        assert_eq!(prefix("PREFIX=$(HOME)/.local\ninstall:\n\tcp a ${PREFIX}/bin\n"), " PREFIX=/usr/local");
        assert_eq!(prefix("prefix = /usr\nPREFIX = $(prefix)\ninstall:\n\tcp a $(PREFIX)/bin\n"), "");
        assert_eq!(prefix("all:\n\tcc a.c\n"), "");
    }
}
