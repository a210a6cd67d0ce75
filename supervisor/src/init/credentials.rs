//! The credential helper's questions: from git in the workspace to whoever serves them on the host, and the answer back. Nothing is kept.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use berth_supervisor_protocol::{Control, CredentialRequest, Event, Frame, FrameReader, Kind, encode_json};
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::Init;
use super::connection::Mode;
use super::poller::{Poller, Token, Watched};
use super::timers::Timer;
use crate::cli::complain;
use crate::credential_helper::{Answer, SOCKET_NAME};
use crate::launch::user;

/// Most questions at once.
const MAX_CLIENTS: usize = 32;
/// Longest question.
const MAX_QUESTION: usize = 16 * 1024;
/// How long git waits for an answer, and for somebody on the host to be there at all (it may be restarting).
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Somebody who asks.
#[derive(Debug)]
struct Client {
    socket: Watched,
    reader: FrameReader,
    /// The question, once it is whole.
    question: Option<CredentialRequest>,
    /// The connection that it was passed on to.
    asked: Option<u64>,
}

/// The helper's side.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    listener: Option<Watched>,
    /// Who may ask, beside root: the workspace's user.
    uid: Option<u32>,
    clients: BTreeMap<u64, Client>,
}

impl Credentials {
    /// Listens. A workspace in which that is impossible has no git credentials, but everything else.
    pub(super) fn listen(poller: &Poller, default_user: Option<&str>, run_dir: &str) -> Self {
        let path = format!("{run_dir}/{SOCKET_NAME}");
        let uid = user::resolve(default_user).ok().map(|user| user.uid.as_raw());
        let _ = std::fs::remove_file(&path);
        let listener = std::fs::create_dir_all(run_dir)
            .and_then(|()| UnixListener::bind(&path))
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                // The kernel says who connects (peer credentials); nothing else is trusted.
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
                Ok(listener)
            })
            .inspect_err(|error| complain(&format!("git credentials are not available: {path}: {error}")))
            .ok()
            .map(|listener| {
                let mut listener = poller.watch(listener.into(), Token::CredentialListener);
                listener.interest(true, false);
                listener
            });
        Self { listener, uid, clients: BTreeMap::new() }
    }
}

impl Init {
    /// git has connected.
    pub(super) fn credential_accept(&mut self) {
        let Some(listener) = &self.credentials.listener else { return };
        let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        let uid = sockopt::socket_peercred(&socket).ok().map(|peer| peer.uid.as_raw());
        let may_ask = uid.is_some_and(|uid| uid == 0 || Some(uid) == self.credentials.uid);
        let id = self.new_id();
        let mut socket = self.poller.watch(socket, Token::CredentialClient(id));
        socket.interest(true, false);
        let client = Client { socket, reader: FrameReader::new(), question: None, asked: None };
        let full = self.credentials.clients.len() >= MAX_CLIENTS;
        self.credentials.clients.insert(id, client);
        if !may_ask {
            self.credential_deny(id, "only the workspace's user may ask for credentials");
        } else if full {
            self.credential_deny(id, "too many questions at once, try again");
        } else {
            self.timers.after(ANSWER_WITHIN, Timer::Credential(id));
        }
    }

    /// A question, or the end of one who asked.
    pub(super) fn credential_client_ready(&mut self, id: u64) {
        let Some(client) = self.credentials.clients.get_mut(&id) else { return };
        let Some(count) = client.socket.read(self.buffer.get_mut(..MAX_QUESTION).unwrap_or_default()) else { return };
        if count == 0 {
            self.credentials.clients.remove(&id);
            return;
        }
        client.reader.push(self.buffer.get(..count).unwrap_or_default());
        if client.question.is_some() || client.reader.missing() > MAX_QUESTION {
            self.credentials.clients.remove(&id);
            return;
        }
        match client.reader.next_frame() {
            Ok(None) => {}
            Ok(Some(frame)) => match frame.json::<CredentialRequest>() {
                Ok(question) => {
                    client.question = Some(CredentialRequest { id, ..question });
                    self.credential_ask();
                }
                Err(_) => drop(self.credentials.clients.remove(&id)),
            },
            Err(_) => drop(self.credentials.clients.remove(&id)),
        }
    }

    /// Forwards questions that nobody has been asked yet. The newest connection is asked: an older one may belong to a dead server.
    pub(super) fn credential_ask(&mut self) {
        let serves = |mode: &Mode| matches!(mode, Mode::Credentials);
        let server = self.connections.iter_mut().rev().find(|(_, connection)| serves(&connection.mode));
        let Some((server, connection)) = server else { return };
        for client in self.credentials.clients.values_mut() {
            if let (None, Some(question)) = (client.asked, &client.question) {
                connection.event(&Event::CredentialRequest(question.clone()));
                client.asked = Some(*server);
                self.dirty.insert(*server);
            }
        }
    }

    /// A connection that was asked has gone: another may know.
    pub(super) fn credential_server_gone(&mut self, server: u64) {
        for client in self.credentials.clients.values_mut() {
            client.asked = client.asked.filter(|asked| *asked != server);
        }
        self.credential_ask();
    }

    /// A frame of a connection that answers questions.
    pub(super) fn credential_frame(&mut self, server: u64, frame: &Frame) -> bool {
        if frame.kind != Kind::Json {
            return false;
        }
        // Only who was asked may answer.
        let asked =
            |init: &Self, id| init.credentials.clients.get(&id).is_some_and(|client| client.asked == Some(server));
        match frame.json::<Control>() {
            Ok(Control::CredentialReply { id, username, password }) => {
                if !asked(self, id) {
                    return true;
                }
                // git reads lines: a line end in a value would begin another field.
                if username.contains(['\n', '\r', '\0']) || password.expose().contains(['\n', '\r', '\0']) {
                    self.credential_deny(id, "the stored credential holds a line end and cannot be given to git");
                } else {
                    self.credential_answer(id, &Answer::Credential { username, password });
                }
                true
            }
            Ok(Control::CredentialDeny { id, reason }) => {
                if asked(self, id) {
                    self.credential_deny(id, &reason);
                }
                true
            }
            _ => false,
        }
    }

    /// Nobody answered in time.
    pub(super) fn credential_overdue(&mut self, id: u64) {
        let Some(client) = self.credentials.clients.get(&id) else { return };
        let reason = match client.asked {
            Some(_) => "the Berth server did not answer in time",
            None => "no Berth server is connected to this workspace",
        };
        self.credential_deny(id, reason);
    }

    fn credential_deny(&mut self, id: u64, reason: &str) {
        self.credential_answer(id, &Answer::Denied { reason: reason.to_owned() });
    }

    fn credential_answer(&mut self, id: u64, answer: &Answer) {
        let Some(client) = self.credentials.clients.remove(&id) else { return };
        let mut out = Vec::new();
        if encode_json(answer, &mut out).is_ok() {
            // Some hundred bytes into an empty socket buffer: they fit, or the asker has gone.
            let _ = client.socket.write(&out);
        }
        out.fill(0);
    }
}
