//! A small blocking D-Bus client: only what talking to systemd needs, and every wait has a deadline.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::files;
use crate::socket;
use crate::time::Deadline;

/// Longest message that is accepted.
const MAX_MESSAGE: usize = 1 << 20;

/// A value of a property.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
    Texts(Vec<String>),
    Pairs(Vec<(String, String)>),
    Rates(Vec<(String, u64)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::I32(_) => "i",
            Self::U64(_) => "t",
            Self::I64(_) => "x",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
            Self::Texts(_) => "as",
            Self::Pairs(_) => "a(ss)",
            Self::Rates(_) => "a(st)",
        }
    }
}

/// Little-endian marshalling with the wire's alignments.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        while !self.out.len().is_multiple_of(to) {
            self.out.push(0);
        }
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn text(&mut self, value: &str) {
        self.u32(u32::try_from(value.len()).unwrap_or(0));
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
    }

    fn signature(&mut self, value: &str) {
        self.out.push(u8::try_from(value.len()).unwrap_or(0));
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
    }

    /// An array: length, alignment of its elements, contents.
    pub(super) fn array(&mut self, align: usize, contents: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.out.len().saturating_sub(4);
        self.align(align);
        let start = self.out.len();
        contents(self);
        let length = u32::try_from(self.out.len().saturating_sub(start)).unwrap_or(0);
        if let Some(slot) = self.out.get_mut(length_at..length_at.saturating_add(4)) {
            slot.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(on) => self.u32((*on).into()),
            Value::U32(n) => self.u32(*n),
            Value::I32(n) => self.u32(u32::from_ne_bytes(n.to_ne_bytes())),
            Value::U64(n) => self.u64(*n),
            Value::I64(n) => self.u64(u64::from_ne_bytes(n.to_ne_bytes())),
            Value::Bytes(bytes) => self.array(1, |w| w.out.extend_from_slice(bytes)),
            Value::U32s(list) => self.array(4, |w| list.iter().for_each(|n| w.u32(*n))),
            Value::Texts(list) => self.array(4, |w| list.iter().for_each(|t| w.text(t))),
            Value::Rates(list) => self.array(8, |w| {
                for (name, rate) in list {
                    w.align(8);
                    w.text(name);
                    w.u64(*rate);
                }
            }),
            Value::Pairs(list) => self.array(8, |w| {
                for (first, second) in list {
                    w.align(8);
                    w.text(first);
                    w.text(second);
                }
            }),
        }
    }

    /// `a(sv)`.
    pub(super) fn properties(&mut self, list: &[(String, Value)]) {
        self.array(8, |w| {
            for (name, value) in list {
                w.align(8);
                w.text(name);
                w.variant(value);
            }
        });
    }
}

/// What came in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    kind: u8,
    reply_to: u32,
    member: String,
    /// Name of the error, of an answer that is one.
    pub(super) error: String,
    body: Vec<u8>,
}

impl Incoming {
    /// The body, unless this is an error.
    pub(super) fn into_body(self, asked: &Asked) -> Result<Vec<u8>> {
        if self.kind == ANSWER {
            return Ok(self.body);
        }
        let text = Reader { bytes: &self.body, at: 0 }.text().unwrap_or_default();
        Err(failed(format!("{}: {}: {text}", asked.member, self.error)))
    }
}

/// Kinds of messages: an answer, and a signal.
const ANSWER: u8 = 2;
const SIGNAL: u8 = 4;

/// A call that is on its way.
#[derive(Debug)]
pub(super) struct Asked {
    serial: u32,
    member: &'static str,
}

/// A connection. What is asked waits for the first answer that is wanted, and leaves together, the greeting with it: each
/// way to the bus, to systemd and back costs more than what they do.
#[derive(Debug)]
pub(super) struct Bus {
    socket: OwnedFd,
    serial: u32,
    deadline: Deadline,
    leaving: Vec<u8>,
    /// Bytes that were read and belong to messages that nobody has taken.
    arrived: Vec<u8>,
    /// Answers and signals that came before somebody asked for them.
    kept: Vec<Incoming>,
    greeted: bool,
}

fn failed(what: impl AsRef<str>) -> Error {
    Error::new(Code::Systemd, "D-Bus").says(what)
}

