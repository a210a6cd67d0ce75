//! The last steps of a container's process: who it is, what it may, and the execve.
//!
//! Order (each step needs what a later one takes away): terminal and session, scheduling, keyring, umask; without
//! no_new_privs the filter; bounding set, ids, the other capability sets; security label; working directory; the
//! program is looked up; no_new_privs; descriptors; with no_new_privs the filter, last of all; execve.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::StringVector;
use hull_sys::{fd as sysfd, keyring, prctl, process, signal};
use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::caps::{self, CapabilityBits};
use super::labels::Labels;
use super::limits::Scheduling;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::rootfs::resolve::device_of;
use crate::spec::Process;

/// Everything about the process that can be computed and checked before it exists.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) process: &'a Process,
    pub(crate) capabilities: CapabilityBits,
    pub(crate) scheduling: Scheduling,
    pub(crate) filter: Option<crate::seccomp::Program>,
    /// Gets the notify descriptor of the filter.
    pub(crate) listener: Option<super::notify::Listener>,
    pub(crate) landlock: Option<super::landlock::Rules>,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserve_fds: u32,
    /// How many of them were passed by socket activation.
    pub(crate) listen_fds: Option<u32>,
    /// Name of a new session keyring.
    pub(crate) keyring: Option<CString>,
    /// Whether the groups may be set (denied in a user namespace made without rights).
    pub(crate) set_groups: bool,
    /// Variables added to the environment.
    pub(crate) extra_env: Vec<String>,
}

/// What [`Launch::prepare`] found out for [`Launch::execute`].
#[derive(Debug)]
pub(crate) struct Armed {
    program: CString,
    argv: StringVector,
    envp: StringVector,
    environment: Vec<String>,
}

impl Armed {
    /// The environment, for hooks of the container.
    pub(crate) fn environment(&self) -> &[String] {
        &self.environment
    }
}

