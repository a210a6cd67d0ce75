//! Gitea and Forgejo.

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{OWNER, file_or_directory, line, plain_name, repository, without_git_suffix};
use super::{Draft, Point, Target};

const EXPECTED: &str = "/owner/repository";

/// First path segments that are pages of the site, not accounts.
const SITE_PAGES: [&str; 10] =
    ["-", "admin", "api", "explore", "issues", "milestones", "notifications", "org", "pulls", "user"];

/// Pages of a repository that stand for the repository itself.
const REPOSITORY_PAGES: [&str; 11] = [
    "actions", "activity", "branches", "commits", "issues", "packages", "projects", "pulls", "releases", "tags", "wiki",
];

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    let [owner, name, rest @ ..] = target.path.as_slice() else { return Err(target.no_repository(EXPECTED)) };
    if SITE_PAGES.contains(&owner.as_str()) {
        return Err(target.no_repository(EXPECTED));
    }
    let owner = plain_name(OWNER, owner, b"-_.")?;
    let name = repository(without_git_suffix(name)?, b"-_.")?;
    let segments: Vec<&str> = rest.iter().map(String::as_str).collect();
    let at_line = line(target.fragment.as_deref(), &["L"]);
    let shown = |path: &str| file_or_directory(path, at_line, target.trailing_slash);
    let file = |_: &str| ContextType::File;
    let point = match segments.as_slice() {
        [] => Point::REPOSITORY,
        _ if target.ssh => return Err(page(rest)),
        ["src" | "commits", "branch", _, ..] => Point::in_tree(&rest[2..], shown)?,
        ["src" | "commits", "tag", _, ..] => tag(Point::in_tree(&rest[2..], shown)?),
        ["src" | "commits", "commit", _] | ["commit", _, ..] => {
            Point::commit(segments.get(if segments[0] == "commit" { 1 } else { 2 }).copied().unwrap_or_default())?
        }
        ["src", "commit", _, ..] => Point::in_tree(&rest[2..], shown)?,
        ["raw" | "media" | "blame", "branch" | "tag" | "commit", _, _, ..] => Point::in_tree(&rest[2..], file)?,
        ["src", "branch" | "tag" | "commit"] => return Err(page(rest)),
        // Without the kind of ref, as before Gitea 1.4.
        ["src", _, ..] => Point::in_tree(&rest[1..], shown)?,
        ["raw", _, _, ..] => Point::in_tree(&rest[1..], file)?,
        ["pulls", number, ..] => Point::pull_request(number)?,
        ["issues", number] => Point::issue(number)?,
        ["releases", "tag", _, ..] => Point::whole(ContextType::Tag, &rest[2..])?,
        ["src"] | ["releases", "latest"] => Point::REPOSITORY,
        [list] if REPOSITORY_PAGES.contains(list) => Point::REPOSITORY,
        _ => return Err(page(rest)),
    };
    Ok(Draft { owner, name, point: point.at_line(at_line) })
}

/// A name that the URL says is a tag.
fn tag(point: Point) -> Point {
    match point.kind {
        ContextType::Branch | ContextType::Commit => Point { kind: ContextType::Tag, ..point },
        _ => point,
    }
}

fn page(rest: &[String]) -> ContextError {
    ContextError::Page { page: beginning(&rest.join("/")) }
}
