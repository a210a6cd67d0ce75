//! The runtime's records: one directory a container, below the root given by `--root`.
//!
//! `state.json` is written before anything is made and again after each step, with where the cgroups are: it is the
//! journal from which `delete --force` cleans up after a runtime that was killed at any point.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{self, Spec};

/// Name of the state file.
const STATE: &str = "state.json";
/// Copy of the bundle's configuration: later changes of the bundle have no effect.
const CONFIG: &str = "config.json";
/// Socket whose existence means that the container was created and not started.
pub(crate) const START_SOCKET: &str = "start.sock";
/// Exit status, once known.
const EXIT: &str = "exit.json";

/// How far creation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Being created, or creation was interrupted.
    #[default]
    Creating,
    /// Created; what runs is another matter.
    Created,
}

/// The state file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) stage: Stage,
    pub(crate) bundle: String,
    pub(crate) rootfs: String,
    pub(crate) created: String,
    pub(crate) owner: u32,
    /// Id of the machine's boot to which the process ids below belong.
    pub(crate) boot_id: String,
    /// The creating runtime's process, until it is done.
    pub(crate) creator: i32,
    pub(crate) creator_start: u64,
    /// The container's process, 0 before there is one.
    pub(crate) pid: i32,
    /// Its start time in clock ticks, by which a reused pid is detected.
    pub(crate) start_time: u64,
    pub(crate) cgroup: cgroup::Record,
    /// Group made below resctrl.
    pub(crate) intel_rdt: Option<String>,
}

/// What the state file says.
pub(crate) enum Journal {
    Whole(Box<State>),
    /// The runtime was killed before it wrote one, or after everything but the directory was removed.
    Missing,
    /// It is no state; the reason.
    Damaged(String),
}

/// Exit status file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Exit {
    /// Exit code, or 128 plus the signal.
    pub(crate) status: i32,
}

/// What the specification calls `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Being created.
    Creating,
    /// Waiting for `start`.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl Status {
    /// Name in the state.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Checks a container id: it becomes a file name and part of a cgroup path.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > 1024 || id.starts_with('.') || !id.chars().all(fine) {
        return Err(Error::new(Code::InvalidId, id)
            .says(format!("{id:?}"))
            .hint("letters, digits and _ + - . are allowed, not beginning with a dot"));
    }
    Ok(())
}

/// The directory of one container.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) path: String,
    dir: OwnedFd,
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
}

/// A record that belongs to somebody else is not trusted.
fn check_owner(fd: impl AsFd, path: &str) -> Result<()> {
    let stat = rustix::fs::fstat(fd).context(Code::StateFile, path)?;
    check_stat(&stat, path)?;
    if stat.st_mode & 0o022 != 0 && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Error::new(Code::StateFile, path).hint("others may write to it"));
    }
    Ok(())
}

fn check_stat(stat: &rustix::fs::Stat, path: &str) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me && stat.st_uid != 0 {
        return Err(Error::new(Code::StateFile, path).hint(format!("it belongs to user {}", stat.st_uid)));
    }
    Ok(())
}

/// Opens the directory of all records; `None` if it does not exist.
///
/// Whoever can write there could put records of their own in place of trusted ones, unless the directory has the sticky bit.
fn open_root(root: &str) -> Result<Option<OwnedFd>> {
    const REMEDY: &str = "name a directory of your own with --root, or remove this one";
    let opened = match rustix::fs::open(root, directory_flags(), Mode::empty()) {
        // A link is as trustworthy as whoever made it.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let link = rustix::fs::statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW).context(Code::StateFile, root)?;
            check_stat(&link, root).map_err(|e| e.hint(format!("a link of user {}: {REMEDY}", link.st_uid)))?;
            rustix::fs::open(root, directory_flags() - OFlags::NOFOLLOW, Mode::empty())
        }
        other => other,
    };
    let dir = match opened {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Error::os(Code::StateFile, root, e)),
    };
    let stat = rustix::fs::fstat(&dir).context(Code::StateFile, root)?;
    check_stat(&stat, root).map_err(|e| e.hint(format!("it belongs to user {}: {REMEDY}", stat.st_uid)))?;
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
        return Err(
            Error::new(Code::StateFile, root).hint("others may write to it: chmod go-w, or name another with --root")
        );
    }
    Ok(Some(dir))
}

