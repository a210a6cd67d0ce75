//! github.com and GitHub Enterprise.

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{OWNER, file_or_directory, line, plain_name, repository, without_git_suffix};
use super::{Draft, Point, Target};

/// Serves the content of files: `/owner/repository/REF/path`.
pub(super) const RAW_HOST: &str = "raw.githubusercontent.com";

const EXPECTED: &str = "/owner/repository";

/// First path segments that are pages of the site, not accounts.
const SITE_PAGES: [&str; 34] = [
    "about",
    "account",
    "apps",
    "codespaces",
    "collections",
    "contact",
    "copilot",
    "customer-stories",
    "dashboard",
    "enterprise",
    "events",
    "explore",
    "features",
    "issues",
    "join",
    "login",
    "logout",
    "marketplace",
    "new",
    "notifications",
    "organizations",
    "orgs",
    "pricing",
    "pulls",
    "search",
    "security",
    "sessions",
    "settings",
    "site",
    "sponsors",
    "stars",
    "topics",
    "trending",
    "users",
];

/// Pages of a repository that stand for the repository itself.
const REPOSITORY_PAGES: [&str; 22] = [
    "actions",
    "activity",
    "branches",
    "commits",
    "contributors",
    "deployments",
    "discussions",
    "forks",
    "issues",
    "labels",
    "milestones",
    "network",
    "packages",
    "projects",
    "pulls",
    "pulse",
    "releases",
    "security",
    "stargazers",
    "tags",
    "watchers",
    "wiki",
];

/// The path on github.com of what [`RAW_HOST`] serves.
pub(super) fn page_of_raw(mut path: Vec<String>) -> Vec<String> {
    if path.len() >= 2 {
        path.insert(2, "raw".to_owned());
    }
    path
}

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    let [owner, name, rest @ ..] = target.path.as_slice() else { return Err(target.no_repository(EXPECTED)) };
    if SITE_PAGES.contains(&owner.as_str()) {
        return Err(target.no_repository(EXPECTED));
    }
    let name = if rest.is_empty() || name.ends_with(".git") { without_git_suffix(name)? } else { name };
    let draft = |point| -> Result<Draft, ContextError> {
        Ok(Draft { owner: plain_name(OWNER, owner, b"-_")?, name: repository(name, b"-_.")?, point })
    };
    let segments: Vec<&str> = rest.iter().map(String::as_str).collect();
    let tree = |kind| Point::in_tree(rest.get(1..).unwrap_or_default(), |_| kind);
    let at_line = |point: Point| point.at_line(line(target.fragment.as_deref(), &["L"]));
    let point = match segments.as_slice() {
        [] => Point::REPOSITORY,
        _ if target.ssh => return Err(page(rest)),
        ["tree", _, ..] => tree(ContextType::Directory)?,
        // The history of a file or folder: its URL does not tell which.
        ["commits", ..] => Point::in_tree(&rest[1..], |path| file_or_directory(path, None, target.trailing_slash))?,
        ["blob" | "raw" | "blame" | "edit", _, _, ..] => at_line(tree(ContextType::File)?),
        ["commit", sha] | ["commit", sha, "checks"] | ["pull", _, "commits", sha] => Point::commit(sha)?,
        ["pull", number, ..] => Point::pull_request(number)?,
        ["issues", number] => Point::issue(number)?,
        ["releases", "tag", _, ..] => Point::whole(ContextType::Tag, &rest[2..])?,
        ["releases", "latest"]
        | ["graphs", _]
        | ["branches", "active" | "all" | "stale" | "yours"]
        | ["network", "members" | "dependencies" | "dependents"] => Point::REPOSITORY,
        [list] if REPOSITORY_PAGES.contains(list) => Point::REPOSITORY,
        _ => return Err(page(rest)),
    };
    draft(point)
}

fn page(rest: &[String]) -> ContextError {
    ContextError::Page { page: beginning(&rest.join("/")) }
}
