//! Commands without a terminal: three pipes between a process and a connection.

use std::time::Duration;

use berth_supervisor_protocol::{Control, ErrorCode, Event, Exec as Request, ExitStatus, Frame, Kind, Reply};
use rustix::process::{Pid, kill_process_group};

use super::connection::{HIGH_WATER, INPUT_HIGH_WATER, INPUT_WINDOW, Mode, Taken};
use super::poller::{Token, Watched};
use super::timers::Timer;
use super::{Init, Role, signal_of};
use crate::launch::{Launch, LaunchError, Program, Streams};

/// After a command has ended, how long to wait for children of it that still hold its output.
const LINGER: Duration = Duration::from_millis(500);

/// A command.
#[derive(Debug)]
pub(super) struct Exec {
    connection: Option<u64>,
    pid: Pid,
    started: bool,
    stdin: Option<Watched>,
    input: Vec<u8>,
    input_ended: bool,
    taken: Taken,
    stdout: Option<Watched>,
    stderr: Option<Watched>,
    exit: Option<ExitStatus>,
    keep: bool,
}

impl Exec {
    pub(super) fn input_is_full(&self) -> bool {
        self.input.len() > INPUT_HIGH_WATER
    }

    fn flush_input(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.input) {
                Ok(count) => {
                    self.taken.add(count);
                    self.input.drain(..count);
                    stdin.interest(false, !self.input.is_empty());
                    if self.input_ended && self.input.is_empty() {
                        self.stdin = None;
                    }
                }
                // The command has closed its input; its output is still wanted.
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() {
            // Further input is accepted and discarded.
            self.taken.add(self.input.len());
            self.input = Vec::new();
        }
    }
}

impl Init {
    /// Starts a command for a connection.
    pub(super) fn exec(&mut self, connection: u64, request: Request) -> Result<(), LaunchError> {
        if request.argv.first().is_none_or(String::is_empty) {
            return Err(LaunchError { code: ErrorCode::BadRequest, message: "exec needs a program".to_owned() });
        }
        if let Some(size) = request.tty {
            return self.exec_on_terminal(connection, request, size);
        }
        let (stdin, keep) = (request.stdin, request.keep_on_disconnect);
        let launched = self.launch(Launch {
            program: Program::Argv(request.argv),
            env: request.env,
            cwd: request.cwd,
            user: request.user,
            term: None,
            streams: Streams::Pipes { stdin },
        })?;
        let id = self.new_id();
        let exec = Exec {
            connection: Some(connection),
            pid: launched.pid,
            started: false,
            stdin: launched.stdin.map(|fd| self.poller.watch(fd, Token::ExecIn(id))),
            input: Vec::new(),
            input_ended: false,
            taken: Taken::default(),
            stdout: launched.stdout.map(|fd| self.poller.watch(fd, Token::ExecOut(id))),
            stderr: launched.stderr.map(|fd| self.poller.watch(fd, Token::ExecErr(id))),
            exit: None,
            keep,
        };
        self.execs.insert(id, exec);
        self.adopt_child(launched.pid, launched.status, Role::Exec(id));
        self.set_mode(connection, Mode::Exec(id));
        Ok(())
    }

