//! From a [`Context`] back to URLs: the repository's, and the page that the context stands for.

use berth_api_types::context::{Context, ContextType, Provider};

use super::names::{file_or_directory, is_full_commit};
use super::url::{encode, encode_path};

/// Paths of a repository after the host's base path: for git, and for people. Percent-encoded, without a leading slash.
pub(super) fn repository_paths(provider: Provider, owner: &str, name: &str) -> (String, String) {
    // `~user` is written as it is: a tilde is unreserved.
    let (owner_path, name_path) = (encode_path(owner), encode(name));
    let joined = if owner.is_empty() { name_path.clone() } else { format!("{owner_path}/{name_path}") };
    match provider {
        Provider::Github | Provider::Gitlab | Provider::Bitbucket | Provider::Gitea => {
            (format!("{joined}.git"), joined)
        }
        Provider::BitbucketDc => {
            let web = match owner.strip_prefix('~') {
                Some(user) => format!("users/{}/repos/{name_path}", encode(user)),
                None => format!("projects/{owner_path}/repos/{name_path}"),
            };
            (format!("scm/{owner_path}/{name_path}.git"), web)
        }
        Provider::AzureDevops => {
            let path = format!("{owner_path}/_git/{name_path}");
            (path.clone(), path)
        }
        Provider::Git => (joined.clone(), joined),
    }
}

/// The page of the host that shows what the context points at. Parsing it gives the context again.
#[must_use]
pub fn page_url(context: &Context) -> String {
    let reference = context.reference.as_deref().unwrap_or_default();
    let suffix = match context.provider {
        Provider::Github => github(context, reference),
        Provider::Gitlab => gitlab(context, reference),
        Provider::Bitbucket => bitbucket(context, reference),
        Provider::BitbucketDc => bitbucket_dc(context),
        Provider::AzureDevops => azure_devops(context),
        Provider::Gitea => gitea(context, reference),
        Provider::Git => String::new(),
    };
    format!("{}{suffix}", context.web_url)
}

fn number(context: &Context) -> u64 {
    context.number.unwrap_or_default()
}

fn path(context: &Context) -> String {
    encode_path(context.path.as_deref().unwrap_or_default())
}

fn line(context: &Context, prefix: &str) -> String {
    context.line.map(|line| format!("#{prefix}{line}")).unwrap_or_default()
}

/// Whether the host's usual URL of this file would be parsed as that of a folder.
fn needs_raw(context: &Context) -> bool {
    let path = context.path.as_deref().unwrap_or_default();
    context.kind == ContextType::File && file_or_directory(path, context.line, false) == ContextType::Directory
}

fn github(context: &Context, reference: &str) -> String {
    let reference = encode(reference);
    match context.kind {
        ContextType::Repository => String::new(),
        ContextType::Branch => format!("/tree/refs/heads/{reference}"),
        ContextType::Tag => format!("/releases/tag/{reference}"),
        ContextType::Commit => format!("/commit/{reference}"),
        ContextType::PullRequest => format!("/pull/{}", number(context)),
        ContextType::Issue => format!("/issues/{}", number(context)),
        ContextType::File => format!("/blob/{reference}/{}{}", path(context), line(context, "L")),
        ContextType::Directory => format!("/tree/{reference}/{}", path(context)),
    }
}

fn gitlab(context: &Context, reference: &str) -> String {
    let reference = encode(reference);
    match context.kind {
        ContextType::Repository => String::new(),
        ContextType::Branch => format!("/-/tree/refs/heads/{reference}"),
        ContextType::Tag => format!("/-/tags/{reference}"),
        ContextType::Commit => format!("/-/commit/{reference}"),
        ContextType::PullRequest => format!("/-/merge_requests/{}", number(context)),
        ContextType::Issue => format!("/-/issues/{}", number(context)),
        ContextType::File => format!("/-/blob/{reference}/{}{}", path(context), line(context, "L")),
        ContextType::Directory => format!("/-/tree/{reference}/{}", path(context)),
    }
}