impl Launch<'_> {
    /// Descriptors the process needs until execve, and those it passes on.
    pub(crate) fn raw_fds(&self) -> Vec<i32> {
        let passed = self.preserve_fds.saturating_add(3);
        let mut out: Vec<i32> = (3..passed).filter_map(|fd| i32::try_from(fd).ok()).collect();
        out.extend(self.listener.as_ref().map(super::notify::Listener::raw_fd));
        out
    }

    /// Whether the filter goes on before the capabilities are dropped.
    pub(crate) fn filters_early(&self) -> bool {
        self.filter.is_some() && !self.process.no_new_privileges
    }

    /// First half, nothing of which the start gate has to wait for.
    pub(crate) fn settle(&self) -> Result<()> {
        self.scheduling.apply()?;
        // Before any filter: the call cannot fail otherwise, and a filter may make it.
        rustix::process::umask(Mode::from_raw_mode(self.process.user.umask.unwrap_or(0o022) & 0o777));
        if let Some(name) = &self.keyring {
            join_keyring(name)?;
        }
        Ok(())
    }

    /// Takes the identity and finds the program.
    pub(crate) fn prepare(&mut self, labels: &Labels) -> Result<Armed> {
        let user = &self.process.user;
        if self.filters_early() {
            self.install_filter()?;
        }
        caps::limit_bounding(&self.capabilities)?;
        own_stdio(user.uid);
        prctl::keep_capabilities(true).context(Code::Capabilities, "keep over the change of user")?;
        // With root's rights first: the user may not be allowed to walk there, and the image's owner meant it to work.
        let entered = enter_directory(&self.process.cwd);
        self.set_ids()?;
        caps::apply(&self.capabilities)?;
        if entered.is_err() {
            enter_directory(&self.process.cwd)?;
        }
        verify_directory(&self.process.cwd)?;
        labels.apply_exec()?;
        let environment = self.environment();
        let program = find_program(self.process, &environment)?;
        if self.process.no_new_privileges {
            prctl::set_no_new_privs().context(Code::Identity, "no_new_privs")?;
        }
        if let Some(rules) = &self.landlock {
            rules.apply()?;
        }
        let nul = |_| Error::new(Code::ConfigInvalid, "process: an argument or variable holds a null byte");
        Ok(Armed {
            program,
            argv: StringVector::new(self.process.args.iter().map(String::as_str)).map_err(nul)?,
            envp: StringVector::new(environment.iter().map(String::as_str)).map_err(nul)?,
            environment,
        })
    }

    /// Becomes the program. Returns only on failure.
    pub(crate) fn execute(&mut self, armed: &Armed) -> Error {
        if let Err(error) = self.last_steps() {
            return error;
        }
        let errno = process::execve(&armed.program, &armed.argv, &armed.envp);
        exec_error(&armed.program.to_string_lossy(), errno)
    }

    fn last_steps(&mut self) -> Result<()> {
        signal::reset_dispositions();
        signal::unblock_all().context(Code::Internal, "signal mask")?;
        let first = self.preserve_fds.saturating_add(3);
        sysfd::cloexec_from(first).context(Code::Descriptors, "close_range")?;
        for fd in 3..first {
            let number = i32::try_from(fd).unwrap_or(i32::MAX);
            sysfd::keep_over_exec(number)
                .with(Code::Descriptors, || format!("descriptor {fd} of --preserve-fds is not open"))?;
        }
        if !self.filters_early() {
            self.install_filter()?;
        }
        Ok(())
    }

    fn install_filter(&mut self) -> Result<()> {
        let Some(filter) = &self.filter else { return Ok(()) };
        match self.listener.take() {
            Some(listener) => listener.install(filter),
            None => hull_sys::seccomp::install(&filter.instructions, filter.flags)
                .map(drop)
                .context(Code::Seccomp, "installing the filter"),
        }
    }

    fn set_ids(&self) -> Result<()> {
        let user = &self.process.user;
        if self.set_groups {
            let groups: Vec<Gid> = user.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
            rustix::thread::set_thread_groups(&groups)
                .map_err(|e| id_error("supplementary groups", &user.additional_gids, e))?;
        } else if !user.additional_gids.is_empty() {
            return Err(Error::new(Code::Identity, "supplementary groups").hint(
                "a user namespace made without rights cannot have any: use newgidmap, or leave additionalGids out",
            ));
        }
        let gid = Gid::from_raw(user.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| id_error("group", &[user.gid], e))?;
        let uid = Uid::from_raw(user.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| id_error("user", &[user.uid], e))
    }

    fn environment(&self) -> Vec<String> {
        let mut env: Vec<String> = Vec::with_capacity(self.process.env.len().saturating_add(4));
        for variable in &self.process.env {
            // Of doubles the last counts, as a shell would have it.
            let key = variable.split('=').next().unwrap_or("");
            env.retain(|other: &String| other.split('=').next() != Some(key));
            env.push(variable.clone());
        }
        let has =
            |env: &[String], key: &str| env.iter().any(|v| v.strip_prefix(key).is_some_and(|r| r.starts_with('=')));
        if !has(&env, "HOME") {
            env.push(format!("HOME={}", home_of(self.process.user.uid)));
        }
        if let Some(count) = self.listen_fds {
            env.push(format!("LISTEN_FDS={count}"));
            env.push("LISTEN_PID=1".to_owned());
        }
        env.extend(self.extra_env.iter().cloned());
        env
    }
}

fn id_error(what: &str, ids: &[u32], errno: Errno) -> Error {
    let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let error = Error::os(Code::Identity, format!("{what} {}", list.join(",")), errno);
    if errno == Errno::INVAL { error.hint("the id has no mapping in the user namespace") } else { error }
}

fn join_keyring(name: &CString) -> Result<()> {
    match keyring::join_session(name) {
        Ok(id) => {
            // Without search right only the name is lost for later `exec`s.
            let _ = keyring::allow_user_search(id);
            Ok(())
        }
        // Not built in, over quota, or refused inside another container: the container then has what its creator has.
        Err(Errno::NOSYS | Errno::PERM | Errno::DQUOT | Errno::ACCESS) => Ok(()),
        Err(e) => Err(Error::os(Code::Identity, "session keyring", e)),
    }
}

/// Makes the user the owner of its standard streams, so that it may open /dev/stdout and the like.
fn own_stdio(uid: u32) {
    let null = rustix::fs::makedev(1, 3);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        // A read-only file system, an unmapped owner: the program can still use the descriptor it has.
        let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
    }
}

