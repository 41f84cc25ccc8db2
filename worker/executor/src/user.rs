//! Who runs a command in a root, as its own `/etc/passwd` and `/etc/group` have it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Largest file of users or groups that is read.
const MAX_BYTES: u64 = 16 << 20;
/// Most groups of a user.
const MAX_GROUPS: usize = 1000;
/// The home directory of a user that has none.
const NO_HOME: &str = "/";

/// A user of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: String,
}

impl User {
    /// Reads the root's files, which are those of this process, and looks a user up.
    ///
    /// # Errors
    /// If the root has no such user or group.
    pub fn find(wanted: &str) -> Result<Self, String> {
        Self::among(wanted, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn among(wanted: &str, passwd: &str, group: &str) -> Result<Self, String> {
        let (name, group_name) = match wanted.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (wanted, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        // A name that looks like a number is the number, unless somebody is really called so.
        let users = || passwd.lines().filter_map(Entry::read);
        let known = users().find(|user| user.name == name).or_else(|| users().find(|user| Some(user.id) == number));
        let uid = known.as_ref().map(|user| user.id).or(number);
        let uid = uid.filter(|uid| *uid < 65_536).ok_or_else(|| absent("user", name, "/etc/passwd", number))?;
        let home = known.as_ref().map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or(NO_HOME).to_owned();
        let groups = || group.lines().filter_map(Group::read);
        if let Some(group_name) = group_name {
            let number = group_name.parse::<u32>().ok();
            let gid = groups().find(|group| group.name == group_name).map(|group| group.id).or(number);
            let gid =
                gid.filter(|gid| *gid < 65_536).ok_or_else(|| absent("group", group_name, "/etc/group", number))?;
            return Ok(Self { uid, gid, groups: Vec::new(), home });
        }
        let member = known.as_ref().map(|user| user.name);
        let mut of: Vec<u32> = groups()
            .filter(|group| member.is_some_and(|name| group.members.split(',').any(|member| member == name)))
            .map(|group| group.id)
            .filter(|id| *id < 65_536)
            .take(MAX_GROUPS)
            .collect();
        of.dedup();
        Ok(Self { uid, gid: known.map_or(0, |user| user.group).min(65_535), groups: of, home })
    }
}

fn absent(kind: &str, name: &str, file: &str, number: Option<u32>) -> String {
    match number {
        Some(_) => format!("{kind} `{name}` is out of range; the ids of a root are 0 to 65535"),
        None => format!("no {kind} `{name}` in the root's `{file}`; create it before this step, or use a number"),
    }
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    id: u32,
    group: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?.trim().parse().ok()?;
        let group = fields.next()?.trim().parse().ok()?;
        Some(Self { name, id, group, home: fields.nth(1).unwrap_or_default() })
    }
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    id: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?.trim().parse().ok()?;
        Some(Self { name, id, members: fields.next().unwrap_or_default().trim() })
    }
}

/// A file of the root's, which may be anything. What is no file of text is as if it were empty.
fn read(path: &str) -> String {
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path);
    let Ok(file) = opened else { return String::new() };
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# nobody\napp:x:1000:1001:An app:/srv/app:/bin/sh\n7:x:8:9::/seven:/bin/sh\nodd\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwww-data:x:33:other,app\nshadow:x:42:app\n";

    #[test]
    fn a_user_is_a_name_or_a_number_and_may_have_a_group() {
        let found = |wanted: &str| {
            let user = User::among(wanted, PASSWD, GROUP)?;
            Ok::<_, String>((user.uid, user.gid, user.groups, user.home))
        };
        let is = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
        assert_eq!(found(""), is(0, 0, &[], "/root"));
        assert_eq!(found("app"), is(1000, 1001, &[33, 42], "/srv/app"));
        assert_eq!(found("1000"), is(1000, 1001, &[33, 42], "/srv/app"));
        assert_eq!(found("app:www-data"), is(1000, 33, &[], "/srv/app"));
        assert_eq!(found("5000:6000"), is(5000, 6000, &[], "/"));
        assert_eq!(found("5000"), is(5000, 0, &[], "/"));
        assert_eq!(found("7"), is(8, 9, &[], "/seven"));
        assert!(found("ghost").unwrap_err().contains("no user `ghost` in the root's `/etc/passwd`"));
        assert!(found("app:ghosts").unwrap_err().contains("no group `ghosts`"));
        assert!(found("70000").unwrap_err().contains("out of range"));
        assert_eq!(User::among("0", "", "").map(|user| (user.uid, user.home)), Ok((0, "/".into())));
    }
}
