//! `berth-init git-credential get`: git's credential helper. Asks PID 1, which asks the node agent, which asks the platform for the
//! credential of the workspace's owner. Nothing is kept here: `store` and `erase` do nothing.
//!
//! Configured as `credential.helper = /.berth/bin/berth-init git-credential`.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_supervisor_protocol::{CredentialRequest, Frame, FrameReader, Secret, encode_json};
use serde::{Deserialize, Serialize};

use crate::cli::{RUN_DIR, complain};

/// Name of the socket in PID 1's directory.
pub(crate) const SOCKET_NAME: &str = "credentials.sock";

/// Longest question.
const MAX_QUESTION: u64 = 64 * 1024;

/// PID 1's answer to the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The credential.
    Credential {
        /// User name.
        username: String,
        /// Password or token.
        password: Secret,
    },
    /// There is none.
    Denied {
        /// Why.
        reason: String,
    },
}

/// Runs the role. Returns the exit status.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let mut run_dir = OsString::from(RUN_DIR);
    let mut action = arguments.next();
    if action.as_deref() == Some(OsStr::new("--run-dir")) {
        run_dir = arguments.next().unwrap_or_default();
        action = arguments.next();
    }
    match action.as_deref().and_then(OsStr::to_str) {
        Some("get") => {}
        Some("store" | "erase") => return 0,
        _ => {
            complain("usage: berth-init git-credential get|store|erase (git calls this)");
            return 2;
        }
    }
    let question = match question(std::io::stdin().lock()) {
        Some(question) => question,
        // ssh, ftp and whatever else git may ask for are not served.
        None => return 0,
    };
    match ask(&Path::new(&run_dir).join(SOCKET_NAME), &question) {
        Ok(Answer::Credential { username, password }) => {
            let lines = format!("username={username}\npassword={}\n", password.expose());
            i32::from(std::io::stdout().write_all(lines.as_bytes()).is_err())
        }
        Ok(Answer::Denied { reason }) => {
            complain(&format!("no credential for {}: {reason}", question.host));
            0
        }
        Err(error) => {
            complain(&format!("no credential for {}: {error}", question.host));
            0
        }
    }
}

/// Parses git's `key=value` lines; `None` if it is not a question about http(s).
fn question(input: impl BufRead) -> Option<CredentialRequest> {
    let mut question =
        CredentialRequest { id: 0, protocol: String::new(), host: String::new(), path: None, username: None };
    for line in input.take(MAX_QUESTION).lines() {
        let Ok(line) = line else { break };
        match line.split_once('=') {
            None => break,
            Some(("protocol", value)) => value.clone_into(&mut question.protocol),
            Some(("host", value)) => value.clone_into(&mut question.host),
            Some(("path", value)) => question.path = Some(value.to_owned()),
            Some(("username", value)) => question.username = Some(value.to_owned()),
            Some(_) => {}
        }
    }
    let ours = matches!(question.protocol.as_str(), "https" | "http") && !question.host.is_empty();
    ours.then_some(question)
}

fn ask(socket: &Path, question: &CredentialRequest) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    // PID 1 answers within 25 seconds whatever happens; this is for a PID 1 that does not.
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    let mut out = Vec::new();
    encode_json(question, &mut out).map_err(std::io::Error::other)?;
    // A refusal may come, and the connection end, before the question is sent: the answer can still be read.
    let _ = stream.write_all(&out);
    let mut reader = FrameReader::new();
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(frame) = reader.next_frame().map_err(std::io::Error::other)? {
            return Frame::json(&frame).map_err(std::io::Error::other);
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => reader.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_lines_are_understood() {
        let asked =
            question(&b"protocol=https\nhost=git.example.com:8443\npath=o/r.git\nwwwauth[]=Basic\n\nhost=evil\n"[..]);
        let asked = asked.unwrap();
        assert_eq!((asked.host.as_str(), asked.path.as_deref()), ("git.example.com:8443", Some("o/r.git")));
        assert!(question(&b"protocol=ssh\nhost=a\n"[..]).is_none());
        assert!(question(&b"protocol=https\n"[..]).is_none());
        assert!(question(&b""[..]).is_none());
    }
}
