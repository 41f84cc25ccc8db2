//! Times of files as instructions move them.

use std::sync::Arc;

use kiln_trees::root::Times;

/// The times of a root after a layer with these was applied.
pub(crate) fn laid_over(below: &Arc<Times>, over: &Times) -> Arc<Times> {
    if over.0.is_empty() {
        return below.clone();
    }
    let mut times = Times::clone(below);
    times.0.extend(over.0.iter().map(|(path, time)| (path.clone(), *time)));
    Arc::new(times)
}

/// The times of what is at `from`, moved to `to`. Both are paths below the root, with `/` between names only.
pub fn moved(times: &Times, from: &[u8], to: &[u8]) -> Times {
    let mut found = Times::default();
    let below = |path: &[u8]| -> Option<Vec<u8>> {
        if from.is_empty() {
            return Some(path.to_vec());
        }
        match path.strip_prefix(from)? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    };
    // What is below a path follows it in order, though not everything that follows is below it.
    for (path, time) in times.0.range(from.to_vec()..) {
        if !path.starts_with(from) {
            break;
        }
        let Some(rest) = below(path) else { continue };
        let path = match (to.is_empty(), rest.is_empty()) {
            (_, true) => to.to_vec(),
            (true, false) => rest,
            (false, false) => [to, &b"/"[..], &rest].concat(),
        };
        found.0.insert(path, *time);
    }
    found
}

/// What differs between the times before and after an instruction.
pub(crate) fn changed(before: &Times, after: &Times) -> Times {
    let new = after.0.iter().filter(|(path, time)| before.0.get(*path) != Some(*time));
    Times(new.map(|(path, time)| (path.clone(), *time)).collect())
}

#[cfg(test)]
mod tests {
    use kiln_trees::root::Time;

    use super::*;

    #[test]
    fn what_is_copied_keeps_its_times_where_it_goes() {
        let at = |seconds| Time { seconds, nanos: 0 };
        let times = Times(
            [("a", 1), ("a/b", 2), ("a-c", 3), ("a/b/d", 4), ("b", 5)].map(|(path, s)| (path.into(), at(s))).into(),
        );
        let copied = moved(&times, b"a", b"x/y");
        let expected = [("x/y", 1), ("x/y/b", 2), ("x/y/b/d", 4)].map(|(path, s)| (path.into(), at(s)));
        assert_eq!(copied, Times(expected.into()));
        let all = moved(&times, b"", b"z");
        assert_eq!(all.0.len(), 5);
        assert_eq!(all.0[&b"z/a-c"[..]], at(3));
    }
}
