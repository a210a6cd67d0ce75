//! What a host says about a repository's refs, in protocol version 2 and in the old advertisement.

use super::pkt::{BadPkt, Pkt, Reader, write};

/// A ref of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRef {
    /// Full name, for example `refs/heads/main`.
    pub name: String,
    /// Object it names.
    pub oid: String,
    /// Commit behind an annotated tag.
    pub peeled: Option<String>,
}

impl RemoteRef {
    /// The commit it leads to.
    #[must_use]
    pub fn commit(&self) -> &str {
        self.peeled.as_deref().unwrap_or(&self.oid)
    }
}

/// Refs of a repository, as far as they were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Commit of `HEAD`; `None` in an empty repository, or if `HEAD` names a branch that does not exist.
    pub head: Option<String>,
    /// Branch that `HEAD` names, in full.
    pub head_target: Option<String>,
    /// The refs, without `HEAD`.
    pub list: Vec<RemoteRef>,
}

impl Refs {
    /// A ref by its full name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RemoteRef> {
        self.list.iter().find(|reference| reference.name == name)
    }
}

/// How the host answered the first request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advertisement {
    /// It speaks version 2: ask on.
    V2 {
        /// `ls-refs=unborn`.
        unborn: bool,
        /// `object-format`.
        object_format: String,
    },
    /// It told all its refs.
    V0(Refs),
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not pkt-lines.
    #[error(transparent)]
    Pkt(#[from] BadPkt),
    /// A line that is not valid there.
    #[error("the answer has a line that does not belong there")]
    Line,
    /// `ERR` from the host.
    #[error("the host says: {0}")]
    Server(String),
}

/// Reads the answer to `GET info/refs`.
pub(crate) fn advertisement(bytes: &[u8]) -> Result<Advertisement, ProtocolError> {
    let mut reader = Reader::new(bytes);
    let mut first = next_data(&mut reader)?;
    if first.is_some_and(|line| line.starts_with(b"# service=")) {
        // A flush ends the service's name.
        first = next_data(&mut reader)?.or(next_data(&mut reader)?);
    }
    if first == Some(b"version 2") {
        let (mut unborn, mut object_format) = (false, "sha1".to_owned());
        while let Some(line) = next_data(&mut reader)? {
            let line = text(line)?;
            match line.split_once('=') {
                Some(("ls-refs", features)) => unborn = features.split(' ').any(|feature| feature == "unborn"),
                Some(("object-format", format)) => format.clone_into(&mut object_format),
                _ => {}
            }
        }
        return Ok(Advertisement::V2 { unborn, object_format });
    }
    if first == Some(b"version 1") {
        first = next_data(&mut reader)?;
    }
    let mut refs = Refs::default();
    let Some(first) = first else { return Ok(Advertisement::V0(refs)) };
    let first = text(first)?;
    let (line, capabilities) = first.split_once('\0').unwrap_or((first, ""));
    refs.head_target =
        capabilities.split(' ').find_map(|capability| capability.strip_prefix("symref=HEAD:")).map(str::to_owned);
    add_v0(&mut refs, line)?;
    while let Some(line) = next_data(&mut reader)? {
        if let Ok(line) = text(line) {
            add_v0(&mut refs, line)?;
        }
    }
    Ok(Advertisement::V0(refs))
}

fn add_v0(refs: &mut Refs, line: &str) -> Result<(), ProtocolError> {
    let (oid, name) = line.split_once(' ').ok_or(ProtocolError::Line)?;
    if name == "capabilities^{}" || oid == "shallow" {
        return Ok(());
    }
    let oid = object_id(oid)?;
    if let Some(name) = name.strip_suffix("^{}") {
        match refs.list.last_mut() {
            Some(last) if last.name == name => last.peeled = Some(oid),
            _ => return Err(ProtocolError::Line),
        }
    } else if name == "HEAD" {
        refs.head = Some(oid);
    } else {
        refs.list.push(RemoteRef { name: name.to_owned(), oid, peeled: None });
    }
    Ok(())
}

/// The question `ls-refs` of version 2.
pub(crate) fn ls_refs_request(prefixes: &[String], unborn: bool, object_format: &str) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body, "command=ls-refs\n");
    write(&mut body, concat!("agent=berth/", env!("CARGO_PKG_VERSION"), "\n"));
    write(&mut body, &format!("object-format={object_format}\n"));
    body.extend_from_slice(b"0001");
    write(&mut body, "peel\n");
    write(&mut body, "symrefs\n");
    if unborn {
        write(&mut body, "unborn\n");
    }
    for prefix in prefixes {
        write(&mut body, &format!("ref-prefix {prefix}\n"));
    }
    body.extend_from_slice(b"0000");
    body
}

