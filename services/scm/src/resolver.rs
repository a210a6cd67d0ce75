//! From a context URL to a commit: parse, ask the host, decide.

use std::sync::Arc;

use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};
use serde_json::Value;

use crate::domain::context::{ContextError, Hosts, encode, parse};
use crate::domain::resolve::{Outcome, ResolveError, all_prefixes, decide, prefixes};
use crate::remote::{Listing, Login, Remote, RemoteError, Together};

/// Why a context URL could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] ContextError),
    /// The host failed; everybody who asked it together gets the same error.
    #[error(transparent)]
    Remote(#[from] Arc<RemoteError>),
    /// What the URL points at does not exist.
    #[error(transparent)]
    Refs(#[from] ResolveError),
    /// The API's answer about a pull request lacks what is needed.
    #[error("the API of {host} does not say which branch pull request {number} comes from")]
    PullRequest {
        /// The host.
        host: String,
        /// The number.
        number: u64,
    },
}

/// Resolves contexts.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) hosts: Hosts,
    pub(crate) remote: Arc<Remote>,
    pub(crate) refs: Together,
    pub(crate) bitbucket_api: String,
}

impl Resolver {
    /// Parses a URL; makes no call.
    pub(crate) fn parse(&self, url: &str) -> Result<Context, ContextError> {
        parse(url, &self.hosts)
    }

    /// Looks a context up at its host.
    pub(crate) async fn resolve(
        &self,
        mut context: Context,
        login: Option<&Login>,
    ) -> Result<ResolvedContext, ResolverError> {
        let listing = self.first_listing(&context, login).await?;
        // A renamed repository answers under its new name; git in the workspace follows no redirects.
        context.clone_url.clone_from(&listing.url);
        match decide(&context, &listing.refs, false)? {
            Outcome::Done(done) => Ok(*done),
            Outcome::ListAll => {
                let all = self.refs.list(&context.clone_url, &all_prefixes(), login).await?;
                match decide(&context, &all.refs, true)? {
                    Outcome::Done(done) => Ok(*done),
                    Outcome::ListAll | Outcome::AskApi { .. } => Err(missing(&context)),
                }
            }
            Outcome::AskApi { number } => {
                let branch = self.source_branch(&context, number, login).await?;
                let wanted = vec![format!("refs/heads/{branch}")];
                let listing = self.refs.list(&context.clone_url, &wanted, login).await?;
                let at_branch =
                    Context { kind: ContextType::Branch, reference: Some(branch), number: None, ..context.clone() };
                match decide(&at_branch, &listing.refs, true)? {
                    Outcome::Done(done) => Ok(ResolvedContext { context, ..*done }),
                    Outcome::ListAll | Outcome::AskApi { .. } => Err(missing(&context)),
                }
            }
        }
    }

    /// Lists the refs that the context needs. A plain server may know the repository only by its name with `.git`, which users leave out.
    async fn first_listing(&self, context: &Context, login: Option<&Login>) -> Result<Arc<Listing>, Arc<RemoteError>> {
        let wanted = prefixes(context);
        let listing = self.refs.list(&context.clone_url, &wanted, login).await;
        let without_suffix = context.provider == Provider::Git && !context.clone_url.ends_with(".git");
        match listing {
            Err(error)
                if without_suffix && matches!(*error, RemoteError::NoAccess { .. } | RemoteError::NotGit { .. }) =>
            {
                let with_suffix = format!("{}.git", context.clone_url);
                self.refs.list(&with_suffix, &wanted, login).await.map_err(|_| error)
            }
            listing => listing,
        }
    }

    /// Branch of this repository that a pull request comes from, by the host's API.
    async fn source_branch(
        &self,
        context: &Context,
        number: u64,
        login: Option<&Login>,
    ) -> Result<String, ResolverError> {
        let (owner, name) = (encode(&context.owner), encode(&context.name));
        let (url, branch, repository, this) = if context.provider == Provider::Bitbucket {
            (
                format!("{}/repositories/{owner}/{name}/pullrequests/{number}", self.bitbucket_api),
                "/source/branch/name",
                "/source/repository/full_name",
                format!("{}/{}", context.owner, context.name),
            )
        } else {
            // `…/scm/key/name.git` without its last three parts is the host's base.
            let base = context.clone_url.rsplitn(4, '/').nth(3).unwrap_or_default();
            (
                format!("{base}/rest/api/latest/projects/{owner}/repos/{name}/pull-requests/{number}"),
                "/fromRef/displayId",
                "/fromRef/repository",
                format!("{}/{}", context.owner, context.name),
            )
        };
        let answer = self.remote.json(&url, login).await.map_err(Arc::new)?;
        let unclear = || ResolverError::PullRequest { host: context.host.clone(), number };
        let branch = answer.pointer(branch).and_then(Value::as_str).ok_or_else(unclear)?.to_owned();
        let source = match answer.pointer(repository) {
            Some(Value::String(name)) => name.clone(),
            Some(repository) => {
                let text = |pointer| repository.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                format!("{}/{}", text("/project/key"), text("/slug"))
            }
            None => return Err(unclear()),
        };
        if source.eq_ignore_ascii_case(&this) {
            Ok(branch)
        } else {
            let fork = source.chars().filter(|c| !c.is_control()).take(200).collect();
            Err(ResolveError::Fork { number, host: context.host.clone(), fork, branch }.into())
        }
    }
}

fn missing(context: &Context) -> ResolverError {
    ResolveError::NoSuchPullRequest { number: context.number.unwrap_or_default(), repository: context.web_url.clone() }
        .into()
}
