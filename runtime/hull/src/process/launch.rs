//! The last steps of a container's process: who it is, what it may, and the execve.
//!
//! Order (each step needs what a later one takes away): terminal and session, scheduling, keyring, umask; working
//! directory; without no_new_privs the descriptors, the limits and the filter; bounding set, ids, the other capability
//! sets; security label; the program is looked up; no_new_privs; with it the descriptors, the limits and the filter,
//! last of all; execve.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::StringVector;
use hull_sys::{fd as sysfd, keyring};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::caps::CapabilityBits;
use super::filter::Filter;
use super::labels::Labels;
use super::limits::Scheduling;
use super::syscalls::{Kernel, Syscalls};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::rootfs::resolve::{clean, device_of};
use crate::spec::Process;

/// Where programs are looked for without PATH.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The annotation, crun's, by which Podman asks for the caller's groups (`--group-add keep-groups`): a user without rights
/// has no other way to let a container reach what is open to one of its own groups.
pub(crate) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Everything about the process that can be computed and checked before it exists.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) process: &'a Process,
    pub(crate) capabilities: CapabilityBits,
    pub(crate) scheduling: Scheduling,
    pub(crate) filter: Option<Filter>,
    /// Gets the notify descriptor of the filter.
    pub(crate) listener: Option<super::notify::Listener>,
    pub(crate) landlock: Option<super::landlock::Rules>,
    /// What runs the process if it is WebAssembly.
    pub(crate) wasm: Option<super::wasm::Handler>,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserve_fds: u32,
    /// How many of them were passed by socket activation.
    pub(crate) listen_fds: Option<u32>,
    /// Name of a new session keyring.
    pub(crate) keyring: Option<CString>,
    /// Whether the groups may be set (denied in a user namespace made without rights).
    pub(crate) set_groups: bool,
    /// Whether the caller's groups stay instead ([`KEEP_GROUPS`]).
    pub(crate) keep_groups: bool,
    /// Variables added to the environment.
    pub(crate) extra_env: Vec<String>,
    /// The caller's own limit, where the runtime raised it for itself.
    pub(crate) lent_limit: Option<crate::spec::Rlimit>,
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
        out.extend(self.filter.as_ref().and_then(Filter::raw_fd));
        out.extend(self.listener.as_ref().map(super::notify::Listener::raw_fd));
        out.extend(self.wasm.as_ref().and_then(super::wasm::Handler::raw_fd));
        out
    }

    /// Whether the filter goes on before the capabilities are dropped.
    pub(crate) fn filters_early(&self) -> bool {
        self.filter.is_some() && !self.process.no_new_privileges
    }

    /// The first half, none of which has to wait for the start.
    pub(crate) fn settle(&self) -> Result<()> {
        self.scheduling.apply()?;
        // Before any filter: without one the call cannot fail, and with one it might.
        rustix::process::umask(Mode::from_raw_mode(self.process.user.umask.unwrap_or(0o022) & 0o777));
        if let Some(name) = &self.keyring {
            join_keyring(name)?;
        }
        Ok(())
    }

    /// Takes the identity and finds the program.
    pub(crate) fn prepare(&mut self, labels: &Labels) -> Result<Armed> {
        self.prepare_by(&mut Kernel, labels)
    }

    fn prepare_by(&mut self, kernel: &mut impl Syscalls, labels: &Labels) -> Result<Armed> {
        let user = &self.process.user;
        let cwd = self.process.cwd.as_str();
        // With root's rights first: the user may not be allowed to walk there, and the image's author meant it to work.
        let entered = enter_directory(kernel, cwd).is_ok();
        if entered {
            verify_directory(kernel, cwd)?;
        }
        if self.filters_early() {
            // Profiles that are older than close_range forbid it. What is opened after this is close-on-exec anyway.
            self.close_on_exec(kernel)?;
            self.restrict(kernel)?;
        }
        kernel.limit_bounding(&self.capabilities)?;
        own_stdio(user.uid);
        kernel.keep_capabilities()?;
        self.set_ids(kernel)?;
        kernel.set_capabilities(&self.capabilities)?;
        if !entered {
            enter_directory(kernel, cwd).map_err(|e| Error::os(Code::Cwd, cwd, e))?;
            verify_directory(kernel, cwd)?;
        }
        kernel.label_exec(labels)?;
        let environment = self.environment();
        let wasm = self.wasm.as_ref().map(|handler| handler.arm(self.process)).transpose()?.flatten();
        let (program, args) = match &wasm {
            Some((module, args)) => (module.clone(), args),
            None => (find_program(self.process, &environment)?, &self.process.args),
        };
        if self.process.no_new_privileges {
            kernel.set_no_new_privs()?;
        }
        if let Some(rules) = &self.landlock {
            kernel.restrict_paths(rules, self.handler_program())?;
        }
        let nul = |_| Error::invalid("process", "process: an argument or variable holds a null byte");
        Ok(Armed {
            program,
            argv: StringVector::new(args.iter().map(String::as_str)).map_err(nul)?,
            envp: StringVector::new(environment.iter().map(String::as_str)).map_err(nul)?,
            environment,
        })
    }

    /// Becomes the program, after running `hooks` with everything that confines it. Returns only on failure.
    pub(crate) fn execute(&mut self, armed: &Armed, hooks: impl FnOnce() -> Result<()>) -> Error {
        self.execute_by(&mut Kernel, armed, hooks)
    }

    fn execute_by(&mut self, kernel: &mut impl Syscalls, armed: &Armed, hooks: impl FnOnce() -> Result<()>) -> Error {
        if let Err(error) = self.last_steps(kernel).and_then(|()| hooks()) {
            return error;
        }
        if let Some(program) = self.handler_program() {
            return super::wasm::execute(program, &armed.argv, &armed.envp);
        }
        let errno = kernel.execve(&armed.program, &armed.argv, &armed.envp);
        exec_error(&armed.program.to_string_lossy(), errno)
    }

    /// Finds out whether the process is WebAssembly; inside the container, with the runtime at the other end.
    pub(crate) fn choose_handler(&mut self, sync: impl AsFd) -> Result<()> {
        self.wasm.as_mut().map_or(Ok(()), |handler| handler.choose(self.process, sync))
    }

    /// Whether the process is WebAssembly.
    pub(crate) fn is_wasm(&self) -> bool {
        self.wasm.as_ref().is_some_and(super::wasm::Handler::takes)
    }

    fn handler_program(&self) -> Option<BorrowedFd<'_>> {
        self.wasm.as_ref().and_then(super::wasm::Handler::program)
    }

    fn last_steps(&mut self, kernel: &mut impl Syscalls) -> Result<()> {
        kernel.reset_signals()?;
        if !self.filters_early() {
            self.close_on_exec(kernel)?;
        }
        for fd in 3..self.first_closed() {
            let number = i32::try_from(fd).unwrap_or(i32::MAX);
            kernel.keep_over_exec(number).doing(
                Code::Descriptors,
                "--preserve-fds",
                &format!("descriptor {fd} of --preserve-fds is not open"),
            )?;
        }
        if let Some(handler) = &self.wasm {
            handler.keep_compiled()?;
        }
        if !self.filters_early() {
            self.restrict(kernel)?;
        }
        Ok(())
    }

    /// The first descriptor that the program does not get.
    fn first_closed(&self) -> u32 {
        self.preserve_fds.saturating_add(3)
    }

    fn close_on_exec(&self, kernel: &mut impl Syscalls) -> Result<()> {
        kernel.close_on_exec_from(self.first_closed())
    }

    /// Sets the limits as late as possible, because a small limit of open files or memory is meant for the program, not for its setup; then
    /// the filter, which may forbid setting them.
    fn restrict(&mut self, kernel: &mut impl Syscalls) -> Result<()> {
        if let Some(own) = &self.lent_limit {
            kernel.set_limits(std::slice::from_ref(own))?;
        }
        kernel.set_limits(&self.process.rlimits)?;
        match &mut self.filter {
            Some(filter) => kernel.install_filter(filter.program()?, self.listener.take()),
            None => Ok(()),
        }
    }

    fn set_ids(&self, kernel: &mut impl Syscalls) -> Result<()> {
        let user = &self.process.user;
        if self.keep_groups {
            // What the configuration lists are groups of the image: they could only be set in place of the caller's.
        } else if self.set_groups {
            // Docker names the primary group once more for every exec; the kernel keeps duplicates, and programs list them.
            let mut groups = user.additional_gids.clone();
            groups.sort_unstable();
            groups.dedup();
            kernel.set_groups(&groups).map_err(|e| id_error("additionalGids", "supplementary groups", &groups, e))?;
        } else if !user.additional_gids.is_empty() {
            return Err(Error::new(Code::Identity, "process.user.additionalGids").says("supplementary groups").hint(
                "a user namespace made without rights cannot have any: use newgidmap, or leave additionalGids out",
            ));
        }
        kernel.set_gid(user.gid).map_err(|e| id_error("gid", "group", &[user.gid], e))?;
        kernel.set_uid(user.uid).map_err(|e| id_error("uid", "user", &[user.uid], e))
    }

    fn environment(&self) -> Vec<String> {
        let key = |variable: &String| variable.split('=').next().unwrap_or("").to_owned();
        // The last of duplicate variables counts, as in a shell.
        let mut seen = BTreeSet::new();
        let mut env: Vec<String> = self.process.env.iter().rev().filter(|v| seen.insert(key(v))).cloned().collect();
        env.reverse();
        let has =
            |env: &[String], key: &str| env.iter().any(|v| v.strip_prefix(key).is_some_and(|r| r.starts_with('=')));
        // An empty one counts as none: programs would take the root directory for their user's.
        env.retain(|v| v != "HOME=");
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

fn id_error(field: &str, what: &str, ids: &[u32], errno: Errno) -> Error {
    let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let error =
        Error::os(Code::Identity, format!("process.user.{field}"), errno).says(format!("{what} {}", list.join(",")));
    if errno == Errno::INVAL { error.hint("the id has no mapping in the user namespace") } else { error }
}

fn join_keyring(name: &CString) -> Result<()> {
    match keyring::join_session(name) {
        Ok(id) => {
            // Without search permission only the keyring's name is lost for later `exec`s.
            let _ = keyring::allow_user_search(id);
            Ok(())
        }
        // Not built in, over quota, or refused inside another container: the container then shares its creator's keyring.
        Err(Errno::NOSYS | Errno::PERM | Errno::DQUOT | Errno::ACCESS) => Ok(()),
        Err(e) => Err(Error::os(Code::Identity, name.to_string_lossy(), e).says("session keyring")),
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

/// Enters the working directory. One that was missing has been made at its plain path, and nothing is there that `..` could go back from.
fn enter_directory(kernel: &mut impl Syscalls, cwd: &str) -> Result<(), Errno> {
    match kernel.enter_directory(cwd) {
        Err(Errno::NOENT) if cwd.contains("/..") => kernel.enter_directory(&clean(cwd)),
        other => other,
    }
}

/// A directory outside the root would be a way out of the container (CVE-2024-21626).
fn verify_directory(kernel: &mut impl Syscalls, cwd: &str) -> Result<()> {
    let outside = || Error::new(Code::Cwd, cwd).hint("it is outside the container's root");
    match kernel.directory() {
        Ok(path) if path.starts_with(b"/") => Ok(()),
        Ok(_) => Err(outside()),
        Err(Errno::NOENT) => Err(outside()),
        Err(e) => Err(Error::os(Code::Cwd, cwd, e)),
    }
}

/// Home directory by the container's /etc/passwd; the only thing the runtime looks up there.
fn home_of(uid: u32) -> String {
    // The image may have anything there; a FIFO without a writer must not hold the start up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let passwd = rustix::fs::openat(CWD, "/etc/passwd", flags, Mode::empty());
    let home = passwd.and_then(|file| files::read_all(&file, 1 << 20)).ok().and_then(|bytes| {
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
        return Err(Error::invalid("process.args", "process.args is empty"));
    };
    let c_string =
        |path: &str| CString::new(path).map_err(|_| Error::invalid("process.args", "process.args: null byte"));
    if name.contains('/') {
        return match runnable(name) {
            Ok(()) => c_string(name),
            Err(Errno::ACCESS) => Err(denied(name, name)),
            Err(e) => Err(Error::os(Code::Exec, name.as_str(), e).says(format!("{name:?}: stat {name}"))),
        };
    }
    let path = environment.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        match runnable(&candidate) {
            Ok(()) => return c_string(&candidate),
            Err(Errno::ACCESS) => refused = Some(candidate),
            Err(_) => {}
        }
    }
    if let Some(path) = refused.filter(|_| !name.is_empty()) {
        return Err(denied(name, &path));
    }
    Err(Error::new(Code::Exec, name.as_str()).says(format!("{name:?}: executable file not found in $PATH")))
}

const NOT_EXECUTABLE: &str = "the file is not executable for this user, or its mount is noexec";

fn denied(name: &str, path: &str) -> Error {
    let file = rustix::fs::stat(path).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file());
    let hint = if file { NOT_EXECUTABLE } else { "it is not a regular file" };
    Error::os(Code::Exec, path, Errno::ACCESS).says(format!("{name:?}")).hint(hint)
}

fn runnable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Errno::ACCESS);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A filter that is on already may be older than this call: execve reports what is wrong.
        Err(Errno::PERM) => Ok(()),
        other => other,
    }
}