impl Bus {
    /// Connects to the system's bus, or to the user's.
    pub(super) fn connect(milliseconds: u32) -> Result<Self> {
        let path = if crate::rights::rule_the_host() {
            "/run/dbus/system_bus_socket".to_owned()
        } else {
            user_bus().ok_or_else(|| {
                failed("there is no user bus").hint("log in with a session (loginctl enable-linger, machinectl shell), or use --cgroup-manager=cgroupfs")
            })?
        };
        let socket = socket::connect(&path).map_err(|e| {
            Error::os(Code::Systemd, path.as_str(), e)
                .says(format!("cannot connect to {path}"))
                .hint("is systemd with dbus running here? --cgroup-manager=cgroupfs needs neither")
        })?;
        Bus::over(socket, milliseconds)
    }

    fn over(socket: OwnedFd, milliseconds: u32) -> Result<Self> {
        // The bus knows the user by the uid outside the user namespace.
        let uid: String = crate::rights::outer_uid().to_string().bytes().map(|b| format!("{b:02x}")).collect();
        let mut bus = Self {
            socket,
            serial: 0,
            deadline: Deadline::after_ms(milliseconds),
            leaving: format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").into_bytes(),
            arrived: Vec::new(),
            kept: Vec::new(),
            greeted: false,
        };
        bus.ask(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "Hello",
            "",
            Writer::default(),
        )?;
        Ok(bus)
    }

