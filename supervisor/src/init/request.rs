//! Requests of the host, each dispatched to the part that serves it.

use std::time::Duration;

use berth_supervisor_protocol::{ErrorCode, Frame, Hello, Kind, PROTOCOL_VERSION, Reply, Request};

use super::connection::Mode;
use super::{Init, Role};
use crate::launch::{Launch, LaunchError, Program, Streams};

/// The features of this version, for hosts that know more or fewer.
const FEATURES: [&str; 11] = [
    "exec",
    "terminals",
    "tunnel",
    "ports",
    "files",
    "copy",
    "units",
    "unit_outputs",
    "credentials",
    "activity",
    "git_status",
];

impl Init {
    /// A frame of the host.
    pub(super) fn frame(&mut self, connection: u64, frame: &Frame) {
        let Some(conn) = self.connections.get(&connection) else { return };
        let understood = match conn.mode {
            Mode::Idle => {
                self.request_frame(connection, frame);
                true
            }
            Mode::Exec(id) => self.exec_frame(id, frame),
            Mode::Terminal { id, .. } => self.terminal_frame(connection, id, frame),
            Mode::Tunnel(id) => self.tunnel_frame(id, frame),
            Mode::Credentials => self.credential_frame(connection, frame),
            // Nothing is expected from the host.
            Mode::PortsWatch | Mode::UnitWatch | Mode::UnitLogs { .. } | Mode::ActivityWatch { .. } => false,
            Mode::Handover | Mode::Closing => true,
        };
        if !understood {
            self.drop_connection(connection);
        }
    }

    fn request_frame(&mut self, connection: u64, frame: &Frame) {
        let parsed = if frame.kind == Kind::Json {
            frame.json::<Request>().map_err(|error| error.to_string())
        } else {
            Err("the first frame is not JSON".to_owned())
        };
        let result = match parsed {
            Ok(request) => self.request(connection, request),
            Err(problem) => {
                let message = format!("the request is not understood: {problem}");
                Err(LaunchError { code: ErrorCode::BadRequest, message })
            }
        };
        if let Err(error) = result {
            self.refuse(Some(connection), error);
        }
    }

    fn request(&mut self, connection: u64, request: Request) -> Result<(), LaunchError> {
        let reply = match request {
            Request::Hello => self.hello(),
            Request::Exec(exec) => return self.exec(connection, exec),
            Request::TerminalOpen(open) => return self.terminal_open(connection, open),
            Request::TerminalAttach { id, scrollback_bytes } => {
                return self.terminal_attach(connection, &id, scrollback_bytes);
            }
            Request::TerminalList => self.terminal_list(),
            Request::TerminalClose { id } => self.terminal_close(&id)?,
            Request::TerminalResize { id, size } => self.terminal_resize(&id, size)?,
            Request::Tunnel { port } => return self.tunnel_open(connection, port),
            Request::PortsList => self.ports_now(),
            Request::PortsWatch => {
                self.ports_watch(connection);
                return Ok(());
            }
            Request::UnitStart(spec) => self.unit_start(spec)?,
            Request::UnitStop { id } => self.unit_stop(&id)?,
            Request::UnitList => self.unit_list(),
            Request::UnitWatch => {
                let reply = self.unit_list();
                self.reply(Some(connection), &reply);
                self.set_mode(connection, Mode::UnitWatch);
                return Ok(());
            }
            Request::UnitLogs { id, follow, tail_bytes } => return self.unit_logs(connection, &id, follow, tail_bytes),
            Request::CredentialsServe => {
                self.reply(Some(connection), &Reply::Ready);
                self.set_mode(connection, Mode::Credentials);
                self.credential_ask();
                return Ok(());
            }
            Request::Activity => self.activity_now(),
            Request::ActivityWatch { min_interval_ms } => {
                self.activity_watch(connection, min_interval_ms);
                return Ok(());
            }
            Request::Shutdown { grace_ms } => {
                self.shut_down(Duration::from_millis(grace_ms));
                Reply::Done
            }
            Request::ReadFile { ref user, .. } | Request::Stat { ref user, .. } => {
                return self.hand_over(connection, user.clone(), &request);
            }
            Request::WriteFile(ref write) => return self.hand_over(connection, write.user.clone(), &request),
            Request::CopyIn(ref copy) => return self.hand_over(connection, copy.user.clone(), &request),
            Request::CopyOut(ref copy) => return self.hand_over(connection, copy.user.clone(), &request),
            Request::GitStatus { .. } => return self.hand_over(connection, None, &request),
        };
        self.reply(Some(connection), &reply);
        Ok(())
    }

    fn hello(&self) -> Reply {
        Reply::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.map(str::to_owned).to_vec(),
            boot: self.boot.clone(),
        })
    }

    /// Gives the connection to a worker process.
    fn hand_over(&mut self, connection: u64, user: Option<String>, request: &Request) -> Result<(), LaunchError> {
        let failed = |message: String| LaunchError { code: ErrorCode::Failed, message };
        let json =
            serde_json::to_vec(request).map_err(|error| failed(format!("the request cannot be passed on: {error}")))?;
        let Some(conn) = self.connections.get(&connection) else { return Ok(()) };
        let socket =
            conn.socket.duplicate().map_err(|error| failed(format!("the connection cannot be passed on: {error}")))?;
        let launched = self.launch(Launch {
            program: Program::Own("worker"),
            env: Default::default(),
            cwd: None,
            user,
            term: None,
            streams: Streams::Handover(socket),
        })?;
        // A pipe holds at least a page, and nothing has been written to this one. Dropping it marks the end of the request.
        let written = launched.stdin.as_ref().map(|stdin| rustix::io::write(stdin, &json));
        if written != Some(Ok(json.len())) {
            let _ = rustix::process::kill_process(launched.pid, rustix::process::Signal::KILL);
            self.adopt_child(launched.pid, launched.status, Role::Orphan);
            return Err(LaunchError {
                code: ErrorCode::BadRequest,
                message: "the request's paths are too long".to_owned(),
            });
        }
        self.adopt_child(launched.pid, launched.status, Role::Worker(connection));
        self.set_mode(connection, Mode::Handover);
        Ok(())
    }

    /// The worker runs, or could not be executed.
    pub(super) fn worker_launched(&mut self, connection: u64, result: Result<(), LaunchError>) {
        match result {
            // It belongs to the worker now. Dropping our descriptor closes nothing there.
            Ok(()) => drop(self.connections.remove(&connection)),
            Err(error) => {
                self.set_mode(connection, Mode::Idle);
                self.refuse(Some(connection), error);
            }
        }
    }
}
