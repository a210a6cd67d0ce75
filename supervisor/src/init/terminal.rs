//! Terminals: a pty, the last 256 KiB of its output, and however many connections are attached to it.

use std::time::{Duration, Instant};

use berth_supervisor_protocol::{
    Control, ErrorCode, Event, Exec as ExecRequest, ExitStatus, Frame, Kind, Reply, TerminalInfo, TerminalOpen,
    TerminalState, TtySize,
};
use rustix::process::{Pid, kill_process_group};
use rustix::termios::tcgetpgrp;

use super::connection::{HIGH_WATER, INPUT_HIGH_WATER, Mode, PIECE};
use super::poller::{Token, Watched};
use super::timers::Timer;
use super::{Init, Role, signal_of};
use crate::clock::unix_ms;
use crate::launch::{Launch, LaunchError, Program, Streams, set_size};
use crate::ring::Ring;

/// Bytes of output kept for late joiners.
const SCROLLBACK: usize = 256 * 1024;
/// A reader that falls further behind than this makes the terminal wait, for a while.
const MAX_BEHIND: u64 = 128 * 1024;
/// How long the terminal waits for a reader that takes nothing.
const STALL: Duration = Duration::from_secs(2);
/// The kernel hands a terminal's output line by line to a fast reader, so a program that prints a lot would cost a frame per line. After
/// reads of less than this many bytes, twice within the time below, that time is spent gathering more. What a user types is echoed at once.
const CRUMB: usize = 2048;
const REST: Duration = Duration::from_millis(2);
/// Most bytes of one terminal before others have their turn.
const READ_AT_ONCE: usize = 64 * 1024;
/// After the command's end, how long its children may still write.
const LINGER: Duration = Duration::from_millis(200);
/// Most terminals at once.
const MAX_TERMINALS: usize = 64;
/// Ended terminals whose scrollback is kept.
const MAX_ENDED: usize = 8;
/// What end of file looks like on a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    name: Option<String>,
    argv: Vec<String>,
    pid: Pid,
    master: Option<Watched>,
    size: TtySize,
    created_at_ms: u64,
    ring: Ring,
    input: Vec<u8>,
    launched: bool,
    /// The connection that is told once it was made.
    opener: Option<u64>,
    exit: Option<ExitStatus>,
    /// Made by an exec request: not listed, and gone when it has ended.
    exec: bool,
    close_on_detach: bool,
    closing: bool,
    /// Nobody has the other side open, though the command lives: it is looked at again later.
    abandoned: bool,
    /// When output was last read.
    last_read: Instant,
    /// Output comes in small pieces, one after the other: it is left to gather for a moment.
    resting: bool,
}

impl Terminal {
    pub(super) fn input_is_full(&self) -> bool {
        self.input.len() > INPUT_HIGH_WATER
    }

    /// Nothing more will come out of it.
    fn drained(&self) -> bool {
        self.exit.is_some() && self.master.is_none()
    }

    fn info(&self, id: u64, attached: usize) -> TerminalInfo {
        TerminalInfo {
            id: format!("t{id}"),
            name: self.name.clone(),
            argv: self.argv.clone(),
            pid: u32::try_from(self.pid.as_raw_nonzero().get()).unwrap_or(0),
            size: self.size,
            created_at_ms: self.created_at_ms,
            attached: u32::try_from(attached).unwrap_or(u32::MAX),
            scrollback_bytes: self.ring.end() - self.ring.start(),
            state: self.exit.map_or(TerminalState::Running, TerminalState::Exited),
        }
    }

    fn write_input(&mut self) {
        let Some(master) = &self.master else {
            self.input = Vec::new();
            return;
        };
        if let Ok(count) = master.write(&self.input) {
            self.input.drain(..count);
        } else {
            self.input = Vec::new();
        }
    }
}

fn no_such(id: &str) -> LaunchError {
    LaunchError { code: ErrorCode::NotFound, message: format!("there is no terminal {id} in this workspace") }
}

impl Init {
    /// Makes a terminal.
    pub(super) fn terminal_open(&mut self, connection: u64, request: TerminalOpen) -> Result<(), LaunchError> {
        if request.argv.as_ref().is_some_and(|argv| argv.first().is_none_or(String::is_empty)) {
            return Err(LaunchError {
                code: ErrorCode::BadRequest,
                message: "the terminal's command is empty".to_owned(),
            });
        }
        let argv = request.argv.clone().unwrap_or_default();
        let launch = Launch {
            program: request.argv.map_or(Program::LoginShell, Program::Argv),
            env: request.env,
            cwd: request.cwd,
            user: request.user,
            term: Some(request.term.unwrap_or_else(|| "xterm-256color".to_owned())),
            streams: Streams::Terminal(request.size),
        };
        let id = self.make_terminal(connection, launch, argv, request.size)?;
        if let Some(terminal) = self.terminals.get_mut(&id) {
            terminal.name = request.name;
            terminal.close_on_detach = request.close_on_detach;
        }
        if request.attach {
            self.set_mode(connection, attached(id, 0));
        }
        Ok(())
    }

