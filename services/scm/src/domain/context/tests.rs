use berth_api_types::context::{Context, ContextType, Provider};
use proptest::prelude::*;

use super::{ContextError, Hosts, HostsError, page_url, parse};

fn hosts() -> Hosts {
    let mut hosts = Hosts::from_flags([
        "ghe.example.com=github",
        "gitlab.example.com:8443=gitlab",
        "code.example.com/gitlab=gitlab",
        "bb.example.com=bitbucket-dc",
        "code.example.com/bitbucket=bitbucket-dc",
        "tfs.example.com/tfs=azure-devops",
        "git.lan:3000=gitea",
        "code.example.com/gitea=forgejo",
        "plain.example.com=git",
    ])
    .unwrap();
    hosts.allow_plain_http("127.0.0.1", 8080);
    hosts
}

/// `provider host owner name type ref path line number`; `-` for nothing.
fn row(context: &Context) -> String {
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
    [
        word(serde_json::to_value(context.provider).unwrap()),
        context.host.clone(),
        context.owner.clone(),
        context.name.clone(),
        word(serde_json::to_value(context.kind).unwrap()),
        or_dash(context.reference.as_ref()),
        or_dash(context.path.as_ref()),
        or_dash(context.line),
        or_dash(context.number),
    ]
    .join("|")
}

const SHA: &str = "6a1c4f8f2b0d9e7c5a3b1d0f8e6c4a2b0d9f7e5c";

#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (url, expected) in table {
        let url = url.replace("{sha}", SHA).replace("{SHA}", &SHA.to_ascii_uppercase());
        let expected = expected.replace("{sha}", SHA);
        match parse(&url, &hosts()) {
            Ok(context) => {
                assert_eq!(row(&context), expected, "{url}");
                let again = parse(&page_url(&context), &hosts());
                assert_eq!(again.as_ref(), Ok(&context), "{url} -> {}", page_url(&context));
            }
            Err(error) => panic!("{url}: {error}"),
        }
    }
}

