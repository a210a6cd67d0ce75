//! Users and groups of the workspace, from its own `/etc/passwd` and `/etc/group`. They are parsed here: a static program has no name
//! services, and the files are untrusted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::{Gid, Uid};

/// Longest file that is read: the rest is ignored.
const MAX_FILE_LEN: u64 = 4 * 1024 * 1024;

/// Someone to run a process as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups, the primary one among them.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// There is no such user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// Not in `/etc/passwd`.
    #[error("there is no user {0} in the workspace's /etc/passwd")]
    NoUser(String),
    /// Not in `/etc/group`.
    #[error("there is no group {0} in the workspace's /etc/group")]
    NoGroup(String),
}

/// Finds `name`, `uid`, `name:group`, `uid:gid` and mixtures; root when absent.
pub(crate) fn resolve(wanted: Option<&str>) -> Result<User, UserError> {
    find(wanted.unwrap_or("0"), &read("/etc/passwd"), &read("/etc/group"))
}

/// Opened without waiting: a pipe or device at that place reads as empty.
fn read(path: &str) -> String {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(16 * 1024);
    let file = File::options().read(true).custom_flags(nonblocking).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let _ = file.take(MAX_FILE_LEN).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (who, of_group) = match wanted.split_once(':') {
        Some((who, of_group)) => (who, Some(of_group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let number = id(who);
    // Names win over numbers, as in `docker run --user`.
    let entry = entries(passwd, 7)
        .find(|entry| entry.first() == Some(&who))
        .or_else(|| entries(passwd, 7).find(|entry| number.is_some() && entry.get(2).copied().and_then(id) == number));
    let mut user = match (entry.as_deref(), number) {
        (Some([name, _, uid, gid, _, home, shell, ..]), _) => User {
            name: (*name).to_owned(),
            uid: Uid::from_raw(id(uid).ok_or_else(|| UserError::NoUser(who.to_owned()))?),
            gid: Gid::from_raw(id(gid).ok_or_else(|| UserError::NoUser(who.to_owned()))?),
            groups: Vec::new(),
            home: if home.is_empty() { "/".to_owned() } else { (*home).to_owned() },
            shell: if shell.is_empty() { "/bin/sh".to_owned() } else { (*shell).to_owned() },
        },
        // A number without an entry is a user all the same; images without /etc/passwd have no other.
        (_, Some(number)) => User {
            name: if number == 0 { "root".to_owned() } else { number.to_string() },
            uid: Uid::from_raw(number),
            gid: Gid::from_raw(0),
            groups: Vec::new(),
            home: if number == 0 { "/root".to_owned() } else { "/".to_owned() },
            shell: "/bin/sh".to_owned(),
        },
        (_, None) => return Err(UserError::NoUser(who.to_owned())),
    };
    if let Some(of_group) = of_group {
        let by_name = entries(group, 4).find(|entry| entry.first() == Some(&of_group));
        let gid = by_name.and_then(|entry| entry.get(2).copied().and_then(id)).or_else(|| id(of_group));
        user.gid = Gid::from_raw(gid.ok_or_else(|| UserError::NoGroup(of_group.to_owned()))?);
        user.groups = vec![user.gid];
    } else {
        user.groups = vec![user.gid];
        for entry in entries(group, 4) {
            let member = entry.get(3).is_some_and(|members| members.split(',').any(|member| member == user.name));
            if let Some(gid) = entry.get(2).copied().and_then(id).map(Gid::from_raw).filter(|_| member)
                && !user.groups.contains(&gid)
                && user.groups.len() < 1024
            {
                user.groups.push(gid);
            }
        }
    }
    Ok(user)
}

fn id(text: &str) -> Option<u32> {
    // The highest number means "no change" to the system calls.
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(move |entry| entry.len() >= fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ndev:x:1000:1000::/home/dev:/bin/zsh\n33:x:7:7::/:\nbroken\nodd:x:what:1::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\ndev:x:1000:\nsudo:x:27:dev,other\ndocker:x:999:dev\n";

    fn ids(user: &User) -> (u32, u32, Vec<u32>) {
        (user.uid.as_raw(), user.gid.as_raw(), user.groups.iter().map(|gid| gid.as_raw()).collect())
    }

    #[test]
    fn names_numbers_and_groups() {
        let find = |wanted| find(wanted, PASSWD, GROUP);
        let dev = find("dev").unwrap();
        assert_eq!(ids(&dev), (1000, 1000, vec![1000, 27, 999]));
        assert_eq!((dev.home.as_str(), dev.shell.as_str()), ("/home/dev", "/bin/zsh"));
        assert_eq!(find("1000").unwrap(), dev);
        assert_eq!(ids(&find("dev:sudo").unwrap()), (1000, 27, vec![27]));
        assert_eq!(ids(&find("1234:5678").unwrap()), (1234, 5678, vec![5678]));
        assert_eq!(ids(&find("33").unwrap()), (7, 7, vec![7]), "a name that looks like a number wins");
        assert_eq!(find("33").unwrap().shell, "/bin/sh");
        assert_eq!(find("nobody"), Err(UserError::NoUser("nobody".to_owned())));
        assert_eq!(find("dev:none"), Err(UserError::NoGroup("none".to_owned())));
        assert!(find("odd").is_err());
        assert!(find("4294967295").is_err());
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        assert_eq!(super::find("0", "", "").unwrap().home, "/root");
        assert_eq!(ids(&super::find("12", "", "").unwrap()), (12, 0, vec![0]));
        assert!(super::find("root", "", "").is_err());
    }
}
