use berth_api_types::context::{ContextType, ResolvedContext};

use super::{Outcome, ResolveError, decide, prefixes};
use crate::domain::context::{Hosts, parse};
use crate::remote::{Refs, RemoteRef};

fn oid(digit: char) -> String {
    digit.to_string().repeat(40)
}

fn refs(names: &[(&str, char)]) -> Refs {
    Refs {
        head: Some(oid('a')),
        head_target: Some("refs/heads/main".to_owned()),
        list: names
            .iter()
            .map(|(name, digit)| RemoteRef { name: (*name).to_owned(), oid: oid(*digit), peeled: None })
            .collect(),
    }
}

fn resolve(url: &str, refs: &Refs) -> Result<ResolvedContext, ResolveError> {
    let hosts = Hosts::from_flags(["bb.example.com=bitbucket-dc"]).unwrap();
    let context = parse(url, &hosts).unwrap();
    match decide(&context, refs, false)? {
        Outcome::Done(done) => Ok(*done),
        Outcome::ListAll => match decide(&context, refs, true)? {
            Outcome::Done(done) => Ok(*done),
            other => panic!("{other:?}"),
        },
        Outcome::AskApi { number } => panic!("the API of pull request {number}"),
    }
}

fn shape(resolved: &ResolvedContext) -> (ContextType, Option<&str>, Option<&str>, Option<&str>, Option<&str>) {
    let context = &resolved.context;
    (
        context.kind,
        context.reference.as_deref(),
        context.path.as_deref(),
        resolved.fetch_ref.as_deref(),
        resolved.branch.as_deref(),
    )
}

#[test]
fn a_repository_or_issue_means_the_default_branch() {
    let resolved = resolve("https://github.com/o/n", &refs(&[])).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Repository, None, None, Some("refs/heads/main"), Some("main")));
    assert_eq!((resolved.commit, resolved.default_branch.as_deref()), (Some(oid('a')), Some("main")));
    let resolved = resolve("https://github.com/o/n/issues/3", &refs(&[])).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Issue, None, None, Some("refs/heads/main"), Some("main")));
}

#[test]
fn an_empty_repository_is_fine_and_nothing_in_it_is() {
    let empty = Refs { head: None, head_target: Some("refs/heads/trunk".to_owned()), list: vec![] };
    let resolved = resolve("https://github.com/o/n", &empty).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Repository, None, None, None, Some("trunk")));
    assert_eq!(resolved.commit, None);
    for url in [
        "https://github.com/o/n/tree/main",
        "https://github.com/o/n/blob/main/x",
        "https://github.com/o/n/commit/abcdef1",
    ] {
        assert!(matches!(resolve(url, &empty), Err(ResolveError::Empty { .. })), "{url}");
    }
}

#[test]
fn a_head_that_names_nothing() {
    let mut list = refs(&[("refs/heads/master", 'b'), ("refs/heads/x", 'c')]);
    list.head = None;
    let resolved = resolve("https://github.com/o/n", &list).unwrap();
    assert_eq!((resolved.branch.as_deref(), resolved.commit), (Some("master"), Some(oid('b'))));
}

#[test]
fn head_in_the_place_of_a_branch_is_the_default_branch() {
    let list = refs(&[("refs/heads/main", 'a')]);
    let resolved = resolve("https://github.com/o/n/blob/HEAD/src/a.rs#L4", &list).unwrap();
    let main = Some("refs/heads/main");
    assert_eq!(shape(&resolved), (ContextType::File, Some("main"), Some("src/a.rs"), main, Some("main")));
    assert_eq!((resolved.commit, resolved.context.line), (Some(oid('a')), Some(4)));
    let resolved = resolve("https://github.com/o/n/tree/HEAD", &list).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Branch, Some("main"), None, main, Some("main")));
    let detached = Refs { head_target: None, ..refs(&[]) };
    let resolved = resolve("https://github.com/o/n/tree/HEAD", &detached).unwrap();
    assert_eq!((resolved.context.kind, resolved.context.reference), (ContextType::Commit, Some(oid('a'))));
    let empty = Refs { head: None, ..refs(&[]) };
    assert!(matches!(resolve("https://github.com/o/n/blob/HEAD/x", &empty), Err(ResolveError::Empty { .. })));
}

#[test]
fn a_ref_with_slashes_ends_where_the_refs_say() {
    let list = refs(&[
        ("refs/heads/feature/x", 'b'),
        ("refs/heads/feat", 'd'),
        ("refs/tags/v1/rc", 'c'),
        ("refs/heads/main", 'a'),
    ]);
    let resolved = resolve("https://github.com/o/n/tree/feature/x/dir/sub", &list).unwrap();
    assert_eq!(
        shape(&resolved),
        (ContextType::Directory, Some("feature/x"), Some("dir/sub"), Some("refs/heads/feature/x"), Some("feature/x"))
    );
    let resolved = resolve("https://github.com/o/n/tree/feature/x", &list).unwrap();
    assert_eq!(
        shape(&resolved),
        (ContextType::Branch, Some("feature/x"), None, Some("refs/heads/feature/x"), Some("feature/x"))
    );
    let resolved = resolve("https://github.com/o/n/blob/v1/rc/a.rs#L4", &list).unwrap();
    assert_eq!(shape(&resolved), (ContextType::File, Some("v1/rc"), Some("a.rs"), Some("refs/tags/v1/rc"), None));
    assert_eq!(resolved.context.line, Some(4));
    let resolved = resolve("https://github.com/o/n/tree/main/feature", &list).unwrap();
    assert_eq!(shape(&resolved).2, Some("feature"));
    // `feat` begins the text but is not its first part.
    assert!(resolve("https://github.com/o/n/tree/feature/y", &list).is_err());
    let resolved = resolve("https://bb.example.com/projects/P/repos/r/browse/x/a.c?at=refs/heads/feat", &list).unwrap();
    assert_eq!(
        shape(&resolved),
        (ContextType::File, Some("feat"), Some("x/a.c"), Some("refs/heads/feat"), Some("feat"))
    );
    let resolved = resolve("https://bb.example.com/projects/P/repos/r/browse/x/a.c", &list).unwrap();
    assert_eq!(shape(&resolved), (ContextType::File, None, Some("x/a.c"), Some("refs/heads/main"), Some("main")));
}