fn make_parents(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            let (parent, _) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
            make_parents(parent)?;
            match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

impl Entry {
    /// Makes the directory of a new container.
    pub(crate) fn create(root: &str, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = format!("{root}/{id}");
        let parent = match open_root(root)? {
            Some(parent) => parent,
            None => {
                make_parents(root).context(Code::StateFile, root)?;
                open_root(root)?.ok_or_else(|| Error::os(Code::StateFile, root, Errno::NOENT))?
            }
        };
        rustix::fs::mkdirat(&parent, id, Mode::from_raw_mode(0o700)).map_err(|e| {
            if e == Errno::EXIST {
                Error::new(Code::Exists, id).hint("delete it first, or choose another id")
            } else {
                Error::os(Code::StateFile, path.as_str(), e)
            }
        })?;
        let dir = rustix::fs::openat(&parent, id, directory_flags(), Mode::empty()).context(Code::StateFile, &path)?;
        Ok(Self { id: id.to_owned(), path, dir })
    }

    /// Opens the directory of a container that exists.
    pub(crate) fn open(root: &str, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = format!("{root}/{id}");
        let parent = open_root(root)?.ok_or_else(|| Error::new(Code::NotFound, id))?;
        let dir = rustix::fs::openat(&parent, id, directory_flags(), Mode::empty()).map_err(|e| match e {
            Errno::NOENT => Error::new(Code::NotFound, id),
            e => Error::os(Code::StateFile, path.as_str(), e),
        })?;
        check_owner(&dir, &path)?;
        Ok(Self { id: id.to_owned(), path, dir })
    }

    /// Ids of all containers below a root.
    pub(crate) fn list(root: &str) -> Result<Vec<String>> {
        let Some(dir) = open_root(root)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).context(Code::StateFile, root)? {
            let entry = entry.context(Code::StateFile, root)?;
            if let Ok(name) = entry.file_name().to_str()
                && check_id(name).is_ok()
            {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Path of a file of the container.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Waits for exclusive access to the container, and holds it until the process ends.
    pub(crate) fn lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.dir, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => return other.context(Code::StateFile, &self.path),
            }
        }
    }

    /// Lets others change the container again.
    pub(crate) fn unlock(&self) {
        // This can only fail for a lock held by somebody else, and this one is ours.
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
    }

    pub(crate) fn save_config(&self, json: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.dir, CONFIG, flags, Mode::from_raw_mode(0o600))
            .and_then(|fd| files::write_all(&fd, json))
            .with(Code::StateFile, || self.file(CONFIG))
    }

    pub(crate) fn config(&self) -> Result<Spec> {
        self.parse_config(&self.config_json()?)
    }

    pub(crate) fn config_json(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)
    }

    pub(crate) fn parse_config(&self, json: &[u8]) -> Result<Spec> {
        let file = self.file(CONFIG);
        spec::from_slice(json).map_err(|e| Error::new(Code::StateFile, file.as_str()).says(format!("{file}: {e}")))
    }

    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let bytes = self.bytes(STATE, state)?;
        files::replace_at(&self.dir, STATE, &bytes, Mode::from_raw_mode(0o600))
            .with(Code::StateFile, || self.file(STATE))
    }

    fn bytes(&self, name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
        let file = self.file(name);
        serde_json::to_vec(value).map_err(|e| Error::new(Code::StateFile, file.as_str()).says(format!("{file}: {e}")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).context(Code::StateFile, &path)?;
        check_owner(&fd, &path)?;
        files::read_all(&fd, 64 << 20).context(Code::StateFile, &path)
    }

    pub(crate) fn state(&self) -> Result<State> {
        self.journal()?.state(self)
    }

    pub(crate) fn journal(&self) -> Result<Journal> {
        let bytes = match self.read(STATE) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(Journal::Missing),
            other => other?,
        };
        let state: State = match spec::from_slice(&bytes) {
            Ok(state) => state,
            Err(error) => return Ok(Journal::Damaged(format!("{}: {error}", self.file(STATE)))),
        };
        if state.id != self.id {
            return Err(Error::new(Code::StateFile, self.file(STATE)).hint("it is another container's"));
        }
        Ok(Journal::Whole(Box::new(state)))
    }

    /// Whether `start` is still to come.
    pub(crate) fn waits_for_start(&self) -> bool {
        files::exists_at(&self.dir, START_SOCKET)
    }

    pub(crate) fn started(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, START_SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::os(Code::StateFile, self.file(START_SOCKET), e)),
        }
    }

    /// The number of the directory's descriptor, for a process that closes all others.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.dir.as_raw_fd()
    }

    pub(crate) fn save_exit(&self, status: i32) -> Result<()> {
        let bytes = self.bytes(EXIT, &Exit { status })?;
        files::replace_at(&self.dir, EXIT, &bytes, Mode::from_raw_mode(0o600)).with(Code::StateFile, || self.file(EXIT))
    }

    pub(crate) fn exit(&self) -> Option<i32> {
        let bytes = self.read(EXIT).ok()?;
        serde_json::from_slice::<Exit>(&bytes).ok().map(|e| e.status)
    }

    /// Removes the directory and what is in it.
    pub(crate) fn remove(&self) -> Result<()> {
        let gone = |result: Result<(), Errno>| match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e),
        };
        super::notify_socket::remove(&self.path);
        // The known names first: usually that is all there is.
        for name in [START_SOCKET, CONFIG, STATE] {
            gone(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())).with(Code::StateFile, || self.file(name))?;
        }
        let remove = || rustix::fs::unlinkat(CWD, self.path.as_str(), AtFlags::REMOVEDIR);
        match remove() {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(Error::os(Code::StateFile, self.path.as_str(), e)),
        }
        for entry in rustix::fs::Dir::read_from(&self.dir).context(Code::StateFile, &self.path)? {
            let entry = entry.context(Code::StateFile, &self.path)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                gone(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())).context(Code::StateFile, &self.path)?;
            }
        }
        gone(remove()).context(Code::StateFile, &self.path)
    }
}

