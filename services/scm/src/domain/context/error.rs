//! Why a context URL was refused.

/// Why a text is not a context URL that Berth opens. Messages never repeat credentials or raw control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Nothing was given.
    #[error("the context URL is empty: give a repository, for example https://github.com/owner/name")]
    Empty,
    /// More than [`MAX_URL_BYTES`](super::MAX_URL_BYTES).
    #[error("the context URL is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A control character, raw or percent-encoded.
    #[error("the context URL contains the control character U+{code:04X}: remove it")]
    ControlCharacter {
        /// Its code point.
        code: u32,
    },
    /// It begins with a dash.
    #[error("{text:?} looks like a command-line option, not like a URL")]
    Option {
        /// The beginning of what was given.
        text: String,
    },
    /// No scheme and not `user@host:path`.
    #[error("{text:?} is not a URL: it must begin with https://, or look like git@host:owner/name")]
    NotAUrl {
        /// The beginning of what was given.
        text: String,
    },
    /// A scheme that Berth does not use.
    #[error("the scheme {scheme:?} is not allowed: use https:// (git@host:owner/name and ssh:// are turned into it)")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// Plain http for a host that is not named in the configuration.
    #[error(
        "plain http to {host} is refused because it is not encrypted: use https://, or have the administrator name \
         the host in scm.allow_private_hosts"
    )]
    Http {
        /// Host and port.
        host: String,
    },
    /// User name and password, or a token, in the URL.
    #[error(
        "the context URL contains credentials: remove everything before the @, and keep them with \
         `berth git-credential add {host}`"
    )]
    Credentials {
        /// The host they were for.
        host: String,
    },
    /// The host name cannot be one.
    #[error("{host:?} is not a host name: {reason}")]
    Host {
        /// What stood in its place.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The port cannot be one.
    #[error("{port:?} is not a port: it must be a number from 1 to 65535")]
    Port {
        /// What stood in its place.
        port: String,
    },
    /// Percent-encoding that does not decode to UTF-8.
    #[error("{text:?} is not correctly percent-encoded UTF-8")]
    Escape {
        /// The part.
        text: String,
    },
    /// `.`, `..`, backslash or an empty part in the path.
    #[error("the path contains {part:?}: {reason}")]
    Segment {
        /// The part.
        part: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The URL ends before the repository.
    #[error("the URL names no repository on {host}: expected {expected}")]
    NoRepository {
        /// The host.
        host: String,
        /// The form expected there.
        expected: &'static str,
    },
    /// Owner or repository name that the host cannot have.
    #[error("{value:?} is not {what} name: {reason}")]
    Name {
        /// `an owner`, `a repository`.
        what: &'static str,
        /// The name.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A branch or tag name that git refuses (git-check-ref-format).
    #[error("{value:?} is not a branch, tag or commit: {reason}")]
    Reference {
        /// The name.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not the hexadecimal digits of a commit.
    #[error("{value:?} is not a commit: expected 4 to 64 hexadecimal digits")]
    Commit {
        /// What stood in its place.
        value: String,
    },
    /// Not a number of a pull request or issue.
    #[error("{value:?} is not the number of {what}")]
    Number {
        /// `a pull request`, `an issue`.
        what: &'static str,
        /// What stood in its place.
        value: String,
    },
    /// A page of the repository that Berth cannot open.
    #[error(
        "{page:?} is a page of the repository that Berth cannot open: give the repository, or one of its branches, \
         tags, commits, pull requests, issues, files or folders"
    )]
    Page {
        /// What follows the repository.
        page: String,
    },
    /// A page that only certain providers have, on a host of unknown kind.
    #[error(
        "{host} is not a configured git host, so the page {page:?} on it cannot be understood: have the administrator \
         add the host with its kind (on the command line: --host {host}=KIND), or give the clone URL"
    )]
    UnknownKind {
        /// The host.
        host: String,
        /// What was not understood.
        page: String,
    },
}

/// The first characters of a text, for an error message: the rest may be anything.
pub(super) fn beginning(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