    /// Whether the bus has let this user in.
    pub(super) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Reads the line that the bus greets with.
    fn be_greeted(&mut self) -> Result<()> {
        let end = loop {
            if let Some(at) = self.arrived.windows(2).position(|pair| pair == b"\r\n") {
                break at;
            }
            if self.arrived.len() > 512 {
                return Err(failed("the bus talks nonsense"));
            }
            self.read()?;
        };
        let line = self.arrived.get(..end).unwrap_or(&[]);
        if !line.starts_with(b"OK ") {
            return Err(failed(format!("the bus refuses this user: {}", String::from_utf8_lossy(line))));
        }
        self.take(end.saturating_add(2))?;
        self.greeted = true;
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.leaving);
        files::write_all(&self.socket, &bytes)
            .map_err(|e| Error::os(Code::Systemd, "D-Bus", e).says("sending to the bus"))
    }

    /// Waits until more bytes have arrived.
    fn read(&mut self) -> Result<()> {
        let mut bytes = [0u8; 4096];
        loop {
            let Some(left) = self.deadline.left() else {
                return Err(failed("no answer within the deadline").hint("systemd is overloaded or stuck"));
            };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(Error::os(Code::Systemd, "D-Bus", e).says("poll")),
            }
            match rustix::io::read(&self.socket, &mut bytes) {
                Ok(0) => return Err(failed("the bus closed the connection")),
                Ok(n) => {
                    self.arrived.extend_from_slice(bytes.get(..n).unwrap_or(&[]));
                    return Ok(());
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(Error::os(Code::Systemd, "D-Bus", e).says("reading from the bus")),
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.arrived.len() < length {
            self.read()?;
        }
        Ok(self.arrived.drain(..length).collect())
    }

    fn next(&mut self) -> Result<Incoming> {
        if !self.leaving.is_empty() {
            self.send()?;
        }
        if !self.greeted {
            self.be_greeted()?;
        }
        let fixed = self.take(16)?;
        if fixed.first() != Some(&b'l') {
            return Err(failed("the bus sends big-endian messages"));
        }
        let word = |at: usize| {
            fixed.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let size = |n: u32| {
            usize::try_from(n)
                .ok()
                .filter(|n| *n <= MAX_MESSAGE)
                .ok_or_else(|| failed("the bus sends an oversized message"))
        };
        let (body, fields) = (size(word(4))?, size(word(12))?);
        let padded = fields.div_ceil(8).saturating_mul(8);
        let header = self.take(padded)?;
        let mut out = Incoming { kind: fixed.get(1).copied().unwrap_or(0), ..Incoming::default() };
        parse_fields(header.get(..fields).unwrap_or(&[]), &mut out);
        out.body = self.take(body)?;
        Ok(out)
    }

    /// The first message that is wanted, of those that came already or of those to come. Others are kept.
    fn first(&mut self, wanted: impl Fn(&Incoming) -> bool) -> Result<Incoming> {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return Ok(self.kept.remove(at));
        }
        loop {
            let message = self.next()?;
            if wanted(&message) {
                return Ok(message);
            }
            self.kept.push(message);
        }
    }

    /// Asks for a method's call, which leaves with the next answer that is waited for.
    pub(super) fn ask(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &'static str,
        signature: &str,
        body: Writer,
    ) -> Result<Asked> {
        self.serial = self.serial.saturating_add(1);
        let serial = self.serial;
        let mut w = Writer::default();
        w.out.extend_from_slice(&[b'l', 1, 0, 1]);
        w.u32(u32::try_from(body.out.len()).map_err(|_| failed("message too long"))?);
        w.u32(serial);
        w.array(8, |w| {
            let mut field = |code: u8, kind: &str, text: &str| {
                w.align(8);
                w.out.push(code);
                w.signature(kind);
                if kind == "g" { w.signature(text) } else { w.text(text) }
            };
            field(1, "o", path);
            field(2, "s", interface);
            field(3, "s", member);
            field(6, "s", to);
            if !signature.is_empty() {
                field(8, "g", signature);
            }
        });
        w.align(8);
        w.out.extend_from_slice(&body.out);
        self.leaving.extend_from_slice(&w.out);
        Ok(Asked { serial, member })
    }

    /// The body of a call's answer.
    pub(super) fn answer(&mut self, asked: &Asked) -> Result<Vec<u8>> {
        self.reply(asked)?.into_body(asked)
    }

    /// A call's answer, which may be an error.
    pub(super) fn reply(&mut self, asked: &Asked) -> Result<Incoming> {
        self.first(|message| message.reply_to == asked.serial)
    }

    /// Calls a method and gives the body of the answer.
    pub(super) fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &'static str,
        signature: &str,
        body: Writer,
    ) -> Result<Vec<u8>> {
        let asked = self.ask(to, path, interface, member, signature, body)?;
        self.answer(&asked)
    }

    /// Waits until a unit has been removed.
    pub(super) fn unit_removed(&mut self, unit: &str) -> Result<()> {
        let removed = |message: &Incoming| {
            // id, path
            let id = Reader { bytes: &message.body, at: 0 }.text();
            message.kind == SIGNAL && message.member == "UnitRemoved" && id.as_deref() == Some(unit)
        };
        self.first(removed).map(drop)
    }

    /// Waits for the end of a job; returns its result.
    pub(super) fn job_result(&mut self, job: &str) -> Result<String> {
        let message = self.first(|message| {
            // id, job path, unit, result
            let mut reader = Reader { bytes: &message.body, at: 0 };
            message.kind == SIGNAL
                && message.member == "JobRemoved"
                && reader.u32().is_some()
                && reader.text().as_deref() == Some(job)
        })?;
        let mut reader = Reader { bytes: &message.body, at: 0 };
        let (_id, _path, _unit) = (reader.u32(), reader.text(), reader.text());
        Ok(reader.text().unwrap_or_default())
    }
}

fn user_bus() -> Option<String> {
    if let Ok(address) = std::env::var("DBUS_SESSION_BUS_ADDRESS")
        && let Some(path) = address.strip_prefix("unix:path=")
    {
        return Some(path.split([',', ';']).next().unwrap_or(path).to_owned());
    }
    let dir = std::env::var("XDG_RUNTIME_DIR").ok()?;
    let path = format!("{dir}/bus");
    rustix::fs::access(path.as_str(), rustix::fs::Access::EXISTS).is_ok().then_some(path)
}

/// Reads what systemd answers.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.div_ceil(to).saturating_mul(to);
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let end = self.at.checked_add(4)?;
        let value = u32::from_le_bytes(self.bytes.get(self.at..end)?.try_into().ok()?);
        self.at = end;
        Some(value)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?).into_owned();
        self.at = end.checked_add(1)?;
        Some(text)
    }

    pub(super) fn signature(&mut self) -> Option<String> {
        let length = usize::from(*self.bytes.get(self.at)?);
        let start = self.at.checked_add(1)?;
        let end = start.checked_add(length)?;
        let text = String::from_utf8_lossy(self.bytes.get(start..end)?).into_owned();
        self.at = end.checked_add(1)?;
        Some(text)
    }
}

