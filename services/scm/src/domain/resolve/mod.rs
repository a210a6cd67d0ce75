//! From a [`Context`] and the host's refs to a [`ResolvedContext`]: where a branch name with slashes ends, what is a tag, which commit.

mod near;

#[cfg(test)]
mod tests;

use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};

use super::context::names::is_full_commit;
use crate::remote::{Refs, RemoteRef};

use near::nearest;

/// Why a context does not fit the repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such branch or tag.
    #[error("{repository} has no {what} {name:?}{}", did_you_mean(near))]
    NoSuchRef {
        /// `branch or tag`, `tag`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// Web URL of the repository.
        repository: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A shortened commit that is not the tip of a branch or tag.
    #[error(
        "the shortened commit {commit:?} is not the tip of a branch or tag of {repository}: give all 40 digits, hosts \
         find other commits by nothing less"
    )]
    ShortCommit {
        /// The digits.
        commit: String,
        /// Web URL of the repository.
        repository: String,
    },
    /// A shortened commit that fits several.
    #[error("the shortened commit {commit:?} of {repository} may be {}: give more digits", candidates.join(" or "))]
    AmbiguousCommit {
        /// The digits.
        commit: String,
        /// Web URL of the repository.
        repository: String,
        /// What it may be.
        candidates: Vec<String>,
    },
    /// No such pull request, or the host does not show its ref.
    #[error(
        "{repository} shows no pull request {number}: check the number; a pull request from a deleted fork may be gone"
    )]
    NoSuchPullRequest {
        /// The number.
        number: u64,
        /// Web URL of the repository.
        repository: String,
    },
    /// A pull request whose source is another repository, on a host that keeps no ref of it.
    #[error(
        "pull request {number} comes from the fork {fork}, and {host} keeps no ref of it: open the branch {branch:?} of the fork"
    )]
    Fork {
        /// The number.
        number: u64,
        /// The host.
        host: String,
        /// Name of the fork.
        fork: String,
        /// Its branch.
        branch: String,
    },
    /// Something in an empty repository.
    #[error("{repository} is empty: open the repository itself, and push a first commit from the workspace")]
    Empty {
        /// Web URL of the repository.
        repository: String,
    },
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::from(": check the name"),
        near => format!(": did you mean {}?", near.join(", ")),
    }
}

/// The outcome of looking at the refs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is known.
    Done(Box<ResolvedContext>),
    /// It depends on refs that were not asked for: list all branches and tags, and call again.
    ListAll,
    /// The host shows no ref of this pull request: only its API can answer.
    AskApi {
        /// The number.
        number: u64,
    },
}

/// Prefixes that list every branch and tag.
#[must_use]
pub fn all_prefixes() -> Vec<String> {
    vec!["refs/heads/".to_owned(), "refs/tags/".to_owned()]
}

/// What to ask the host for, beside `HEAD`.
#[must_use]
pub fn prefixes(context: &Context) -> Vec<String> {
    let both = |name: &str| vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")];
    match (context.kind, context.reference.as_deref()) {
        (ContextType::Repository | ContextType::Issue, _) | (_, None) if context.kind != ContextType::PullRequest => {
            Vec::new()
        }
        (ContextType::PullRequest, _) => {
            context.number.and_then(|number| pull_request_ref(context.provider, number)).into_iter().collect()
        }
        (ContextType::Commit, Some(commit)) if is_full_commit(commit) => Vec::new(),
        (ContextType::Commit, _) => all_prefixes(),
        (_, Some(name)) => both(name),
        (_, None) => Vec::new(),
    }
}

/// The ref under which a host keeps a pull request; each host's own convention (Bitbucket Cloud has none).
fn pull_request_ref(provider: Provider, number: u64) -> Option<String> {
    match provider {
        Provider::Github | Provider::Gitea | Provider::Git => Some(format!("refs/pull/{number}/head")),
        Provider::Gitlab => Some(format!("refs/merge-requests/{number}/head")),
        Provider::BitbucketDc => Some(format!("refs/pull-requests/{number}/from")),
        Provider::AzureDevops => Some(format!("refs/pull/{number}/merge")),
        Provider::Bitbucket => None,
    }
}

/// Resolves a context with the refs. `all` says that they include every branch and tag.
///
/// # Errors
/// See [`ResolveError`].
pub fn decide(context: &Context, refs: &Refs, all: bool) -> Result<Outcome, ResolveError> {
    let look = Look { context, refs, all };
    match context.kind {
        ContextType::Branch | ContextType::File | ContextType::Directory
            if context.reference.as_deref() == Some("HEAD") =>
        {
            look.head()
        }
        ContextType::Repository | ContextType::Issue => look.default_branch(),
        ContextType::Branch => look.named(true),
        ContextType::Tag => look.named(false),
        ContextType::Commit => look.commit(context.reference.as_deref().unwrap_or_default()),
        ContextType::PullRequest => look.pull_request(),
        ContextType::File | ContextType::Directory => look.in_tree(),
    }
}

