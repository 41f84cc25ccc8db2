//! Users and groups by name, as the image's own files have them.

use crate::{Error, Files, Roots};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Largest such file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The owner that `USER` and `--chown` name: `user`, `user:group` or `:group`, each by name or number.
///
/// A user without a group gives the group of the same number to what is owned, as `docker build` does for numbers, and the user's own
/// group where it is found by name.
pub(crate) async fn owner(roots: &Roots, files: &Files, text: &str) -> Result<(u32, u32), Error> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let fields = line(roots, files, PASSWD, user).await?;
            let number = |at: usize| fields.as_ref().and_then(|fields| fields.get(at)?.parse::<u32>().ok());
            let absent = || Error::Account { kind: "user", name: user.to_owned(), file: PASSWD };
            (number(2).ok_or_else(absent)?, number(3).ok_or_else(absent)?)
        }
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let fields = line(roots, files, GROUP, group).await?;
                let number = fields.as_ref().and_then(|fields| fields.get(2)?.parse::<u32>().ok());
                number.ok_or_else(|| Error::Account { kind: "group", name: group.to_owned(), file: GROUP })?
            }
        },
    };
    Ok((uid, gid))
}

/// The fields of the line of this name.
async fn line(roots: &Roots, files: &Files, file: &str, name: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(data) = roots.content(files, file, MAX_BYTES).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&data);
    let mut lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    Ok(lines.find(|fields| fields.first().is_some_and(|first| first == name)))
}
