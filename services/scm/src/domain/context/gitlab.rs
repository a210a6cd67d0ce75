//! gitlab.com and GitLab of one's own: groups nest, and a repository's pages come after `/-/` (not in old links).

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{OWNER, file_or_directory, line, plain_name, repository, without_git_suffix};
use super::{Draft, Point, Target};

const EXPECTED: &str = "/group/[subgroup/…]project";

/// First path segments that are pages of the site, not groups.
const SITE_PAGES: [&str; 12] =
    ["-", "admin", "api", "dashboard", "explore", "groups", "help", "projects", "search", "snippets", "users", "v2"];

/// Names that no project can have: one of them after a project begins a page (old links without `/-/`).
const RESERVED: [&str; 6] = ["tree", "blob", "raw", "blame", "commits", "wikis"];

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    if target.path.first().is_some_and(|first| SITE_PAGES.contains(&first.as_str())) {
        return Err(target.no_repository(EXPECTED));
    }
    let (project, rest) = cut(&target.path);
    let Some((name, groups)) = project.split_last() else { return Err(target.no_repository(EXPECTED)) };
    if groups.is_empty() {
        return Err(target.no_repository(EXPECTED));
    }
    let owner = groups.iter().map(|group| plain_name(OWNER, group, b"-_.")).collect::<Result<Vec<_>, _>>()?.join("/");
    let name = repository(without_git_suffix(name)?, b"-_.")?;
    let draft = |point| Draft { owner, name, point };
    let segments: Vec<&str> = rest.iter().map(String::as_str).collect();
    let tree = |kind: &dyn Fn(&str) -> ContextType| {
        let point = Point::in_tree(rest.get(1..).unwrap_or_default(), kind)?;
        Ok::<_, ContextError>(match target.query("ref_type") {
            Some(kind) if kind.eq_ignore_ascii_case("tags") && point.kind == ContextType::Branch => {
                Point { kind: ContextType::Tag, ..point }
            }
            _ => point,
        })
    };
    let point = match segments.as_slice() {
        [] => Point::REPOSITORY,
        _ if target.ssh => return Err(page(rest)),
        ["tree" | "network" | "graphs" | "find_file", _, ..] => tree(&|_| ContextType::Directory)?,
        // The history of a file or folder: its URL does not tell which.
        ["commits", ..] => tree(&|path| file_or_directory(path, None, target.trailing_slash))?,
        ["blob" | "raw" | "blame" | "edit", _, _, ..] => {
            tree(&|_| ContextType::File)?.at_line(line(target.fragment.as_deref(), &["L"]))
        }
        ["commit", sha, ..] => Point::commit(sha)?,
        ["merge_requests", number, ..] if *number != "new" => Point::pull_request(number)?,
        ["issues", "incident", number] | ["issues" | "work_items" | "incidents", number, ..] if *number != "new" => {
            Point::issue(number)?
        }
        ["tags" | "releases", _, ..] => Point::whole(ContextType::Tag, &rest[1..])?,
        [
            "tags" | "releases" | "branches" | "merge_requests" | "issues" | "work_items" | "pipelines" | "jobs"
            | "incidents" | "boards",
        ]
        | ["branches", "all" | "active" | "stale"] => Point::REPOSITORY,
        _ => return Err(page(rest)),
    };
    Ok(draft(point))
}

/// Cuts a path into project and page.
fn cut(path: &[String]) -> (&[String], &[String]) {
    if let Some(dash) = path.iter().position(|segment| segment == "-") {
        return (&path[..dash], &path[dash + 1..]);
    }
    // Old links: a group and a project come first, so the page is at the third place or later.
    for at in 2..path.len() {
        let next = path.get(at + 1).map(String::as_str);
        let page = match path[at].as_str() {
            word if RESERVED.contains(&word) => true,
            "merge_requests" | "issues" => {
                next.is_some_and(|next| !next.is_empty() && next.bytes().all(|byte| byte.is_ascii_digit()))
            }
            "commit" => next.is_some_and(super::names::is_full_commit),
            _ => false,
        };
        if page {
            return path.split_at(at);
        }
    }
    (path, &[])
}

fn page(rest: &[String]) -> ContextError {
    ContextError::Page { page: beginning(&rest.join("/")) }
}