/// Never by a magic link such as /proc/self/fd/7, which leads to wherever a descriptor of the runtime is.
fn enter_directory(cwd: &str) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, cwd, flags, Mode::empty(), rustix::fs::ResolveFlags::NO_MAGICLINKS);
    match opened {
        Ok(directory) => rustix::process::fchdir(directory),
        // An old filter that is already on; what is left of the protection is `verify_directory`.
        Err(Errno::NOSYS | Errno::PERM) => rustix::process::chdir(cwd),
        Err(e) => Err(e),
    }
    .map_err(|e| Error::os(Code::Cwd, cwd, e))
}

/// A directory outside the root would be a way out of the container (CVE-2024-21626).
fn verify_directory(cwd: &str) -> Result<()> {
    let outside = || Error::new(Code::Cwd, cwd).hint("it is outside the container's root");
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) => Err(outside()),
        Err(Errno::NOENT) => Err(outside()),
        Err(e) => Err(Error::os(Code::Cwd, cwd, e)),
    }
}

/// Home directory by the container's /etc/passwd; the only thing the runtime looks up there.
fn home_of(uid: u32) -> String {
    let home = files::read_at(CWD, "/etc/passwd", 1 << 20).ok().and_then(|bytes| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let id = fields.nth(2)?;
            let home = fields.nth(2)?;
            (files::parse_unsigned::<u32>(id) == Some(uid)).then(|| home.to_owned())
        })
    });
    match home {
        Some(home) if !home.is_empty() => home,
        _ => "/".to_owned(),
    }
}

/// Finds the program by the container's PATH; texts as Go's, which engines turn into exit statuses 126 and 127.
pub(crate) fn find_program(process: &Process, environment: &[String]) -> Result<CString> {
    let Some(name) = process.args.first() else {
        return Err(Error::new(Code::ConfigInvalid, "process.args is empty"));
    };
    let c_string =
        |path: &str| CString::new(path).map_err(|_| Error::new(Code::ConfigInvalid, "process.args: null byte"));
    if name.contains('/') {
        return match runnable(name) {
            Ok(()) => c_string(name),
            Err(Errno::ACCESS) => Err(Error::new(Code::Exec, format!("{name:?}: permission denied"))),
            Err(e) => Err(Error::new(Code::Exec, format!("{name:?}: stat {name}: {}", crate::error::errno_text(e)))),
        };
    }
    let path = environment
        .iter()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = false;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        match runnable(&candidate) {
            Ok(()) => return c_string(&candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied && !name.is_empty() {
        return Err(Error::new(Code::Exec, format!("{name:?}: permission denied")));
    }
    Err(Error::new(Code::Exec, format!("{name:?}: executable file not found in $PATH")))
}

fn runnable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn exec_error(program: &str, errno: Errno) -> Error {
    let error = Error::os(Code::Exec, format!("{program:?}"), errno);
    match errno {
        Errno::NOENT => error.hint("the file is there, its interpreter or loader is not"),
        Errno::NOEXEC => Error::new(Code::Exec, format!("{program:?}: exec format error")),
        Errno::ACCESS => error.hint("the file is not executable for this user, or its mount is noexec"),
        _ => error,
    }
}

/// Opens null-device standard streams where the caller closed them, so that no other file gets these numbers.
pub(crate) fn fill_stdio() -> Result<(), Errno> {
    for number in 0..3 {
        if sysfd::is_open(number) {
            continue;
        }
        // The lowest free number is the one that is missing.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
        if device_of(&null)? != (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3)) {
            return Err(Errno::NODEV);
        }
        std::mem::forget(null);
    }
    Ok(())
}

/// Makes a terminal the standard streams and the controlling terminal.
pub(crate) fn take_terminal(terminal: &OwnedFd) -> Result<()> {
    let on = |fd: BorrowedFd<'_>, number: i32| sysfd::place(fd, number).context(Code::Console, "standard streams");
    rustix::process::ioctl_tiocsctty(terminal).context(Code::Console, "controlling terminal")?;
    for number in 0..3 {
        on(terminal.as_fd(), number)?;
    }
    Ok(())
}
