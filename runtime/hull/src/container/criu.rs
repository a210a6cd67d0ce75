//! Checkpoint and restore by the CRIU program.
//!
//! What CRIU is told about mounts comes from `config.json` alone, never from the image or from resolved paths
//! (CVE-2026-119101): each mount of the configuration is external under its own destination, so a restore can bind
//! nothing that the configuration does not name.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, StringVector, clone_process, execve, exit};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::cgroup::Cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{NamespaceType, Spec};

/// Where CRIU is looked for; nothing is looked up in PATH.
const PATHS: &[&str] = &["/usr/sbin/criu", "/usr/bin/criu", "/usr/local/sbin/criu", "/sbin/criu"];

/// CRIU's environment: it runs iptables and the like, and gets nothing else of ours.
const CRIU_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of CRIU's log goes into an error.
const LOG_LINES: usize = 8;

/// Options of both directions, as on the command line.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    pub(crate) image: String,
    pub(crate) work: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_close: bool,
    pub(crate) skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) unix_sockets: bool,
    pub(crate) shell_job: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) status_fd: Option<u32>,
    pub(crate) page_server: Option<String>,
    pub(crate) cgroups_mode: Option<String>,
    pub(crate) empty_namespaces: Vec<String>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// The installed program.
pub(crate) fn find() -> Option<&'static str> {
    PATHS.iter().copied().find(|p| rustix::fs::access(*p, rustix::fs::Access::EXEC_OK).is_ok())
}

fn program() -> Result<&'static str> {
    find().ok_or_else(|| Error::new(Code::Checkpoint, "criu is not installed").hint("install the package criu"))
}

fn make_dir(path: &str) -> Result<()> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::os(Code::Checkpoint, format!("cannot make {path}"), e)),
    }
}

impl Options {
    fn work(&self) -> &str {
        self.work.as_deref().unwrap_or(&self.image)
    }

    fn common(&self, command: &str, log: &str) -> Result<Vec<String>> {
        let mut out: Vec<String> =
            [command, "--images-dir", &self.image, "--work-dir", self.work(), "--log-file", log, "-v4"]
                .map(str::to_owned)
                .to_vec();
        let mut flag = |on: bool, name: &str| {
            if on {
                out.push(name.to_owned());
            }
        };
        flag(self.tcp_established, "--tcp-established");
        flag(self.tcp_close, "--tcp-close");
        flag(self.skip_in_flight, "--skip-in-flight");
        flag(self.link_remap, "--link-remap");
        flag(self.unix_sockets, "--ext-unix-sk");
        flag(self.shell_job, "--shell-job");
        flag(self.file_locks, "--file-locks");
        flag(self.auto_dedup, "--auto-dedup");
        flag(self.lazy_pages, "--lazy-pages");
        for namespace in &self.empty_namespaces {
            if namespace != "network" {
                return Err(Error::new(Code::Usage, format!("--empty-ns {namespace:?}: only network is possible")));
            }
            out.extend(["--empty-ns".to_owned(), "net".to_owned()]);
        }
        if let Some(mode) = &self.cgroups_mode
            && !matches!(mode.as_str(), "soft" | "full" | "strict" | "ignore")
        {
            return Err(Error::new(
                Code::Usage,
                format!("--manage-cgroups-mode {mode:?}: soft, full, strict or ignore"),
            ));
        }
        Ok(out)
    }
}

/// Destinations of all mounts that CRIU shall take as external.
fn external(spec: &Spec) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for mount in &spec.mounts {
        let options = crate::rootfs::options::parse(mount)?;
        if !options.bind {
            continue;
        }
        let destination = crate::rootfs::resolve::clean(&mount.destination);
        if destination.contains([']', '[', ':', '\n']) {
            return Err(Error::new(
                Code::Checkpoint,
                format!("mount {destination}: CRIU cannot name a path with brackets or colons"),
            ));
        }
        out.push((destination, mount.source.clone().unwrap_or_default()));
    }
    Ok(out)
}

