//! Tasks and services. Each unit is a state machine; the rules are those of automations files:
//!
//! * exit status 0 is success for a task and a plain end for a service, anything else is failure; nothing is restarted by itself;
//! * a service with a readiness command is starting until that command exits with 0, and fails if that takes too long;
//! * stopping runs the stop command and then kills; without one it sends SIGTERM, then SIGHUP to those that ignore or do not follow it
//!   (an interactive bash ignores it), and kills after the grace period.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_supervisor_protocol::{
    ErrorCode, Event, ExitStatus, Kind, Reply, UnitKind, UnitSpec, UnitState, UnitStatus, is_unit_id,
};
use rustix::process::{Pid, Signal, kill_process_group};

use super::connection::{HIGH_WATER, Mode, PIECE};
use super::poller::{Token, Watched};
use super::terminate::ask_group;
use super::timers::Timer;
use super::unit_output::OutputFile;
use super::{Init, Role};
use crate::clock::unix_ms;
use crate::launch::{Launch, LaunchError, Launched, Program, Streams};
use crate::ring::Ring;

/// Bytes of output kept for each unit.
const LOG: usize = 1024 * 1024;
/// Most units.
const MAX_UNITS: usize = 256;
/// First pause between two runs of a readiness command.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Processes that have not followed SIGTERM by then get SIGHUP too.
const HANG_UP_AFTER: Duration = Duration::from_secs(2);
/// Longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A task or service.
#[derive(Debug)]
struct Unit {
    spec: UnitSpec,
    status: UnitStatus,
    log: Ring,
    main: Option<Pid>,
    probe: Option<Pid>,
    stopper: Option<Pid>,
    pause: Duration,
    stop_requested: bool,
    /// Set once the unit has failed, whatever happens afterwards.
    failure: Option<String>,
    output_file: Option<OutputFile>,
}

/// All units.
#[derive(Debug, Default)]
pub(super) struct Units {
    by_id: BTreeMap<String, Unit>,
    /// Pipes with output of units' commands.
    outputs: BTreeMap<u64, (String, Watched)>,
    version: u64,
}

/// Which of a unit's commands a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Probe,
    Stopper,
}

fn no_such(id: &str) -> LaunchError {
    LaunchError { code: ErrorCode::NotFound, message: format!("there is no task or service {id} in this workspace") }
}

fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("ended with exit status {code}"),
        ExitStatus::Signal(signal) => format!("was killed by signal {signal}"),
    }
}

impl Init {
    /// Starts a unit, or says that it runs already.
    pub(super) fn unit_start(&mut self, spec: UnitSpec) -> Result<Reply, LaunchError> {
        let bad = |message: String| LaunchError { code: ErrorCode::BadRequest, message };
        if !is_unit_id(&spec.id) {
            return Err(bad(format!("{:?} cannot be the id of a task or service", spec.id)));
        }
        if spec.command.is_empty() {
            return Err(bad(format!("{} has no command", spec.id)));
        }
        let run = match self.units.by_id.get(&spec.id) {
            Some(unit) if !unit.status.state.is_final() => {
                if unit.spec == spec && unit.status.state != UnitState::Stopping {
                    return Ok(Reply::Unit(unit.status.clone()));
                }
                let message =
                    format!("{} runs already with another specification, or is stopping: stop it first", spec.id);
                return Err(LaunchError { code: ErrorCode::Conflict, message });
            }
            Some(unit) => unit.status.run + 1,
            None => 1,
        };
        self.make_room(&spec.id)?;
        if self.shutdown.is_some() {
            return Err(LaunchError { code: ErrorCode::Conflict, message: "the workspace is stopping".to_owned() });
        }
        let output_file = OutputFile::make(&self.run_dir, &spec.id, run);
        let launched = self.launch_for(&spec, &spec.command, output_file.as_ref(), Streams::Merged)?;
        let pid = launched.pid;
        let status = UnitStatus {
            id: spec.id.clone(),
            kind: spec.kind,
            state: UnitState::Starting,
            run,
            version: 0,
            pid: u32::try_from(pid.as_raw_nonzero().get()).ok(),
            exit: None,
            message: None,
            started_at_ms: unix_ms(),
            ready_at_ms: None,
            finished_at_ms: None,
            outputs: BTreeMap::new(),
        };
        let id = spec.id.clone();
        let limit = spec.ready_timeout_ms;
        let unit = Unit {
            spec,
            status,
            log: Ring::new(LOG),
            main: Some(pid),
            probe: None,
            stopper: None,
            pause: FIRST_PAUSE,
            stop_requested: false,
            failure: None,
            output_file,
        };
        let waits = unit.spec.kind == UnitKind::Service && unit.spec.ready.is_some();
        self.units.by_id.insert(id.clone(), unit);
        if waits && limit > 0 {
            self.timers.after(Duration::from_millis(limit), Timer::UnitReadyBy { id: id.clone(), run });
        }
        self.unit_adopt(&id, Part::Main, launched);
        self.unit_changed(&id);
        let unit = self.units.by_id.get(&id).ok_or_else(|| no_such(&id))?;
        Ok(Reply::Unit(unit.status.clone()))
    }