#[test]
fn github() {
    check(&[
        ("https://github.com/o/n", "github|github.com|o|n|repository|-|-|-|-"),
        ("  https://github.com/o/n/  ", "github|github.com|o|n|repository|-|-|-|-"),
        ("HTTPS://GitHub.COM:443/Owner/Na.me.git", "github|github.com|Owner|Na.me|repository|-|-|-|-"),
        ("https://www.github.com/o/n?tab=readme-ov-file#readme", "github|github.com|o|n|repository|-|-|-|-"),
        ("github.com/o/n", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://github.com/o/n/tree/main", "github|github.com|o|n|branch|main|-|-|-"),
        ("https://github.com/o/n/tree/feature%2Fx", "github|github.com|o|n|branch|feature/x|-|-|-"),
        ("https://github.com/o/n/tree/feature/x/dir", "github|github.com|o|n|directory|feature|x/dir|-|-"),
        ("https://github.com/o/n/tree/refs/tags/v1", "github|github.com|o|n|tag|v1|-|-|-"),
        ("https://github.com/o/n/tree/{sha}", "github|github.com|o|n|commit|{sha}|-|-|-"),
        ("https://github.com/o/n/tree/{sha}/src", "github|github.com|o|n|directory|{sha}|src|-|-"),
        (
            "https://github.com/o/n/blob/main/a%20b/c%2520d.rs#L10-L20",
            "github|github.com|o|n|file|main|a b/c%20d.rs|10|-",
        ),
        ("https://github.com/o/n/blob/main/README.md?plain=1#L7C3", "github|github.com|o|n|file|main|README.md|7|-"),
        ("https://github.com/o/n/blob/main/%C3%A4.txt", "github|github.com|o|n|file|main|ä.txt|-|-"),
        ("https://raw.githubusercontent.com/o/n/main/a/b%20c.rs", "github|github.com|o|n|file|main|a/b c.rs|-|-"),
        ("https://raw.githubusercontent.com/o/n/refs/heads/main/x?token=A#L2", "github|github.com|o|n|file|main|x|2|-"),
        ("https://raw.githubusercontent.com/o/n/{sha}/x", "github|github.com|o|n|file|{sha}|x|-|-"),
        ("https://github.com/o/n/raw/refs/heads/main/x", "github|github.com|o|n|file|main|x|-|-"),
        ("https://github.com/o/n/commit/{sha}", "github|github.com|o|n|commit|{sha}|-|-|-"),
        ("https://github.com/o/n/commit/6a1c4f8", "github|github.com|o|n|commit|6a1c4f8|-|-|-"),
        ("https://github.com/o/n/commits/main", "github|github.com|o|n|branch|main|-|-|-"),
        ("https://github.com/o/n/commits/main/src/x.rs", "github|github.com|o|n|file|main|src/x.rs|-|-"),
        ("https://github.com/o/n/commits/main/src", "github|github.com|o|n|directory|main|src|-|-"),
        ("https://github.com/o/n/commit/{SHA}/checks", "github|github.com|o|n|commit|{sha}|-|-|-"),
        ("https://github.com/o/n/branches/all", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://github.com/o/n/pull/42", "github|github.com|o|n|pull_request|-|-|-|42"),
        ("https://github.com/o/n/pull/42/files#diff-1", "github|github.com|o|n|pull_request|-|-|-|42"),
        ("https://github.com/o/n/pull/42/commits/{sha}", "github|github.com|o|n|commit|{sha}|-|-|-"),
        ("https://github.com/o/n/issues/7#issuecomment-1", "github|github.com|o|n|issue|-|-|-|7"),
        ("https://github.com/o/n/releases/tag/v1.2/rc", "github|github.com|o|n|tag|v1.2/rc|-|-|-"),
        ("https://github.com/o/n/issues", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://github.com/o/n/pull/42.diff", "github|github.com|o|n|pull_request|-|-|-|42"),
        ("https://github.com/o/n/commit/{sha}.patch", "github|github.com|o|n|commit|{sha}|-|-|-"),
        ("https://github.com/o/n/releases/latest", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://github.com/o/n/security", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://github.dev/o/n/pull/4", "github|github.com|o|n|pull_request|-|-|-|4"),
        ("git@github.com:o/n.git", "github|github.com|o|n|repository|-|-|-|-"),
        ("git@github.com:/o/n", "github|github.com|o|n|repository|-|-|-|-"),
        ("ssh://git@github.com/o/n.git", "github|github.com|o|n|repository|-|-|-|-"),
        ("ssh://git@ssh.github.com:443/o/n.git", "github|github.com|o|n|repository|-|-|-|-"),
        ("https://ghe.example.com/o/n/pull/1", "github|ghe.example.com|o|n|pull_request|-|-|-|1"),
        ("https://octo.ghe.com/o/n", "github|octo.ghe.com|o|n|repository|-|-|-|-"),
    ]);
}

#[test]
fn gitlab() {
    check(&[
        ("https://gitlab.com/g/p", "gitlab|gitlab.com|g|p|repository|-|-|-|-"),
        ("https://gitlab.com/g/s1/s2/p.git", "gitlab|gitlab.com|g/s1/s2|p|repository|-|-|-|-"),
        ("https://gitlab.com/g/s/p/-/tree/main?ref_type=heads", "gitlab|gitlab.com|g/s|p|branch|main|-|-|-"),
        ("https://gitlab.com/g/p/-/tree/v1?ref_type=tags", "gitlab|gitlab.com|g|p|tag|v1|-|-|-"),
        ("https://gitlab.com/g/p/-/commits/v1?ref_type=TAGS", "gitlab|gitlab.com|g|p|tag|v1|-|-|-"),
        ("https://gitlab.com/g/p/-/tree/a/b/c", "gitlab|gitlab.com|g|p|directory|a|b/c|-|-"),
        ("https://gitlab.com/g/p/-/blob/main/src/x.rs#L3-5", "gitlab|gitlab.com|g|p|file|main|src/x.rs|3|-"),
        ("https://gitlab.com/g/p/-/commit/{sha}", "gitlab|gitlab.com|g|p|commit|{sha}|-|-|-"),
        ("https://gitlab.com/g/p/-/commits/main", "gitlab|gitlab.com|g|p|branch|main|-|-|-"),
        ("https://gitlab.com/g/p/-/commits/v1/a/b.rb?ref_type=tags", "gitlab|gitlab.com|g|p|file|v1|a/b.rb|-|-"),
        ("https://gitlab.com/g/p/-/merge_requests/12/diffs", "gitlab|gitlab.com|g|p|pull_request|-|-|-|12"),
        ("https://gitlab.com/g/p/-/issues/5", "gitlab|gitlab.com|g|p|issue|-|-|-|5"),
        ("https://gitlab.com/g/p/-/issues/incident/5", "gitlab|gitlab.com|g|p|issue|-|-|-|5"),
        ("https://gitlab.com/g/p/-/work_items/5", "gitlab|gitlab.com|g|p|issue|-|-|-|5"),
        ("https://gitlab.com/g/p/-/incidents/5", "gitlab|gitlab.com|g|p|issue|-|-|-|5"),
        ("https://gitlab.com/g/p/-/network/main", "gitlab|gitlab.com|g|p|branch|main|-|-|-"),
        ("https://gitlab.com/g/p/-/branches/all", "gitlab|gitlab.com|g|p|repository|-|-|-|-"),
        ("https://gitlab.com/g/p/-/tags/v1.0", "gitlab|gitlab.com|g|p|tag|v1.0|-|-|-"),
        ("https://gitlab.com/g/p/-/releases/v1.0", "gitlab|gitlab.com|g|p|tag|v1.0|-|-|-"),
        ("https://gitlab.com/g/s/p/tree/main", "gitlab|gitlab.com|g/s|p|branch|main|-|-|-"),
        ("https://gitlab.com/g/s/p/merge_requests/3", "gitlab|gitlab.com|g/s|p|pull_request|-|-|-|3"),
        ("https://gitlab.com/g/issues/p", "gitlab|gitlab.com|g/issues|p|repository|-|-|-|-"),
        ("https://gitlab.example.com:8443/g/p", "gitlab|gitlab.example.com:8443|g|p|repository|-|-|-|-"),
        ("https://code.example.com/gitlab/g/s/p/-/issues/1", "gitlab|code.example.com|g/s|p|issue|-|-|-|1"),
        ("git@gitlab.com:g/s/p.git", "gitlab|gitlab.com|g/s|p|repository|-|-|-|-"),
        ("ssh://git@gitlab.example.com:2222/g/p.git", "gitlab|gitlab.example.com:8443|g|p|repository|-|-|-|-"),
    ]);
    let context = parse("https://code.example.com/gitlab/g/s/p", &hosts()).unwrap();
    assert_eq!(context.clone_url, "https://code.example.com/gitlab/g/s/p.git");
    assert_eq!(context.web_url, "https://code.example.com/gitlab/g/s/p");
}

#[test]
fn bitbucket() {
    check(&[
        ("https://bitbucket.org/ws/slug", "bitbucket|bitbucket.org|ws|slug|repository|-|-|-|-"),
        ("https://jane@bitbucket.org/ws/slug.git", "bitbucket|bitbucket.org|ws|slug|repository|-|-|-|-"),
        ("https://bitbucket.org/ws/slug/commits/all", "bitbucket|bitbucket.org|ws|slug|repository|-|-|-|-"),
        ("https://bitbucket.org/ws/slug.git", "bitbucket|bitbucket.org|ws|slug|repository|-|-|-|-"),
        ("https://bitbucket.org/ws/slug/src/main/", "bitbucket|bitbucket.org|ws|slug|branch|main|-|-|-"),
        (
            "https://bitbucket.org/ws/slug/src/main/a/b.py#lines-10:12",
            "bitbucket|bitbucket.org|ws|slug|file|main|a/b.py|10|-",
        ),
        ("https://bitbucket.org/ws/slug/src/main/docs/", "bitbucket|bitbucket.org|ws|slug|directory|main|docs|-|-"),
        (
            "https://bitbucket.org/ws/slug/src/{sha}/a.py?at=feature%2Fx",
            "bitbucket|bitbucket.org|ws|slug|file|feature/x|a.py|-|-",
        ),
        (
            "https://bitbucket.org/ws/slug/src/6a1c4f8f2b0d/?at=feature%2Fx",
            "bitbucket|bitbucket.org|ws|slug|branch|feature/x|-|-|-",
        ),
        ("https://bitbucket.org/ws/slug/branch/feature/x", "bitbucket|bitbucket.org|ws|slug|branch|feature/x|-|-|-"),
        ("https://bitbucket.org/ws/slug/commits/{sha}", "bitbucket|bitbucket.org|ws|slug|commit|{sha}|-|-|-"),
        ("https://bitbucket.org/ws/slug/commits/tag/v1", "bitbucket|bitbucket.org|ws|slug|tag|v1|-|-|-"),
        ("https://bitbucket.org/ws/slug/commits/branch/a/b", "bitbucket|bitbucket.org|ws|slug|branch|a/b|-|-|-"),
        ("https://bitbucket.org/ws/slug/pull-requests/9/diff", "bitbucket|bitbucket.org|ws|slug|pull_request|-|-|-|9"),
        ("https://bitbucket.org/ws/slug/issues/3/it-fails", "bitbucket|bitbucket.org|ws|slug|issue|-|-|-|3"),
        ("git@bitbucket.org:ws/slug.git", "bitbucket|bitbucket.org|ws|slug|repository|-|-|-|-"),
    ]);
}

#[test]
fn bitbucket_data_center() {
    check(&[
        (
            "https://bb.example.com/projects/PRJ/repos/my-repo",
            "bitbucket-dc|bb.example.com|PRJ|my-repo|repository|-|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/my-repo/browse",
            "bitbucket-dc|bb.example.com|PRJ|my-repo|repository|-|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/browse?at=refs%2Fheads%2Ffeature%2Fx",
            "bitbucket-dc|bb.example.com|PRJ|r|branch|feature/x|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/browse?at=refs/tags/v1",
            "bitbucket-dc|bb.example.com|PRJ|r|tag|v1|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/commits?until=main",
            "bitbucket-dc|bb.example.com|PRJ|r|branch|main|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/browse/src/a.c?at=main#12-14",
            "bitbucket-dc|bb.example.com|PRJ|r|file|main|src/a.c|12|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/browse/src",
            "bitbucket-dc|bb.example.com|PRJ|r|directory|-|src|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/raw/run?at=main",
            "bitbucket-dc|bb.example.com|PRJ|r|file|main|run|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/commits/{sha}",
            "bitbucket-dc|bb.example.com|PRJ|r|commit|{sha}|-|-|-",
        ),
        (
            "https://bb.example.com/projects/PRJ/repos/r/pull-requests/4/overview",
            "bitbucket-dc|bb.example.com|PRJ|r|pull_request|-|-|-|4",
        ),
        ("https://bb.example.com/users/jane/repos/r", "bitbucket-dc|bb.example.com|~jane|r|repository|-|-|-|-"),
        ("https://bb.example.com/projects/~jane/repos/r", "bitbucket-dc|bb.example.com|~jane|r|repository|-|-|-|-"),
        ("https://jane@bb.example.com/scm/PRJ/r.git", "bitbucket-dc|bb.example.com|PRJ|r|repository|-|-|-|-"),
        ("https://bb.example.com/scm/PRJ/r.git", "bitbucket-dc|bb.example.com|PRJ|r|repository|-|-|-|-"),
        ("https://bb.example.com/scm/~jane/r.git", "bitbucket-dc|bb.example.com|~jane|r|repository|-|-|-|-"),
        (
            "https://code.example.com/bitbucket/projects/P/repos/r",
            "bitbucket-dc|code.example.com|P|r|repository|-|-|-|-",
        ),
        ("ssh://git@bb.example.com:7999/prj/r.git", "bitbucket-dc|bb.example.com|prj|r|repository|-|-|-|-"),
        ("ssh://git@bb.example.com:7999/~jane/r.git", "bitbucket-dc|bb.example.com|~jane|r|repository|-|-|-|-"),
    ]);
    let context = parse("https://code.example.com/bitbucket/users/jane/repos/r", &hosts()).unwrap();
    assert_eq!(context.clone_url, "https://code.example.com/bitbucket/scm/~jane/r.git");
}

#[test]
fn azure_devops() {
    check(&[
        ("https://dev.azure.com/org/proj/_git/repo", "azure-devops|dev.azure.com|org/proj|repo|repository|-|-|-|-"),
        (
            "https://org@dev.azure.com/org/My%20Project/_git/My%20Repo",
            "azure-devops|dev.azure.com|org/My Project|My Repo|repository|-|-|-|-",
        ),
        (
            "https://dev.azure.com/org/My Project/_git/repo",
            "azure-devops|dev.azure.com|org/My Project|repo|repository|-|-|-|-",
        ),
        ("https://dev.azure.com/org/_git/repo", "azure-devops|dev.azure.com|org/repo|repo|repository|-|-|-|-"),
        ("https://org.visualstudio.com/proj/_git/repo", "azure-devops|dev.azure.com|org/proj|repo|repository|-|-|-|-"),
        (
            "https://org.visualstudio.com/DefaultCollection/proj/_git/repo",
            "azure-devops|dev.azure.com|org/proj|repo|repository|-|-|-|-",
        ),
        ("https://org.visualstudio.com/_git/repo", "azure-devops|dev.azure.com|org/repo|repo|repository|-|-|-|-"),
        (
            "https://dev.azure.com/org/p/_git/r?version=GBfeature%2Fx",
            "azure-devops|dev.azure.com|org/p|r|branch|feature/x|-|-|-",
        ),
        ("https://dev.azure.com/org/p/_git/r?version=GTv1.0", "azure-devops|dev.azure.com|org/p|r|tag|v1.0|-|-|-"),
        ("https://dev.azure.com/org/p/_git/r?version=GC{sha}", "azure-devops|dev.azure.com|org/p|r|commit|{sha}|-|-|-"),
        (
            "https://dev.azure.com/org/p/_git/r?path=/src/a.cs&version=GBmain&line=10&lineEnd=11&_a=contents",
            "azure-devops|dev.azure.com|org/p|r|file|main|src/a.cs|10|-",
        ),
        (
            "https://dev.azure.com/org/p/_git/r?path=%2Fa%2520b",
            "azure-devops|dev.azure.com|org/p|r|directory|-|a%20b|-|-",
        ),
        ("https://dev.azure.com/org/p/_git/r/commit/{sha}", "azure-devops|dev.azure.com|org/p|r|commit|{sha}|-|-|-"),
        (
            "https://dev.azure.com/org/p/_git/r/pullrequest/8?_a=files",
            "azure-devops|dev.azure.com|org/p|r|pull_request|-|-|-|8",
        ),
        ("git@ssh.dev.azure.com:v3/org/p/r", "azure-devops|dev.azure.com|org/p|r|repository|-|-|-|-"),
        (
            "ssh://org@vs-ssh.visualstudio.com:22/DefaultCollection/p/_ssh/r",
            "azure-devops|dev.azure.com|org/p|r|repository|-|-|-|-",
        ),
        ("org@vs-ssh.visualstudio.com:v3/org/p/r", "azure-devops|dev.azure.com|org/p|r|repository|-|-|-|-"),
        ("ssh://git@ssh.dev.azure.com/v3/org/p/r", "azure-devops|dev.azure.com|org/p|r|repository|-|-|-|-"),
        ("https://tfs.example.com/tfs/Coll/p/_git/r", "azure-devops|tfs.example.com|Coll/p|r|repository|-|-|-|-"),
    ]);
    let context = parse("https://org.visualstudio.com/My%20P/_git/r", &hosts()).unwrap();
    assert_eq!(context.clone_url, "https://dev.azure.com/org/My%20P/_git/r");
}

#[test]
fn gitea() {
    check(&[
        ("https://codeberg.org/o/n", "gitea|codeberg.org|o|n|repository|-|-|-|-"),
        ("http://git.lan:3000/o/n.git", "gitea|git.lan:3000|o|n|repository|-|-|-|-"),
        ("GIT.lan:3000/o/n", "gitea|git.lan:3000|o|n|repository|-|-|-|-"),
        ("https://code.example.com/gitea/o/n/src/branch/main", "gitea|code.example.com|o|n|branch|main|-|-|-"),
        ("https://codeberg.org/o/n/src/branch/feature/x/a.md#L2", "gitea|codeberg.org|o|n|file|feature|x/a.md|2|-"),
        ("https://codeberg.org/o/n/src/branch/main/docs", "gitea|codeberg.org|o|n|directory|main|docs|-|-"),
        ("https://codeberg.org/o/n/src/tag/v1", "gitea|codeberg.org|o|n|tag|v1|-|-|-"),
        ("https://codeberg.org/o/n/src/commit/{sha}", "gitea|codeberg.org|o|n|commit|{sha}|-|-|-"),
        ("https://codeberg.org/o/n/src/commit/{sha}/a.md", "gitea|codeberg.org|o|n|file|{sha}|a.md|-|-"),
        ("https://codeberg.org/o/n/src/main", "gitea|codeberg.org|o|n|branch|main|-|-|-"),
        ("https://codeberg.org/o/n/raw/branch/main/run", "gitea|codeberg.org|o|n|file|main|run|-|-"),
        ("https://codeberg.org/o/n/commit/{sha}", "gitea|codeberg.org|o|n|commit|{sha}|-|-|-"),
        ("https://codeberg.org/o/n/pulls/3/files", "gitea|codeberg.org|o|n|pull_request|-|-|-|3"),
        ("https://codeberg.org/o/n/issues/4", "gitea|codeberg.org|o|n|issue|-|-|-|4"),
        ("https://codeberg.org/o/n/releases/latest", "gitea|codeberg.org|o|n|repository|-|-|-|-"),
        ("https://codeberg.org/o/n/releases/tag/v1", "gitea|codeberg.org|o|n|tag|v1|-|-|-"),
        ("git@codeberg.org:o/n.git", "gitea|codeberg.org|o|n|repository|-|-|-|-"),
        ("ssh://forgejo@git.lan:22/o/n.git", "gitea|git.lan:3000|o|n|repository|-|-|-|-"),
    ]);
}

#[test]
fn plain_git() {
    check(&[
        ("https://git.example.org/n", "git|git.example.org||n|repository|-|-|-|-"),
        ("https://git.example.org/pub/scm/linux.git", "git|git.example.org|pub/scm|linux|repository|-|-|-|-"),
        ("http://127.0.0.1:8080/berth.git", "git|127.0.0.1:8080||berth|repository|-|-|-|-"),
        ("https://[2001:DB8::1]:8443/a/b", "git|[2001:db8::1]:8443|a|b|repository|-|-|-|-"),
        ("me@git.example.org:team/repo.git", "git|git.example.org|team|repo|repository|-|-|-|-"),
        ("https://plain.example.com/team/repo", "git|plain.example.com|team|repo|repository|-|-|-|-"),
        ("https://github.com:8443/o/n", "git|github.com:8443|o|n|repository|-|-|-|-"),
    ]);
    let context = parse("http://127.0.0.1:8080/x/berth", &hosts()).unwrap();
    assert_eq!(context.clone_url, "http://127.0.0.1:8080/x/berth");
    let context = parse("http://127.0.0.1:8080/x/berth.git", &hosts()).unwrap();
    assert_eq!((context.clone_url.as_str(), context.name.as_str()), ("http://127.0.0.1:8080/x/berth.git", "berth"));
}

#[test]
fn refused_with_the_reason() {
    let table: &[(&str, &str)] = &[
        ("", "empty"),
        ("   ", "empty"),
        ("https://user:secret@github.com/o/n", "credentials"),
        ("https://ghp_0123456789@github.com/o/n", "credentials"),
        ("https://x@gitlab.com/g/p", "credentials"),
        ("https://x:secret@bitbucket.org/ws/slug", "`berth git-credential add bitbucket.org`"),
        ("https://x:secret@github.com:443/o/n", "`berth git-credential add github.com`"),
        ("https://x:secret@git.example.org:8443/o/n", "`berth git-credential add git.example.org:8443`"),
        ("https://a_token_@git.example.org:8443/o/n", "`berth git-credential add git.example.org:8443`"),
        ("ssh://git:pw@git.example.org:2222/o/n", "`berth git-credential add git.example.org`"),
        ("https://other@dev.azure.com/org/p/_git/r", "credentials"),
        ("git:pw@github.com:o/n", "credentials"),
        ("ssh://git:pw@github.com/o/n", "credentials"),
        ("https://github.com/o/n\n", "control character U+000A"),
        ("https://github.com/o/n\t", "control character U+0009"),
        ("https://github.com/o/n\u{0}", "control character U+0000"),
        ("https://github.com/o/n%00", "control character U+0000"),
        ("https://github.com/o/n/tree/main%0d%0aHost:x", "control character U+000D"),
        ("https://github.com/o/n\u{202e}", "control character U+202E"),
        ("--upload-pack=touch /tmp/x", "option"),
        ("-oProxyCommand=x", "option"),
        ("https://github.com/--upload-pack=x/n", "dash"),
        ("https://github.com/o/--upload-pack=x", "dash"),
        ("https://github.com/o/n/tree/--upload-pack=x", "dash"),
        ("https://github.com/o/n/tree/main/--upload-pack=x", "dash"),
        ("https://example.org/--upload-pack=x", "dash"),
        ("git@-oProxyCommand=x:o/n", "not a host name"),
        ("git@github.com:--upload-pack=x/n", "dash"),
        ("-git@github.com:o/n", "option"),
        ("ext::sh -c touch% /tmp/x", "scheme"),
        ("EXT::sh", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("git://github.com/o/n", "scheme"),
        ("ftp://github.com/o/n", "scheme"),
        ("git+https://github.com/o/n", "scheme"),
        ("javascript://github.com/o/n", "scheme"),
        ("/etc/passwd", "not a URL"),
        ("../x", "not a URL"),
        ("owner/name", "not a URL"),
        ("nonsense", "not a URL"),
        ("example.org/o/n", "not a URL"),
        ("http://github.com/o/n", "plain http"),
        ("http://169.254.169.254/latest/meta-data", "plain http"),
        ("http://127.0.0.1:8081/x", "plain http"),
        ("https:///o/n", "not a host name"),
        ("https://", "not a host name"),
        ("https://exa mple.org/o/n", "not a host name"),
        ("https://-x.org/o/n", "not a host name"),
        ("https://0177.1/o/n", "four decimal numbers"),
        ("https://2130706433/o/n", "four decimal numbers"),
        ("https://0x7f.0.0.1/o/n", "not a host name\" or four"),
        ("https://127.0.0.0x1/o/n", "four decimal numbers"),
        ("https://[::1/o/n", "not a host name"),
        ("https://github.com:0/o/n", "not a port"),
        ("https://github.com:99999/o/n", "not a port"),
        ("https://github.com:+443/o/n", "not a port"),
        ("https://github%2ecom/o/n", "not a host name"),
        ("https://github.com\\@evil.example/o/n", "slash"),
        ("https://github.com/o/../../x/n", "climb"),
        ("https://github.com/o/%2e%2e/n", "climb"),
        ("https://github.com/o/n/blob/main/a/%2e%2e/b", "climb"),
        ("https://github.com/o/n/blob/main/..%2f..%2fetc%2fpasswd", "climb"),
        ("https://github.com//o/n", "between two slashes"),
        ("https://github.com/o\\n", "backslash"),
        ("https://github.com/o/%zz", "percent-encoded"),
        ("https://github.com/o/%", "percent-encoded"),
        ("https://github.com/o/%ff", "percent-encoded"),
        ("https://github.com", "names no repository"),
        ("https://github.com/", "names no repository"),
        ("https://github.com/owner", "names no repository"),
        ("https://github.com/orgs/x/teams", "names no repository"),
        ("https://github.com/users/x", "names no repository"),
        ("https://github.com/trending/rust", "names no repository"),
        ("https://github.com/o/.git", "nothing is left"),
        ("https://github.com/o/n.git.git", "ends with .git"),
        ("https://bb.example.com/projects/P/repos/n.git", "ends with .git"),
        ("https://github.com/o/n%2Fm", "no host allows"),
        ("https://github.com/o/n m", "does not allow"),
        ("https://github.com/o/n;ls", "does not allow"),
        ("https://github.com/o/$(ls)", "does not allow"),
        ("https://github.com/o/n/pull/abc", "number"),
        ("https://github.com/o/n/pull/0", "number"),
        ("https://github.com/o/n/pull/-1", "number"),
        ("https://github.com/o/n/issues/99999999999999999999", "number"),
        ("https://github.com/o/n/commit/xyz", "not a commit"),
        ("https://github.com/o/n/tree/a..b", "not a branch"),
        ("https://github.com/o/n/tree/a%20b", "not a branch"),
        ("https://github.com/o/n/tree/a.lock", "not a branch"),
        ("https://github.com/o/n/compare/a...b", "cannot open"),
        ("https://github.com/o/n/nosuchpage/x", "cannot open"),
        ("https://github.com/o/n/tree", "cannot open"),
        ("https://github.com/o/n/tree/", "cannot open"),
        ("https://raw.githubusercontent.com/o/n", "cannot open"),
        ("https://raw.githubusercontent.com/o/n/main", "cannot open"),
        ("https://gitlab.com/g/p/-/tree", "cannot open"),
        ("https://gitlab.com/g/p/-/find_file", "cannot open"),
        ("https://gitlab.com/project", "names no repository"),
        ("https://gitlab.com/groups/g/-/issues", "names no repository"),
        ("https://gitlab.com/g/p/-/nosuch/1", "cannot open"),
        ("https://gitlab.com/g/p/-/merge_requests/x", "number"),
        ("https://bitbucket.org/ws", "names no repository"),
        ("https://bb.example.com/PRJ/r", "names no repository"),
        ("https://bb.example.com/projects/PRJ", "names no repository"),
        ("https://dev.azure.com/org/p", "names no repository"),
        ("https://dev.azure.com/org/p/_git", "names no repository"),
        ("https://dev.azure.com/org/p/_git/r?version=main", "GB"),
        ("https://dev.azure.com/org/p/_git/r?path=/../x", "climb"),
        ("https://git.example.org/", "names no repository"),
        ("https://git.example.org/o/n/-/tree/main", "not a configured git host"),
        ("https://git.example.org/o/n/tree/main", "not a configured git host"),
        ("https://git.example.org/o/n.git/tree/main", "not a configured git host"),
        ("https://git.example.org/o/n/+/refs/heads/main/x", "not a configured git host"),
        ("https://codeberg.org/o/n/src/branch", "cannot open"),
        ("https://git.example.org/gitweb?p=x.git", "not a configured git host"),
        ("https://plain.example.com/o/n.git/info", "cannot open"),
    ];
    for (url, reason) in table {
        match parse(url, &hosts()) {
            Ok(context) => panic!("{url:?} was taken for {context:?}"),
            Err(error) => {
                let text = error.to_string();
                let fits = reason.split("\" or ").any(|part| text.contains(part));
                assert!(fits, "{url:?}: {text:?} does not say {reason:?}");
                assert!(!text.contains("secret") && !text.contains("ghp_") && !text.contains(":pw"), "{text}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
    let long = format!("https://github.com/o/{}", "n".repeat(5000));
    assert!(matches!(parse(&long, &hosts()), Err(ContextError::TooLong { .. })));
}

#[test]
fn host_flags() {
    assert!(matches!(Hosts::from_flags(["git.lan"]), Err(HostsError::NoKind { .. })));
    assert!(matches!(Hosts::from_flags(["git.lan=svn"]), Err(HostsError::Kind { .. })));
    assert!(matches!(Hosts::from_flags(["git lan=gitea"]), Err(HostsError::Host { .. })));
    assert!(matches!(Hosts::from_flags(["git.lan:x=gitea"]), Err(HostsError::Host { .. })));
    assert!(matches!(Hosts::from_flags(["=gitea"]), Err(HostsError::Host { .. })));
    let with_flags = |url, flags: &[&str]| parse(url, &Hosts::from_flags(flags).unwrap()).unwrap();
    let context = with_flags("https://git.lan:8443/a/b/o/n", &["GIT.lan:8443/a=git", "git.lan:8443/a/b=gitea"]);
    assert_eq!((context.provider, context.owner.as_str()), (Provider::Gitea, "o"), "the longest base wins");
    assert_eq!(context.clone_url, "https://git.lan:8443/a/b/o/n.git");
    let context = with_flags("https://git.lan/o/n", &["git.lan:8443=gitea"]);
    assert_eq!(context.provider, Provider::Git, "the port is part of the name");
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9_]{0,12}"
}

fn part() -> impl Strategy<Value = String> {
    // Any letters, and those that encoding must keep apart from URL syntax.
    "[a-zA-Z0-9äé+@#%&=?! _][a-zA-Z0-9äé+@#%&=?! _.-]{0,8}".prop_filter("trims", |part| part.trim() == part)
}

fn reference_name() -> impl Strategy<Value = String> {
    "[a-z0-9#%&+=][a-z0-9#%&+=-]{0,6}(/[a-z0-9#%&+=][a-z0-9#%&+=-]{0,6}){0,2}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn never_panics(text in ".{0,80}") {
        let _ = parse(&text, &hosts());
    }

    #[test]
    fn never_panics_after_a_known_beginning(start in 0_usize..10, rest in "[ -~äé%/?#&=@:.-]{0,60}") {
        let starts = [
            "https://github.com/", "https://gitlab.com/", "https://bitbucket.org/", "https://dev.azure.com/",
            "https://bb.example.com/projects/P/repos/r/", "https://codeberg.org/o/n/src/", "https://x.example/", "git@github.com:",
            "ssh://git@ssh.dev.azure.com/v3/", "https://code.example.com/gitlab/",
        ];
        let text = format!("{}{rest}", starts[start]);
        if let Ok(context) = parse(&text, &hosts()) {
            let page = page_url(&context);
            prop_assert_eq!(parse(&page, &hosts()), Ok(context.clone()), "{} -> {}", text, page);
            let clone = parse(&context.clone_url, &hosts()).unwrap();
            prop_assert_eq!((clone.host, clone.owner, clone.name), (context.host, context.owner, context.name));
            prop_assert!(!context.clone_url.contains('@') && !context.clone_url.contains(' '));
        }
    }

    #[test]
    fn what_was_written_is_read_again(
        site in 0_usize..6, owner in name(), repository in name(), reference in reference_name(),
        parts in prop::collection::vec(part(), 1..4), line in prop::option::of(1_u32..99999), number in 1_u64..1_000_000,
        what in 0_usize..8,
    ) {
        let roots = [
            "https://github.com/{o}/{n}", "https://gitlab.com/{o}/{n}", "https://bitbucket.org/{o}/{n}",
            "https://bb.example.com/projects/{o}/repos/{n}", "https://dev.azure.com/{o}/p/_git/{n}", "https://codeberg.org/{o}/{n}",
        ];
        let root = roots[site].replace("{o}", &owner).replace("{n}", &repository);
        let Ok(base) = parse(&root, &hosts()) else { return Ok(()) };
        let path = parts.join("/");
        prop_assume!(!path.starts_with('-'));
        let kind = [
            ContextType::Repository, ContextType::Branch, ContextType::Tag, ContextType::Commit,
            ContextType::PullRequest, ContextType::Issue, ContextType::File, ContextType::Directory,
        ][what];
        let has_path = matches!(kind, ContextType::File | ContextType::Directory);
        let no_issues = matches!(base.provider, Provider::BitbucketDc | Provider::AzureDevops);
        prop_assume!(!(kind == ContextType::Issue && no_issues));
        // Azure DevOps tells files from folders by nothing but their look.
        prop_assume!(!(kind == ContextType::File && base.provider == Provider::AzureDevops && line.is_none()));
        let has_ref = has_path || matches!(kind, ContextType::Branch | ContextType::Tag);
        let context = Context {
            kind,
            reference: if kind == ContextType::Commit { Some(SHA.to_owned()) } else { has_ref.then(|| reference.clone()) },
            path: has_path.then_some(path),
            line: if kind == ContextType::File { line } else { None },
            number: matches!(kind, ContextType::PullRequest | ContextType::Issue).then_some(number),
            ..base
        };
        let page = page_url(&context);
        prop_assert_eq!(parse(&page, &hosts()), Ok(context), "{}", page);
    }
}
