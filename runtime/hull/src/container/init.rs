//! The container's first process, from the clone to the execve.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hull_sys::namespace as ns;
use hull_sys::process::{CLONE_PARENT, CloneOptions, Cloned, clone_process};
use hull_sys::{prctl, process, signal as syssignal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::console;
use super::plan::{Gate, Plan, TerminalTo};
use super::sync::{self, Message};
use crate::error::{Code, Context, Error, Result};
use crate::process::labels::Labels;
use crate::process::launch::find_program;
use crate::procfs::Proc;
use crate::rootfs::devices::Node;
use crate::rootfs::mask::{self, Masker};
use crate::rootfs::mounts::{self, MountContext};
use crate::rootfs::resolve::{Root, device_of};
use crate::rootfs::{self, RootSource, options};
use crate::spec::{Hooks, NamespaceType, Spec, TimeOffset};
use crate::{files, hooks, timeline};

const SIGPIPE: i32 = 13;

/// Closes every descriptor of the runtime that the process has no use for: its lock, its directories, whatever the caller left open.
fn keep_only_own(plan: &Plan<'_>, sync: &OwnedFd) -> Result<()> {
    hull_sys::own_clone::let_go();
    let mut keep = vec![sync.as_raw_fd()];
    keep.extend(plan.namespaces.join.iter().map(super::namespaces::Join::raw_fd));
    if let RootSource::Tree(tree) = &plan.root {
        keep.push(tree.as_raw_fd());
    }
    keep.extend(plan.mounts.iter().filter_map(|m| match &m.source {
        mounts::Source::Tree(tree) => Some(tree.as_raw_fd()),
        _ => None,
    }));
    keep.extend(plan.nodes.iter().filter_map(Node::raw_fd));
    if let Some(TerminalTo::Socket(socket)) = &plan.terminal {
        keep.push(socket.as_raw_fd());
    }
    if let Gate::Socket(listener) = &plan.gate {
        keep.push(listener.as_raw_fd());
    }
    keep.extend(plan.launch.raw_fds());
    keep.extend(timeline::raw_fd());
    hull_sys::fd::close_except(&mut keep).context(Code::Descriptors, "close_range")
}

/// Runs as the intermediate process: joins existing namespaces, then makes the container's process as the runtime's child.
pub(crate) fn stage_main(mut plan: Plan<'_>, sync: OwnedFd) -> ! {
    crate::log::forget_file();
    match keep_only_own(&plan, &sync).and_then(|()| stage(&mut plan, &sync)) {
        Ok(Some(Cloned::Parent { pid, pidfd })) => {
            let sent = sync::send(&sync, &Message::Init { pid, pidfd });
            process::exit(i32::from(sent.is_err()))
        }
        Ok(Some(Cloned::Child) | None) => {
            // The runtime must know of this process first: other messages would be about an unknown process.
            if sync::await_go(&sync).is_err() {
                process::exit(1)
            }
            init_body(plan, sync)
        }
        Err(error) => {
            let _ = sync::send(&sync, &Message::Failed(error));
            process::exit(1)
        }
    }
}

fn stage(plan: &mut Plan<'_>, sync: &OwnedFd) -> Result<Option<Cloned>> {
    begin(plan)?;
    if !plan.moved_by_systemd {
        enter_cgroups(plan, sync)?;
    }
    // Opened with the runtime's rights: afterwards the file belongs to a user that the process cannot be.
    let offsets = &plan.bundle.linux().time_offsets;
    let offsets_file = if offsets.is_empty() { None } else { Some(open_time_offsets(plan)?) };
    plan.namespaces.enter()?;
    if plan.namespaces.joins(NamespaceType::User) {
        plan.launch.set_groups = crate::rights::may_set_groups_by(&proc(plan)?);
    }
    if plan.namespaces.makes(NamespaceType::User) {
        ns::unshare(ns::USER).context(Code::NamespaceCreate, "user")?;
        sync::send(sync, &Message::WantsMaps).context(Code::Internal, "sync")?;
        (_, plan.launch.set_groups) = sync::await_go(sync)?;
    }
    if plan.namespaces.user() {
        become_root(plan.launch.set_groups && !plan.launch.keep_groups)?;
    }
    if plan.namespaces.makes(NamespaceType::Time) {
        ns::unshare(ns::TIME).context(Code::NamespaceCreate, "time")?;
        if let Some(file) = &offsets_file {
            set_time_offsets(file, offsets)?;
        }
    }
    // Done here; what follows in the container's process must not do it again.
    plan.namespaces.join.clear();
    plan.namespaces.new &= !(ns::USER | ns::TIME);
    let flags = plan.namespaces.at_birth() | CLONE_PARENT;
    let cloned = clone_process(&CloneOptions { flags, cgroup: None }).doing(Code::Clone, "clone3", "")?;
    Ok(Some(cloned))
}

/// The runtime's own /proc.
fn proc(plan: &Plan<'_>) -> Result<Proc> {
    plan.proc.as_ref().map_or_else(Proc::open, Proc::try_clone).context(Code::Internal, "/proc")
}

fn open_time_offsets(plan: &Plan<'_>) -> Result<OwnedFd> {
    proc(plan)?.file("self/timens_offsets", OFlags::WRONLY).context(Code::TimeOffsets, "/proc/self/timens_offsets")
}

fn set_time_offsets(file: &OwnedFd, offsets: &std::collections::BTreeMap<String, TimeOffset>) -> Result<()> {
    // All clocks in one write: the file takes one.
    let lines: String = offsets.iter().map(|(clock, o)| format!("{clock} {} {}\n", o.secs, o.nanosecs)).collect();
    files::write_once(file, lines.as_bytes()).doing(
        Code::TimeOffsets,
        "linux.timeOffsets",
        &lines.trim().replace('\n', ", "),
    )
}

/// First steps of whichever process comes first.
fn begin(plan: &mut Plan<'_>) -> Result<()> {
    if plan.namespaces.joins(NamespaceType::Mount) {
        // Afterwards anything could be at /proc.
        plan.proc = Some(proc(plan)?);
    }
    if plan.undumpable {
        prctl::set_dumpable(false).context(Code::Internal, "dumpable")?;
    }
    Ok(())
}

/// Waits until the runtime has made the cgroups of version 1 and enters them, or until systemd has moved this process; once.
fn enter_cgroups(plan: &mut Plan<'_>, sync: &OwnedFd) -> Result<()> {
    if !std::mem::take(&mut plan.enters_cgroups) {
        return Ok(());
    }
    if plan.moved_by_systemd {
        plan.view = sync::await_move(sync)?.view(plan.view.namespace);
        return Ok(());
    }
    for entrance in sync::await_cgroups(sync)? {
        // "0" is the writer itself: needs none of the locks that moving another process takes.
        files::write_once(&entrance, b"0").doing(Code::CgroupJoin, "tasks", "of version 1")?;
    }
    Ok(())
}

/// Enters the cgroups, if that is still to be done, and does what follows from being inside.
fn settle_in_cgroups(plan: &mut Plan<'_>, sync: &OwnedFd) -> Result<()> {
    enter_cgroups(plan, sync)?;
    if plan.namespaces.makes(NamespaceType::Cgroup) {
        // The namespace's root is the cgroup in which the process is now.
        ns::unshare(ns::CGROUP).context(Code::NamespaceCreate, "cgroup")?;
    }
    // The caller's CPU affinity has nothing to do with the container's CPUs.
    let _ = hull_sys::sched::set_affinity(&crate::process::limits::all_cpus());
    Ok(())
}

/// Takes root's ids of the user namespace; if it has none, the ids stay unmapped and the capabilities suffice.
fn become_root(set_groups: bool) -> Result<()> {
    let ignore_unmapped = |result: Result<(), Errno>| match result {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(e) => Err(e),
    };
    if set_groups {
        ignore_unmapped(rustix::thread::set_thread_groups(&[])).context(Code::Identity, "groups")?;
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    ignore_unmapped(rustix::thread::set_thread_res_gid(gid, gid, gid)).doing(Code::Identity, "gid", "group 0")?;
    ignore_unmapped(rustix::thread::set_thread_res_uid(uid, uid, uid)).doing(Code::Identity, "uid", "user 0")
}

/// Runs as the container's first process.
pub(crate) fn init_main(plan: Plan<'_>, sync: OwnedFd) -> ! {
    crate::log::forget_file();
    if let Err(error) = keep_only_own(&plan, &sync) {
        let _ = sync::send(&sync, &Message::Failed(error));
        process::exit(1)
    }
    init_body(plan, sync)
}

fn init_body(mut plan: Plan<'_>, sync: OwnedFd) -> ! {
    let mut report = Some(sync);
    let error = init(&mut plan, &mut report);
    if let Some(socket) = report {
        let _ = sync::send(&socket, &Message::Failed(error));
    }
    process::exit(1)
}

fn init(plan: &mut Plan<'_>, report: &mut Option<OwnedFd>) -> Error {
    match try_init(plan, report) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_init(plan: &mut Plan<'_>, report: &mut Option<OwnedFd>) -> Result<std::convert::Infallible> {
    let sync = channel(report)?;
    let pid = enter(plan, sync)?;
    let labels = Labels::of(plan.proc.as_ref(), plan.launch.process)?;
    build_root(plan, sync)?;
    timeline::mark("rootfs");
    // Nothing that leads outside the root is open from here on.
    plan.root = RootSource::Path(String::new());
    plan.nodes.clear();
    plan.namespaces.join.clear();
    plan.launch.choose_handler(sync)?;
    plan.launch.settle()?;
    complete_listener(plan, pid);
    let armed = if plan.launch.filters_early() {
        // Everything after the filter must be allowed by it, so the wait and the lookup of the program come first.
        if !plan.launch.is_wasm() {
            find_program(plan.launch.process, &plan.launch.process.env)?;
        }
        tell_ready(report)?;
        wait_for_start(plan, report)?;
        plan.launch.prepare(&labels)?
    } else if matches!(plan.gate, Gate::Message) {
        // The runtime records the container while the rest is done; for `run` nobody has to learn beforehand that the program cannot be
        // started.
        tell_ready(report)?;
        let armed = plan.launch.prepare(&labels)?;
        wait_for_start(plan, report)?;
        armed
    } else {
        let armed = plan.launch.prepare(&labels)?;
        tell_ready(report)?;
        wait_for_start(plan, report)?;
        armed
    };
    let hooks = plan.bundle.spec.hooks.as_ref().filter(|h| !h.start_container.is_empty());
    let state = hooks.map(|_| state_json(plan, own_pid(), "created")).unwrap_or_default();
    // Programs of the image: they get no more rights than the process.
    Err(plan.launch.execute(&armed, || {
        let Some(hooks) = hooks else { return Ok(()) };
        // A hook need not read its input, and this process must not end because of that. Afterwards the signal has its default action again.
        syssignal::ignore_broken_pipes();
        let ran = hooks::run("startContainer", &hooks.start_container, &state, None, armed.environment());
        syssignal::reset(SIGPIPE);
        ran
    }))
}

/// Namespaces, ids, names; ends with the runtime's part done. Returns the process' id outside, if the runtime had to tell it.
fn enter(plan: &mut Plan<'_>, sync: &OwnedFd) -> Result<i32> {
    let mut pid = 0;
    begin(plan)?;
    if plan.namespaces.makes(NamespaceType::User) {
        // The runtime writes the maps without being asked.
        (pid, plan.launch.set_groups) = sync::await_go(sync)?;
        become_root(plan.launch.set_groups && !plan.launch.keep_groups)?;
    }
    plan.namespaces.make_own()?;
    plan.namespaces.enter()?;
    if plan.wait_for_runtime {
        // What the runtime then does may depend on where this process is.
        enter_cgroups(plan, sync)?;
        sync::send(sync, &Message::NamespacesReady).context(Code::Internal, "sync")?;
        (pid, _) = sync::await_go(sync)?;
    }
    match rustix::process::setsid() {
        // It leads a session already: the intermediate process made it.
        Ok(_) | Err(Errno::PERM) => {}
        Err(e) => return Err(Error::os(Code::Identity, "session", e)),
    }
    let spec = &plan.bundle.spec;
    if let Some(name) = spec.hostname.as_deref().filter(|n| !n.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).doing(Code::HostName, "hostname", &format!("hostname {name}"))?;
    }
    if let Some(name) = spec.domainname.as_deref().filter(|n| !n.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).doing(
            Code::HostName,
            "domainname",
            &format!("domainname {name}"),
        )?;
    }
    if plan.namespaces.makes(NamespaceType::Network) {
        hull_sys::net::interface_up("lo").context(Code::Network, "lo")?;
    }
    timeline::mark("namespaces");
    if !plan.bundle.linux().sysctl.is_empty() {
        super::sysctl::apply(&proc(plan)?, plan.bundle.linux())?;
    }
    Ok(pid)
}

fn build_root(plan: &mut Plan<'_>, sync: &OwnedFd) -> Result<()> {
    let bundle = plan.bundle;
    let (linux, spec) = (bundle.linux(), &bundle.spec);
    let has_mount = plan.namespaces.makes(NamespaceType::Mount)
        || linux.namespaces.iter().any(|n| n.r#type == NamespaceType::Mount);
    if !has_mount {
        settle_in_cgroups(plan, sync)?;
        let_hooks_work(spec, sync)?;
        return plain_root(plan);
    }
    let propagation = linux.rootfs_propagation.as_deref().and_then(options::propagation);
    // Nothing that is mounted here shows up elsewhere: the root is private until everything is mounted, or else a slave of the host's for
    // good, because a mount that has been private has no master any more.
    let slave = propagation.is_some_and(|(bit, _)| bit == hull_sys::mount::SLAVE);
    let until_mounted = if slave { hull_sys::mount::SLAVE } else { hull_sys::mount::PRIVATE };
    let hooked = spec.hooks.as_ref().is_some_and(work_on_creation);
    let visible_at = if hooked { Some(plan.bundle.rootfs()?) } else { None };
    let root = Root::new(rootfs::attach_root(&plan.root, visible_at.as_deref(), until_mounted, true)?);
    let (view, mounts) = (plan.view.clone(), std::mem::take(&mut plan.mounts));
    let own_proc = plan.proc.take();
    let moved;
    let mut cx = MountContext {
        root: &root,
        proc: own_proc.as_ref(),
        label: linux.mount_label.as_deref(),
        cgroup: &view,
        own_cgroup_roots: plan.namespaces.makes(NamespaceType::Cgroup),
        read_only_later: Vec::new(),
        devpts: None,
    };
    rustix::process::umask(Mode::empty());
    let before = mounts.iter().take_while(|mount| mount.is_no_matter_of_cgroups()).count();
    let (before, after) = mounts.split_at(before);
    before.iter().try_for_each(|mount| mounts::attach(&mut cx, mount))?;
    settle_in_cgroups(plan, sync)?;
    if plan.moved_by_systemd {
        moved = std::mem::take(&mut plan.view);
        cx.cgroup = &moved;
    }
    after.iter().try_for_each(|mount| mounts::attach(&mut cx, mount))?;
    make_devices(plan, &root)?;
    reopen_null(&root)?;
    let terminal = match &plan.terminal {
        Some(to) => {
            let terminal = console::open_inside(cx.devpts.as_ref(), &root, plan.launch.process)?;
            console::send(to, &terminal.master, sync)?;
            Some(terminal)
        }
        None => None,
    };
    let_hooks_work(spec, sync)?;
    if let Some(hooks) = spec.hooks.as_ref().filter(|h: &&Hooks| !h.create_container.is_empty()) {
        let state = state_json(plan, own_pid(), "creating");
        hooks::run("createContainer", &hooks.create_container, &state, visible_at.as_deref(), &[])?;
    }
    make_cwd(&root, &plan.launch.process.cwd)?;
    protect(plan, &root, &cx.read_only_later)?;
    change_root(&root, plan.no_pivot)?;
    if let Some((bit, recursive)) = propagation {
        let change = hull_sys::mount::MountAttr { propagation: bit, recursive, ..Default::default() };
        hull_sys::mount::mount_setattr(rustix::fs::CWD, c"/", &change)
            .context(Code::MountAttr, "linux.rootfsPropagation")?;
    }
    terminal.map_or(Ok(()), console::attach)
}

fn change_root(root: &Root, no_pivot: bool) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(root.fd(), ".", flags, Mode::empty()).context(Code::Pivot, "/")?;
    if no_pivot { rootfs::no_pivot::change_root(&fd) } else { rootfs::pivot(&fd) }
}

/// Makes the nodes of devices; where /dev is somebody else's, only those outside of it.
fn make_devices(plan: &Plan<'_>, root: &Root) -> Result<()> {
    if plan.make_devices {
        return rootfs::devices::make_all(root, &plan.nodes);
    }
    let outside = plan.nodes.iter().filter(|node| !node.path.starts_with("/dev/"));
    outside.into_iter().try_for_each(|node| rootfs::devices::make(root, node))
}

/// Whether there are hooks that run before the root is changed.
fn work_on_creation(hooks: &Hooks) -> bool {
    !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty() && hooks.create_container.is_empty())
}

