//! What a context URL means.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a git host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// github.com or GitHub Enterprise.
    Github,
    /// gitlab.com or a GitLab of one's own.
    Gitlab,
    /// Bitbucket Cloud.
    Bitbucket,
    /// Bitbucket Data Center.
    BitbucketDc,
    /// Azure DevOps Services or Server.
    AzureDevops,
    /// Gitea or Forgejo.
    #[serde(alias = "forgejo")]
    Gitea,
    /// Any git over https.
    Git,
}

/// What the URL points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextType {
    /// The repository at its default branch.
    Repository,
    /// A branch.
    Branch,
    /// A tag.
    Tag,
    /// A commit.
    Commit,
    /// A pull or merge request.
    PullRequest,
    /// An issue.
    Issue,
    /// A file.
    File,
    /// A folder.
    Directory,
}

/// A context URL, understood without asking the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Context {
    /// The kind of host.
    pub provider: Provider,
    /// Host in lower case, with the port if it is not the default.
    pub host: String,
    /// Everything before the repository: `group/subgroup`, `organization/project`, a Data Center project key or `~user`.
    pub owner: String,
    /// The repository's name, without `.git`.
    pub name: String,
    /// What it points at.
    #[serde(rename = "type")]
    pub kind: ContextType,
    /// Branch, tag or commit as written; for a path whose ref may contain slashes, the shortest candidate until it is resolved.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// File or folder in the repository, decoded once.
    pub path: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<u32>,
    /// Number of the pull request or issue.
    pub number: Option<u64>,
    /// For git: `https://host/…`, never with credentials.
    pub clone_url: String,
    /// Where a person looks at the repository.
    pub web_url: String,
}

impl Context {
    /// `host/owner/name`: what usage and prebuilds are grouped by.
    #[must_use]
    pub fn repository_key(&self) -> String {
        if self.owner.is_empty() {
            format!("{}/{}", self.host, self.name)
        } else {
            format!("{}/{}/{}", self.host, self.owner, self.name)
        }
    }

    /// Folder of the checkout inside a workspace: `/workspace/<name>`. The name comes from a URL: it stays one plain folder, and is never one
    /// that git or a shell would take for something else.
    #[must_use]
    pub fn checkout_path(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let folder: String = self.name.chars().take(100).map(plain).collect();
        let odd = folder.trim_matches('.').is_empty() || folder.starts_with('-') || folder.eq_ignore_ascii_case(".git");
        format!("/workspace/{}", if odd { "repository" } else { folder.as_str() })
    }
}

/// A context whose ref was looked up at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedContext {
    /// With `ref` and `path` split as the host's refs say.
    pub context: Context,
    /// Full ref name to fetch; none for a bare commit and an empty repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_ref: Option<String>,
    /// Branch to check out; `None`: a detached head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Full hexadecimal commit; none only for an empty repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The host's default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_lies_in_a_folder_with_a_plain_name() {
        let mut context = Context {
            provider: Provider::Git,
            host: "git.example.com".into(),
            owner: "a/b".into(),
            name: "hello".into(),
            kind: ContextType::Repository,
            reference: None,
            path: None,
            line: None,
            number: None,
            clone_url: String::new(),
            web_url: String::new(),
        };
        assert_eq!(context.checkout_path(), "/workspace/hello");
        assert_eq!(context.repository_key(), "git.example.com/a/b/hello");
        for (name, folder) in [
            ("..", "repository"),
            (".git", "repository"),
            ("-x", "repository"),
            ("", "repository"),
            (".github", ".github"),
        ] {
            context.name = name.into();
            assert_eq!(context.checkout_path(), format!("/workspace/{folder}"), "{name}");
        }
        context.name = "a b/c".into();
        assert_eq!(context.checkout_path(), "/workspace/a-b-c");
    }
}
