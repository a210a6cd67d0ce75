//! `hull events`.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

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
    let code = events(global, parsed)?;
    until_read(rustix::stdio::stdout(), 100);
    Ok(code)
}

fn events(global: &Global, parsed: &Parsed) -> Result<i32> {
    let interval = parse_duration(parsed.get("interval").unwrap_or("5s"))
        .filter(|ns| *ns > 0)
        .and_then(|ns| u32::try_from(ns.unsigned_abs().div_ceil(1_000_000)).ok())
        .ok_or_else(|| Error::usage("--interval", "duration interval must be greater than 0"))?;
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    let state = entry.state()?;
    if matches!(state.status(&entry), Status::Stopped | Status::Creating) {
        let text = format!("container with id {} is not running", state.id);
        return Err(Error::new(Code::WrongState, state.id).says(text));
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
    let text = serde_json::to_string(&event).map_err(|e| Error::new(Code::Internal, "JSON").says(e.to_string()))?;
    print(&(text + "\n"))
}

/// Waits until nothing is left in a pipe, a moment at most: go-runc closes its end when it sees that the program has ended,
/// and has lost what it had not read by then.
fn until_read(pipe: BorrowedFd<'_>, patience_ms: u32) {
    let deadline = Deadline::after_ms(patience_ms);
    let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    while ioctl_fionread(pipe).is_ok_and(|left| left > 0) && !deadline.passed() {
        // The only event is that nobody will read any more.
        if poll(&mut [PollFd::from_borrowed_fd(pipe, PollFlags::empty())], Some(&moment)) != Ok(0) {
            return;
        }
    }
}

/// A duration as Go writes it (`5s`, `1.5s`, `1m30s`), in nanoseconds.
fn parse_duration(text: &str) -> Option<i64> {
    let of_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c| !of_number(c))?)?;
        let (unit, after) = after.split_at_checked(after.find(of_number).unwrap_or(after.len()))?;
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(crate::files::parse_decimal(number, factor)?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::io::{ioctl_fionread, read, write};
    use rustix::pipe::pipe;

    use super::{parse_duration, until_read};

    #[test]
    fn a_slow_reader_finds_the_last_event() {
        let (reader, writer) = pipe().unwrap();
        write(&writer, b"event\n").unwrap();
        let slow = std::thread::spawn(move || {
            std::thread::yield_now();
            read(&reader, &mut [0; 6]).unwrap();
            reader
        });
        until_read(writer.as_fd(), 60_000);
        assert_eq!(ioctl_fionread(&writer), Ok(0));
        drop(slow.join().unwrap());
    }

    #[test]
    fn without_a_reader_there_is_nothing_to_wait_for() {
        let (reader, writer) = pipe().unwrap();
        write(&writer, b"event\n").unwrap();
        drop(reader);
        until_read(writer.as_fd(), u32::MAX);
    }

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(parse_duration("1m30s"), Some(90_000_000_000));
        assert_eq!(parse_duration("100ms"), Some(100_000_000));
        assert_eq!(parse_duration("1.5s"), Some(1_500_000_000));
        assert_eq!(parse_duration("500us"), Some(500_000));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("s"), None);
    }
}
