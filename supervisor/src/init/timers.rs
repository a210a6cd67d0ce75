//! Things to do later. A timer is never cancelled: when it fires, what it is about is looked up, and may be gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// Give up waiting for the rest of a command's output.
    ExecLinger(u64),
    /// The same for a terminal.
    TerminalLinger(u64),
    /// Read a terminal's output again.
    TerminalRest(u64),
    /// Check whether a reader of a terminal still stands still.
    TerminalStall(u64),
    /// Kill the group of a child that did not follow its hangup.
    KillChild(i32),
    /// Run a unit's readiness command.
    UnitProbe {
        /// The unit.
        id: String,
        /// Of [`UnitStatus::run`](berth_supervisor_protocol::UnitStatus::run).
        run: u64,
    },
    /// A unit must be ready by now.
    UnitReadyBy {
        /// The unit.
        id: String,
        /// As above.
        run: u64,
    },
    /// Send SIGHUP to a unit that was asked to stop and has not.
    UnitHangUp {
        /// The unit.
        id: String,
        /// As above.
        run: u64,
    },
    /// A unit must have stopped by now.
    UnitStopBy {
        /// The unit.
        id: String,
        /// As above.
        run: u64,
    },
    /// Look at the listening ports.
    Ports,
    /// Tell a connection about activity.
    Activity(u64),
    /// A question for a credential has waited long enough.
    Credential(u64),
    /// The next phase of the shutdown.
    Shutdown,
}

/// Timers by their time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Instant, u64), Timer>,
    next: u64,
}

impl Timers {
    pub(super) fn after(&mut self, delay: Duration, timer: Timer) {
        self.next += 1;
        self.due.insert((Instant::now() + delay, self.next), timer);
    }

    /// How long until the next one; `None` if there is none.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()))
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}
