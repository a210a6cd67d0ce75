//! The log: text as logrus writes it, or JSON lines, to a file or standard error.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::error::{Code, Context, Error, Result, errno_text};
use crate::files;
use crate::time::now_rfc3339;

/// Which messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// By name, with the names other runtimes take.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "panic" | "fatal" | "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" | "trace" => Self::Debug,
            _ => return None,
        })
    }
}

struct Log {
    file: Option<OwnedFd>,
    /// Nothing is written any more.
    silent: bool,
    json: bool,
    level: Level,
}

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log { file: None, silent: false, json: false, level: Level::Warning }) };
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Where messages go from now on.
pub(crate) fn setup(path: Option<&str>, json: bool, level: Level) -> Result<()> {
    let file = match path.filter(|p| !p.is_empty() && *p != "/dev/stderr") {
        Some(path) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).context(Code::Output, path)?;
            Some(files::move_high(&file).context(Code::Output, path)?)
        }
        None => None,
    };
    LOG.with(|l| *l.borrow_mut() = Log { file, silent: false, json, level });
    Ok(())
}

/// Whether messages of that level are written.
pub(crate) fn enabled(level: Level) -> bool {
    LOG.with(|l| level <= l.borrow().level)
}

/// Writes a message.
pub(crate) fn write(level: Level, message: &str, error: Option<&Error>) {
    LOG.with(|l| {
        let log = l.borrow();
        if level > log.level || log.silent {
            return;
        }
        let time = now_rfc3339();
        let line = if log.json {
            let text = error.and_then(Error::errno).map(errno_text);
            let line = Line {
                level: level.as_str(),
                msg: message,
                time: &time,
                code: error.map(|e| e.code().as_str()),
                phase: error.map(|e| e.code().phase().as_str()),
                object: error.map(Error::object).filter(|o| !o.is_empty()),
                errno: error.and_then(Error::errno).map(rustix::io::Errno::raw_os_error),
                errno_text: text.as_deref(),
                hint: error.map(Error::advice).filter(|h| !h.is_empty()),
            };
            serde_json::to_string(&line).unwrap_or_default()
        } else {
            let quoted = serde_json::to_string(message).unwrap_or_default();
            format!("time=\"{time}\" level={} msg={quoted}", level.as_str())
        };
        let line = line + "\n";
        // There is nowhere left to complain about a log that cannot be written.
        let _ = match &log.file {
            Some(file) => files::write_all(file, line.as_bytes()),
            None => files::write_all(rustix::stdio::stderr(), line.as_bytes()),
        };
    });
}

/// Writes the error that ends a command; when the log is a file, standard error gets it too, as runc does.
pub(crate) fn fatal(error: &Error) {
    let message = error.to_string();
    write(Level::Error, &message, Some(error));
    let to_file = LOG.with(|l| l.borrow().file.is_some());
    if to_file {
        let _ = files::write_all(rustix::stdio::stderr(), format!("{message}\n").as_bytes());
    }
}

/// Writes a warning.
pub(crate) fn warn(message: &str) {
    write(Level::Warning, message, None);
}

/// Writes what is good to know.
pub(crate) fn info(message: &str) {
    write(Level::Info, message, None);
}

/// Writes a message that only helps to find faults.
pub(crate) fn debug(message: &str) {
    write(Level::Debug, message, None);
}

/// A process of the container has no log of its own: its failures are reported to the runtime. Its standard error belongs to the program, and
/// must not get what was meant for a file.
pub(crate) fn forget_file() {
    LOG.with(|l| {
        let mut log = l.borrow_mut();
        if let Some(file) = log.file.take() {
            std::mem::forget(file);
            log.silent = true;
        }
    });
}
