//! Mount options as the specification names them, sorted into what the kernel calls take.

use hull_sys::mount as m;

use crate::error::{Code, Error, Result};
use crate::spec::Mount;

/// How ids are mapped on a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdMap {
    /// This mount only.
    Single,
    /// This mount and those below.
    Recursive,
}

/// The options of one mount.
#[derive(Debug, Default, Clone)]
pub(crate) struct MountOptions {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) recursive_set: u64,
    pub(crate) recursive_clear: u64,
    /// Propagation changes in order: bit and whether it is recursive.
    pub(crate) propagation: Vec<(u64, bool)>,
    pub(crate) bind: bool,
    pub(crate) recursive: bool,
    pub(crate) remount: bool,
    pub(crate) idmap: Option<IdMap>,
    pub(crate) tmpcopyup: bool,
    pub(crate) source_nofollow: bool,
    pub(crate) dest_nofollow: bool,
    pub(crate) copy_symlink: bool,
    /// What goes to the file system itself: key and, if it has one, value.
    pub(crate) data: Vec<(String, Option<String>)>,
    /// What to warn of.
    pub(crate) without_effect: Vec<String>,
}

enum Effect {
    Set(u64),
    Clear(u64),
    Atime(u64),
    RecSet(u64),
    RecClear(u64),
    RecAtime(u64),
    Propagation(u64, bool),
    Bind(bool),
    Ignore,
    /// Superblock flag: handed on by its own name.
    Super(&'static str),
    /// Takes a superblock flag back, which a new file system does not have otherwise.
    NotSuper(&'static str),
    Remount,
    IdMap(IdMap),
    TmpCopyUp,
    SourceNoFollow,
    DestNoFollow,
    CopySymlink,
}

use Effect as E;

/// Every option that is not a file system's own.
const TABLE: &[(&str, Effect)] = &[
    ("acl", E::Super("acl")),
    ("async", E::NotSuper("sync")),
    ("atime", E::Clear(m::ATTR_NOATIME)),
    ("bind", E::Bind(false)),
    ("copy-symlink", E::CopySymlink),
    ("defaults", E::Ignore),
    ("dest-nofollow", E::DestNoFollow),
    ("dev", E::Clear(m::ATTR_NODEV)),
    ("diratime", E::Clear(m::ATTR_NODIRATIME)),
    ("dirsync", E::Super("dirsync")),
    ("exec", E::Clear(m::ATTR_NOEXEC)),
    ("idmap", E::IdMap(IdMap::Single)),
    ("iversion", E::Super("iversion")),
    ("lazytime", E::Super("lazytime")),
    ("loud", E::Ignore),
    ("mand", E::Super("mand")),
    ("noatime", E::Atime(m::ATTR_NOATIME)),
    ("nodev", E::Set(m::ATTR_NODEV)),
    ("nodiratime", E::Set(m::ATTR_NODIRATIME)),
    ("noexec", E::Set(m::ATTR_NOEXEC)),
    ("noiversion", E::NotSuper("iversion")),
    ("nolazytime", E::NotSuper("lazytime")),
    ("nomand", E::NotSuper("mand")),
    // The kernel keeps access times like this unless it is told otherwise: without another option, there is nothing to take back.
    ("norelatime", E::Ignore),
    ("nostrictatime", E::Clear(m::ATTR_STRICTATIME)),
    ("nosuid", E::Set(m::ATTR_NOSUID)),
    ("nosymfollow", E::Set(m::ATTR_NOSYMFOLLOW)),
    ("private", E::Propagation(m::PRIVATE, false)),
    ("ratime", E::RecClear(m::ATTR_NOATIME)),
    ("rbind", E::Bind(true)),
    ("rdev", E::RecClear(m::ATTR_NODEV)),
    ("rdiratime", E::RecClear(m::ATTR_NODIRATIME)),
    ("relatime", E::Atime(m::ATTR_RELATIME)),
    ("remount", E::Remount),
    ("rexec", E::RecClear(m::ATTR_NOEXEC)),
    ("ridmap", E::IdMap(IdMap::Recursive)),
    ("rnoatime", E::RecAtime(m::ATTR_NOATIME)),
    ("rnodev", E::RecSet(m::ATTR_NODEV)),
    ("rnodiratime", E::RecSet(m::ATTR_NODIRATIME)),
    ("rnoexec", E::RecSet(m::ATTR_NOEXEC)),
    ("rnorelatime", E::Ignore),
    ("rnostrictatime", E::RecClear(m::ATTR_STRICTATIME)),
    ("rnosuid", E::RecSet(m::ATTR_NOSUID)),
    ("rnosymfollow", E::RecSet(m::ATTR_NOSYMFOLLOW)),
    ("ro", E::Set(m::ATTR_RDONLY)),
    ("rprivate", E::Propagation(m::PRIVATE, true)),
    ("rrelatime", E::RecAtime(m::ATTR_RELATIME)),
    ("rro", E::RecSet(m::ATTR_RDONLY)),
    ("rrw", E::RecClear(m::ATTR_RDONLY)),
    ("rshared", E::Propagation(m::SHARED, true)),
    ("rslave", E::Propagation(m::SLAVE, true)),
    ("rstrictatime", E::RecAtime(m::ATTR_STRICTATIME)),
    ("rsuid", E::RecClear(m::ATTR_NOSUID)),
    ("rsymfollow", E::RecClear(m::ATTR_NOSYMFOLLOW)),
    ("runbindable", E::Propagation(m::UNBINDABLE, true)),
    ("rw", E::Clear(m::ATTR_RDONLY)),
    ("shared", E::Propagation(m::SHARED, false)),
    ("silent", E::Ignore),
    ("slave", E::Propagation(m::SLAVE, false)),
    ("src-nofollow", E::SourceNoFollow),
    ("strictatime", E::Atime(m::ATTR_STRICTATIME)),
    ("suid", E::Clear(m::ATTR_NOSUID)),
    ("symfollow", E::Clear(m::ATTR_NOSYMFOLLOW)),
    ("sync", E::Super("sync")),
    ("tmpcopyup", E::TmpCopyUp),
    ("unbindable", E::Propagation(m::UNBINDABLE, false)),
];

/// Whether a word is one of those that the specification has for all file systems.
fn is_superblock(name: &str) -> bool {
    TABLE.iter().any(|(known, effect)| *known == name && matches!(effect, E::Super(_)))
}

/// The names `features` lists.
pub(crate) fn known_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Propagation by name, as `rootfsPropagation` writes it.
pub(crate) fn propagation(name: &str) -> Option<(u64, bool)> {
    TABLE.iter().find(|(known, _)| *known == name).and_then(|(_, effect)| match effect {
        E::Propagation(bit, recursive) => Some((*bit, *recursive)),
        _ => None,
    })
}

/// Sorts the options of a mount.
///
/// # Errors
/// An option of a bind mount that is not known, or one that does not fit the mount.
pub(crate) fn parse(mount: &Mount) -> Result<MountOptions> {
    let mut out = MountOptions { bind: mount.r#type.as_deref() == Some("bind"), ..MountOptions::default() };
    for option in &mount.options {
        let Some((_, effect)) = TABLE.binary_search_by(|(name, _)| (*name).cmp(option)).ok().and_then(|i| TABLE.get(i))
        else {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option.as_str(), None),
            };
            if !key.is_empty() {
                out.data.push((key.to_owned(), value));
            }
            continue;
        };
        match *effect {
            E::Set(bit) => (out.set, out.clear) = (out.set | bit, out.clear & !bit),
            E::Clear(bit) => (out.set, out.clear) = (out.set & !bit, out.clear | bit),
            E::Atime(bit) => (out.set, out.clear) = (out.set & !m::ATTR_ATIME | bit, out.clear | m::ATTR_ATIME),
            E::RecSet(bit) => {
                (out.recursive_set, out.recursive_clear) = (out.recursive_set | bit, out.recursive_clear & !bit);
            }
            E::RecClear(bit) => {
                (out.recursive_set, out.recursive_clear) = (out.recursive_set & !bit, out.recursive_clear | bit);
            }
            E::RecAtime(bit) => {
                out.recursive_set = out.recursive_set & !m::ATTR_ATIME | bit;
                out.recursive_clear |= m::ATTR_ATIME;
            }
            E::Propagation(bit, recursive) => out.propagation.push((bit, recursive)),
            E::Bind(recursive) => (out.bind, out.recursive) = (true, recursive || out.recursive),
            E::Ignore => {}
            E::Super(name) => out.data.push((name.to_owned(), None)),
            E::NotSuper(name) => out.data.retain(|(key, value)| key != name || value.is_some()),
            E::Remount => out.remount = true,
            E::IdMap(kind) => out.idmap = Some(kind),
            E::TmpCopyUp => out.tmpcopyup = true,
            E::SourceNoFollow => out.source_nofollow = true,
            E::DestNoFollow => out.dest_nofollow = true,
            E::CopySymlink => out.copy_symlink = true,
        }
    }
    check(mount, &mut out)?;
    Ok(out)
}

/// The kernel has no single "atime" bit: clearing one value of the field means clearing the field.
fn widen_atime(set: u64, clear: u64) -> u64 {
    if (set | clear) & m::ATTR_ATIME != 0 { clear | m::ATTR_ATIME } else { clear }
}

fn check(mount: &Mount, out: &mut MountOptions) -> Result<()> {
    let at = &mount.destination;
    if out.bind {
        // They belong to the file system, which is mounted already. The kernel ignores them here, as other runtimes do.
        let without_effect = &mut out.without_effect;
        out.data.retain(|(key, value)| {
            let ignored = value.is_none() && is_superblock(key);
            if ignored {
                without_effect.push(format!("{key} of bind mount {at} has no effect: it belongs to the file system"));
            }
            !ignored
        });
        if let Some((key, value)) = out.data.first() {
            let value = value.as_ref().map(|v| format!("={v}")).unwrap_or_default();
            let text = format!("{key}{value} of bind mount {at} is not known");
            return Err(Error::new(Code::MountOption, format!("{key}{value}")).says(text));
        }
    }
    if mount.r#type.as_deref() == Some("tmpfs") {
        // Access control lists are on by default, and inode versions do not exist.
        out.data.retain(|(key, value)| value.is_some() || !matches!(key.as_str(), "acl" | "iversion"));
        if mount.options.iter().any(|o| o == "iversion") {
            out.without_effect.push(format!("iversion of {at} has no effect: a tmpfs does not have it"));
        }
    }
    for (name, given) in [("src-nofollow", out.source_nofollow), ("copy-symlink", out.copy_symlink)] {
        if given && !out.bind {
            return Err(Error::new(Code::MountOption, name).says(format!("{name} of {at} needs a bind mount")));
        }
    }
    if out.tmpcopyup && mount.r#type.as_deref() != Some("tmpfs") {
        return Err(Error::new(Code::MountOption, "tmpcopyup").says(format!("tmpcopyup of {at} needs a tmpfs")));
    }
    out.clear = widen_atime(out.set, out.clear);
    out.recursive_clear = widen_atime(out.recursive_set, out.recursive_clear);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/x".into(),
            r#type: Some(kind.into()),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn table_is_sorted_for_binary_search() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn last_option_wins() {
        let out = parse(&mount("tmpfs", &["ro", "rw", "sync", "async", "nosuid", "mode=755"])).unwrap();
        assert_eq!(out.set, m::ATTR_NOSUID);
        assert_eq!(out.clear, m::ATTR_RDONLY);
        assert_eq!(out.data, [("mode".to_owned(), Some("755".to_owned()))]);
    }

    #[test]
    fn unknown_bind_option_is_refused_by_name() {
        let error = parse(&mount("none", &["rbind", "context=x"])).unwrap_err();
        assert!(error.to_string().contains("context=x"), "{error}");
    }

    #[test]
    fn setting_an_access_time_kind_clears_the_field() {
        let out = parse(&mount("bind", &["noatime", "rstrictatime"])).unwrap();
        assert_eq!((out.set, out.clear), (m::ATTR_NOATIME, m::ATTR_ATIME));
        assert_eq!((out.recursive_set, out.recursive_clear), (m::ATTR_STRICTATIME, m::ATTR_ATIME));
    }
}