/// Tells the runtime that the hooks begin, and waits for those that it runs.
fn let_hooks_work(spec: &Spec, sync: &OwnedFd) -> Result<()> {
    if !spec.hooks.as_ref().is_some_and(work_on_creation) {
        return Ok(());
    }
    sync::send(sync, &Message::MountsReady).context(Code::Internal, "sync")?;
    sync::await_go(sync).map(drop)
}

/// Standard streams on the host's null device become the container's own, so that nothing of the host's mounts stays
/// open (a checkpoint could not save it).
fn reopen_null(root: &Root) -> Result<()> {
    let null = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    let mut own = None;
    for (number, stream) in
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].into_iter().enumerate()
    {
        if device_of(stream) != Ok(null) {
            continue;
        }
        if own.is_none() {
            let Ok(fd) =
                root.open_flags("/dev/null", OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)
            else {
                return Ok(());
            };
            // What the image calls /dev/null may be anything (CVE-2026-88265).
            if device_of(&fd) != Ok(null) {
                return Ok(());
            }
            own = Some(fd);
        }
        if let (Some(fd), Ok(number)) = (&own, i32::try_from(number)) {
            hull_sys::fd::place(fd.as_fd(), number).context(Code::Descriptors, "/dev/null")?;
        }
    }
    Ok(())
}

