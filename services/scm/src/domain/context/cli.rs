//! What `berth context parse` calls: no network, no configuration.

use berth_api_types::context::Context;

use super::{ContextError, Hosts, HostsError, parse};

/// A context URL or a `--host` flag was refused.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag.
    #[error(transparent)]
    Host(#[from] HostsError),
    /// The URL.
    #[error(transparent)]
    Url(#[from] ContextError),
}

/// Parses a context URL with the public hosts and those of `--host NAME[:PORT][/BASE]=KIND`.
///
/// # Errors
/// When a flag is not of that form, or the text is no URL that Berth opens.
pub fn parse_for_cli<S: AsRef<str>>(url: &str, host_flags: &[S]) -> Result<Context, CliError> {
    parse_for_cli_allowing(url, host_flags, "")
}

/// The same, with plain http allowed for the `host:port,…` of `BERTH_ALLOW_PRIVATE_HOSTS`. Entries that are not `host:port` are ignored here:
/// the server validates the list.
///
/// # Errors
/// As [`parse_for_cli`].
pub fn parse_for_cli_allowing<S: AsRef<str>>(
    url: &str,
    host_flags: &[S],
    allow_private_hosts: &str,
) -> Result<Context, CliError> {
    let mut hosts = Hosts::from_flags(host_flags.iter().map(AsRef::as_ref))?;
    for entry in allow_private_hosts.split(',') {
        if let Some((host, port)) = entry.trim().rsplit_once(':')
            && let Ok(port) = port.parse()
        {
            hosts.allow_plain_http(host, port);
        }
    }
    Ok(parse(url, &hosts)?)
}