    fn make_room(&mut self, id: &str) -> Result<(), LaunchError> {
        if self.units.by_id.len() < MAX_UNITS || self.units.by_id.contains_key(id) {
            return Ok(());
        }
        let ended = self.units.by_id.iter().filter(|(_, unit)| unit.status.state.is_final());
        let oldest = ended.min_by_key(|(_, unit)| unit.status.version).map(|(id, _)| id.clone());
        let Some(oldest) = oldest else {
            let message = format!("the workspace runs {MAX_UNITS} tasks and services, stop some");
            return Err(LaunchError { code: ErrorCode::LimitReached, message });
        };
        self.units.by_id.remove(&oldest);
        Ok(())
    }

    fn launch_for(
        &self,
        spec: &UnitSpec,
        line: &str,
        output_file: Option<&OutputFile>,
        streams: Streams,
    ) -> Result<Launched, LaunchError> {
        let mut env = spec.env.clone();
        if let Some(file) = output_file {
            env.insert("BERTH_OUTPUT".to_owned(), file.path().to_owned());
        }
        self.launch(Launch {
            program: Program::Shell(line.to_owned()),
            env,
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            term: None,
            streams,
        })
    }

    /// Registers a command of a unit: its process and the pipe with its output.
    fn unit_adopt(&mut self, id: &str, part: Part, launched: Launched) {
        if let Some(output) = launched.stdout {
            self.unit_watch_output(id, output);
        }
        self.adopt_child(launched.pid, launched.status, Role::Unit(id.to_owned(), part));
    }

    fn unit_watch_output(&mut self, id: &str, output: OwnedFd) {
        let key = self.new_id();
        let mut watched = self.poller.watch(output, Token::UnitOutput(key));
        watched.interest(true, false);
        self.units.outputs.insert(key, (id.to_owned(), watched));
    }

    /// Output of a unit's command.
    pub(super) fn unit_output(&mut self, key: u64) {
        let Some((id, pipe)) = self.units.outputs.get(&key) else { return };
        match pipe.read(&mut self.buffer) {
            None => {}
            Some(0) => drop(self.units.outputs.remove(&key)),
            Some(count) => {
                if let Some(unit) = self.units.by_id.get_mut(id) {
                    unit.log.push(self.buffer.get(..count).unwrap_or_default());
                }
                self.ports.nudge(&mut self.timers);
                let id = id.clone();
                self.mark_log_readers(&id);
            }
        }
    }

    fn mark_log_readers(&mut self, id: &str) {
        let reads = |mode: &Mode| matches!(mode, Mode::UnitLogs { unit, .. } if unit == id);
        let readers = self.connections.iter().filter(|(_, connection)| reads(&connection.mode)).map(|(id, _)| *id);
        self.dirty.extend(readers);
    }

    /// Tells everyone who watches.
    fn unit_changed(&mut self, id: &str) {
        self.units.version += 1;
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        unit.status.version = self.units.version;
        let event = Event::Unit(unit.status.clone());
        for (connection, conn) in &mut self.connections {
            if matches!(conn.mode, Mode::UnitWatch) {
                conn.event(&event);
                self.dirty.insert(*connection);
            }
        }
        self.mark_log_readers(id);
    }

    pub(super) fn unit_list(&self) -> Reply {
        Reply::Units { units: self.units.by_id.values().map(|unit| unit.status.clone()).collect() }
    }

    /// A unit's command runs, or could not be executed.
    pub(super) fn unit_launched(&mut self, id: &str, part: Part, result: Result<(), LaunchError>) {
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        match (part, result) {
            (Part::Main, Ok(())) if unit.status.state == UnitState::Starting => {
                if unit.spec.kind == UnitKind::Service && unit.spec.ready.is_some() {
                    self.unit_probe(id);
                } else {
                    self.unit_is_ready(id);
                }
            }
            // Its process ends then, which is handled where it is reaped.
            (Part::Main, Err(error)) => unit.failure = Some(error.message),
            (Part::Stopper, Err(error)) => {
                unit.failure = Some(format!("the stop command could not be run: {}", error.message))
            }
            _ => {}
        }
    }

    fn unit_is_ready(&mut self, id: &str) {
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        unit.status.state = UnitState::Running;
        unit.status.ready_at_ms = Some(unix_ms());
        self.unit_changed(id);
    }

