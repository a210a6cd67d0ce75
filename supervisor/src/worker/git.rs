//! State of a checkout, by the workspace's own git.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_supervisor_protocol::{ErrorCode, GitStatus, Reply};

use super::wire::Wire;
use super::{Problem, Stage};

/// More output than this is not read: the counts then cover what was read.
const MAX_OUTPUT: u64 = 8 * 1024 * 1024;

pub(super) fn status(wire: &mut Wire, path: &Path) -> Result<(), Stage> {
    let failed = |message: String| Stage::Reply(Problem::new(ErrorCode::Failed, message));
    let mut child = Command::new("git")
        .arg("-C")
        .arg(path)
        .args(["--no-optional-locks", "status", "--porcelain=v2", "--branch", "-z"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("git cannot be run in the workspace: {error}")))?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
    }
    let ended = child.wait().map_err(|error| failed(format!("git cannot be waited for: {error}")))?;
    if !ended.success() && output.is_empty() {
        let message = format!("{} is not a git checkout that this user may read", path.display());
        return Err(Stage::Reply(Problem::new(ErrorCode::NotFound, message)));
    }
    Ok(wire.json(&Reply::GitStatus(parse(&output)))?)
}

fn parse(output: &[u8]) -> GitStatus {
    let mut status = GitStatus::default();
    let mut records = output.split(|byte| *byte == 0);
    while let Some(record) = records.next() {
        let record = String::from_utf8_lossy(record);
        let value = |key: &str| record.strip_prefix(key).map(str::to_owned);
        if let Some(commit) = value("# branch.oid ") {
            status.commit = Some(commit).filter(|commit| commit != "(initial)");
        } else if let Some(branch) = value("# branch.head ") {
            status.branch = Some(branch).filter(|branch| branch != "(detached)");
        } else if let Some(counts) = value("# branch.ab ") {
            let mut counts = counts.split(' ').map(|count| count.trim_start_matches(['+', '-']).parse().unwrap_or(0));
            status.ahead = counts.next().unwrap_or(0);
            status.behind = counts.next().unwrap_or(0);
        } else {
            match record.chars().next() {
                Some('1') => status.changed += 1,
                Some('2') => {
                    status.changed += 1;
                    // A renamed file's record is followed by its old name.
                    records.next();
                }
                Some('u') => status.conflicted += 1,
                Some('?') => status.untracked += 1,
                _ => {}
            }
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn porcelain_is_counted() {
        let output = b"# branch.oid 1234\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +2 -3\x001 .M N... a\x002 R. N... new\0? old\0? x\0u UU N... c\0";
        let expected = GitStatus {
            branch: Some("main".to_owned()),
            commit: Some("1234".to_owned()),
            ahead: 2,
            behind: 3,
            changed: 2,
            untracked: 1,
            conflicted: 1,
        };
        assert_eq!(parse(output), expected);
        let fresh = parse(b"# branch.oid (initial)\0# branch.head (detached)\0");
        assert_eq!((fresh.commit, fresh.branch), (None, None));
    }
}