#[test]
fn tags_are_peeled_and_branches_win() {
    let mut list = refs(&[("refs/tags/v1", 'b'), ("refs/heads/both", 'c'), ("refs/tags/both", 'd')]);
    list.list[0].peeled = Some(oid('e'));
    let resolved = resolve("https://github.com/o/n/tree/v1", &list).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Tag, Some("v1"), None, Some("refs/tags/v1"), None));
    assert_eq!(resolved.commit, Some(oid('e')));
    assert_eq!(resolve("https://github.com/o/n/releases/tag/v1", &list).unwrap().commit, Some(oid('e')));
    assert_eq!(resolve("https://github.com/o/n/tree/both", &list).unwrap().commit, Some(oid('c')));
    assert_eq!(resolve("https://github.com/o/n/releases/tag/both", &list).unwrap().commit, Some(oid('d')));
}

#[test]
fn missing_names_come_with_near_ones() {
    let list = refs(&[("refs/heads/main", 'a'), ("refs/heads/develop", 'b'), ("refs/tags/v1.0", 'c')]);
    let text = resolve("https://github.com/o/n/tree/mian", &list).unwrap_err().to_string();
    assert_eq!(text, "https://github.com/o/n has no branch or tag \"mian\": did you mean main?");
    let text = resolve("https://github.com/o/n/releases/tag/v1.1", &list).unwrap_err().to_string();
    assert!(text.contains("no tag \"v1.1\": did you mean v1.0?"), "{text}");
    let text = resolve("https://github.com/o/n/tree/zzzzzzzzz", &list).unwrap_err().to_string();
    assert!(text.contains("check the name"), "{text}");
}

#[test]
fn a_shortened_commit_must_be_one_tip() {
    let list = refs(&[("refs/heads/main", 'a'), ("refs/heads/x", 'b')]);
    let full = "C".repeat(40);
    let resolved = resolve(&format!("https://github.com/o/n/commit/{full}"), &list).unwrap();
    assert_eq!(shape(&resolved), (ContextType::Commit, Some("c".repeat(40).as_str()), None, None, None));
    let resolved = resolve("https://github.com/o/n/commit/bbbbbbb", &list).unwrap();
    assert_eq!(resolved.commit, Some(oid('b')));
    let resolved = resolve("https://github.com/o/n/tree/bbbbbbbb/dir", &list).unwrap();
    assert_eq!((resolved.commit, resolved.context.path.as_deref()), (Some(oid('b')), Some("dir")));
    assert!(matches!(resolve("https://github.com/o/n/commit/ccccccc", &list), Err(ResolveError::ShortCommit { .. })));
    let mut twins = refs(&[("refs/heads/x", 'b'), ("refs/heads/y", 'b')]);
    twins.list[1].oid = format!("bbbbbbbb{}", "c".repeat(32));
    assert!(matches!(
        resolve("https://github.com/o/n/commit/bbbbbbb", &twins),
        Err(ResolveError::AmbiguousCommit { .. })
    ));
}

#[test]
fn pull_requests_are_found_under_each_hosts_ref() {
    let list = refs(&[
        ("refs/pull/3/head", 'b'),
        ("refs/merge-requests/3/head", 'c'),
        ("refs/pull-requests/3/from", 'd'),
        ("refs/pull/3/merge", 'e'),
    ]);
    for (url, digit) in [
        ("https://github.com/o/n/pull/3", 'b'),
        ("https://codeberg.org/o/n/pulls/3", 'b'),
        ("https://gitlab.com/o/n/-/merge_requests/3", 'c'),
        ("https://bb.example.com/projects/P/repos/r/pull-requests/3", 'd'),
        ("https://dev.azure.com/o/p/_git/n/pullrequest/3", 'e'),
    ] {
        let resolved = resolve(url, &list).unwrap();
        assert_eq!(resolved.commit, Some(oid(digit)), "{url}");
        assert_eq!(resolved.branch, None);
        assert_eq!(prefixes(&resolved.context), [resolved.fetch_ref.unwrap()]);
    }
    assert!(matches!(resolve("https://github.com/o/n/pull/4", &list), Err(ResolveError::NoSuchPullRequest { .. })));
    let context = parse("https://bitbucket.org/o/n/pull-requests/3", &Hosts::public()).unwrap();
    assert_eq!(decide(&context, &list, false), Ok(Outcome::AskApi { number: 3 }));
}
