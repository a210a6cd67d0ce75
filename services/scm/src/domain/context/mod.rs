//! Context URLs: from what a user pastes to a [`Context`], without a call to the host.
//!
//! What a URL cannot tell (where a branch name with slashes ends, whether a name is a branch or a tag) is left to
//! [`resolve`](crate::domain::resolve), which looks at the host's refs.

mod azure_devops;
mod bitbucket;
mod bitbucket_dc;
mod error;
mod git;
mod gitea;
mod github;
mod gitlab;
mod hosts;
pub(crate) mod names;
mod page;
mod url;

#[cfg(test)]
mod tests;

use berth_api_types::context::{Context, ContextType, Provider};

pub use error::ContextError;
pub use hosts::{Hosts, HostsError, provider_named};
pub use page::page_url;
pub use url::MAX_URL_BYTES;

pub(crate) use url::encode;

use names::{is_full_commit, path, reference, without_text_suffix};
use url::{Parts, Scheme};

/// A URL on a host of known kind.
#[derive(Debug)]
struct Target {
    /// For messages.
    host: String,
    /// Decoded path segments after the host's base path.
    path: Vec<String>,
    trailing_slash: bool,
    query: Vec<(String, String)>,
    fragment: Option<String>,
    /// It was `git@host:…` or `ssh://…`: a clone URL, never a page.
    ssh: bool,
    /// Account that the host's name carries (`account.visualstudio.com`).
    account: Option<String>,
    /// User name in the URL.
    user: Option<String>,
}

impl Target {
    /// The value of a query parameter.
    fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    fn no_repository(&self, expected: &'static str) -> ContextError {
        ContextError::NoRepository { host: self.host.clone(), expected }
    }
}

/// What a provider understood.
#[derive(Debug)]
struct Draft {
    owner: String,
    name: String,
    point: Point,
}

impl Draft {
    /// Paths of the repository after the base path: for git, and for people.
    fn repository_paths(&self, target: &Target, provider: Provider) -> (String, String) {
        if provider == Provider::Git {
            // A plain server may or may not want the suffix `.git`: the URL is used as the user wrote it.
            let path = target.path.iter().map(|segment| encode(segment)).collect::<Vec<_>>().join("/");
            return (path.clone(), path);
        }
        page::repository_paths(provider, &self.owner, &self.name)
    }
}

/// What a URL points at in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    kind: ContextType,
    reference: Option<String>,
    path: Option<String>,
    line: Option<u32>,
    number: Option<u64>,
}

impl Point {
    const REPOSITORY: Self =
        Self { kind: ContextType::Repository, reference: None, path: None, line: None, number: None };

    fn named(kind: ContextType, name: &str) -> Result<Self, ContextError> {
        Ok(Self { kind, reference: Some(reference(name)?), ..Self::REPOSITORY })
    }

    /// A name that is a branch, unless it is a whole commit id.
    fn branch_or_commit(name: &str) -> Result<Self, ContextError> {
        Self::named(if is_full_commit(name) { ContextType::Commit } else { ContextType::Branch }, name)
    }

    fn commit(value: &str) -> Result<Self, ContextError> {
        let value = without_text_suffix(value);
        Ok(Self { kind: ContextType::Commit, reference: Some(names::commit(value)?), ..Self::REPOSITORY })
    }

    fn pull_request(value: &str) -> Result<Self, ContextError> {
        let value = without_text_suffix(value);
        Ok(Self {
            kind: ContextType::PullRequest,
            number: Some(names::number("a pull request", value)?),
            ..Self::REPOSITORY
        })
    }

    fn issue(value: &str) -> Result<Self, ContextError> {
        Ok(Self { kind: ContextType::Issue, number: Some(names::number("an issue", value)?), ..Self::REPOSITORY })
    }