    /// An exec request that wants a terminal.
    pub(super) fn exec_on_terminal(
        &mut self,
        connection: u64,
        request: ExecRequest,
        size: TtySize,
    ) -> Result<(), LaunchError> {
        let argv = request.argv.clone();
        let launch = Launch {
            program: Program::Argv(request.argv),
            env: request.env,
            cwd: request.cwd,
            user: request.user,
            term: Some(request.term.unwrap_or_else(|| "xterm-256color".to_owned())),
            streams: Streams::Terminal(size),
        };
        let id = self.make_terminal(connection, launch, argv, size)?;
        if let Some(terminal) = self.terminals.get_mut(&id) {
            terminal.exec = true;
            terminal.close_on_detach = !request.keep_on_disconnect;
        }
        self.set_mode(connection, attached(id, 0));
        Ok(())
    }

    fn make_terminal(
        &mut self,
        opener: u64,
        launch: Launch,
        argv: Vec<String>,
        size: TtySize,
    ) -> Result<u64, LaunchError> {
        if self.terminals.len() >= MAX_TERMINALS {
            let message = format!("the workspace has {MAX_TERMINALS} terminals, close some");
            return Err(LaunchError { code: ErrorCode::LimitReached, message });
        }
        let launched = self.launch(launch)?;
        let id = self.new_id();
        let terminal = Terminal {
            name: None,
            argv,
            pid: launched.pid,
            master: launched.master.map(|fd| self.poller.watch(fd, Token::Terminal(id))),
            size,
            created_at_ms: unix_ms(),
            ring: Ring::new(SCROLLBACK),
            input: Vec::new(),
            launched: false,
            opener: Some(opener),
            exit: None,
            exec: false,
            close_on_detach: false,
            closing: false,
            abandoned: false,
            last_read: Instant::now(),
            resting: false,
        };
        self.terminals.insert(id, terminal);
        self.adopt_child(launched.pid, launched.status, Role::Terminal(id));
        Ok(id)
    }

    /// The terminal's program runs, or could not be executed.
    pub(super) fn terminal_launched(&mut self, id: u64, result: Result<(), LaunchError>) {
        let readers = self.attached_to(id);
        let Some(terminal) = self.terminals.get_mut(&id) else { return };
        let opener = terminal.opener.take();
        match result {
            Ok(()) => {
                terminal.launched = true;
                let info = terminal.info(id, readers.len());
                let reply = if terminal.exec {
                    Reply::Started { pid: info.pid, input_window: None }
                } else {
                    Reply::Terminal(info)
                };
                self.reply(opener, &reply);
                self.dirty.extend(readers);
                self.terminal_settle(id);
            }
            Err(error) => {
                self.terminals.remove(&id);
                self.refuse(opener, error);
            }
        }
    }

    fn attached_to(&self, id: u64) -> Vec<u64> {
        let attached = |mode: &Mode| matches!(mode, Mode::Terminal { id: of, .. } if *of == id);
        self.connections.iter().filter(|(_, connection)| attached(&connection.mode)).map(|(id, _)| *id).collect()
    }

    fn terminal_id(&self, name: &str) -> Result<u64, LaunchError> {
        let id = name.strip_prefix('t').and_then(|id| id.parse().ok());
        let found = id.filter(|id| self.terminals.get(id).is_some_and(|terminal| terminal.launched && !terminal.exec));
        found.ok_or_else(|| no_such(name))
    }

    /// Joins a terminal.
    pub(super) fn terminal_attach(&mut self, connection: u64, name: &str, scrollback: u64) -> Result<(), LaunchError> {
        let id = self.terminal_id(name)?;
        let readers = self.attached_to(id).len();
        let terminal = self.terminals.get(&id).ok_or_else(|| no_such(name))?;
        let cursor = terminal.ring.before_end(scrollback);
        let reply = Reply::Terminal(terminal.info(id, readers + 1));
        self.reply(Some(connection), &reply);
        self.set_mode(connection, attached(id, cursor));
        Ok(())
    }

    pub(super) fn terminal_list(&self) -> Reply {
        let listed = self.terminals.iter().filter(|(_, terminal)| terminal.launched && !terminal.exec);
        Reply::Terminals {
            terminals: listed.map(|(id, terminal)| terminal.info(*id, self.attached_to(*id).len())).collect(),
        }
    }

    pub(super) fn terminal_close(&mut self, name: &str) -> Result<Reply, LaunchError> {
        let id = self.terminal_id(name)?;
        self.terminal_hang_up(id);
        Ok(Reply::Done)
    }