/// Reads the answer to `ls-refs`.
pub(crate) fn ls_refs(bytes: &[u8]) -> Result<Refs, ProtocolError> {
    let mut reader = Reader::new(bytes);
    let mut refs = Refs::default();
    while let Some(line) = next_data(&mut reader)? {
        // One invalid name must not hide the others.
        let Ok(line) = text(line) else { continue };
        let mut words = line.split(' ');
        let (Some(oid), Some(name)) = (words.next(), words.next()) else { return Err(ProtocolError::Line) };
        let (mut peeled, mut target) = (None, None);
        for attribute in words {
            match attribute.split_once(':') {
                Some(("peeled", oid)) => peeled = Some(object_id(oid)?),
                Some(("symref-target", name)) => target = Some(name.to_owned()),
                _ => {}
            }
        }
        if name == "HEAD" {
            refs.head = if oid == "unborn" { None } else { Some(object_id(oid)?) };
            refs.head_target = target;
        } else if oid != "unborn" {
            refs.list.push(RemoteRef { name: name.to_owned(), oid: object_id(oid)?, peeled });
        }
    }
    Ok(refs)
}

/// The next data line; `None` at a flush packet and at the end.
fn next_data<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, ProtocolError> {
    match reader.next()? {
        Some(Pkt::Data(data)) => match data.strip_prefix(b"ERR ") {
            Some(message) => {
                let shown = String::from_utf8_lossy(message);
                Err(ProtocolError::Server(shown.chars().filter(|c| !c.is_control()).take(200).collect()))
            }
            None => Ok(Some(data)),
        },
        Some(Pkt::Flush | Pkt::Delimiter | Pkt::End) | None => Ok(None),
    }
}

/// Ref names are bytes to git; those that are not UTF-8 cannot be named in a URL and are skipped.
fn text(line: &[u8]) -> Result<&str, ProtocolError> {
    std::str::from_utf8(line).map_err(|_| ProtocolError::Line)
}

fn object_id(text: &str) -> Result<String, ProtocolError> {
    if crate::domain::context::names::is_full_commit(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ProtocolError::Line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn pkts(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            if line.is_empty() { out.extend_from_slice(b"0000") } else { write(&mut out, line) }
        }
        out
    }

    #[test]
    fn refs_are_read_in_protocol_version_2() {
        let bytes = pkts(&[
            "# service=git-upload-pack\n",
            "",
            "version 2\n",
            "agent=git/2\n",
            "ls-refs=unborn\n",
            "object-format=sha1\n",
            "",
        ]);
        let expected = Advertisement::V2 { unborn: true, object_format: "sha1".to_owned() };
        assert_eq!(advertisement(&bytes), Ok(expected));
        let bytes = pkts(&["version 2\n", "ls-refs\n", ""]);
        assert_eq!(advertisement(&bytes), Ok(Advertisement::V2 { unborn: false, object_format: "sha1".to_owned() }));
        let answer = pkts(&[
            &format!("{A} HEAD symref-target:refs/heads/main\n"),
            &format!("{A} refs/heads/main\n"),
            &format!("{B} refs/tags/v1 peeled:{A}\n"),
            "",
        ]);
        let refs = ls_refs(&answer).unwrap();
        assert_eq!((refs.head.as_deref(), refs.head_target.as_deref()), (Some(A), Some("refs/heads/main")));
        assert_eq!(refs.get("refs/tags/v1").unwrap().commit(), A);
        let empty = ls_refs(&pkts(&["unborn HEAD symref-target:refs/heads/trunk\n", ""])).unwrap();
        assert_eq!((empty.head, empty.head_target.as_deref()), (None, Some("refs/heads/trunk")));
    }

    #[test]
    fn refs_are_read_in_the_old_advertisement() {
        let bytes = pkts(&[
            "# service=git-upload-pack\n",
            "",
            &format!("{A} HEAD\0multi_ack symref=HEAD:refs/heads/main agent=x\n"),
            &format!("{A} refs/heads/main\n"),
            &format!("{B} refs/tags/v1\n"),
            &format!("{A} refs/tags/v1^{{}}\n"),
            "",
        ]);
        let Advertisement::V0(refs) = advertisement(&bytes).unwrap() else { panic!("version 0") };
        assert_eq!(refs.head_target.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs.get("refs/tags/v1").unwrap().commit(), A);
        let zero = "0".repeat(40);
        let empty = pkts(&["# service=git-upload-pack\n", "", &format!("{zero} capabilities^{{}}\0caps\n"), ""]);
        assert_eq!(advertisement(&empty), Ok(Advertisement::V0(Refs::default())));
    }

    #[test]
    fn what_the_host_says_is_passed_on_clean() {
        let bytes = pkts(&["ERR no \u{1b}[31msuch repository\n"]);
        assert_eq!(ls_refs(&bytes), Err(ProtocolError::Server("no [31msuch repository".to_owned())));
        assert!(ls_refs(&pkts(&["nonsense\n"])).is_err());
        assert!(ls_refs(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(lines in prop::collection::vec("[ -~\0]{0,60}", 0..8)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let bytes = pkts(&lines);
            let _ = advertisement(&bytes);
            let _ = ls_refs(&bytes);
        }
    }
}
