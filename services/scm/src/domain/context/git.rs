//! Any git over https: the whole path is the repository.

use super::error::{ContextError, beginning};
use super::names::{OWNER, REPOSITORY, any_name, without_git_suffix};
use super::{Draft, Point, Target};

const EXPECTED: &str = "a path to a repository";

/// Third path segments that only a provider's pages have.
const PAGES: [&str; 6] = ["tree", "blob", "pull", "pulls", "merge_requests", "pull-requests"];

pub(super) fn parse(target: &Target, known: bool) -> Result<Draft, ContextError> {
    let Some((name, owner)) = target.path.split_last() else { return Err(target.no_repository(EXPECTED)) };
    let foreign = owner.iter().any(|segment| segment.ends_with(".git"))
        || target.path.iter().any(|segment| ["-", "+", "_git"].contains(&segment.as_str()))
        || (target.path.len() > 3 && target.path.get(2).is_some_and(|segment| PAGES.contains(&segment.as_str())))
        || !target.query.is_empty()
        || target.fragment.is_some();
    if foreign {
        let page = beginning(&target.path.join("/"));
        return Err(if known {
            ContextError::Page { page }
        } else {
            ContextError::UnknownKind { host: target.host.clone(), page }
        });
    }
    let owner = owner.iter().map(|segment| any_name(OWNER, segment)).collect::<Result<Vec<_>, _>>()?.join("/");
    Ok(Draft { owner, name: any_name(REPOSITORY, without_git_suffix(name)?)?, point: Point::REPOSITORY })
}