/// Applies read-only and masked paths, and makes mounts read-only that had to wait for this.
fn protect(plan: &Plan<'_>, root: &Root, later: &[OwnedFd]) -> Result<()> {
    let linux = plan.bundle.linux();
    for mount in later {
        rootfs::make_read_only(mount, "tmpfs")?;
    }
    for path in &linux.readonly_paths {
        mask::read_only(root, path)?;
    }
    let mut masker = Masker::default();
    let mut masked = BTreeSet::new();
    for path in linux.masked_paths.iter().filter(|path| masked.insert(path.as_str())) {
        masker.mask(root, path)?;
    }
    if plan.bundle.spec.root.as_ref().is_some_and(|r| r.readonly) {
        rootfs::make_read_only(root.fd(), "/")?;
    }
    Ok(())
}

/// The working directory is made if it is missing, inside the root.
fn make_cwd(root: &Root, cwd: &str) -> Result<()> {
    match root.open_flags(cwd, OFlags::PATH) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => root.make_dirs(cwd, Mode::from_raw_mode(0o755)).map(drop).context(Code::Cwd, cwd),
        // The change of directory itself reports what is wrong.
        Err(_) => Ok(()),
    }
}

/// Without a mount namespace: only the root directory changes.
fn plain_root(plan: &Plan<'_>) -> Result<()> {
    let path = match &plan.root {
        RootSource::Path(path) => path.clone(),
        RootSource::Tree(_) => plan.bundle.rootfs()?,
    };
    let fd = rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(Code::RootOpen, &path)?;
    let root = Root::new(fd);
    let terminal = match &plan.terminal {
        Some(to) => {
            let terminal = console::open_on_host(plan.launch.process)?;
            let TerminalTo::Socket(_) = to else {
                return Err(Error::new(Code::Unsupported, "process.terminal")
                    .says("process.terminal without a mount namespace needs a console socket"));
            };
            console::send(to, &terminal.master, rustix::stdio::stdin())?;
            Some(terminal)
        }
        None => None,
    };
    make_cwd(&root, &plan.launch.process.cwd)?;
    rootfs::enter(root.fd())?;
    terminal.map_or(Ok(()), console::attach)
}

