//! A tree of files as text, so that two can be compared.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Whether folders' times are looked at: tools differ in the time of a folder that nobody describes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderTimes {
    Compared,
    Ignored,
}

/// Each file below `root`, with all that can be seen of it.
pub(crate) fn describe(root: &Path, times: FolderTimes) -> BTreeMap<String, String> {
    let mut paths = vec![root.to_owned()];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(folder) = paths.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if std::fs::symlink_metadata(&path).unwrap().is_dir() {
                paths.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    let mut first_of_inode = BTreeMap::new();
    found.iter().map(|path| describe_one(root, path, times, &mut first_of_inode)).collect()
}

fn describe_one(
    root: &Path,
    path: &Path,
    times: FolderTimes,
    first_of_inode: &mut BTreeMap<u64, String>,
) -> (String, String) {
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        let content = std::fs::read(path).unwrap();
        format!("{} bytes {}", content.len(), content.iter().map(|byte| u64::from(*byte)).sum::<u64>())
    } else if kind.is_symlink() {
        format!("-> {}", std::fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii())
    } else if kind.is_fifo() {
        "pipe".to_owned()
    } else if kind.is_dir() {
        "folder".to_owned()
    } else {
        format!("{kind:?}")
    };
    let same = match kind.is_dir() {
        true => name.clone(),
        false => first_of_inode.entry(metadata.ino()).or_insert_with(|| name.clone()).clone(),
    };
    let time = match kind.is_dir() && times == FolderTimes::Ignored {
        true => String::new(),
        false => format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()),
    };
    let owner = format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    (name, format!("{content} {owner} {time} {} as {same}", xattrs(path)))
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut lines: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"user.overlay."))
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            format!("{}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    lines.sort();
    lines.join(" ")
}