/// Start time of a process in clock ticks after boot, and whether it is a zombie.
pub(crate) fn process_stat(pid: i32) -> Option<(u64, bool)> {
    let text = files::read_text(&format!("/proc/{pid}/stat"), 8192).ok()?;
    // The name, in parentheses, may contain anything; what follows its last ")" may not.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((start, matches!(state, "Z" | "X")))
}

/// Identity of this boot.
pub(crate) fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    files::read_text(PATH, 128).map(|t| t.trim().to_owned()).context(Code::StateFile, PATH)
}

/// Whether a process of this state file's is alive.
pub(crate) fn alive(boot: &str, pid: i32, start: u64) -> bool {
    pid > 0 && matches!(process_stat(pid), Some((now, false)) if now == start) && boot_id().is_ok_and(|b| b == boot)
}

impl Journal {
    /// The state, or why there is none.
    pub(crate) fn state(self, entry: &Entry) -> Result<State> {
        match self {
            Self::Whole(state) => Ok(*state),
            Self::Missing => Err(Error::os(Code::NotFound, entry.id.as_str(), Errno::NOENT)
                .hint("its creation was interrupted: delete --force removes what is left of it")),
            Self::Damaged(reason) => {
                let error = Error::new(Code::StateFile, entry.file(STATE)).says(reason);
                Err(error.hint("delete --force removes what the configuration tells of"))
            }
        }
    }
}

impl State {
    /// Whether the container's process is alive.
    pub(crate) fn running(&self) -> bool {
        alive(&self.boot_id, self.pid, self.start_time)
    }

    /// The container's status.
    pub(crate) fn status(&self, entry: &Entry) -> Status {
        if self.stage == Stage::Creating {
            return if alive(&self.boot_id, self.creator, self.creator_start) {
                Status::Creating
            } else {
                Status::Stopped
            };
        }
        if !self.running() {
            return Status::Stopped;
        }
        if self.cgroup.frozen() {
            return Status::Paused;
        }
        if entry.waits_for_start() { Status::Created } else { Status::Running }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "ü"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a-b_c.d+1", "0"] {
            assert!(check_id(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn this_process_is_found_by_its_start_time() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (start, zombie) = process_stat(pid).unwrap();
        assert!(!zombie);
        assert!(alive(&boot_id().unwrap(), pid, start));
        assert!(!alive(&boot_id().unwrap(), pid, start + 1));
    }
}
