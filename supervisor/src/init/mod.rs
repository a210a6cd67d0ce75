//! PID 1 of a workspace.
//!
//! One thread, one epoll instance, no waiting anywhere else: everything that may block because of the workspace (its files, its programs)
//! happens in child processes. What comes from the host and from the workspace is bounded: frames, connections, buffers, terminals, units. A
//! peer that breaks the protocol loses its connection, never more.

mod activity;
mod children;
mod connection;
mod connections;
mod credentials;
mod exec;
mod git_config;
mod poller;
mod ports;
mod request;
mod shutdown;
mod socket_diag;
mod socket_owner;
mod terminal;
mod terminate;
mod timers;
mod tunnel;
mod unit;
mod unit_output;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_supervisor_protocol::{BootInfo, Kind, SignalName};
use hull_sys::sandbox_process::{
    close_inherited_from, ignore_signals, signal_descriptor, signal_numbers, take_inherited,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::cli::{Options, RUN_DIR, complain};
use crate::clock::unix_ms;
use crate::launch::{Defaults, Launch, LaunchError, Launched, launch};
use children::{Child, Role};
use connection::Connection;
use credentials::Credentials;
use exec::Exec;
use poller::{Poller, Token, Watched};
use ports::Ports;
use shutdown::Shutdown;
use terminal::Terminal;
use timers::{Timer, Timers};
use tunnel::Tunnel;
use unit::Units;

/// Everything PID 1 knows.
#[derive(Debug)]
struct Init {
    poller: Poller,
    listener: Watched,
    signals: Watched,
    defaults: Defaults,
    boot: BootInfo,
    run_dir: String,
    next_id: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections to be flushed, pumped and polled again before the next wait.
    dirty: BTreeSet<u64>,
    children: BTreeMap<i32, Child>,
    /// The kernel said that there are no children (ECHILD).
    childless: bool,
    execs: BTreeMap<u64, Exec>,
    terminals: BTreeMap<u64, Terminal>,
    tunnels: BTreeMap<u64, Tunnel>,
    units: Units,
    ports: Ports,
    credentials: Credentials,
    last_input_ms: u64,
    last_tunnel_ms: u64,
    timers: Timers,
    shutdown: Option<Shutdown>,
    /// Read buffer, one for all, because nothing is kept in it between two events.
    buffer: Box<[u8]>,
}

/// Runs the role until the workspace ends. Returns the exit status.
pub(crate) fn main(options: &Options, started: Instant) -> i32 {
    match Init::new(options, started) {
        Ok(mut init) => init.run(),
        Err((what, errno)) => {
            complain(&format!("cannot start: {what}: {errno}"));
            1
        }
    }
}

/// Lets PID 1, which holds the terminals, pipes and connections of everybody, open as many files as it may. The limit that it began with,
/// which is for its children.
fn raise_open_files() -> Option<Rlimit> {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: given.maximum, maximum: given.maximum };
    setrlimit(Resource::Nofile, raised).ok().map(|()| given)
}

impl Init {
    fn new(options: &Options, started: Instant) -> Result<Self, (&'static str, Errno)> {
        let listener = take_inherited(options.listen_fd).map_err(|errno| ("the listening socket", errno))?;
        if let Ok(next) = u32::try_from(options.listen_fd + 1) {
            close_inherited_from(next);
        }
        rustix::io::ioctl_fionbio(&listener, true).map_err(|errno| ("the listening socket", errno))?;
        ignore_signals(&[Signal::PIPE]);
        let watched = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
        let signals = signal_descriptor(&watched).map_err(|errno| ("signals", errno))?;
        // Orphans come to PID 1 anyway; outside of a pid namespace, as in tests, only to a subreaper.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let poller = Poller::new().map_err(|errno| ("epoll", errno))?;
        let mut listener = poller.watch(listener, Token::Listener);
        listener.interest(true, false);
        let mut signals = poller.watch(signals, Token::Signals);
        signals.interest(true, false);
        let open_files = raise_open_files();
        let run_dir = options.run_dir.clone().unwrap_or_else(|| RUN_DIR.to_owned());
        git_config::make();
        let credentials = Credentials::listen(&poller, options.user.as_deref(), &run_dir);
        let boot = BootInfo {
            started_at_ms: unix_ms(),
            startup_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            user: options.user.clone(),
            cwd: options.cwd.clone(),
        };
        Ok(Self {
            poller,
            listener,
            signals,
            defaults: Defaults {
                user: options.user.clone(),
                cwd: options.cwd.clone(),
                env: options.env.clone(),
                open_files,
            },
            boot,
            run_dir,
            next_id: 0,
            connections: BTreeMap::new(),
            dirty: BTreeSet::new(),
            children: BTreeMap::new(),
            childless: false,
            execs: BTreeMap::new(),
            terminals: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            units: Units::default(),
            ports: Ports::default(),
            credentials,
            last_input_ms: 0,
            last_tunnel_ms: 0,
            timers: Timers::default(),
            shutdown: None,
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
        })
    }

