//! The shutdown: stop commands of services; SIGTERM to everyone, with SIGHUP to terminals and to those who ignore SIGTERM; SIGHUP to
//! everyone; SIGKILL.

use std::time::{Duration, Instant};

use hull_sys::sandbox_process::signal_everyone;
use rustix::process::Signal;

use super::Init;
use super::terminate::hang_up_on_the_deaf;
use super::timers::Timer;

/// Longest grace period that is granted.
const MAX_GRACE: Duration = Duration::from_secs(3600);
/// Grace period of a plain SIGTERM.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Processes that have not followed SIGTERM by then get SIGHUP too.
const HANG_UP_AFTER: Duration = Duration::from_secs(2);
/// After SIGKILL, how long the kernel may take before PID 1 leaves the rest to the end of the pid namespace.
const REAP: Duration = Duration::from_secs(2);

/// Where the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Stop commands run.
    StopCommands,
    /// Everyone has been asked to end.
    Asked,
    /// Everyone has been hung up on.
    HungUp,
    /// Everyone has been killed.
    Killed,
}

/// A shutdown under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shutdown {
    phase: Phase,
    deadline: Instant,
}

impl Init {
    /// Begins the shutdown. A second call can only bring the end forward.
    pub(super) fn shut_down(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace.min(MAX_GRACE);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.deadline = shutdown.deadline.min(deadline);
        } else {
            self.shutdown = Some(Shutdown { phase: Phase::StopCommands, deadline });
            if !self.units_stop_all() {
                self.shutdown_ask();
            } else {
                // Half of the time for stop commands, the other half for signals.
                self.timers.after(grace.min(MAX_GRACE) / 2, Timer::Shutdown);
            }
        }
        self.timers.after(grace.min(MAX_GRACE), Timer::Shutdown);
    }

    fn shutdown_ask(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.phase = Phase::Asked;
        }
        hang_up_on_the_deaf();
        let _ = signal_everyone(Signal::TERM);
        self.terminals_hang_up();
        // A stopped process takes no signal but this one.
        let _ = signal_everyone(Signal::CONT);
        let left = self
            .shutdown
            .map_or(Duration::ZERO, |shutdown| shutdown.deadline.saturating_duration_since(Instant::now()));
        self.timers.after(HANG_UP_AFTER.min(left / 2), Timer::Shutdown);
    }

    /// A timer of the shutdown fired, or a stop command ended.
    pub(super) fn shutdown_step(&mut self) {
        let Some(Shutdown { phase, deadline }) = self.shutdown else { return };
        let over = deadline <= Instant::now();
        match phase {
            Phase::StopCommands | Phase::Asked | Phase::HungUp if over => {
                if let Some(shutdown) = &mut self.shutdown {
                    *shutdown = Shutdown { phase: Phase::Killed, deadline: Instant::now() + REAP };
                }
                let _ = signal_everyone(Signal::KILL);
                self.timers.after(REAP, Timer::Shutdown);
            }
            // Half time, or all of them have ended.
            Phase::StopCommands => self.shutdown_ask(),
            Phase::Asked => {
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.phase = Phase::HungUp;
                }
                let _ = signal_everyone(Signal::HUP);
            }
            Phase::HungUp | Phase::Killed => {}
        }
    }

    /// Whether PID 1 may go: nobody is left, or everything has been tried.
    pub(super) fn is_over(&self) -> bool {
        let Some(shutdown) = &self.shutdown else { return false };
        let given_up = shutdown.phase == Phase::Killed && shutdown.deadline <= Instant::now();
        // Stop commands are children; without any child there is nobody to wait for, whatever the phase.
        self.childless || given_up
    }

    /// Whether every process has been told to end: whoever ends now has not failed.
    pub(super) fn everyone_was_asked_to_end(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.phase != Phase::StopCommands)
    }

    /// Whether the shutdown waits for stop commands that have all ended.
    pub(super) fn stop_commands_are_over(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.phase == Phase::StopCommands) && !self.units_stopping()
    }
}
