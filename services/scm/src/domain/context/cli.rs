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

/// Understands a context URL with the public hosts and those of `--host NAME[:PORT][/BASE]=KIND`.
///
/// # Errors
/// When a flag is not of that form, or the text is no URL that Berth opens.
pub fn parse_for_cli<S: AsRef<str>>(url: &str, host_flags: &[S]) -> Result<Context, CliError> {
    let hosts = Hosts::from_flags(host_flags.iter().map(AsRef::as_ref))?;
    Ok(parse(url, &hosts)?)
}