fn bitbucket(context: &Context, reference: &str) -> String {
    let encoded = encode(reference);
    match context.kind {
        ContextType::Repository => String::new(),
        ContextType::Branch => format!("/branch/{encoded}"),
        ContextType::Tag => format!("/commits/tag/{encoded}"),
        ContextType::Commit => format!("/commits/{encoded}"),
        ContextType::PullRequest => format!("/pull-requests/{}", number(context)),
        ContextType::Issue => format!("/issues/{}", number(context)),
        ContextType::File if needs_raw(context) => format!("/raw/{encoded}/{}", path(context)),
        ContextType::File => format!("/src/{encoded}/{}{}", path(context), line(context, "lines-")),
        ContextType::Directory => format!("/src/{encoded}/{}/", path(context)),
    }
}

fn bitbucket_dc(context: &Context) -> String {
    let at = |prefix: &str| match &context.reference {
        Some(reference) => format!("?at={prefix}{}", encode(reference)),
        None => String::new(),
    };
    let in_tree =
        || if context.reference.as_deref().is_some_and(is_full_commit) { at("") } else { at("refs%2Fheads%2F") };
    match context.kind {
        ContextType::Repository | ContextType::Issue => String::new(),
        ContextType::Branch => format!("/browse{}", at("refs%2Fheads%2F")),
        ContextType::Tag => format!("/browse{}", at("refs%2Ftags%2F")),
        ContextType::Commit => format!("/commits/{}", encode(context.reference.as_deref().unwrap_or_default())),
        ContextType::PullRequest => format!("/pull-requests/{}", number(context)),
        ContextType::File if needs_raw(context) => format!("/raw/{}{}", path(context), in_tree()),
        ContextType::File => format!("/browse/{}{}{}", path(context), in_tree(), line(context, "")),
        ContextType::Directory => format!("/browse/{}/{}", path(context), in_tree()),
    }
}

fn azure_devops(context: &Context) -> String {
    let version = match (&context.reference, context.kind) {
        (None, _) => None,
        (Some(reference), ContextType::Tag) => Some(format!("version=GT{}", encode(reference))),
        (Some(reference), ContextType::File | ContextType::Directory) if is_full_commit(reference) => {
            Some(format!("version=GC{}", encode(reference)))
        }
        (Some(reference), _) => Some(format!("version=GB{}", encode(reference))),
    };
    match context.kind {
        ContextType::Repository | ContextType::Issue => String::new(),
        ContextType::Branch | ContextType::Tag => version.map(|version| format!("?{version}")).unwrap_or_default(),
        ContextType::Commit => format!("/commit/{}", encode(context.reference.as_deref().unwrap_or_default())),
        ContextType::PullRequest => format!("/pullrequest/{}", number(context)),
        ContextType::File | ContextType::Directory => {
            let slash = if context.kind == ContextType::Directory { "%2F" } else { "" };
            let path = format!("path=%2F{}{slash}", encode(context.path.as_deref().unwrap_or_default()));
            let line = context.line.map(|line| format!("line={line}"));
            let query: Vec<String> = version.into_iter().chain([path]).chain(line).collect();
            format!("?{}", query.join("&"))
        }
    }
}

fn gitea(context: &Context, reference: &str) -> String {
    let form = if is_full_commit(reference) { "commit" } else { "branch" };
    let encoded = encode(reference);
    match context.kind {
        ContextType::Repository => String::new(),
        ContextType::Branch => format!("/src/branch/refs/heads/{encoded}"),
        ContextType::Tag => format!("/releases/tag/{encoded}"),
        ContextType::Commit => format!("/commit/{encoded}"),
        ContextType::PullRequest => format!("/pulls/{}", number(context)),
        ContextType::Issue => format!("/issues/{}", number(context)),
        ContextType::File if needs_raw(context) => format!("/raw/{form}/{encoded}/{}", path(context)),
        ContextType::File => format!("/src/{form}/{encoded}/{}{}", path(context), line(context, "L")),
        ContextType::Directory => format!("/src/{form}/{encoded}/{}/", path(context)),
    }
}
