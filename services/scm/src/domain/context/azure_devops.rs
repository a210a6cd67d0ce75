//! Azure DevOps Services and Server: `organization/project/_git/repository`, the ref and path in the query.

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::names::{OWNER, REPOSITORY, any_name, file_or_directory, path, reference};
use super::url::split_path;
use super::{Draft, Point, Target};

const EXPECTED: &str = "/organization/project/_git/repository";

pub(super) fn parse(target: &Target) -> Result<Draft, ContextError> {
    let mut segments = target.path.clone();
    if let Some(account) = &target.account {
        // The old host name carries the organization; its only collection may be named too, and adds nothing.
        if segments.first().is_some_and(|first| first.eq_ignore_ascii_case("DefaultCollection")) {
            segments.remove(0);
        }
        segments.insert(0, account.clone());
    }
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    if target.ssh {
        return match (parts.as_slice(), target.user.as_deref()) {
            (["v3", organization, project, name], _) => draft(organization, project, name, Point::REPOSITORY),
            // The old address has the organization as user name; its only collection adds nothing here either.
            ([collection, project, "_ssh", name], Some(user))
                if target.host == "dev.azure.com" && collection.eq_ignore_ascii_case("DefaultCollection") =>
            {
                draft(user, project, name, Point::REPOSITORY)
            }
            ([organization, project, "_ssh" | "_git", name], _) => {
                draft(organization, project, name, Point::REPOSITORY)
            }
            ([project, "_ssh" | "_git", name], Some(user)) if user != "git" => {
                draft(user, project, name, Point::REPOSITORY)
            }
            _ => Err(target.no_repository("v3/organization/project/repository")),
        };
    }
    let Some(at) = parts.iter().position(|part| part.eq_ignore_ascii_case("_git")) else {
        return Err(target.no_repository(EXPECTED));
    };
    let (before, after) = (&parts[..at], &parts[at + 1..]);
    let Some((name, rest)) = after.split_first() else { return Err(target.no_repository(EXPECTED)) };
    // `_optimized` and `_full` only change how the page is displayed.
    let (name, rest) = match (*name, rest.split_first()) {
        ("_optimized" | "_full", Some((name, rest))) => (*name, rest),
        _ => (*name, rest),
    };
    let (organization, project) = match before {
        [organization, project] => (*organization, *project),
        // The short form: a project's first repository has the project's name.
        [organization] => (*organization, name),
        _ => return Err(target.no_repository(EXPECTED)),
    };
    let point = match rest {
        [] => in_query(target)?,
        ["commit", sha, ..] => Point::commit(sha)?,
        [page, number, ..] if page.eq_ignore_ascii_case("pullrequest") => Point::pull_request(number)?,
        ["branches" | "commits" | "pullrequests" | "tags" | "pushes"] => Point::REPOSITORY,
        _ => return Err(ContextError::Page { page: beginning(&rest.join("/")) }),
    };
    draft(organization, project, name, point)
}

fn draft(organization: &str, project: &str, name: &str, point: Point) -> Result<Draft, ContextError> {
    let reserved = |value: &str| value.starts_with('_');
    if let Some(value) = [organization, project, name].into_iter().find(|value| reserved(value)) {
        return Err(ContextError::Name {
            what: if value == name { REPOSITORY } else { OWNER },
            value: beginning(value),
            reason: "Azure DevOps keeps names that begin with _ for its pages",
        });
    }
    let owner = format!("{}/{}", any_name(OWNER, organization)?, any_name(OWNER, project)?);
    Ok(Draft { owner, name: any_name(REPOSITORY, name)?, point })
}

/// `?version=GB<branch>|GT<tag>|GC<commit>&path=/…&line=…`.
fn in_query(target: &Target) -> Result<Point, ContextError> {
    let version = match target.query("version").filter(|version| !version.is_empty()) {
        None => Point::REPOSITORY,
        Some(version) => match version.split_at_checked(2) {
            Some(("GB", name)) => Point::named(ContextType::Branch, name)?,
            Some(("GT", name)) => Point::named(ContextType::Tag, name)?,
            Some(("GC", sha)) => Point::commit(sha)?,
            _ => {
                return Err(ContextError::Reference {
                    value: beginning(version),
                    reason: "a version begins with GB (branch), GT (tag) or GC (commit)",
                });
            }
        },
    };
    let Some(given) = target.query("path") else { return Ok(version) };
    let parsed = split_segments(given)?;
    let Some(in_repository) = path(&parsed)? else { return Ok(version) };
    let line = target.query("line").and_then(|line| line.parse().ok()).filter(|line| *line > 0);
    let kind = file_or_directory(&in_repository, line, given.ends_with('/'));
    let reference = version.reference.as_deref().map(reference).transpose()?;
    Ok(Point { kind, reference, path: Some(in_repository), ..Point::REPOSITORY }.at_line(line))
}

/// A path that the query already decoded: it is split, not decoded again.
fn split_segments(given: &str) -> Result<Vec<String>, ContextError> {
    let given = given.strip_prefix('/').unwrap_or(given);
    let given = given.strip_suffix('/').unwrap_or(given);
    if given.is_empty() {
        return Ok(Vec::new());
    }
    // The rules of a path apply here too, to its encoded form.
    Ok(split_path(&super::url::encode_path(given))?.segments)
}
