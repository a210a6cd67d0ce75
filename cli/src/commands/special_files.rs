//! Named pipes, sockets and devices: they have no content to copy, so `berth cp` skips them and names them.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// A file that is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpecialFile {
    pub(super) path: PathBuf,
    /// What it is, in words.
    pub(super) kind: &'static str,
}

fn kind(file_type: FileType) -> Option<&'static str> {
    match file_type {
        it if it.is_fifo() => Some("a named pipe"),
        it if it.is_socket() => Some("a socket"),
        it if it.is_block_device() || it.is_char_device() => Some("a device"),
        _ => None,
    }
}

/// All of them at or below `path`, sorted by name. An unreadable folder is left to the copying code to report. Blocks.
pub(super) fn find(path: &Path) -> Vec<SpecialFile> {
    let mut found = Vec::new();
    if let Ok(metadata) = path.symlink_metadata() {
        look(path.to_owned(), metadata.file_type(), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn look(path: PathBuf, file_type: FileType, found: &mut Vec<SpecialFile>) {
    if let Some(kind) = kind(file_type) {
        found.push(SpecialFile { path, kind });
    } else if file_type.is_dir() {
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            if let Ok(file_type) = entry.file_type() {
                look(entry.path(), file_type, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_has_no_content_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, socket) = (dir.path().join("deep/er/pipe"), dir.path().join("socket"));
        std::fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        std::fs::write(dir.path().join("deep/file"), "content").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        // A link is copied as a link, whatever it leads to.
        std::os::unix::fs::symlink(&pipe, dir.path().join("link")).unwrap();
        let special = |path: &PathBuf, kind| SpecialFile { path: path.clone(), kind };
        assert_eq!(find(dir.path()), [special(&pipe, "a named pipe"), special(&socket, "a socket")]);
        assert_eq!(find(&pipe), [special(&pipe, "a named pipe")]);
        assert_eq!(find(Path::new("/dev/null")), [special(&"/dev/null".into(), "a device")]);
        assert_eq!(find(&dir.path().join("nothing")), []);
    }
}