fn joined_network(spec: &Spec) -> Option<&str> {
    spec.linux
        .as_ref()?
        .namespaces
        .iter()
        .find(|n| n.r#type == NamespaceType::Network)?
        .path
        .as_deref()
        .filter(|p| !p.is_empty())
}

/// Saves a running container.
pub(crate) fn dump(options: &Options, spec: &Spec, pid: i32) -> Result<()> {
    let program = program()?;
    make_dir(&options.image)?;
    make_dir(options.work())?;
    let (command, log) = if options.pre_dump { ("pre-dump", "pre-dump.log") } else { ("dump", "dump.log") };
    let mut args = options.common(command, log)?;
    args.extend(["--tree".to_owned(), pid.to_string()]);
    args.extend([
        "--manage-cgroups".to_owned() + &options.cgroups_mode.as_ref().map(|m| format!("={m}")).unwrap_or_default()
    ]);
    for (destination, _) in external(spec)? {
        args.extend(["--external".to_owned(), format!("mnt[{destination}]:{destination}")]);
    }
    // Masked files and bound device nodes come from the host's /dev.
    args.extend(["--external".to_owned(), "mnt[]:m".to_owned()]);
    if let Some(path) = joined_network(spec) {
        let stat = rustix::fs::stat(path).context(Code::Checkpoint, path)?;
        args.extend(["--external".to_owned(), format!("net[{}]:extRootNetNS", stat.st_ino)]);
    }
    if let Some(parent) = &options.parent {
        args.extend(["--prev-images-dir".to_owned(), parent.clone()]);
    }
    if options.leave_running {
        args.push("--leave-running".to_owned());
    }
    if options.pre_dump || options.parent.is_some() {
        args.push("--track-mem".to_owned());
    }
    if let Some(fd) = options.status_fd {
        args.extend(["--status-fd".to_owned(), fd.to_string()]);
    }
    if let Some(address) = &options.page_server {
        let (host, port) =
            address.rsplit_once(':').ok_or_else(|| Error::new(Code::Usage, "--page-server wants ADDRESS:PORT"))?;
        args.extend(["--page-server", "--address", host, "--port", port].map(str::to_owned));
    }
    save_descriptors(&options.image, pid)?;
    let status = std::process::Command::new(program)
        .args(&args)
        .env_clear()
        .env("PATH", CRIU_PATH)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| Error::new(Code::Checkpoint, format!("{program}: {e}")))?;
    if status.status.success() { Ok(()) } else { Err(failure(command, options.work(), log, &status.stderr)) }
}

