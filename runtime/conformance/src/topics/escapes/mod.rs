//! The escapes of ten years, each as a test that fails on a runtime with the hole.
//!
//! `docs/security/escapes.md` has the list with mechanisms and rules. Where an advisory is one sentence of the
//! specification, its test is in that topic and only named here.

mod defaults;
mod descriptors;
mod identity;
mod image;
mod no_pivot;
mod races;

use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("CVE-2016-3697", "runc: a numeric user is a number, whatever the image's passwd says", identity::numeric_user),
    test("CVE-2016-8867", "Docker: no ambient capabilities that the configuration does not give", identity::no_ambient),
    test(
        "CVE-2016-9962",
        "runc exec: a process that enters cannot be looked into before its program runs",
        descriptors::entering_process,
    ),
    test(
        "CVE-2019-5736",
        "runc, crun, LXC: the container cannot write to the runtime's binary",
        descriptors::own_binary,
    ),
    test(
        "CVE-2019-14271",
        "docker cp: no name service or library of the image is used by the host's process",
        image::name_service,
    ),
    test("CVE-2019-16884-proc", "runc: a mount on /proc that is not procfs is refused", image::mount_on_proc),
    test("CVE-2019-16884-attr", "runc: a mount below /proc/self is refused", image::mount_on_attr),
    test("CVE-2019-18837", "crun: mount points behind any number of links stay below the root", image::link_farm),
    test("CVE-2019-19921-proc", "runc: /proc of the image is a link", image::proc_is_link),
    test("CVE-2023-27561-sys", "runc: /sys of the image is a link", image::sys_is_link),
    test("GO-2022-0396", "runc: an empty device list allows nothing", super::devices::deny_empty),
    test("CVE-2020-15257", "containerd: no abstract socket", descriptors::abstract_sockets),
    test("CVE-2021-30465", "runc: a mount point that is swapped for a link while it is used", races::mount_point),
    test("CVE-2021-43784", "runc: lengths that do not fit are errors", identity::huge_mapping),
    test("CVE-2022-0185", "kernel: user namespaces and fsopen are closed by the default profile", super::seccomp::moby),
    test("CVE-2022-0492", "kernel: cgroup file systems are read-only inside", defaults::release_agent),
    test("CVE-2022-29162", "runc, crun, Podman: exec --cap leaves the inheritable set empty", identity::exec_cap),
    test(
        "CVE-2023-25809",
        "runc: every mount below /sys is read-only without a cgroup namespace",
        defaults::sys_read_only,
    ),
    test(
        "CVE-2024-21626-cwd",
        "runc: the working directory cannot be a descriptor of the runtime",
        descriptors::cwd_by_descriptor,
    ),
    test(
        "CVE-2024-21626-exec",
        "runc: exec --cwd cannot be a descriptor of the runtime",
        descriptors::exec_cwd_by_descriptor,
    ),
    test(
        "CVE-2024-21626-leak",
        "runc: descriptors of the caller do not reach the container",
        descriptors::caller_descriptors,
    ),
    test(
        "CVE-2024-45310",
        "runc: making mount points does not follow a swapped link to the host",
        races::made_mount_point,
    ),
    test("CVE-2024-5154", "CRI-O: identifiers cannot walk", super::cli::invalid_id),
    test("CVE-2024-9407", "Buildah: an unknown option of a bind mount is an error", image::unknown_bind_option),
    test("CVE-2017-1002101", "Kubernetes: a source that must not be a link (src-nofollow)", image::source_nofollow),
    test("CVE-2025-23266", "NVIDIA: hooks do not have the process's environment", super::hooks::environment),
    test("CVE-2025-24965", "crun: files of a handler are not written through links of the image", image::handler_file),
    test("CVE-2025-31133", "runc, youki: a fake /dev/null is not bound over masked paths", image::fake_null),
    test("CVE-2025-52565", "runc: a fake /dev/pts/0 does not become /dev/console", image::fake_pts),
    test("CVE-2025-52881-sysctl", "runc, youki: writes below /proc cannot be led to a fake file", image::fake_proc_sys),
    test(
        "CVE-2026-30892",
        "crun, containerd: exec --user takes whole numbers that fit, or nothing",
        identity::user_table,
    ),
    test(
        "CVE-2026-41579-absolute",
        "runc, crun: /dev of the image is a link to an absolute path",
        image::dev_is_absolute_link,
    ),
    test("CVE-2026-41579-relative", "runc, crun: /dev of the image is a link with dots", image::dev_is_relative_link),
    test("CVE-2026-53489", "containerd: annotations open no files on the host", image::annotation_paths),
    test("CVE-2026-55686", "Podman: the working directory is made inside, links and all", image::cwd_behind_link),
    test("CVE-2026-57231", "Podman: the runtime's environment stays outside", super::process::env_not_inherited),
    test(
        "CVE-2026-84042",
        "crun: helpers are not looked up in the image or the working directory",
        image::fake_helpers,
    ),
    test("CVE-2026-88264", "crun: /dev/console of the image is a link", image::console_is_link),
    test(
        "CVE-2026-88265",
        "crun: /dev/null of the image is a link, and standard streams are closed",
        image::null_is_link,
    ),
    test(
        "CVE-2026-115521",
        "crun: a /proc supplied by the image does not keep the root writable",
        image::own_proc_tree,
    ),
    test("CVE-2026-119101", "runc, crun: restore mounts only what the configuration names", image::restore_mounts),
    test(
        "GHSA-3q8j-pf29-vwv8",
        "youki: a read-only path that is swapped while it is made read-only",
        races::readonly_path,
    ),
    test("runc-1.5.2-sub-cgroup", "runc: exec --cgroup cannot reach a sibling", defaults::sibling_cgroup),
    test(
        "runc-1.5.3-propagation",
        "runc: a container without a mount namespace leaves the host's propagation alone",
        defaults::host_propagation,
    ),
    test("crun-1.31-notify-mount", "crun: the mount of the notify socket is private", defaults::notify_mount),
    test(
        "crun-1.31-not-dumpable",
        "crun: init cannot be inspected by processes of a joined pid namespace",
        descriptors::joined_pid_namespace,
    ),
    test("no-pivot-root", "--no-pivot: a second chroot does not lead to the host's root", no_pivot::second_chroot),
    test("no-pivot-proc", "--no-pivot: no user namespace gets a /proc without masks", no_pivot::bare_proc),
    test(
        "state-root-ownership",
        "records below a directory of somebody else, or one that others can write to, are not believed",
        defaults::foreign_state_root,
    ),
    test("state-ownership", "a state file that belongs to somebody else is not believed", defaults::foreign_state),
];
