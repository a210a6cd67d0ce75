//! Splits a URL by hand: common parsers repair what they are given (backslashes, dots, tabs), and the repaired URL is not what the user, or
//! whoever made the link, wrote.

use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::error::{ContextError, beginning};

/// Longest URL that is looked at.
pub const MAX_URL_BYTES: usize = 4096;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the URL reaches the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    Ssh,
}

/// Host and port of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    /// Lower case.
    pub(super) host: String,
    /// As written.
    pub(super) port: Option<u16>,
}

impl HostPort {
    /// As credentials are kept for it: with a port that is not the scheme's own. A port of ssh says nothing about https.
    fn of_credentials(&self, scheme: Scheme) -> String {
        let default = if scheme == Scheme::Http { 80 } else { 443 };
        match self.port.filter(|port| *port != default && scheme != Scheme::Ssh) {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

/// A path, split and decoded exactly once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Decoded; none is empty.
    pub(super) segments: Vec<String>,
    /// It ended with a slash.
    pub(super) trailing_slash: bool,
}

/// The parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) scheme: Scheme,
    pub(super) authority: HostPort,
    /// User name; a password is refused.
    pub(super) user: Option<String>,
    pub(super) path: Path,
    /// Decoded once.
    pub(super) query: Vec<(String, String)>,
    /// Decoded once.
    pub(super) fragment: Option<String>,
}

/// Splits a URL. `knows` says whether a first path segment is a known host, for URLs without a scheme.
pub(super) fn split(text: &str, knows: impl Fn(&str) -> bool) -> Result<Parts, ContextError> {
    let text = text.trim_matches(' ');
    if text.is_empty() {
        return Err(ContextError::Empty);
    }
    if text.len() > MAX_URL_BYTES {
        return Err(ContextError::TooLong { limit: MAX_URL_BYTES });
    }
    no_control_characters(text)?;
    if text.starts_with('-') {
        return Err(ContextError::Option { text: beginning(text) });
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" => Scheme::Ssh,
            _ => return Err(ContextError::Scheme { scheme: beginning(scheme) }),
        };
        return split_after_scheme(scheme, rest);
    }
    if text.contains("::") && !text.contains('[') {
        // `ext::sh -c …`: a remote helper.
        let scheme = text.split("::").next().unwrap_or_default();
        return Err(ContextError::Scheme { scheme: beginning(scheme) });
    }
    if let Some(parts) = split_scp(text)? {
        return Ok(parts);
    }
    let first = text.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    if knows(&first) {
        return split_after_scheme(Scheme::Https, text);
    }
    Err(ContextError::NotAUrl { text: beginning(text) })
}

/// `user@host:path`.
fn split_scp(text: &str) -> Result<Option<Parts>, ContextError> {
    let Some((user, rest)) = text.split_once('@') else { return Ok(None) };
    let colon = match rest.find(']') {
        Some(end) if rest.starts_with('[') => rest[end..].find(':').map(|at| end + at),
        _ => rest.find(':'),
    };
    let Some(colon) = colon else { return Ok(None) };
    let (host, path) = (&rest[..colon], &rest[colon + 1..]);
    if user.contains('/') || host.contains('/') {
        return Ok(None);
    }
    if user.contains(':') {
        return Err(ContextError::Credentials { host: beginning(host) });
    }
    let authority = parse_authority(host)?;
    Ok(Some(Parts {
        scheme: Scheme::Ssh,
        authority,
        user: Some(user_name(user)?),
        path: split_path(path.strip_prefix('/').unwrap_or(path))?,
        query: Vec::new(),
        fragment: None,
    }))
}

fn split_after_scheme(scheme: Scheme, rest: &str) -> Result<Parts, ContextError> {
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, authority),
    };
    let authority = parse_authority(authority)?;
    let credentials = || ContextError::Credentials { host: authority.of_credentials(scheme) };
    let user = match user {
        Some(user) if user.contains(':') => return Err(credentials()),
        Some(user) => Some(user_name(user).map_err(|_| credentials())?),
        None => None,
    };
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, fragment)) => (rest, Some(decode(fragment)?)),
        None => (rest, None),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rest, ""),
    };
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect::<Result<_, ContextError>>()?;
    Ok(Parts { scheme, authority, user, path: split_path(path.strip_prefix('/').unwrap_or(path))?, query, fragment })
}