    /// `ref/path…` where the ref may continue into the path: the shortest candidate. `refs/heads/x` and `refs/tags/x` are unwrapped.
    fn in_tree(segments: &[String], kind: impl Fn(&str) -> ContextType) -> Result<Self, ContextError> {
        let (named, segments) = match segments {
            [refs, heads, rest @ ..] if refs == "refs" && heads == "heads" => (Some(ContextType::Branch), rest),
            [refs, tags, rest @ ..] if refs == "refs" && tags == "tags" => (Some(ContextType::Tag), rest),
            _ => (None, segments),
        };
        let Some((first, rest)) = segments.split_first() else { return Ok(Self::REPOSITORY) };
        match path(rest)? {
            None => match named {
                Some(kind) => Self::named(kind, first),
                None => Self::branch_or_commit(first),
            },
            Some(path) => Ok(Self { path: Some(path.clone()), ..Self::named(kind(&path), first)? }),
        }
    }

    /// A complete name of a branch or tag, which may have slashes, with no path after it.
    fn whole(kind: ContextType, segments: &[String]) -> Result<Self, ContextError> {
        if segments.is_empty() { Ok(Self::REPOSITORY) } else { Self::named(kind, &segments.join("/")) }
    }

    fn at_line(mut self, line: Option<u32>) -> Self {
        self.line = if self.kind == ContextType::File { line } else { None };
        self
    }
}

/// Understands a context URL.
///
/// # Errors
/// When the text is no URL that Berth opens; the error says what is wrong with it and never repeats credentials.
pub fn parse(text: &str, hosts: &Hosts) -> Result<Context, ContextError> {
    let parts = url::split(text, |name| hosts.knows_name(name))?;
    let Parts { scheme, authority, user, path, query, fragment } = parts;
    let default_port = if scheme == Scheme::Http { 80 } else { 443 };
    let port = authority.port.filter(|port| *port != default_port);
    let found = match scheme {
        Scheme::Ssh => hosts.find_for_ssh(&authority.host),
        Scheme::Https | Scheme::Http => hosts.find(&authority.host, port, default_port, &path.segments),
    };
    let host = match found.port {
        Some(port) => format!("{}:{port}", found.host),
        None => found.host.clone(),
    };
    if scheme == Scheme::Http && !hosts.allows_plain_http(&found.host, found.port.unwrap_or(80)) {
        return Err(ContextError::Http { host });
    }
    let base: &[String] = &found.base;
    let under_base = path.segments.get(..base.len()).is_some_and(|start| start == base);
    let segments = path.segments.get(if under_base { base.len() } else { 0 }..).unwrap_or_default().to_vec();
    let segments = if authority.host == github::RAW_HOST { github::page_of_raw(segments) } else { segments };
    // Azure DevOps has the organization as user name in its clone URLs, Bitbucket the user's; elsewhere a lone user name may be a token.
    let offered_by_host = match found.provider {
        Provider::AzureDevops => user.as_deref() == segments.first().map(String::as_str),
        Provider::Bitbucket | Provider::BitbucketDc => true,
        Provider::Github | Provider::Gitlab | Provider::Gitea | Provider::Git => false,
    };
    if user.is_some() && scheme != Scheme::Ssh && !offered_by_host {
        return Err(ContextError::Credentials { host });
    }
    let target = Target {
        host: host.clone(),
        path: segments,
        trailing_slash: path.trailing_slash,
        query,
        fragment,
        ssh: scheme == Scheme::Ssh,
        account: found.account,
        user,
    };
    let draft = match found.provider {
        Provider::Github => github::parse(&target),
        Provider::Gitlab => gitlab::parse(&target),
        Provider::Bitbucket => bitbucket::parse(&target),
        Provider::BitbucketDc => bitbucket_dc::parse(&target),
        Provider::AzureDevops => azure_devops::parse(&target),
        Provider::Gitea => gitea::parse(&target),
        Provider::Git => git::parse(&target, found.known),
    }?;
    let scheme = if scheme == Scheme::Http { "http" } else { "https" };
    let root: String = std::iter::once(format!("{scheme}://{host}"))
        .chain(found.base.iter().map(|segment| encode(segment)))
        .collect::<Vec<_>>()
        .join("/");
    let (clone_path, web_path) = draft.repository_paths(&target, found.provider);
    let Point { kind, reference, path, line, number } = draft.point;
    Ok(Context {
        provider: found.provider,
        host,
        owner: draft.owner,
        name: draft.name,
        kind,
        reference,
        path,
        line,
        number,
        clone_url: format!("{root}/{clone_path}"),
        web_url: format!("{root}/{web_path}"),
    })
}