    fn unit_probe(&mut self, id: &str) {
        let Some(unit) = self.units.by_id.get(id) else { return };
        let Some(line) = unit.spec.ready.clone() else { return };
        match self.launch_for(&unit.spec, &line, None, Streams::Null) {
            Ok(launched) => {
                if let Some(unit) = self.units.by_id.get_mut(id) {
                    unit.probe = Some(launched.pid);
                }
                self.unit_adopt(id, Part::Probe, launched);
            }
            // No process can be had at the moment.
            Err(_) => self.unit_probe_later(id),
        }
    }

    fn unit_probe_later(&mut self, id: &str) {
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        self.timers.after(unit.pause, Timer::UnitProbe { id: id.to_owned(), run: unit.status.run });
        unit.pause = (unit.pause * 3 / 2).min(LONGEST_PAUSE);
    }

    fn unit_in_state(&self, id: &str, run: u64, state: UnitState) -> bool {
        self.units.by_id.get(id).is_some_and(|unit| unit.status.run == run && unit.status.state == state)
    }

    /// Time for another run of the readiness command.
    pub(super) fn unit_probe_due(&mut self, id: &str, run: u64) {
        if self.unit_in_state(id, run, UnitState::Starting) {
            self.unit_probe(id);
        }
    }

    /// The unit should have been ready by now.
    pub(super) fn unit_ready_deadline(&mut self, id: &str, run: u64) {
        if !self.unit_in_state(id, run, UnitState::Starting) {
            return;
        }
        if let Some(unit) = self.units.by_id.get_mut(id) {
            unit.failure = Some(format!("it was not ready after {} ms", unit.spec.ready_timeout_ms));
        }
        self.unit_begin_stop(id);
    }

    /// Stops a unit; does nothing if it is not running.
    pub(super) fn unit_stop(&mut self, id: &str) -> Result<Reply, LaunchError> {
        let unit = self.units.by_id.get(id).ok_or_else(|| no_such(id))?;
        if matches!(unit.status.state, UnitState::Starting | UnitState::Running) {
            self.unit_begin_stop(id);
        }
        let unit = self.units.by_id.get(id).ok_or_else(|| no_such(id))?;
        Ok(Reply::Unit(unit.status.clone()))
    }