/// What the standard streams were, so that restore can put others in their place.
fn save_descriptors(image: &str, pid: i32) -> Result<()> {
    let names: Vec<String> = (0..3)
        .map(|n| {
            rustix::fs::readlink(format!("/proc/{pid}/fd/{n}"), Vec::new())
                .map(|l| l.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
        .collect();
    let bytes = serde_json::to_vec(&names).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
    let dir = rustix::fs::open(image, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(Code::Checkpoint, image)?;
    files::replace_at(&dir, "descriptors.json", &bytes).context(Code::Checkpoint, image)
}

/// Names of the saved streams; the image is not trusted, so only what looks like a pipe is used.
fn saved_pipes(image: &str) -> Vec<(usize, String)> {
    let Ok(bytes) = files::read_at(CWD, &format!("{image}/descriptors.json"), 65536) else { return Vec::new() };
    let names: Vec<String> = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_pipe = |n: &str| {
        n.strip_prefix("pipe:[")
            .and_then(|n| n.strip_suffix(']'))
            .is_some_and(|n| files::parse_unsigned::<u64>(n).is_some())
    };
    names.into_iter().enumerate().take(3).filter(|(_, n)| is_pipe(n)).collect()
}

fn failure(command: &str, work: &str, log: &str, stderr: &[u8]) -> Error {
    let path = format!("{work}/{log}");
    let text = files::read_text(&path, 64 << 20).unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|l| l.contains("Error") || l.contains("Warn")).collect();
    let tail: Vec<&str> = errors.iter().skip(errors.len().saturating_sub(LOG_LINES)).copied().collect();
    let said = String::from_utf8_lossy(stderr);
    let detail = if tail.is_empty() { said.trim().to_owned() } else { tail.join("; ") };
    Error::new(Code::Checkpoint, format!("criu {command} failed: {detail}")).hint(format!("CRIU's whole log is {path}"))
}

/// Restores a container inside its cgroup; gives the id of its first process, a child of the caller.
pub(crate) fn restore(options: &Options, spec: &Spec, bundle: &str, rootfs: &str, cgroup: &Cgroup) -> Result<i32> {
    let program = program()?;
    make_dir(options.work())?;
    let pid_file = format!("{}/restore.pid", options.work());
    let _ = rustix::fs::unlink(pid_file.as_str());
    let mut args = vec!["criu".to_owned()];
    args.extend(options.common("restore", "restore.log")?);
    args.extend(
        ["--restore-detached", "--restore-sibling", "--root", rootfs, "--pidfile", &pid_file].map(str::to_owned),
    );
    // The process is started inside the container's cgroup, so CRIU has nothing to move unless it is told to.
    args.push(format!("--manage-cgroups={}", options.cgroups_mode.as_deref().unwrap_or("ignore")));
    for (destination, source) in external(spec)? {
        let source = if source.starts_with('/') { source } else { format!("{bundle}/{source}") };
        args.extend(["--external".to_owned(), format!("mnt[{destination}]:{source}")]);
    }
    args.extend(["--external".to_owned(), "mnt[]:m".to_owned()]);
    let mut passed: Vec<OwnedFd> = Vec::new();
    if let Some(path) = joined_network(spec) {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(Code::NamespaceJoin, path)?;
        use std::os::fd::AsRawFd as _;
        args.extend(["--inherit-fd".to_owned(), format!("fd[{}]:extRootNetNS", fd.as_raw_fd())]);
        passed.push(fd);
    }
    for (number, name) in saved_pipes(&options.image) {
        args.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{name}")]);
    }
    if let Some(profile) = &options.lsm_profile {
        args.extend(["--lsm-profile".to_owned(), profile.clone()]);
    }
    if let Some(context) = &options.lsm_mount_context {
        args.extend(["--lsm-mount-context".to_owned(), context.clone()]);
    }
    let path = std::ffi::CString::new(program).map_err(|_| Error::new(Code::Internal, "path"))?;
    let nul = |_| Error::new(Code::Usage, "an option holds a null byte");
    let argv = StringVector::new(args.iter().map(String::as_str)).map_err(nul)?;
    let envp = StringVector::new([format!("PATH={CRIU_PATH}")]).map_err(nul)?;
    let entrances = cgroup.entrances()?;
    match clone_process(&CloneOptions { flags: 0, cgroup: cgroup.clone_target() }).context(Code::Clone, "for criu")? {
        Cloned::Child => {
            for entrance in &entrances {
                if files::write_once(entrance, b"0").is_err() {
                    exit(125);
                }
            }
            for fd in &passed {
                use std::os::fd::AsRawFd as _;
                let _ = hull_sys::fd::keep_over_exec(fd.as_raw_fd());
            }
            let _ = hull_sys::signal::unblock_all();
            let _ = execve(&path, &argv, &envp);
            exit(126)
        }
        Cloned::Parent { pidfd, .. } => {
            let status = loop {
                match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                    Ok(Some(status)) => break status,
                    Ok(None) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(Error::os(Code::Checkpoint, "waiting for criu", e)),
                }
            };
            if status.exit_status() != Some(0) {
                return Err(failure("restore", options.work(), "restore.log", b""));
            }
            let text = files::read_text(&pid_file, 64).context(Code::Checkpoint, &pid_file)?;
            files::parse_unsigned(text.trim())
                .ok_or_else(|| Error::new(Code::Checkpoint, format!("{pid_file}: not a process id")))
        }
    }
}
