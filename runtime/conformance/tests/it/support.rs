//! What the engines' tests share: the program, a root file system, the engine's process, and cleaning up after all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Parent of the cgroups.
pub(crate) const CGROUP: &str = "/berth-test";

/// Ends the test with a reason instead of a failure.
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("skipped: {}", format_args!($($reason)*));
        return Ok(());
    }};
}
pub(crate) use skip;

/// hull, if it has been built: `HULL`, or what is in this workspace's target folder.
pub(crate) fn hull() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    if let Some(path) = std::env::var_os("HULL") {
        return Ok(path.into());
    }
    // target/debug/deps/it-0123
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let near = exe.ancestors().skip(2).take(1).map(|profile| profile.join("hull"));
    let release = exe.ancestors().skip(3).take(1).map(|target| target.join("release/hull"));
    near.chain(release)
        .find(|path| path.is_file())
        .ok_or_else(|| "no hull is built (cargo build -p hull), and HULL names none".to_owned())
}

/// Where a program is installed.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether all these programs are installed.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    programs.iter().find(|name| on_path(name).is_none()).map(|name| format!("{name} is not installed"))
}

/// A folder for one engine; whatever it mounts or leaves below goes away with it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Folder> {
        let folder = tempfile::Builder::new().prefix(&format!("hull-{name}-")).disable_cleanup(true).tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Folder(folder.path().to_owned()))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.join(name).to_string_lossy().into_owned()
    }

    /// A root file system of a static busybox.
    pub(crate) fn rootfs(&self) -> Result<PathBuf> {
        let rootfs = self.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
            .context("no busybox; install the package busybox-static")?;
        for applet in ["cat", "echo", "grep", "id", "ls", "mv", "sh", "sleep", "touch", "true", "tty", "usleep"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        Ok(rootfs)
    }
}

impl Folder {
    /// The root file system as an archive of one image, in Docker's form, with `program` as its command.
    pub(crate) fn image(&self, rootfs: &Path, reference: &str, program: &str) -> Result<PathBuf> {
        let folder = self.join("image");
        fs::create_dir_all(&folder)?;
        let tar = |from: &Path, to: &Path| -> Result<()> {
            said(Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).arg("."))?.ok().map(drop)
        };
        tar(rootfs, &folder.join("layer.tar"))?;
        let sum = said(Command::new("sha256sum").arg(folder.join("layer.tar")))?.ok()?;
        let layer = sum.split(' ').next().context("no sum")?;
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":{program},"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
        );
        fs::write(folder.join("config.json"), config)?;
        fs::write(
            folder.join("manifest.json"),
            format!(r#"[{{"Config":"config.json","RepoTags":["{reference}"],"Layers":["layer.tar"]}}]"#),
        )?;
        let archive = self.join("image.tar");
        tar(&folder, &archive)?;
        Ok(archive)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = text
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(&self.0));
        let points: Vec<&str> = below.collect();
        // Removing through a mount would remove what is behind it.
        if points.iter().rev().all(|point| unmount(*point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// An engine's daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it, and waits until `answers`.
    pub(crate) fn start(command: &mut Command, log: PathBuf, answers: impl Fn() -> bool) -> Result<Daemon> {
        let file = fs::File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let mut daemon = Daemon { child, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !answers() {
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("it does not start here: {}", daemon.last_words());
            }
        }
        Ok(daemon)
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, Signal::TERM);
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Its output; it must have succeeded.
    pub(crate) fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "status {}: {}{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout.trim().to_owned())
    }
}

/// Runs a client, two minutes at most.
pub(crate) fn client<I: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = I>) -> Result<Said> {
    said(Command::new("timeout").arg("120").arg(program).args(args))
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Result<Said> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// Whether cgroups are of version 2.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Why there is nothing that a systemd could make scopes on.
pub(crate) fn no_systemd() -> Option<&'static str> {
    let running = unified() && Path::new("/run/systemd/system").exists();
    (!running).then_some("no systemd on cgroups of version 2")
}

/// Why CRIU is of no use here.
pub(crate) fn no_criu() -> Option<String> {
    match client("criu", ["check"]) {
        Ok(check) if check.code == 0 => None,
        Ok(check) => Some(format!("criu does not work here: {}", check.stderr.lines().last().unwrap_or("no word"))),
        Err(_) => Some("criu is not installed".to_owned()),
    }
}

/// Asks until it holds, half a minute at most. Each question starts a process, which is pause enough.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what} does not come about");
    }
    Ok(())
}

/// Whether a container's cgroup is left anywhere: a folder of its name, or a scope.
pub(crate) fn cgroup_left(id: &str) -> bool {
    fn below(folder: &Path, id: &str) -> bool {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name == id || name.ends_with(&format!("-{id}.scope")) || below(&entry.path(), id)
        })
    }
    below(Path::new("/sys/fs/cgroup"), id)
}