    fn run(&mut self) -> i32 {
        let mut ready = Vec::with_capacity(64);
        loop {
            self.settle();
            if self.shutdown.is_some() {
                self.reap();
                self.settle();
                if self.is_over() {
                    return 0;
                }
            }
            let timeout = if self.dirty.is_empty() { self.timers.wait() } else { Some(Duration::ZERO) };
            if let Err(errno) = self.poller.wait(timeout, &mut ready) {
                // Nothing can be waited for any more: all that is left is to end the workspace.
                complain(&format!("cannot wait for events: {errno}"));
                return 1;
            }
            for (token, writable) in ready.drain(..) {
                self.dispatch(token, writable);
            }
            let now = Instant::now();
            while let Some(timer) = self.timers.pop(now) {
                self.fire(timer);
            }
        }
    }

    fn dispatch(&mut self, token: Token, writable: bool) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.signals_ready(),
            Token::CredentialListener => self.credential_accept(),
            Token::Connection(id) => self.connection_ready(id),
            Token::CredentialClient(id) => self.credential_client_ready(id),
            Token::Launch(pid) => self.launch_status_ready(pid),
            Token::ExecIn(id) => self.exec_input_ready(id),
            Token::ExecOut(id) => self.exec_output(id, Kind::Stdout),
            Token::ExecErr(id) => self.exec_output(id, Kind::Stderr),
            Token::Terminal(id) => self.terminal_ready(id, writable),
            Token::UnitOutput(id) => self.unit_output(id),
            Token::Tunnel(id) => self.tunnel_ready(id, writable),
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::ExecLinger(id) => self.exec_linger_over(id),
            Timer::TerminalLinger(id) => self.terminal_linger_over(id),
            Timer::TerminalRest(id) => self.terminal_rested(id),
            Timer::TerminalStall(id) => self.terminal_stalled(id),
            Timer::KillChild(pid) => self.kill_child(pid),
            Timer::UnitProbe { id, run } => self.unit_probe_due(&id, run),
            Timer::UnitReadyBy { id, run } => self.unit_ready_deadline(&id, run),
            Timer::UnitHangUp { id, run } => self.unit_hang_up(&id, run),
            Timer::UnitStopBy { id, run } => self.unit_stop_deadline(&id, run),
            Timer::Ports => self.ports_due(),
            Timer::Activity(id) => self.activity_due(id),
            Timer::Credential(id) => self.credential_overdue(id),
            Timer::Shutdown => self.shutdown_step(),
        }
    }

    fn signals_ready(&mut self) {
        let Some(count) = self.signals.read(&mut self.buffer) else { return };
        let numbers: Vec<i32> = signal_numbers(self.buffer.get(..count).unwrap_or_default()).collect();
        for number in numbers {
            if number == Signal::CHILD.as_raw() {
                self.reap();
            } else if number == Signal::TERM.as_raw() || number == Signal::INT.as_raw() {
                self.shut_down(shutdown::DEFAULT_GRACE);
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn launch(&self, what: Launch) -> Result<Launched, LaunchError> {
        launch(what, &self.defaults)
    }

    fn adopt_child(&mut self, pid: rustix::process::Pid, status: OwnedFd, role: Role) {
        let raw = pid.as_raw_nonzero().get();
        let mut status = self.poller.watch(status, Token::Launch(u64::from(raw.unsigned_abs())));
        status.interest(true, false);
        self.childless = false;
        self.children.insert(raw, Child::new(role, status));
    }
}

/// How long a process may ignore a hangup.
const HANGUP_GRACE: Duration = Duration::from_secs(10);

/// The signal of that name.
fn signal_of(name: SignalName) -> Signal {
    match name {
        SignalName::Hup => Signal::HUP,
        SignalName::Int => Signal::INT,
        SignalName::Quit => Signal::QUIT,
        SignalName::Term => Signal::TERM,
        SignalName::Kill => Signal::KILL,
        SignalName::Usr1 => Signal::USR1,
        SignalName::Usr2 => Signal::USR2,
        SignalName::Winch => Signal::WINCH,
        SignalName::Tstp => Signal::TSTP,
        SignalName::Cont => Signal::CONT,
    }
}
