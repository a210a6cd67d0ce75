//! `hull events`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::parse::Parsed;
use super::super::{Global, print};
use crate::cgroup::Cgroup;
use crate::cgroup::oom::OomWatch;
use crate::cgroup::stats;
use crate::container::Status;
use crate::container::delete;
use crate::container::store::Entry;
use crate::error::{Code, Error, Result};
use crate::time::Deadline;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let interval = parse_duration(parsed.get("interval").unwrap_or("5s"))
        .filter(|ms| *ms > 0)
        .ok_or_else(|| Error::new(Code::Usage, "duration interval must be greater than 0"))?;
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    let state = entry.state()?;
    if matches!(state.status(&entry), Status::Stopped | Status::Creating) {
        return Err(Error::new(Code::WrongState, format!("container with id {} is not running", state.id)));
    }
    let cgroup = Cgroup::open(&state.cgroup);
    if parsed.is("stats") {
        return print_stats(&cgroup, &state.id);
    }
    let pidfd = delete::open(&state)?;
    let mut oom = OomWatch::new(&cgroup)?;
    let mut next = Deadline::after_ms(interval);
    loop {
        let left = next.left().unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let ready: Vec<bool> = {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            if let Some((fd, flags)) = oom.source() {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
            }
            fds.iter().map(|f| !f.revents().is_empty()).collect()
        };
        if ready.get(1) == Some(&true) && oom.happened() {
            print(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", state.id))?;
        }
        if ready.first() == Some(&true) {
            return Ok(0);
        }
        if next.passed() {
            print_stats(&cgroup, &state.id)?;
            next = Deadline::after_ms(interval);
        }
    }
}

fn print_stats(cgroup: &Cgroup, id: &str) -> Result<i32> {
    let event = stats::Event { kind: "stats", id, data: stats::collect(cgroup) };
    let text = serde_json::to_string(&event).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
    print(&(text + "\n"))
}

/// A duration as Go writes it (`5s`, `100ms`, `1m30s`), in milliseconds.
fn parse_duration(text: &str) -> Option<u32> {
    let mut total = 0u32;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(crate::files::parse_unsigned::<u32>(number)?.checked_mul(factor)?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(parse_duration("1m30s"), Some(90_000));
        assert_eq!(parse_duration("100ms"), Some(100));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("s"), None);
    }
}
