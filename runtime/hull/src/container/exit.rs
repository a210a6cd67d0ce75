//! The exit status of a process that is not the caller's child.

use hull_sys::prctl;

use super::store::{Entry, State};
use crate::files;

/// Number of CAP_SYS_PTRACE.
const SYS_PTRACE: u32 = 19;

/// What a shell makes of a status as waitpid(2) reports it: the exit code, or 128 plus the signal.
pub(crate) fn shell_status(status: i32) -> i32 {
    match status & 0x7f {
        0 => status >> 8 & 0xff,
        signal => 128 + signal,
    }
}

/// The status of a container that has ended, if it is known. What only the kernel knew is saved: it forgets.
pub(crate) fn of(entry: &Entry, state: &State) -> Option<i32> {
    entry.exit().or_else(|| {
        let status = of_zombie(state.pid, state.start_time)?;
        // The container may have been deleted meanwhile.
        let _ = entry.save_exit(status);
        Some(status)
    })
}

/// The status of a process that has ended, as long as its parent has not waited for it; `start` is its start time.
pub(crate) fn of_zombie(pid: i32, start: u64) -> Option<i32> {
    // To those who may not trace the process, the kernel shows 0, whatever the status is.
    if prctl::capabilities().ok()?.effective >> SYS_PTRACE & 1 == 0 {
        return None;
    }
    let text = files::read_text(&format!("/proc/{pid}/stat"), 8192).ok()?;
    parse(&text, start).map(shell_status)
}

/// Fields 3, 22 and 52 of proc(5); the name before them, in parentheses, may hold anything.
fn parse(stat: &str, start: u64) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let same = fields.nth(18)?.parse() == Ok(start);
    let status = fields.nth(29)?.parse().ok()?;
    (ended && same).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_zombie_is_read() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 42"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let stat = loop {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            if text.contains(") Z ") {
                break text;
            }
        };
        let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        assert_eq!(parse(&stat, start).map(shell_status), Some(42));
        assert_eq!(parse(&stat, start + 1), None);
        assert_eq!(child.wait().unwrap().code(), Some(42));
        assert_eq!(shell_status(9), 137);
    }
}