    fn terminal_hang_up(&mut self, id: u64) {
        let Some(terminal) = self.terminals.get_mut(&id) else { return };
        terminal.closing = true;
        if terminal.exit.is_none() {
            let pid = terminal.pid;
            let foreground =
                terminal.master.as_ref().and_then(|master| tcgetpgrp(master).ok()).filter(|group| *group != pid);
            self.hang_up(pid);
            if let Some(group) = foreground {
                let _ = kill_process_group(group, rustix::process::Signal::HUP);
                let _ = kill_process_group(group, rustix::process::Signal::TERM);
            }
        }
        self.terminal_finish(id);
    }

    /// Hangs up on the shells of all terminals, for the shutdown.
    pub(super) fn terminals_hang_up(&self) {
        for terminal in self.terminals.values().filter(|terminal| terminal.exit.is_none()) {
            let _ = kill_process_group(terminal.pid, rustix::process::Signal::HUP);
        }
    }

    pub(super) fn terminal_resize(&mut self, name: &str, size: TtySize) -> Result<Reply, LaunchError> {
        let id = self.terminal_id(name)?;
        self.resize(id, size, None);
        Ok(Reply::Done)
    }

    fn resize(&mut self, id: u64, size: TtySize, by: Option<u64>) {
        let readers = self.attached_to(id);
        let Some(terminal) = self.terminals.get_mut(&id).filter(|terminal| terminal.size != size) else { return };
        if terminal.master.as_ref().is_some_and(|master| set_size(master, size).is_ok()) {
            terminal.size = size;
            for reader in readers.into_iter().filter(|reader| Some(*reader) != by) {
                self.event(Some(reader), &Event::Resized(size));
            }
        }
    }

    /// A frame of the host for a terminal.
    pub(super) fn terminal_frame(&mut self, connection: u64, id: u64, frame: &Frame) -> bool {
        match frame.kind {
            Kind::Stdin => {
                self.touch_input();
                if let Some(terminal) = self.terminals.get_mut(&id) {
                    if frame.payload.is_empty() && terminal.exec {
                        terminal.input.push(END_OF_TRANSMISSION);
                    }
                    terminal.input.extend_from_slice(&frame.payload);
                    terminal.write_input();
                    self.terminal_settle(id);
                }
                true
            }
            Kind::Json => {
                match frame.json::<Control>() {
                    Ok(Control::Resize(size)) => self.resize(id, size, Some(connection)),
                    Ok(Control::Signal { signal }) => {
                        let terminal = self.terminals.get(&id).filter(|terminal| terminal.exit.is_none());
                        if let Some(terminal) = terminal {
                            let foreground = terminal.master.as_ref().and_then(|master| tcgetpgrp(master).ok());
                            let _ = kill_process_group(foreground.unwrap_or(terminal.pid), signal_of(signal));
                        }
                    }
                    _ => return false,
                }
                true
            }
            _ => false,
        }
    }

    /// The terminal has output, or room for input.
    pub(super) fn terminal_ready(&mut self, id: u64, writable: bool) {
        let Some(terminal) = self.terminals.get_mut(&id) else { return };
        if writable && !terminal.input.is_empty() {
            terminal.write_input();
        }
        let mut total = 0;
        while let Some(master) = terminal.master.as_ref().filter(|_| total < READ_AT_ONCE) {
            match master.read(&mut self.buffer) {
                None => break,
                // EIO, once nobody has the other side open.
                Some(0) => {
                    if terminal.exit.is_some() {
                        terminal.master = None;
                    } else if !terminal.abandoned {
                        // Between two programs that open it, or a command that detached itself; only the command's end ends it for good.
                        terminal.abandoned = true;
                        self.timers.after(LINGER, Timer::TerminalLinger(id));
                    }
                    break;
                }
                Some(count) => {
                    terminal.ring.push(self.buffer.get(..count).unwrap_or_default());
                    total += count;
                }
            }
        }
        if total > 0 {
            self.ports.nudge(&mut self.timers);
            let now = Instant::now();
            if total < CRUMB && now.duration_since(terminal.last_read) < REST && !terminal.resting {
                terminal.resting = true;
                self.timers.after(REST, Timer::TerminalRest(id));
            }
            terminal.last_read = now;
        }
        let readers = self.attached_to(id);
        self.dirty.extend(readers);
        self.terminal_settle(id);
        self.terminal_finish(id);
    }

    /// Output has had time to gather.
    pub(super) fn terminal_rested(&mut self, id: u64) {
        if let Some(terminal) = self.terminals.get_mut(&id) {
            terminal.resting = false;
            self.terminal_settle(id);
        }
    }

