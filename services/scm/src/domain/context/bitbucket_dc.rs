//! Bitbucket Data Center (and the former Server).

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{OWNER, file_or_directory, line, path, plain_name, reference, repository, without_git_suffix};
use super::{Draft, Point, Target};

const EXPECTED: &str = "/projects/KEY/repos/repository, /users/name/repos/repository or /scm/key/repository.git";

/// Pages of a repository that stand for the repository itself.
const REPOSITORY_PAGES: [&str; 5] = ["browse", "commits", "branches", "pull-requests", "builds"];

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    let segments: Vec<&str> = target.path.iter().map(String::as_str).collect();
    let (owner, name, used) = match segments.as_slice() {
        ["projects", key, "repos", name, ..] if !target.ssh => (project(key)?, *name, 4),
        ["users", user, "repos", name, ..] if !target.ssh => (format!("~{}", user_name(user)?), *name, 4),
        ["scm", key, name] if !target.ssh => (project(key)?, without_git_suffix(name)?, 3),
        [key, name] if target.ssh => (project(key)?, without_git_suffix(name)?, 2),
        _ => return Err(target.no_repository(EXPECTED)),
    };
    let name = repository(name, b"-_.")?;
    let rest = &target.path[used..];
    let at = target.query("at").or_else(|| target.query("until"));
    let point = match &segments[used..] {
        ["pull-requests", number, ..] if *number != "new" => Point::pull_request(number)?,
        ["commits", sha] => Point::commit(sha)?,
        ["browse", _, ..] => in_tree(target, at, &rest[1..], false)?,
        ["raw", _, ..] => in_tree(target, at, &rest[1..], true)?,
        [] | ["browse" | "commits"] => match at {
            Some(at) => named(at)?,
            None => Point::REPOSITORY,
        },
        [list] if REPOSITORY_PAGES.contains(list) => Point::REPOSITORY,
        _ => return Err(ContextError::Page { page: beginning(&rest.join("/")) }),
    };
    Ok(Draft { owner, name, point })
}

/// A path with its ref in the query; without a ref it is on the default branch.
fn in_tree(target: &Target, at: Option<&str>, rest: &[String], raw: bool) -> Result<Point, ContextError> {
    let at_line = line(target.fragment.as_deref(), &[""]);
    let path = path(rest)?;
    let kind = match &path {
        _ if raw => ContextType::File,
        Some(path) => file_or_directory(path, at_line, target.trailing_slash),
        None => ContextType::Directory,
    };
    let reference = at.map(|at| reference(short(at))).transpose()?;
    Ok(Point { kind, reference, path, ..Point::REPOSITORY }.at_line(at_line))
}

/// `refs/heads/x`, `refs/tags/x`, or a bare name: a branch first, as Bitbucket does it.
fn named(at: &str) -> Result<Point, ContextError> {
    if let Some(branch) = at.strip_prefix("refs/heads/") {
        Point::named(ContextType::Branch, branch)
    } else if let Some(tag) = at.strip_prefix("refs/tags/") {
        Point::named(ContextType::Tag, tag)
    } else {
        Point::branch_or_commit(at)
    }
}

fn short(at: &str) -> &str {
    at.strip_prefix("refs/heads/").or_else(|| at.strip_prefix("refs/tags/")).unwrap_or(at)
}

/// A project key, or `~user`.
fn project(key: &str) -> Result<String, ContextError> {
    match key.strip_prefix('~') {
        Some(user) => Ok(format!("~{}", user_name(user)?)),
        None => plain_name(OWNER, key, b"_-"),
    }
}

fn user_name(user: &str) -> Result<String, ContextError> {
    plain_name(OWNER, user, b"_-.@")
}
