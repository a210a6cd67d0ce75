//! Asks processes to end.
//!
//! SIGTERM is the request. SIGHUP at the same time would kill programs that end in good order on SIGTERM and never handle SIGHUP; but those
//! that ignore SIGTERM, as interactive shells do, wait for nothing else.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Most processes that are looked at.
const MAX_PROCESSES: usize = 8192;

/// Asks a process group to end; `leader` is its number.
pub(super) fn ask_group(leader: Pid) {
    let deaf = ignores_terminate(leader.as_raw_nonzero().get());
    let _ = kill_process_group(leader, Signal::TERM);
    if deaf {
        let _ = kill_process_group(leader, Signal::HUP);
    }
    // A stopped process takes no signal but this one.
    let _ = kill_process_group(leader, Signal::CONT);
}

/// Sends SIGHUP to every process that ignores SIGTERM.
pub(super) fn hang_up_on_the_deaf() {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| *pid > 1).take(MAX_PROCESSES) {
        if let Some(pid) = Pid::from_raw(pid).filter(|_| ignores_terminate(pid)) {
            let _ = kill_process(pid, Signal::HUP);
        }
    }
}

fn ignores_terminate(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (Signal::TERM.as_raw() - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_ignores_terminate_is_recognised() {
        let run = |script: &str| {
            let mut child = std::process::Command::new("sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = [0u8; 3];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
            let ignores = ignores_terminate(i32::try_from(child.id()).unwrap());
            drop(child.stdin.take());
            child.wait().unwrap();
            ignores
        };
        assert!(run("trap '' TERM; echo up; read x"));
        assert!(!run("trap 'exit 1' TERM; echo up; read x"));
        assert!(!run("echo up; read x"));
    }
}