fn parse_fields(bytes: &[u8], out: &mut Incoming) -> Option<()> {
    let mut reader = Reader { bytes, at: 0 };
    loop {
        reader.align(8);
        let code = *bytes.get(reader.at)?;
        reader.at = reader.at.checked_add(1)?;
        let kind = reader.signature()?;
        match kind.as_str() {
            "s" | "o" => {
                let text = reader.text()?;
                match code {
                    3 => out.member = text,
                    4 => out.error = text,
                    _ => {}
                }
            }
            "u" => {
                let number = reader.u32()?;
                if code == 5 {
                    out.reply_to = number;
                }
            }
            "g" => {
                reader.signature()?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_laid_out_as_the_wire_wants() {
        let mut w = Writer::default();
        w.properties(&[("A".to_owned(), Value::U64(7))]);
        // length 24: "A" (4+1+1), signature (1+1+1) = 9, padding to 16, eight bytes
        assert_eq!(w.out.get(..4), Some(&24u32.to_le_bytes()[..]));
        assert_eq!(w.out.len(), 8 + 24);
        assert_eq!(w.out.get(24..32), Some(&7u64.to_le_bytes()[..]));
    }

    /// A message to the client: an answer to a serial, or a signal.
    fn message(kind: u8, reply_to: u32, member: &str, body: &Writer) -> Vec<u8> {
        let mut w = Writer::default();
        w.out.extend_from_slice(&[b'l', kind, 0, 1]);
        w.u32(u32::try_from(body.out.len()).unwrap());
        w.u32(1);
        w.array(8, |w| {
            w.out.push(5);
            w.signature("u");
            w.u32(reply_to);
            w.align(8);
            w.out.push(3);
            w.signature("s");
            w.text(member);
        });
        w.align(8);
        w.out.extend_from_slice(&body.out);
        w.out
    }

    #[test]
    fn calls_leave_together_and_answers_may_come_in_any_order() {
        use std::io::{Read as _, Write as _};
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let bus = std::thread::spawn(move || {
            // Says nothing before it has heard everything.
            let mut heard = Vec::new();
            let heard_of = |heard: &[u8], word: &str| heard.windows(word.len()).any(|bytes| bytes == word.as_bytes());
            while !["BEGIN\r\n", "Hello", "First", "Second"].iter().all(|word| heard_of(&heard, word)) {
                let mut bytes = [0; 512];
                let length = theirs.read(&mut bytes).unwrap();
                assert!(length > 0, "the client hung up after {:?}", String::from_utf8_lossy(&heard));
                heard.extend_from_slice(&bytes[..length]);
            }
            let mut removed = Writer::default();
            removed.u32(7);
            ["/job/7", "a.scope", "done"].iter().for_each(|text| removed.text(text));
            let (mut first, mut second) = (Writer::default(), Writer::default());
            first.text("one");
            second.text("two");
            theirs.write_all(b"OK 0123\r\n").unwrap();
            theirs.write_all(&message(ANSWER, 1, "", &Writer::default())).unwrap();
            theirs.write_all(&message(SIGNAL, 0, "JobRemoved", &removed)).unwrap();
            theirs.write_all(&message(ANSWER, 3, "", &second)).unwrap();
            theirs.write_all(&message(ANSWER, 2, "", &first)).unwrap();
            theirs
        });
        let mut client = Bus::over(ours.into(), 20_000).unwrap();
        let mut ask = |member| client.ask("to", "/path", "interface", member, "", Writer::default()).unwrap();
        let asked = [ask("First"), ask("Second")];
        let answers = asked.map(|asked| Reader { bytes: &client.answer(&asked).unwrap(), at: 0 }.text().unwrap());
        assert_eq!(answers, ["one", "two"]);
        assert_eq!(client.job_result("/job/7").unwrap(), "done");
        bus.join().unwrap();
    }

    #[test]
    fn short_messages_do_not_panic() {
        for n in 0..32 {
            let bytes = vec![1u8; n];
            parse_fields(&bytes, &mut Incoming::default());
            Reader { bytes: &bytes, at: 0 }.text();
        }
    }
}