/// What hooks in the container's namespaces are told: the process' id as it is seen there.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

fn state_json(plan: &Plan<'_>, pid: i32, status: &str) -> Vec<u8> {
    super::state::json_for_hooks(&plan.bundle.spec, plan.id, &plan.bundle.path, status, pid)
}

/// The listener's message includes the process' id outside, which is known only now.
fn complete_listener(plan: &mut Plan<'_>, pid: i32) {
    let state = state_json(plan, pid, "created");
    if let Some(listener) = &mut plan.launch.listener {
        listener.complete(&state, pid);
    }
}

fn channel(report: &Option<OwnedFd>) -> Result<&OwnedFd> {
    report.as_ref().ok_or_else(|| Error::new(Code::Internal, "sync").says("no channel to the runtime"))
}

/// Tells that the container is complete.
fn tell_ready(report: &Option<OwnedFd>) -> Result<()> {
    sync::send(channel(report)?, &Message::Ready).context(Code::Internal, "sync")
}

/// Ends this process if the received signal would end a program that has no handler for it.
fn end_by_signal(signals: &OwnedFd) {
    /// SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH.
    const HARMLESS: [i32; 7] = [17, 18, 20, 21, 22, 23, 28];
    let mut record = [0u8; 128];
    if let Ok(128) = rustix::io::read(signals, &mut record) {
        let signal = syssignal::number_of(&record);
        if !HARMLESS.contains(&signal) {
            process::exit(signal.saturating_add(128));
        }
    }
}

/// Waits for the word to start.
fn wait_for_start(plan: &Plan<'_>, report: &mut Option<OwnedFd>) -> Result<()> {
    match &plan.gate {
        Gate::Message => match sync::receive_short(channel(report)?)? {
            Message::Start => Ok(()),
            _ => process::exit(1),
        },
        Gate::Socket(listener) => {
            *report = None;
            // The first process of a PID namespace gets no signal for which it has no handler: without this, only SIGKILL would end a
            // container that was created and is no longer wanted.
            let signals = syssignal::block_all_into_fd().context(Code::Internal, "signalfd")?;
            loop {
                let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
                if poll(&mut fds, None).is_ok() && !fds[1].revents().is_empty() {
                    end_by_signal(&signals);
                    continue;
                }
                let connection = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                    Ok(connection) => connection,
                    Err(Errno::INTR | Errno::CONNABORTED) => continue,
                    Err(e) => return Err(Error::os(Code::Internal, super::store::START_SOCKET, e)),
                };
                if matches!(sync::receive(connection.as_fd()), Ok(Message::Start)) {
                    *report = Some(connection);
                    syssignal::unblock_all().context(Code::Internal, "sigprocmask")?;
                    return Ok(());
                }
            }
        }
    }
}
