//! Which answer each error becomes.

use std::sync::Arc;

use berth_http::Problem;
use berth_http::outbound::Refused;

use crate::domain::context::ContextError;
use crate::domain::resolve::ResolveError;
use crate::remote::RemoteError;
use crate::resolver::ResolverError;
use crate::vault::VaultError;

impl From<ResolverError> for Problem {
    fn from(error: ResolverError) -> Self {
        match error {
            ResolverError::Url(error) => error.into_problem(),
            ResolverError::Refs(error) => unresolved(&error),
            ResolverError::Remote(error) => unreachable(error),
            error @ ResolverError::PullRequest { .. } => Self::unprocessable("git_host_failed", error.to_string()),
        }
    }
}

impl ContextError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        Problem::unprocessable("invalid_context_url", detail.clone()).with_error("/context_url", detail)
    }
}

fn unresolved(error: &ResolveError) -> Problem {
    let code = match error {
        ResolveError::NoSuchRef { .. } => "ref_not_found",
        ResolveError::ShortCommit { .. } | ResolveError::AmbiguousCommit { .. } => "commit_not_found",
        ResolveError::NoSuchPullRequest { .. } => "pull_request_not_found",
        ResolveError::Fork { .. } => "pull_request_from_fork",
        ResolveError::Empty { .. } => "repository_empty",
    };
    Problem::unprocessable(code, error.to_string())
}

fn unreachable(error: Arc<RemoteError>) -> Problem {
    let detail = error.to_string();
    let problem = match &*error {
        RemoteError::NoAccess { .. } => Problem::unprocessable("repository_not_accessible", detail),
        RemoteError::Refused(Refused::Unresolved { .. }) => Problem::unprocessable("unknown_git_host", detail),
        RemoteError::Refused(Refused::Private { .. } | Refused::Plain { .. }) => {
            Problem::unprocessable("git_host_refused", detail)
        }
        RemoteError::Refused(Refused::Client(_)) => return Problem::internal(error),
        RemoteError::Url { .. }
        | RemoteError::NotGit { .. }
        | RemoteError::Redirect { .. }
        | RemoteError::Redirects { .. } => Problem::unprocessable("not_a_git_repository", detail),
        RemoteError::TooLarge { .. } => Problem::unprocessable("repository_too_large", detail),
        // The host is at fault, and the user should read how: only a 4xx is passed on unchanged between services.
        RemoteError::Timeout { .. } => Problem::unprocessable("git_host_timeout", detail),
        RemoteError::Connect { .. } | RemoteError::Broken { .. } => {
            Problem::unprocessable("git_host_unreachable", detail)
        }
        RemoteError::Status { .. } | RemoteError::Protocol { .. } => Problem::unprocessable("git_host_failed", detail),
    };
    tracing::info!(code = problem.code(), error = %berth_http::problem::chain(&error), "a git host could not be asked");
    problem
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::TooMany => Self::conflict("too_many_git_credentials", error.to_string()),
            error => Self::internal(error),
        }
    }
}
