//! `BERTH_OUTPUT`: the file in which a unit's command leaves results as `key=value` lines.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

/// Most bytes, keys and bytes of a value that are taken.
const MAX_FILE: usize = 64 * 1024;
const MAX_KEYS: usize = 64;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 4096;

/// The file of one run. PID 1 reads it through the descriptor with which it made it, so whatever takes its place cannot hold up PID 1.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: String,
    file: File,
}

impl OutputFile {
    /// Makes it; if that fails, the unit has no outputs.
    pub(super) fn make(run_dir: &str, id: &str, run: u64) -> Option<Self> {
        let path = format!("{run_dir}/output-{id}.{run}");
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).ok()?;
        // Whoever the unit runs as.
        file.set_permissions(std::fs::Permissions::from_mode(0o666)).ok()?;
        Some(Self { path, file })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What is in it; the file is removed.
    pub(super) fn take(self) -> BTreeMap<String, String> {
        let mut bytes = vec![0; MAX_FILE];
        let mut len = 0;
        while let Some(room) = bytes.get_mut(len..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, u64::try_from(len).unwrap_or(u64::MAX)) {
                Ok(0) | Err(_) => break,
                Ok(count) => len += count,
            }
        }
        let _ = std::fs::remove_file(&self.path);
        parse(&String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()))
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let fits = (1..=MAX_KEY).contains(&key.len()) && value.len() <= MAX_VALUE;
        if fits && (outputs.len() < MAX_KEYS || outputs.contains_key(key)) {
            outputs.insert(key.to_owned(), value.to_owned());
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_and_limits_hold() {
        let outputs = parse("a=1\nb=x=y\nnothing\n=empty\na=2\n");
        assert_eq!(outputs, BTreeMap::from([("a".to_owned(), "2".to_owned()), ("b".to_owned(), "x=y".to_owned())]));
        let many: String = (0..100).map(|index| format!("k{index}=v\n")).collect();
        assert_eq!(parse(&many).len(), MAX_KEYS);
        assert!(parse(&format!("a={}", "x".repeat(MAX_VALUE + 1))).is_empty());
    }
}
