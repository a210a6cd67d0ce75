//! Why a host's refs could not be read.

use berth_http::outbound::Refused;

use super::ProtocolError;

/// Why a host's refs could not be read. Texts name the step, the host, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The URL is none.
    #[error("{url:?} cannot be asked for refs: it is not a URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// The outbound guard refused, or the host is unknown.
    #[error("looking up refs: {0}")]
    Refused(#[from] Refused),
    /// No connection.
    #[error("looking up refs: {host} cannot be reached: check the host's name, and that it is up")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("looking up refs: {step} {host} took longer than {seconds} s: try again, or check the host")]
    Timeout {
        /// What was being done.
        step: &'static str,
        /// The host.
        host: String,
        /// The limit.
        seconds: u64,
    },
    /// The connection broke.
    #[error("looking up refs: the connection to {host} broke while {step} it")]
    Broken {
        /// What was being done.
        step: &'static str,
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// 401, 403 or 404: hosts do not distinguish a missing repository from a private one.
    #[error("{}", no_access(host, repository, *had_login))]
    NoAccess {
        /// The host.
        host: String,
        /// The clone URL.
        repository: String,
        /// A stored credential was sent.
        had_login: bool,
    },
    /// A redirect to another host.
    #[error(
        "looking up refs: {host} redirects to {to}: redirects to another host are not followed; open the repository there"
    )]
    Redirect {
        /// The host.
        host: String,
        /// Where to, without path.
        to: String,
    },
    /// More redirects than are followed.
    #[error("looking up refs: {host} redirects in a circle")]
    Redirects {
        /// The host.
        host: String,
    },
    /// Another status.
    #[error("looking up refs: {host} answered {status}: {}", advice(*status))]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// Not git's smart HTTP.
    #[error(
        "looking up refs: {repository} is not a git repository over smart HTTP: give the repository's clone URL, or \
         have the administrator configure the kind of {host}"
    )]
    NotGit {
        /// The host.
        host: String,
        /// The clone URL.
        repository: String,
    },
    /// More than is read.
    #[error("looking up refs: {host} sent more than {limit_mib} MiB of refs: the repository has too many")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit_mib: usize,
    },
    /// An answer that is not git's protocol.
    #[error("looking up refs: {host} sent something that is not git's protocol")]
    Protocol {
        /// The host.
        host: String,
        /// What is wrong.
        #[source]
        source: ProtocolError,
    },
}

fn no_access(host: &str, repository: &str, had_login: bool) -> String {
    if had_login {
        format!(
            "{repository} does not exist, or your stored credential for {host} may not read it: check the URL, or \
             replace the credential with `berth git-credential add {host}`"
        )
    } else {
        format!(
            "{repository} does not exist or is private: check the URL, or store a credential with \
             `berth git-credential add {host}`"
        )
    }
}

const fn advice(status: u16) -> &'static str {
    match status {
        429 => "it allows no more requests for now; try again later",
        500..=599 => "it has a problem of its own; try again later",
        _ => "check the URL",
    }
}