    /// The program runs, or could not be executed.
    pub(super) fn exec_launched(&mut self, id: u64, result: Result<(), LaunchError>) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        let connection = exec.connection;
        match result {
            Ok(()) => {
                exec.started = true;
                let pid = u32::try_from(exec.pid.as_raw_nonzero().get()).unwrap_or(0);
                self.reply(connection, &Reply::Started { pid, input_window: Some(INPUT_WINDOW) });
                // There may be no connection to settle, if the host has gone in the meantime and the command is kept.
                self.exec_settle(id);
            }
            Err(error) => {
                self.execs.remove(&id);
                self.refuse(connection, error);
            }
        }
    }

    /// A frame of the host for a command.
    pub(super) fn exec_frame(&mut self, id: u64, frame: &Frame) -> bool {
        match frame.kind {
            Kind::Stdin => {
                self.touch_input();
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.input.extend_from_slice(&frame.payload);
                    exec.input_ended |= frame.payload.is_empty();
                    self.exec_feed(id);
                }
                true
            }
            Kind::Json => {
                match frame.json::<Control>() {
                    Ok(Control::Signal { signal }) => {
                        if let Some(exec) = self.execs.get(&id).filter(|exec| exec.exit.is_none()) {
                            let _ = kill_process_group(exec.pid, signal_of(signal));
                        }
                    }
                    // A size without a terminal means nothing, and does no harm.
                    Ok(Control::Resize(_)) => {}
                    _ => return false,
                }
                true
            }
            _ => false,
        }
    }

    /// The command's input has room again.
    pub(super) fn exec_input_ready(&mut self, id: u64) {
        self.exec_feed(id);
        if let Some(exec) = self.execs.get(&id) {
            self.dirty.extend(exec.connection);
        }
    }

    fn exec_feed(&mut self, id: u64) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        exec.flush_input();
        let connection = exec.connection;
        if let Some(window) = exec.taken.tell() {
            self.event(connection, &window);
        }
    }

    /// Output of a command is there.
    pub(super) fn exec_output(&mut self, id: u64, kind: Kind) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        let stream = if kind == Kind::Stdout { &mut exec.stdout } else { &mut exec.stderr };
        let Some(open) = stream else { return };
        let room = match exec.connection.and_then(|connection| self.connections.get(&connection)) {
            Some(connection) if !exec.started || connection.pending() >= HIGH_WATER => {
                open.interest(false, false);
                return;
            }
            _ => self.buffer.len(),
        };
        let count = open.read(self.buffer.get_mut(..room).unwrap_or_default());
        match count {
            None => {}
            Some(0) => *stream = None,
            Some(count) => {
                let bytes = self.buffer.get(..count).unwrap_or_default();
                if let Some(connection) = exec.connection.and_then(|connection| self.connections.get_mut(&connection)) {
                    connection.bytes(kind, bytes);
                }
                self.ports.nudge(&mut self.timers);
            }
        }
        self.dirty.extend(exec.connection);
        self.exec_finish(id);
    }

    /// The command itself has ended.
    pub(super) fn exec_exited(&mut self, id: u64, status: ExitStatus) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        exec.exit = Some(status);
        exec.stdin = None;
        self.timers.after(LINGER, Timer::ExecLinger(id));
        self.dirty.extend(exec.connection);
        self.exec_finish(id);
    }

    /// Another process holds the command's output open: the rest is discarded.
    pub(super) fn exec_linger_over(&mut self, id: u64) {
        let Some(exec) = self.execs.get(&id) else { return };
        let full = exec.connection.and_then(|connection| self.connections.get(&connection));
        if full.is_some_and(|connection| connection.pending() >= HIGH_WATER) {
            // The host is slow, not the command's children.
            self.timers.after(LINGER, Timer::ExecLinger(id));
            return;
        }
        for kind in [Kind::Stdout, Kind::Stderr] {
            self.exec_output(id, kind);
        }
        if let Some(exec) = self.execs.get_mut(&id) {
            (exec.stdout, exec.stderr) = (None, None);
        }
        self.exec_finish(id);
    }

    fn exec_finish(&mut self, id: u64) {
        let Some(exec) = self.execs.get(&id) else { return };
        let (Some(status), None, None, true) = (exec.exit, &exec.stdout, &exec.stderr, exec.started) else { return };
        let connection = exec.connection;
        self.execs.remove(&id);
        self.event(connection, &Event::Exited(status));
        self.close_after_flush(connection);
    }

    /// Resumes or pauses a command's output, depending on what its connection has waiting.
    pub(super) fn exec_settle(&mut self, id: u64) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        let pending =
            exec.connection.and_then(|id| self.connections.get(&id)).map_or(0, |connection| connection.pending());
        let flows = exec.started && pending < HIGH_WATER;
        for stream in [&mut exec.stdout, &mut exec.stderr].into_iter().flatten() {
            stream.interest(flows, false);
        }
    }

    /// The connection has gone.
    pub(super) fn exec_abandoned(&mut self, id: u64) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        exec.connection = None;
        // The command sees the end of its input, and its output is discarded: the interest that was set for the connection must not stay.
        exec.stdin = None;
        let (pid, keep, ended) = (exec.pid, exec.keep, exec.exit.is_some());
        self.exec_settle(id);
        if !keep && !ended {
            self.hang_up(pid);
        }
    }
}