struct Look<'a> {
    context: &'a Context,
    refs: &'a Refs,
    all: bool,
}

impl Look<'_> {
    fn done(
        &self,
        context: Context,
        fetch_ref: Option<String>,
        branch: Option<String>,
        commit: Option<String>,
    ) -> Outcome {
        let default_branch = self.refs.head_target.as_deref().and_then(branch_name).map(str::to_owned);
        Outcome::Done(Box::new(ResolvedContext { context, fetch_ref, branch, commit, default_branch }))
    }

    fn repository(&self) -> String {
        self.context.web_url.clone()
    }

    fn is_empty(&self) -> bool {
        self.refs.head.is_none() && self.refs.list.is_empty()
    }

    /// The branch that `HEAD` names, or the best substitute if that does not exist.
    fn default_branch(&self) -> Result<Outcome, ResolveError> {
        let context = self.context.clone();
        if let Some(commit) = self.refs.head.clone() {
            let target = self.refs.head_target.clone();
            let branch = target.as_deref().and_then(branch_name).map(str::to_owned);
            return Ok(self.done(context, Some(target.unwrap_or_else(|| "HEAD".to_owned())), branch, Some(commit)));
        }
        if !self.all {
            return Ok(Outcome::ListAll);
        }
        let branches: Vec<(&str, &RemoteRef)> =
            self.refs.list.iter().filter_map(|entry| Some((branch_name(&entry.name)?, entry))).collect();
        let usual = |name: &str| branches.iter().find(|(branch, _)| *branch == name);
        let chosen = usual("main").or_else(|| usual("master")).or_else(|| branches.first());
        Ok(match chosen {
            Some((name, entry)) => {
                self.done(context, Some(entry.name.clone()), Some((*name).to_owned()), Some(entry.commit().to_owned()))
            }
            // An empty repository: work begins on the branch that the host will make its default.
            None => {
                let name = self.refs.head_target.as_deref().and_then(branch_name).unwrap_or("main");
                self.done(context, None, Some(name.to_owned()), None)
            }
        })
    }

    /// `HEAD` in place of a branch, as in links that must survive the renaming of the default branch.
    fn head(&self) -> Result<Outcome, ResolveError> {
        let Outcome::Done(mut done) = self.default_branch()? else { return Ok(Outcome::ListAll) };
        let Some(commit) = done.commit.clone() else {
            return Err(ResolveError::Empty { repository: self.repository() });
        };
        if done.branch.is_none() && done.context.kind == ContextType::Branch {
            done.context.kind = ContextType::Commit;
        }
        done.context.reference = Some(done.branch.clone().unwrap_or(commit));
        Ok(Outcome::Done(done))
    }

    /// A branch (or, if the URL does not say branch, a tag), by its complete name.
    fn named(&self, branch_first: bool) -> Result<Outcome, ResolveError> {
        let name = self.context.reference.as_deref().unwrap_or_default();
        if branch_first && let Some(entry) = self.refs.get(&format!("refs/heads/{name}")) {
            return Ok(self.at_ref(entry, name, None));
        }
        if let Some(entry) = self.refs.get(&format!("refs/tags/{name}")) {
            return Ok(self.at_ref(entry, name, None));
        }
        if branch_first && looks_like_commit(name) {
            return self.commit(name);
        }
        self.missing(if branch_first { "branch or tag" } else { "tag" }, name)
    }

    /// The refs do not have it: list all of them, then name similar ones.
    fn missing(&self, what: &'static str, name: &str) -> Result<Outcome, ResolveError> {
        if !self.all {
            return Ok(Outcome::ListAll);
        }
        if self.is_empty() {
            return Err(ResolveError::Empty { repository: self.repository() });
        }
        let names = self.refs.list.iter().filter_map(|entry| {
            let branch = if what == "tag" { None } else { branch_name(&entry.name) };
            branch.or_else(|| entry.name.strip_prefix("refs/tags/"))
        });
        let near = nearest(name, names);
        Err(ResolveError::NoSuchRef { what, name: name.to_owned(), repository: self.repository(), near })
    }

    /// The context at a ref, with what is left of its path.
    fn at_ref(&self, entry: &RemoteRef, name: &str, path: Option<String>) -> Outcome {
        let branch = branch_name(&entry.name).map(str::to_owned);
        let kind = match (&path, &branch) {
            (Some(_), _) => self.context.kind,
            (None, Some(_)) => ContextType::Branch,
            (None, None) => ContextType::Tag,
        };
        let context = Context {
            kind,
            reference: Some(name.to_owned()),
            line: if path.is_some() { self.context.line } else { None },
            path,
            ..self.context.clone()
        };
        self.done(context, Some(entry.name.clone()), branch, Some(entry.commit().to_owned()))
    }

    /// A file or folder: the ref is the longest existing one with which the path begins.
    fn in_tree(&self) -> Result<Outcome, ResolveError> {
        let path = self.context.path.as_deref().unwrap_or_default();
        let Some(first) = self.context.reference.as_deref() else {
            // Hosts whose URLs do not have the ref in the path: no ref means the default branch.
            return match self.default_branch()? {
                Outcome::Done(done) if done.commit.is_none() => {
                    Err(ResolveError::Empty { repository: self.repository() })
                }
                outcome => Ok(outcome),
            };
        };
        if is_full_commit(first) {
            return self.commit(first);
        }
        let whole = format!("{first}/{path}");
        // Where the ref has its own place in the URL, it is complete.
        let complete = matches!(self.context.provider, Provider::BitbucketDc | Provider::AzureDevops);
        let longest = self
            .refs
            .list
            .iter()
            .filter_map(|entry| {
                let name = branch_name(&entry.name).or_else(|| entry.name.strip_prefix("refs/tags/"))?;
                let rest = if complete { (name == first).then_some(path) } else { rest_after(name, first, &whole) }?;
                Some((name, rest, entry))
            })
            // A branch wins over a tag of the same name, as on the web pages of all hosts.
            .max_by_key(|(name, _, entry)| (name.len(), entry.name.starts_with("refs/heads/")));
        match longest {
            Some((name, rest, entry)) => {
                Ok(self.at_ref(entry, name, Some(rest.to_owned()).filter(|rest| !rest.is_empty())))
            }
            None if looks_like_commit(first) => self.commit(first),
            None => self.missing("branch or tag", if complete { first } else { &whole }),
        }
    }

    fn commit(&self, digits: &str) -> Result<Outcome, ResolveError> {
        let digits = digits.to_ascii_lowercase();
        let at = |commit: String| {
            let kind = match self.context.kind {
                kind @ (ContextType::File | ContextType::Directory) => kind,
                _ => ContextType::Commit,
            };
            let context = Context { kind, reference: Some(commit.clone()), ..self.context.clone() };
            self.done(context, None, None, Some(commit))
        };
        if is_full_commit(&digits) {
            return Ok(at(digits));
        }
        if !self.all {
            return Ok(Outcome::ListAll);
        }
        if self.is_empty() {
            return Err(ResolveError::Empty { repository: self.repository() });
        }
        let mut candidates: Vec<String> = self
            .refs
            .list
            .iter()
            .map(RemoteRef::commit)
            .chain(self.refs.head.as_deref())
            .filter(|commit| commit.starts_with(&digits))
            .map(str::to_owned)
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        match candidates.as_slice() {
            [] if self.context.kind == ContextType::Branch => self.missing("branch, tag or commit", &digits),
            [] => Err(ResolveError::ShortCommit { commit: digits, repository: self.repository() }),
            [one] => Ok(at(one.clone())),
            _ => {
                candidates.truncate(3);
                Err(ResolveError::AmbiguousCommit { commit: digits, repository: self.repository(), candidates })
            }
        }
    }

    fn pull_request(&self) -> Result<Outcome, ResolveError> {
        let number = self.context.number.unwrap_or_default();
        let name = pull_request_ref(self.context.provider, number);
        match name.as_deref().and_then(|name| self.refs.get(name)) {
            Some(entry) => {
                Ok(self.done(self.context.clone(), Some(entry.name.clone()), None, Some(entry.commit().to_owned())))
            }
            None if matches!(self.context.provider, Provider::Bitbucket | Provider::BitbucketDc) => {
                Ok(Outcome::AskApi { number })
            }
            None => Err(ResolveError::NoSuchPullRequest { number, repository: self.repository() }),
        }
    }
}

fn branch_name(full: &str) -> Option<&str> {
    full.strip_prefix("refs/heads/")
}

/// What follows a ref in `whole`; `None` if `whole` does not begin with the ref, up to a slash, or if the ref is shorter than `first`.
fn rest_after<'a>(name: &str, first: &str, whole: &'a str) -> Option<&'a str> {
    let rest = whole.strip_prefix(name)?;
    if name.len() < first.len() {
        return None;
    }
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Whether there are enough hexadecimal digits for a shortened commit, rather than a word.
fn looks_like_commit(name: &str) -> bool {
    (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
