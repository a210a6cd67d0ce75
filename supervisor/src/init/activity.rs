//! When the user last did something: for the inactivity timeout.

use std::time::Duration;

use berth_supervisor_protocol::{Activity, Event, Reply};

use super::Init;
use super::connection::Mode;
use super::timers::Timer;
use crate::clock::unix_ms;

/// Least time between two events on one connection.
const MIN_INTERVAL_MS: u64 = 1000;

impl Init {
    /// Somebody typed.
    pub(super) fn touch_input(&mut self) {
        self.last_input_ms = unix_ms();
        self.activity_changed();
    }

    /// Bytes went through a tunnel.
    pub(super) fn touch_tunnel(&mut self) {
        self.last_tunnel_ms = unix_ms();
        self.activity_changed();
    }

    fn activity(&self) -> Activity {
        let count = |wanted: fn(&Mode) -> bool| {
            let count = self.connections.values().filter(|connection| wanted(&connection.mode)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Activity {
            last_input_ms: self.last_input_ms,
            last_tunnel_ms: self.last_tunnel_ms,
            attached: count(|mode| matches!(mode, Mode::Exec(_) | Mode::Terminal { .. })),
            tunnels: count(|mode| matches!(mode, Mode::Tunnel(_))),
        }
    }

    pub(super) fn activity_now(&self) -> Reply {
        Reply::Activity(self.activity())
    }

    pub(super) fn activity_watch(&mut self, connection: u64, min_interval_ms: u64) {
        let now = self.activity();
        self.reply(Some(connection), &Reply::Activity(now));
        let min_interval_ms = min_interval_ms.max(MIN_INTERVAL_MS);
        self.set_mode(connection, Mode::ActivityWatch { min_interval_ms, armed: false, last_sent: now });
    }

    /// Arms a timer for each watcher that has none: events come at most once per interval, and a burst costs one.
    pub(super) fn activity_changed(&mut self) {
        for (id, connection) in &mut self.connections {
            if let Mode::ActivityWatch { min_interval_ms, armed, .. } = &mut connection.mode
                && !*armed
            {
                *armed = true;
                self.timers.after(Duration::from_millis(*min_interval_ms), Timer::Activity(*id));
            }
        }
    }

    /// Time to tell a watcher.
    pub(super) fn activity_due(&mut self, connection: u64) {
        let now = self.activity();
        let Some(conn) = self.connections.get_mut(&connection) else { return };
        if let Mode::ActivityWatch { armed, last_sent, .. } = &mut conn.mode {
            *armed = false;
            if *last_sent != now {
                *last_sent = now;
                conn.event(&Event::Activity(now));
                self.dirty.insert(connection);
            }
        }
    }
}
