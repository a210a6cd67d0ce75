//! Bitbucket Cloud.

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{self, OWNER, file_or_directory, line, path, plain_name, reference, repository, without_git_suffix};
use super::{Draft, Point, Target};

const EXPECTED: &str = "/workspace/repository";

/// First path segments that are pages of the site, not workspaces.
const SITE_PAGES: [&str; 7] = ["account", "dashboard", "product", "repo", "site", "snippets", "support"];

/// Pages of a repository that stand for the repository itself.
const REPOSITORY_PAGES: [&str; 9] =
    ["src", "overview", "commits", "branches", "pull-requests", "issues", "pipelines", "downloads", "wiki"];

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    let [owner, name, rest @ ..] = target.path.as_slice() else { return Err(target.no_repository(EXPECTED)) };
    if SITE_PAGES.contains(&owner.as_str()) {
        return Err(target.no_repository(EXPECTED));
    }
    let owner = plain_name(OWNER, owner, b"-_")?;
    let name = repository(without_git_suffix(name)?, b"-_.")?;
    let segments: Vec<&str> = rest.iter().map(String::as_str).collect();
    let point = match segments.as_slice() {
        [] => Point::REPOSITORY,
        _ if target.ssh => return Err(page(rest)),
        ["src", _, ..] => tree(target, &rest[1..])?,
        ["raw" | "annotate", _, _, ..] => Point { kind: ContextType::File, ..tree(target, &rest[1..])? },
        ["branch", _, ..] => Point::whole(ContextType::Branch, &rest[1..])?,
        ["commits", "branch", _, ..] => Point::whole(ContextType::Branch, &rest[2..])?,
        ["commits", "tag", _, ..] => Point::whole(ContextType::Tag, &rest[2..])?,
        ["commits", "all"] => Point::REPOSITORY,
        ["commits", sha] => Point::commit(sha)?,
        ["pull-requests", number, ..] if *number != "new" => Point::pull_request(number)?,
        ["issues", number] | ["issues", number, _] if *number != "new" => Point::issue(number)?,
        [list] if REPOSITORY_PAGES.contains(list) => Point::REPOSITORY,
        _ => return Err(page(rest)),
    };
    Ok(Draft { owner, name, point })
}

/// `ref/path`; `?at=` names the branch when the first part is a commit, whole or shortened.
fn tree(target: &Target, rest: &[String]) -> Result<Point, ContextError> {
    let at_line = line(target.fragment.as_deref(), &["lines-", "L"]);
    let kind = |path: &str| file_or_directory(path, at_line, target.trailing_slash);
    let point = match (target.query("at"), rest) {
        (Some(at), [first, rest @ ..]) if names::commit(first).is_ok() => match path(rest)? {
            None => Point::branch_or_commit(at)?,
            Some(path) => {
                Point { kind: kind(&path), reference: Some(reference(at)?), path: Some(path), ..Point::REPOSITORY }
            }
        },
        _ => Point::in_tree(rest, kind)?,
    };
    Ok(point.at_line(at_line))
}

fn page(rest: &[String]) -> ContextError {
    ContextError::Page { page: beginning(&rest.join("/")) }
}
