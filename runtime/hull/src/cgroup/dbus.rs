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
#[derive(Debug, Default)]
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
struct Incoming {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    socket: OwnedFd,
    serial: u32,
    deadline: Deadline,
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
        let mut bus = Self { socket, serial: 0, deadline: Deadline::after_ms(milliseconds) };
        bus.authenticate()?;
        bus.call(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "Hello",
            "",
            Writer::default(),
        )?;
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<()> {
        // The bus knows the user by the uid outside the user namespace.
        let uid: String = crate::rights::outer_uid().to_string().bytes().map(|b| format!("{b:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let byte = self.receive(1)?;
            line.extend(byte);
            if line.len() > 512 {
                return Err(failed("the bus talks nonsense"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(failed(format!("the bus refuses this user: {}", String::from_utf8_lossy(&line).trim())));
        }
        self.send(b"BEGIN\r\n")
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        files::write_all(&self.socket, bytes)
            .map_err(|e| Error::os(Code::Systemd, "D-Bus", e).says("sending to the bus"))
    }

    fn receive(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut out = vec![0u8; length];
        let mut filled = 0;
        while filled < length {
            let Some(left) = self.deadline.left() else {
                return Err(failed("no answer within the deadline")
                    .hint("systemd is overloaded or stuck; the container was not started"));
            };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(Error::os(Code::Systemd, "D-Bus", e).says("poll")),
            }
            match rustix::io::read(&self.socket, out.get_mut(filled..).unwrap_or(&mut [])) {
                Ok(0) => return Err(failed("the bus closed the connection")),
                Ok(n) => filled = filled.saturating_add(n),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(Error::os(Code::Systemd, "D-Bus", e).says("reading from the bus")),
            }
        }
        Ok(out)
    }

    fn next(&mut self) -> Result<Incoming> {
        let fixed = self.receive(16)?;
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
        let header = self.receive(padded)?;
        let mut out = Incoming { kind: fixed.get(1).copied().unwrap_or(0), ..Incoming::default() };
        parse_fields(header.get(..fields).unwrap_or(&[]), &mut out);
        out.body = self.receive(body)?;
        Ok(out)
    }

    /// Calls a method and gives the body of the answer.
    pub(super) fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Vec<u8>> {
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
        self.send(&w.out)?;
        loop {
            let message = self.next()?;
            if message.reply_to != serial {
                continue;
            }
            return match message.kind {
                2 => Ok(message.body),
                _ => {
                    let text = Reader { bytes: &message.body, at: 0 }.text().unwrap_or_default();
                    Err(failed(format!("{member}: {}: {text}", message.error)))
                }
            };
        }
    }

    /// Waits for the end of a job; returns its result.
    pub(super) fn job_result(&mut self, job: &str) -> Result<String> {
        loop {
            let message = self.next()?;
            if message.kind != 4 || message.member != "JobRemoved" {
                continue;
            }
            // id, job path, unit, result
            let mut reader = Reader { bytes: &message.body, at: 0 };
            let _id = reader.u32();
            let path = reader.text().unwrap_or_default();
            let _unit = reader.text();
            if path == job {
                return Ok(reader.text().unwrap_or_default());
            }
        }
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

    #[test]
    fn short_messages_do_not_panic() {
        for n in 0..32 {
            let bytes = vec![1u8; n];
            parse_fields(&bytes, &mut Incoming::default());
            Reader { bytes: &bytes, at: 0 }.text();
        }
    }
}
