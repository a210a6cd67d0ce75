//! `hull run`.

use std::mem::ManuallyDrop;

use super::super::Global;
use super::super::parse::Parsed;
use crate::container::create::{self, Created};
use crate::container::foreground::{self, Signals};
use crate::container::parent::release;
use crate::container::{delete, notify_socket, start};
use crate::error::Result;
use crate::timeline;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let mut options = super::create::options(global, parsed, parsed.arg(0))?;
    let detach = parsed.is("detach");
    options.run = true;
    options.foreground = !detach;
    let signals = if detach { None } else { Some(Signals::catch()?) };
    // Never taken apart: the process ends soon after the container, and the kernel is quicker at that.
    let created = ManuallyDrop::new(create::create(&options)?);
    // The lock keeps other commands off this container; the deletion below takes it again through another handle.
    created.entry.unlock();
    let keep = parsed.is("keep");
    let followed = follow(&created, signals.as_ref(), keep).inspect_err(|_| {
        let _ = delete::delete(&global.root, &options.id, true);
    })?;
    let Some(status) = followed else { return Ok(0) };
    timeline::mark("ended");
    if keep {
        created.entry.save_exit(status)?;
    } else {
        created.entry.lock()?;
        delete::clean_ended(&created.entry, &created.state, &created.bundle.spec)?;
    }
    timeline::mark("deleted");
    Ok(status)
}

/// Starts the program, and stays with it where that can pass signals on; its exit status, if this saw the end.
fn follow(created: &Created, signals: Option<&Signals>, keep: bool) -> Result<Option<i32>> {
    let notify = notify_socket::listen(&created.entry.path)?;
    release(&created.sync, &created.entry.id)?;
    timeline::mark("started");
    hull_sys::own_clone::let_go();
    start::poststart(&created.bundle.spec, &created.state, &created.pidfd)?;
    let Some(signals) = signals else {
        if keep {
            super::wait::leave_behind(&created.entry, &created.state, &created.pidfd)?;
        }
        if let Some(socket) = notify {
            notify_socket::wait(&socket, &created.pidfd, created.state.pid)?;
        }
        return Ok(None);
    };
    let notify = notify.map(|socket| (socket, created.state.pid));
    foreground::attend(&created.pidfd, signals, created.terminal.as_ref(), notify).map(Some)
}
