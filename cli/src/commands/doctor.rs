//! `berth doctor`: can this machine run workspaces?

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::args::{Global, Output};
use crate::exit::{self, Exit};
use crate::home::Home;
use crate::output;

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// The finding; if it is not ok, what to do.
    detail: String,
}

/// Checks everything that a server needs; exit status 1 if something is missing.
pub(crate) fn run(global: &Global) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    let checks = checks(&home);
    let failed = checks.iter().filter(|check| !check.ok).count();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    output::result(global.output, &checks, |checks| {
        checks
            .iter()
            .map(|check| format!("{} {:width$} {}\n", if check.ok { "ok  " } else { "FAIL" }, check.name, check.detail))
            .collect()
    })?;
    match (failed, global.output) {
        (0, _) => Ok(()),
        (_, Output::Json) => Err(Exit::silent(exit::FAILURE).into()),
        (count, Output::Text) => {
            Err(Exit::new(exit::FAILURE, format!("{count} of {} checks failed", checks.len())).into())
        }
    }
}

fn checks(home: &Home) -> Vec<Check> {
    let mut checks = vec![
        user(),
        kernel(),
        cgroups(),
        filesystem("overlay", "overlayfs"),
        filesystem("ext4", "disks of workspaces"),
    ];
    for (name, program, package) in [
        ("nft", "nft", "nftables"),
        ("ip", "ip", "iproute2"),
        ("mkfs.ext4", "mkfs.ext4", "e2fsprogs"),
        ("git", "git", "git"),
        ("mmdebstrap", "mmdebstrap", "mmdebstrap (only to build the base image)"),
    ] {
        let found = which(program);
        checks.push(Check {
            name,
            ok: found.is_some(),
            detail: found.unwrap_or_else(|| format!("not installed: apt-get install {package}")),
        });
    }
    checks.push(loop_devices());
    checks.push(postgres());
    checks.push(sibling("hull"));
    checks.push(sibling("berth-init"));
    checks.push(space(home.path()));
    checks
}

fn user() -> Check {
    let uid = rustix::process::getuid();
    Check {
        name: "user",
        ok: uid.is_root(),
        detail: if uid.is_root() {
            "root".to_owned()
        } else {
            "workspaces need root for their namespaces and disks: run as root".to_owned()
        },
    }
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // Overlayfs over id-mapped layers in a user namespace came with Linux 5.19; unprivileged overlayfs with userxattr with 5.11.
    let ok = version >= (5, 19);
    Check {
        name: "kernel",
        ok,
        detail: if ok { release } else { format!("{release} is too old: 5.19 or newer is needed") },
    }
}

fn cgroups() -> Check {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let v1 = Path::new("/sys/fs/cgroup/memory").is_dir();
    Check {
        name: "cgroups",
        ok: v1 || v2,
        detail: match (v2, v1) {
            (true, _) => "v2".to_owned(),
            (false, true) => "v1 (io limits hold for reads and direct writes only)".to_owned(),
            (false, false) => "neither v2 nor a v1 memory hierarchy is mounted below /sys/fs/cgroup".to_owned(),
        },
    }
}

fn filesystem(kind: &str, purpose: &'static str) -> Check {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let ok = known.lines().any(|line| line.split_whitespace().next_back() == Some(kind));
    Check {
        name: purpose,
        ok,
        detail: if ok { kind.to_owned() } else { format!("the kernel does not know {kind}: modprobe {kind}") },
    }
}

fn loop_devices() -> Check {
    let ok = Path::new("/dev/loop-control").exists();
    Check {
        name: "loop devices",
        ok,
        detail: if ok { "/dev/loop-control".to_owned() } else { "no /dev/loop-control: modprobe loop".to_owned() },
    }
}

fn postgres() -> Check {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.map(|runtime| runtime.block_on(berth_embedded_pg::Installation::find(None, "postgres")));
    match found {
        Ok(Ok(installation)) => {
            Check { name: "postgres", ok: true, detail: format!("version {}", installation.version()) }
        }
        Ok(Err(error)) => Check { name: "postgres", ok: false, detail: error.to_string() },
        Err(error) => Check { name: "postgres", ok: false, detail: error.to_string() },
    }
}

fn sibling(program: &'static str) -> Check {
    let beside =
        std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(program))).filter(|path| path.is_file());
    Check {
        name: program,
        ok: beside.is_some(),
        detail: beside.map_or_else(
            || format!("not beside berth: build it with `make build`, and install {program} in berth's folder"),
            |path| path.display().to_string(),
        ),
    }
}

fn space(home: &Path) -> Check {
    let existing = home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 30;
            Check {
                name: "disk space",
                ok: free >= 5,
                detail: format!(
                    "{free} GiB free at {}{}",
                    existing.display(),
                    if free >= 5 { "" } else { ": workspaces need 5 GiB or more" }
                ),
            }
        }
        Err(error) => Check { name: "disk space", ok: false, detail: error.to_string() },
    }
}

fn which(program: &str) -> Option<String> {
    let output = Command::new("sh")
        .args(["-c", "command -v -- \"$1\"", "sh", program])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