    /// The terminal's command has ended.
    pub(super) fn terminal_exited(&mut self, id: u64, status: ExitStatus) {
        let Some(terminal) = self.terminals.get_mut(&id) else { return };
        terminal.exit = Some(status);
        self.timers.after(LINGER, Timer::TerminalLinger(id));
        self.terminal_ready(id, false);
    }

    /// Whoever still has the terminal open is hung up on.
    pub(super) fn terminal_linger_over(&mut self, id: u64) {
        if let Some(terminal) = self.terminals.get_mut(&id).filter(|terminal| terminal.exit.is_none()) {
            terminal.abandoned = false;
            self.terminal_settle(id);
            return;
        }
        // What is there now still goes out.
        for _ in 0..16 {
            self.terminal_ready(id, false);
        }
        if let Some(terminal) = self.terminals.get_mut(&id) {
            terminal.master = None;
        }
        let readers = self.attached_to(id);
        self.dirty.extend(readers);
        self.terminal_finish(id);
    }

    /// Forgets a terminal that nobody can want any more, and the oldest if too many have ended.
    fn terminal_finish(&mut self, id: u64) {
        let unattended = self.attached_to(id).is_empty();
        let over = self.terminals.get(&id).is_some_and(|terminal| {
            terminal.drained() && unattended && (terminal.exec || terminal.closing || terminal.close_on_detach)
        });
        if over {
            self.terminals.remove(&id);
        }
        let ended: Vec<u64> =
            self.terminals.iter().filter(|(_, terminal)| terminal.drained()).map(|(id, _)| *id).collect();
        for id in ended.iter().rev().skip(MAX_ENDED) {
            if self.attached_to(*id).is_empty() {
                self.terminals.remove(id);
            }
        }
    }

    /// Moves a terminal's output to a connection, and resumes or pauses the terminal.
    pub(super) fn terminal_pump(&mut self, connection: u64) {
        let Some(conn) = self.connections.get_mut(&connection) else { return };
        let Mode::Terminal { id, mut cursor, mut lagging, stalled_at } = conn.mode else { return };
        let Some(terminal) = self.terminals.get(&id).filter(|terminal| terminal.launched) else { return };
        let ring = &terminal.ring;
        if cursor < ring.start() {
            conn.event(&Event::Lagged { skipped_bytes: ring.start() - cursor });
            cursor = ring.start();
        }
        let mut piece = Vec::new();
        while cursor < ring.end() && conn.pending() < HIGH_WATER {
            piece.clear();
            cursor = ring.copy(cursor, PIECE, &mut piece);
            conn.bytes(Kind::Stdout, &piece);
        }
        lagging &= cursor < ring.end();
        conn.mode = Mode::Terminal { id, cursor, lagging, stalled_at };
        if let (true, Some(status)) = (terminal.drained() && cursor == ring.end(), terminal.exit) {
            conn.event(&Event::Exited(status));
            conn.mode = Mode::Closing;
            self.terminal_finish(id);
        } else {
            self.terminal_settle(id);
        }
    }

    /// Reads a terminal while its readers keep up, and arms the stall timer when one does not.
    fn terminal_settle(&mut self, id: u64) {
        let Some(terminal) = self.terminals.get_mut(&id) else { return };
        let end = terminal.ring.end();
        let mut waits = false;
        for connection in self.connections.values_mut() {
            if let Mode::Terminal { id: of, cursor, lagging: false, stalled_at } = &mut connection.mode
                && *of == id
                && end - *cursor > MAX_BEHIND
            {
                waits = true;
                if stalled_at.is_none() {
                    *stalled_at = Some(*cursor);
                    self.timers.after(STALL, Timer::TerminalStall(id));
                }
            }
        }
        let reads = terminal.launched && !waits && !terminal.abandoned && !terminal.resting;
        let writes = !terminal.input.is_empty() && !terminal.abandoned;
        if let Some(master) = &mut terminal.master {
            master.interest(reads, writes);
        }
    }

    /// Readers that took nothing since the timer was armed no longer hold up the terminal.
    pub(super) fn terminal_stalled(&mut self, id: u64) {
        for connection in self.connections.values_mut() {
            if let Mode::Terminal { id: of, cursor, lagging, stalled_at } = &mut connection.mode
                && *of == id
                && let Some(then) = stalled_at.take()
            {
                *lagging = then == *cursor;
            }
        }
        self.terminal_settle(id);
    }

    /// A connection has left a terminal.
    pub(super) fn terminal_detached(&mut self, id: u64) {
        let unattended = self.attached_to(id).is_empty();
        let closes = self.terminals.get(&id).is_some_and(|terminal| terminal.close_on_detach);
        if unattended && closes {
            self.terminal_hang_up(id);
        }
        self.terminal_settle(id);
        self.terminal_finish(id);
    }
}

fn attached(id: u64, cursor: u64) -> Mode {
    Mode::Terminal { id, cursor, lagging: false, stalled_at: None }
}