    /// Units that run, for the shutdown: each is asked to stop; says whether one of them has a stop command.
    pub(super) fn units_stop_all(&mut self) -> bool {
        let with_command: Vec<String> = self
            .units
            .by_id
            .iter()
            .filter(|(_, unit)| {
                unit.spec.stop.is_some() && matches!(unit.status.state, UnitState::Starting | UnitState::Running)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &with_command {
            self.unit_begin_stop(id);
        }
        !with_command.is_empty()
    }

    /// Whether a stop command still runs.
    pub(super) fn units_stopping(&self) -> bool {
        self.units.by_id.values().any(|unit| unit.stopper.is_some())
    }

    fn unit_begin_stop(&mut self, id: &str) {
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        unit.stop_requested = true;
        unit.status.state = UnitState::Stopping;
        let (run, grace) = (unit.status.run, Duration::from_millis(unit.spec.stop_grace_ms));
        if let Some(probe) = unit.probe {
            let _ = kill_process_group(probe, Signal::KILL);
        }
        let main = unit.main;
        let stop = unit.spec.stop.clone();
        if let Some(line) = stop {
            let spec = unit.spec.clone();
            match self.launch_for(&spec, &line, None, Streams::Merged) {
                Ok(launched) => {
                    if let Some(unit) = self.units.by_id.get_mut(id) {
                        unit.stopper = Some(launched.pid);
                    }
                    self.unit_adopt(id, Part::Stopper, launched);
                }
                Err(error) => {
                    if let Some(unit) = self.units.by_id.get_mut(id) {
                        unit.failure = Some(format!("the stop command could not be run: {}", error.message));
                    }
                    kill_group(main);
                }
            }
        } else if let Some(main) = main {
            ask_group(main);
            self.timers.after(HANG_UP_AFTER.min(grace / 2), Timer::UnitHangUp { id: id.to_owned(), run });
        }
        self.timers.after(grace, Timer::UnitStopBy { id: id.to_owned(), run });
        self.unit_changed(id);
    }

    /// SIGTERM alone has not helped.
    pub(super) fn unit_hang_up(&mut self, id: &str, run: u64) {
        if self.unit_in_state(id, run, UnitState::Stopping)
            && let Some(main) = self.units.by_id.get(id).and_then(|unit| unit.main)
        {
            let _ = kill_process_group(main, Signal::HUP);
        }
    }

    /// Stopping has taken long enough.
    pub(super) fn unit_stop_deadline(&mut self, id: &str, run: u64) {
        if !self.unit_in_state(id, run, UnitState::Stopping) {
            return;
        }
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        if unit.stopper.is_some() {
            unit.failure
                .get_or_insert_with(|| format!("the stop command took longer than {} ms", unit.spec.stop_grace_ms));
        }
        kill_group(unit.stopper);
        kill_group(unit.main);
    }

    /// One of a unit's commands has ended.
    pub(super) fn unit_exited(&mut self, id: &str, part: Part, pid: Pid, status: ExitStatus) {
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        match part {
            Part::Main if unit.main == Some(pid) => {
                unit.main = None;
                unit.status.pid = None;
                unit.status.exit = Some(status);
                if unit.stop_requested {
                    // What it started goes with it.
                    kill_group(Some(pid));
                }
                kill_group(unit.probe);
            }
            Part::Probe if unit.probe == Some(pid) => {
                unit.probe = None;
                if unit.status.state == UnitState::Starting {
                    if status == ExitStatus::Code(0) && unit.main.is_some() {
                        self.unit_is_ready(id);
                    } else if unit.main.is_some() {
                        self.unit_probe_later(id);
                    }
                    return;
                }
            }
            Part::Stopper if unit.stopper == Some(pid) => {
                unit.stopper = None;
                if status != ExitStatus::Code(0) {
                    unit.failure.get_or_insert_with(|| format!("the stop command {}", describe(status)));
                }
                kill_group(unit.main);
            }
            _ => return,
        }
        self.unit_finish(id);
    }

    fn unit_finish(&mut self, id: &str) {
        // The last output of the command may still be in the pipe.
        let keys: Vec<u64> = self.units.outputs.iter().filter(|(_, (of, _))| of == id).map(|(key, _)| *key).collect();
        let Some(unit) = self.units.by_id.get(id) else { return };
        if unit.main.is_some() || unit.stopper.is_some() || unit.status.state.is_final() {
            return;
        }
        for key in keys {
            self.unit_output(key);
            self.unit_output(key);
        }
        let everyone_ends = self.everyone_was_asked_to_end();
        let Some(unit) = self.units.by_id.get_mut(id) else { return };
        let exit = unit.status.exit;
        let (state, message) = match (unit.failure.take(), exit, unit.spec.kind) {
            (Some(failure), ..) => (UnitState::Failed, Some(failure)),
            _ if unit.stop_requested => (UnitState::Stopped, None),
            (None, Some(ExitStatus::Code(0)), UnitKind::Task) => (UnitState::Succeeded, None),
            (None, Some(ExitStatus::Code(0)), UnitKind::Service) => (UnitState::Stopped, None),
            (None, Some(_), _) if everyone_ends => (UnitState::Stopped, Some("the workspace stopped".to_owned())),
            (None, Some(status), _) => (UnitState::Failed, Some(format!("the command {}", describe(status)))),
            (None, None, _) => (UnitState::Failed, Some("the command was lost".to_owned())),
        };
        unit.status.state = state;
        unit.status.message = message;
        unit.status.finished_at_ms = Some(unix_ms());
        if let Some(file) = unit.output_file.take() {
            unit.status.outputs = file.take();
        }
        self.unit_changed(id);
    }

    /// Starts sending a unit's output to a connection.
    pub(super) fn unit_logs(
        &mut self,
        connection: u64,
        id: &str,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<(), LaunchError> {
        let unit = self.units.by_id.get(id).ok_or_else(|| no_such(id))?;
        let cursor = tail.map_or(unit.log.start(), |tail| unit.log.before_end(tail));
        let until = (!follow).then(|| unit.log.end());
        let run = unit.status.run;
        self.reply(Some(connection), &Reply::Ready);
        self.set_mode(connection, Mode::UnitLogs { unit: id.to_owned(), run, cursor, until });
        Ok(())
    }

    /// Moves a unit's output to a connection.
    pub(super) fn unit_logs_pump(&mut self, connection: u64) {
        let Some(conn) = self.connections.get_mut(&connection) else { return };
        let Mode::UnitLogs { unit: id, run, cursor, until } = &mut conn.mode else { return };
        let unit = self.units.by_id.get(id).filter(|unit| unit.status.run == *run);
        let Some(unit) = unit else {
            // Another run has taken its place.
            conn.mode = Mode::Closing;
            conn.event(&Event::Done);
            return;
        };
        let end = until.unwrap_or(unit.log.end());
        let (mut position, over) = ((*cursor).max(unit.log.start()), until.is_some() || unit.status.state.is_final());
        let mut piece = Vec::new();
        let mut sent = 0;
        while position < end && sent < HIGH_WATER {
            let room = usize::try_from(end - position).unwrap_or(PIECE).min(PIECE);
            position = unit.log.copy(position, room, &mut piece);
            sent += room;
        }
        *cursor = position;
        conn.bytes(Kind::Stdout, &piece);
        if over && position >= end {
            conn.event(&Event::Done);
            conn.mode = Mode::Closing;
        }
    }
}

fn kill_group(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
