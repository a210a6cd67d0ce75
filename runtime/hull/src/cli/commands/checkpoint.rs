//! `hull checkpoint` and `hull restore`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::cgroup::Cgroup;
use crate::container::criu::{self, Options};
use crate::container::foreground::{self, Signals};
use crate::container::store::{Entry, Status};
use crate::container::{bundle, delete, restore as container_restore, start};
use crate::error::{Code, Error, Result};

/// Whether CRIU is installed.
pub(super) fn criu_installed() -> bool {
    criu::find().is_some()
}

fn options(parsed: &Parsed) -> Result<Options> {
    let absolute = |name: &str| parsed.owned(name).map(|p| bundle::absolute(&p)).transpose();
    let image = absolute("image-path")?.map_or_else(|| bundle::absolute("checkpoint"), Ok)?;
    Ok(Options {
        image,
        work: absolute("work-path")?,
        parent: parsed.owned("parent-path"),
        leave_running: parsed.is("leave-running") || parsed.is("pre-dump"),
        pre_dump: parsed.is("pre-dump"),
        tcp_established: parsed.is("tcp-established"),
        tcp_close: parsed.is("tcp-close"),
        skip_in_flight: parsed.is("tcp-skip-in-flight"),
        link_remap: parsed.is("link-remap"),
        unix_sockets: parsed.is("ext-unix-sk"),
        shell_job: parsed.is("shell-job"),
        lazy_pages: parsed.is("lazy-pages"),
        file_locks: parsed.is("file-locks"),
        auto_dedup: parsed.is("auto-dedup"),
        // runc's default, which stands for none, is a number too.
        status_fd: parsed.number::<i32>("status-fd")?.and_then(|fd| u32::try_from(fd).ok()),
        page_server: parsed.owned("page-server"),
        cgroups_mode: parsed.owned("manage-cgroups-mode"),
        empty_namespaces: parsed.all("empty-ns").map(str::to_owned).collect(),
        lsm_profile: parsed.owned("lsm-profile"),
        lsm_mount_context: parsed.owned("lsm-mount-context"),
    })
}

pub(in super::super) fn checkpoint(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    entry.lock()?;
    let state = entry.state()?;
    match state.status(&entry) {
        Status::Running | Status::Paused => {}
        status => {
            let text = format!("cannot checkpoint a container that is {}", status.as_str());
            return Err(Error::new(Code::WrongState, state.id).says(text));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(Code::Checkpoint, "checkpoint").says("checkpoint needs root"));
    }
    let options = options(parsed)?;
    criu::dump(&options, &entry.config()?, state.pid, &Cgroup::open(&state.cgroup))?;
    if !options.leave_running {
        // As if it had ended by itself: the image is all that is left.
        delete::clean(&entry, &state)?;
    }
    Ok(0)
}

pub(in super::super) fn restore(global: &Global, parsed: &Parsed) -> Result<i32> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(Code::Checkpoint, "restore").says("restore needs root"));
    }
    let mut create = super::create::options(global, parsed, parsed.arg(0))?;
    let detach = parsed.is("detach");
    create.foreground = !detach;
    let signals = if detach { None } else { Some(Signals::catch()?) };
    let restored = container_restore::restore(&create, &options(parsed)?)?;
    restored.entry.unlock();
    let spec = restored.entry.config()?;
    start::poststart(&spec, &restored.state, &restored.pidfd)?;
    let Some(signals) = signals else { return Ok(0) };
    let status = foreground::attend(&restored.pidfd, &signals, restored.terminal.as_ref(), None)?;
    restored.entry.lock()?;
    delete::clean(&restored.entry, &restored.state)?;
    Ok(status)
}
