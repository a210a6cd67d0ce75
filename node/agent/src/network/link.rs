//! Makes and removes network namespaces with their veth pair. A thread that enters a namespace ends afterwards, so it is never one of the
//! async runtime's.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde_json::Value;

use super::slot::{Slot, Subnets};

/// The network of a workspace cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// nft or ip is missing.
    #[error("{program} cannot be started: install {package}")]
    Program {
        /// Which.
        program: &'static str,
        /// In which package it is.
        package: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program refused.
    #[error("{program} failed while {what}: {output}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it was to do.
        what: String,
        /// What it wrote.
        output: String,
    },
    /// The kernel refused.
    #[error("the network namespace at {} failed: {step}", path.display())]
    Namespace {
        /// Where it is pinned.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A kernel setting.
    #[error("the kernel's setting {path} cannot be changed to {value}")]
    Setting {
        /// Which.
        path: String,
        /// To what.
        value: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Every slot is taken.
    #[error("this node has no free network for another workspace ({0} are in use)")]
    Full(usize),
    /// A thread died.
    #[error("making a workspace's network was interrupted")]
    Broken,
}

/// Runs a program with `input`.
fn run(
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
    input: &str,
    what: &str,
) -> Result<(), LinkError> {
    let started = |source| LinkError::Program { program, package, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
        .spawn()
        .map_err(started)?;
    let mut stdin = child.stdin.take();
    // A program that failed early says so by its exit status.
    let _ = stdin.as_mut().map(|stdin| stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().map_err(started)?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    let output = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join("; ");
    Err(LinkError::Failed { program, what: what.to_owned(), output })
}

/// Gives a ruleset to the packet filter of the caller's namespace.
pub(super) fn nft(ruleset: &Value, what: &str) -> Result<(), LinkError> {
    run("nft", "nftables", &["-j", "-f", "-"], &ruleset.to_string(), what)
}

fn ip(commands: &str, what: &str) -> Result<(), LinkError> {
    run("ip", "iproute2", &["-batch", "-"], commands, what)
}

pub(super) fn set(path: &str, value: &str) -> Result<(), LinkError> {
    std::fs::write(path, value).map_err(|source| LinkError::Setting {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Runs `work` on a thread of its own, which may change its namespaces.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, LinkError> + Send + 'static) -> Result<T, LinkError> {
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(work)
        .map_err(|_| LinkError::Broken)?
        .join()
        .map_err(|_| LinkError::Broken)?
}

/// Makes a namespace pinned at `path`, with a veth pair to this process's namespace, addresses and routes. Blocks some milliseconds.
pub(super) fn make(path: &Path, slot: Slot, subnets: Subnets) -> Result<(), LinkError> {
    let at = path.to_owned();
    let (address, gateway, interface) = (subnets.address(slot), subnets.gateway(slot), slot.interface(&subnets));
    let host_side = interface.clone();
    on_thread(move || {
        let step = |step: &'static str| {
            let path = at.clone();
            move |source: io::Error| LinkError::Namespace { path, step, source }
        };
        std::fs::File::create(&at).map_err(step("making its pin"))?;
        hull_sys::sandbox_process::unshare_namespaces(UnshareFlags::NEWNET)
            .map_err(|errno| step("making it")(errno.into()))?;
        let own = rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| step("opening it")(errno.into()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        rustix::mount::open_tree(&own, "", flags)
            .and_then(|tree| rustix::mount::move_mount(&tree, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
            .map_err(|errno| step("pinning it")(errno.into()))?;
        let host = std::process::id();
        ip(
            &format!(
                "link set lo up\n\
                 link add eth0 type veth peer name {interface} netns {host}\n\
                 address add {address}/30 dev eth0\n\
                 link set eth0 up\n\
                 route add default via {gateway}\n"
            ),
            "making a workspace's network",
        )?;
        // The processes inside are in another user namespace: settings that need rights over this network namespace are made here, once.
        set("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        set("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        // Connections to opened services of the host's loopback are made to 127.0.0.1 and leave through eth0.
        set("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")?;
        // Not there on a kernel without IPv6.
        let _ = set("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
        Ok(())
    })?;
    let setting = |name: &str| format!("/proc/sys/net/ipv4/conf/{host_side}/{name}");
    ip(
        &format!("address add {gateway}/30 dev {host_side}\nlink set {host_side} up\n"),
        "making the host's end of a workspace's network",
    )?;
    set(&setting("forwarding"), "1")?;
    // Drop packets whose source is not this workspace's address.
    set(&setting("rp_filter"), "1")?;
    set(&setting("route_localnet"), "1")?;
    let _ = set(&format!("/proc/sys/net/ipv6/conf/{host_side}/disable_ipv6"), "1");
    Ok(())
}

/// Gives a ruleset to the packet filter of the namespace pinned at `path`.
pub(super) fn nft_inside(path: &Path, ruleset: Value) -> Result<(), LinkError> {
    let at = path.to_owned();
    on_thread(move || {
        let step = |errno: rustix::io::Errno| LinkError::Namespace {
            path: at.clone(),
            step: "entering it",
            source: errno.into(),
        };
        let namespace = rustix::fs::open(&at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(step)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(step)?;
        nft(&ruleset, "opening services for a workspace")
    })
}

/// Removes a namespace; the veth pair goes at once, also while a process still holds the namespace.
pub(super) fn remove(path: &Path, slot: Slot, subnets: Subnets) -> Result<(), LinkError> {
    if std::fs::exists(format!("/sys/class/net/{}", slot.interface(&subnets))).unwrap_or(true) {
        match ip(&format!("link delete {}\n", slot.interface(&subnets)), "removing a workspace's network") {
            Err(LinkError::Failed { output, .. }) if output.contains("Cannot find device") => {}
            other => other?,
        }
    }
    unpin(path)
}

pub(super) fn unpin(path: &Path) -> Result<(), LinkError> {
    let step =
        |step: &'static str| move |source: io::Error| LinkError::Namespace { path: path.to_owned(), step, source };
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(step("unpinning it")(errno.into())),
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(step("removing its pin")(error)),
    }
}

/// Whether a namespace is pinned at `path` and its interface there.
pub(super) fn is_whole(path: &Path, slot: Slot, subnets: Subnets) -> bool {
    let pinned = rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS_MAGIC);
    pinned && Path::new("/sys/class/net").join(slot.interface(&subnets)).exists()
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