/// An ssh user name.
fn user_name(user: &str) -> Result<String, ContextError> {
    let fits = !user.is_empty()
        && user.len() <= 64
        && !user.starts_with('-')
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits { Ok(user.to_owned()) } else { Err(ContextError::NotAUrl { text: beginning(user) }) }
}

/// Host and port, without user.
pub(super) fn parse_authority(text: &str) -> Result<HostPort, ContextError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) =
                rest.split_once(']').ok_or(ContextError::Host { host: beginning(text), reason: "the ] is missing" })?;
            let address: Ipv6Addr = host
                .parse()
                .map_err(|_| ContextError::Host { host: beginning(text), reason: "it is not an IPv6 address" })?;
            let port = if port.is_empty() {
                None
            } else {
                Some(
                    port.strip_prefix(':')
                        .ok_or(ContextError::Host { host: beginning(text), reason: "something follows the ]" })?,
                )
            };
            (format!("[{address}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host_name(host)?, Some(port)),
            None => (host_name(text)?, None),
        },
    };
    let port = match port {
        None => None,
        Some(port) => {
            let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { port.parse::<u16>().ok() } else { None };
            Some(number.filter(|port| *port != 0).ok_or_else(|| ContextError::Port { port: beginning(port) })?)
        }
    };
    Ok(HostPort { host, port })
}

/// A domain name or an IPv4 address, in lower case.
fn host_name(text: &str) -> Result<String, ContextError> {
    let bad = |reason| ContextError::Host { host: beginning(text), reason };
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    let ascii = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        match ::url::Host::parse(text) {
            Ok(::url::Host::Domain(domain)) => domain,
            _ => return Err(bad("it is not a valid international name")),
        }
    };
    if ascii.len() > 253 {
        return Err(bad("it is longer than 253 characters"));
    }
    for label in ascii.split('.') {
        let fits = !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !fits {
            return Err(bad("each part must have 1 to 63 letters, digits or dashes and not begin or end with a dash"));
        }
    }
    // If the last part is all digits (or 0x…) it is an IPv4 address. Only the usual form is accepted: 0177.1 and 2130706433 hide where they
    // lead.
    let last = ascii.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric && ascii.parse::<Ipv4Addr>().is_err() {
        return Err(bad("write an IPv4 address as four decimal numbers"));
    }
    Ok(ascii)
}

/// Splits at slashes, decodes each part once, refuses what a path must not contain.
pub(super) fn split_path(text: &str) -> Result<Path, ContextError> {
    let (text, trailing_slash) = match text.strip_suffix('/') {
        Some(text) => (text, true),
        None => (text, false),
    };
    if text.is_empty() {
        return Ok(Path { segments: Vec::new(), trailing_slash });
    }
    let segments = text
        .split('/')
        .map(|segment| {
            let decoded = decode(segment)?;
            for part in decoded.split('/') {
                path_part(part)?;
            }
            Ok(decoded)
        })
        .collect::<Result<_, ContextError>>()?;
    Ok(Path { segments, trailing_slash })
}

/// One part between slashes, decoded.
pub(super) fn path_part(part: &str) -> Result<(), ContextError> {
    let bad = |reason| Err(ContextError::Segment { part: beginning(part), reason });
    match part {
        "" => bad("there is nothing between two slashes"),
        "." | ".." => bad("a path must not climb"),
        _ if part.contains('\\') => bad("a backslash is not a separator here"),
        _ => Ok(()),
    }
}

/// Percent-decodes once.
pub(super) fn decode(text: &str) -> Result<String, ContextError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digits = bytes.get(at + 1..at + 3);
            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                return Err(ContextError::Escape { text: beginning(text) });
            }
        }
        at += 1;
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| ContextError::Escape { text: beginning(text) })?;
    no_control_characters(&decoded)?;
    Ok(decoded.into_owned())
}

/// Percent-encodes one segment; slashes in it become `%2F`.
pub(crate) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, RESERVED).to_string()
}

/// Percent-encodes each part between slashes.
pub(super) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// Control characters, and those that change the direction of text or break lines.
fn no_control_characters(text: &str) -> Result<(), ContextError> {
    let refused = |character: &char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    match text.chars().find(refused) {
        Some(character) => Err(ContextError::ControlCharacter { code: u32::from(character) }),
        None => Ok(()),
    }
}
