//! The escape that ends a shell however it hangs: `~.` at the beginning of a line, as in ssh. `~~` there types one `~`.

/// What to do with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    /// What goes to the shell.
    pub data: Vec<u8>,
    /// Whether the user leaves after that.
    pub leaves: bool,
}

/// Where in a line the last byte was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Beginning,
    /// After a `~` there, which has not been passed on.
    Tilde,
    Within,
}

/// Looks for the escape, however what is typed is cut into pieces.
#[derive(Debug, Default)]
pub struct Escape(At);

impl Escape {
    /// The next bytes that were typed. Nothing that follows the escape is of interest.
    pub fn push(&mut self, bytes: &[u8]) -> Typed {
        let mut data = Vec::new();
        for byte in bytes {
            self.0 = match (self.0, *byte) {
                (At::Beginning, b'~') => At::Tilde,
                (At::Tilde, b'.') => return Typed { data, leaves: true },
                (at, byte) => {
                    if at == At::Tilde && byte != b'~' {
                        data.push(b'~');
                    }
                    data.push(byte);
                    if matches!(byte, b'\r' | b'\n') { At::Beginning } else { At::Within }
                }
            };
        }
        Typed { data, leaves: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut escape, mut data) = (Escape::default(), Vec::new());
        for piece in pieces {
            let typed = escape.push(piece);
            data.extend(typed.data);
            if typed.leaves {
                return (data, true);
            }
        }
        (data, false)
    }

    #[test]
    fn a_tilde_and_a_dot_leave_only_at_the_beginning_of_a_line() {
        for (typed, data, leaves) in [
            (&b"~."[..], &b""[..], true),
            (b"ls\r~.more", b"ls\r", true),
            (b"ls ~.", b"ls ~.", false),
            (b"~~.", b"~.", false),
            (b"~/bin\r", b"~/bin\r", false),
            (b"~\r~.", b"~\r", true),
            (b"a\n~~\n~x", b"a\n~\n~x", false),
        ] {
            assert_eq!(all(&[typed]), (data.to_vec(), leaves), "{:?}", String::from_utf8_lossy(typed));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_it_is_cut(typed in "[~.a\r]{0,20}", at in 0_usize..20) {
            let (one, other) = typed.as_bytes().split_at(at.min(typed.len()));
            prop_assert_eq!(all(&[one, other]), all(&[typed.as_bytes()]));
        }

        #[test]
        fn without_a_tilde_nothing_is_changed(typed in prop::collection::vec(any::<u8>().prop_filter("~", |byte| *byte != b'~'), 0..50)) {
            prop_assert_eq!(all(&[&typed]), (typed, false));
        }
    }
}