fn exec_error(program: &str, errno: Errno) -> Error {
    let error = Error::os(Code::Exec, program, errno).says(format!("{program:?}"));
    match errno {
        Errno::NOENT => error.hint("the file is there, its interpreter or loader is not"),
        Errno::ACCESS => error.hint(NOT_EXECUTABLE),
        _ => error,
    }
}

/// Opens null-device standard streams where the caller closed them, so that no other file gets these numbers.
pub(crate) fn fill_stdio() -> Result<(), Errno> {
    for number in 0..3 {
        if sysfd::is_open(number) {
            continue;
        }
        // The lowest free number is the missing one.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
        if device_of(&null)? != (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3)) {
            return Err(Errno::NODEV);
        }
        std::mem::forget(null);
    }
    Ok(())
}

/// Takes what standard input is, and leaves the null device in its place.
pub(crate) fn take_stdin() -> Result<OwnedFd, Errno> {
    let taken = files::move_high(&rustix::io::dup(rustix::stdio::stdin())?)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sysfd::place(null.as_fd(), 0)?;
    Ok(taken)
}

/// Makes a terminal the standard streams and the controlling terminal.
pub(crate) fn take_terminal(terminal: &OwnedFd) -> Result<()> {
    let on = |fd: BorrowedFd<'_>, number: i32| {
        sysfd::place(fd, number).doing(Code::Console, "process.terminal", "standard streams")
    };
    rustix::process::ioctl_tiocsctty(terminal).doing(Code::Console, "process.terminal", "controlling terminal")?;
    for number in 0..3 {
        on(terminal.as_fd(), number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::caps;
    use super::super::syscalls::Recorder;
    use super::*;
    use crate::spec::Rlimit;
    use crate::spec::{Capabilities, User};

    fn process(no_new_privileges: bool) -> Process {
        Process {
            args: vec!["/bin/sh".into()],
            cwd: "/work".into(),
            user: User { uid: 7, gid: 8, additional_gids: vec![9], ..User::default() },
            capabilities: Some(Capabilities::default()),
            rlimits: vec![Rlimit { r#type: "RLIMIT_NOFILE".into(), soft: 5, hard: 5 }],
            no_new_privileges,
            ..Process::default()
        }
    }

    fn launch(process: &Process) -> Launch<'_> {
        let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        Launch {
            process,
            capabilities: caps::resolve(process.capabilities.as_ref()),
            scheduling: Scheduling::default(),
            filter: Some(Filter::Ready(crate::seccomp::compile(&profile).unwrap())),
            listener: None,
            landlock: Some(super::super::landlock::Rules::parse("{}").unwrap()),
            preserve_fds: 1,
            listen_fds: None,
            keyring: None,
            set_groups: true,
            keep_groups: false,
            extra_env: Vec::new(),
            lent_limit: None,
            wasm: None,
        }
    }

    /// All calls of one launch, one of which may fail.
    fn calls(no_new_privileges: bool, failing: Option<usize>) -> (Vec<String>, Error) {
        let process = process(no_new_privileges);
        let mut launch = launch(&process);
        let mut kernel = Recorder { failing, directory: "/work".into(), ..Recorder::default() };
        let error = match launch.prepare_by(&mut kernel, &Labels::default()) {
            Ok(armed) => launch.execute_by(&mut kernel, &armed, || Ok(())),
            Err(error) => error,
        };
        (kernel.calls, error)
    }

    #[test]
    fn each_step_comes_before_what_takes_away_what_it_needs() {
        assert_eq!(
            calls(true, None).0.join(", "),
            "directory /work, verify directory, bounding, keep capabilities, groups [9], gid 8, uid 7, capabilities, \
             label, no_new_privs, landlock, signals, close from 4, keep 3, limits 1, filter, execve /bin/sh"
        );
        // Without no_new_privs the filter needs CAP_SYS_ADMIN.
        assert_eq!(
            calls(false, None).0.join(", "),
            "directory /work, verify directory, close from 4, limits 1, filter, bounding, keep capabilities, groups [9], \
             gid 8, uid 7, capabilities, label, landlock, signals, keep 3, execve /bin/sh"
        );
    }

    #[test]
    fn a_program_never_runs_after_a_step_that_failed() {
        for no_new_privileges in [true, false] {
            let steps = calls(no_new_privileges, None).0.len() - 1;
            for failing in 0..steps {
                let (calls, error) = calls(no_new_privileges, Some(failing));
                // The directory is tried again with the user's rights, which may succeed.
                let again = calls[failing].starts_with("directory");
                assert_eq!(calls.iter().any(|call| call.starts_with("execve")), again, "{calls:?}");
                assert!(again || error.errno() == Some(Errno::PERM), "{calls:?}: {error}");
            }
        }
    }

    #[test]
    fn of_variables_given_twice_the_last_counts() {
        let mut process = process(true);
        process.env = ["A=1", "B=2", "A=3", "HOME=", "C"].map(str::to_owned).into();
        let environment = launch(&process).environment();
        assert_eq!(environment.get(..3).unwrap(), ["B=2", "A=3", "C"]);
        assert_eq!(environment.len(), 4, "{environment:?}");
    }

    #[test]
    fn a_working_directory_outside_the_root_is_refused() {
        let process = process(true);
        let mut kernel = Recorder { directory: "(unreachable)/work".into(), ..Recorder::default() };
        let refused = launch(&process).prepare_by(&mut kernel, &Labels::default());
        assert_eq!(refused.unwrap_err().code(), Code::Cwd);
    }
}
